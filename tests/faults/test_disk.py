"""The disk or the quota is full, a limit is reached, or permission is missing: a clear error, and saving goes on later.

Contract 5, 6 and 9. No restart is needed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import sqlite3

import children
import pytest
from faults import injection
from lease_program import Program
from own_process import Unprivileged, run_in_fork
from support import login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


def names(store):
    return sorted(values(made)["user"].removesuffix("@example.com") for made in store.get_tokens())


def error_raised_by(call):
    try:
        call()
    except SDKException as error:
        return error
    return None


def error_of(call, path, word=""):
    """Call a function. Return the code of its error after a check of the message, or `None` if there is no error."""
    raised = error_raised_by(call)
    if raised is None:
        return None
    message = raised.args[1].replace(str(path), "PATH")
    assert raised.code == "TOKEN_STORE"
    assert "PATH" in message, message
    assert "Nothing was changed, and nothing that was saved is lost." in message, message
    assert "uncategorized" not in message, message
    assert word in message, message
    return raised.cause.code


def assert_intact(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


def count_syncs(path, work):
    """Return how many syncs a call does, and check that it does any I/O at all."""
    injection.watch(path.parent)
    work()
    operations = injection.operations()
    injection.stop()
    assert operations
    return sum("sync" in operation for operation in operations)


def count_syncs_of_a_lease(path):
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    failed = count_syncs(path, program.fail_to_refresh)
    store.lease_info()  # logs what happened without a call
    assert [line[:14] for line in program.log] == ["INFO FILE: acq", "INFO FILE: rel"], program.log
    return failed, count_syncs(path, program.get_token)


@pytest.mark.usefixtures("preload")
def test_a_lease_does_not_wait_for_the_disk(path):
    """Rule 5: to acquire and release a lease does no sync. The save after it does one, as every save does."""
    assert run_in_fork(count_syncs_of_a_lease, path) == [0, 1]


def use_up_the_quota(path):
    store = CustomStoreSQLite(path, busy_timeout=1)
    store.import_tokens([login("ada@example.com", 1), login("bob@example.com", 2)])

    def save(number):
        changed = {"access_token": f"planted-access-{number}", "redirect_url": "x" * 9_000}
        store.save_token(token("ada@example.com", client_id="1000.CLIENT", **changed))

    def access_token():
        return store.find_token_by_id("1").get_access_token()

    injection.watch(path.parent)
    save(10)
    operations = injection.count()
    codes = []
    for at in range(1, operations + 1):
        for error in (errno.EDQUOT, errno.EIO):
            number = 100 * at + error
            before = access_token()
            injection.watch(path.parent)
            injection.fail(at, error)
            word = "quota" if error == errno.EDQUOT else ""
            code = error_of(lambda number=number: save(number), path, word)
            injection.stop()
            assert access_token() == (before if code else f"planted-access-{number}"), at
            assert code in (None, "disk-full", "io-error"), (at, error)
            codes += [code] if code else []
            save(50 + at)  # the same store, without a restart
            assert access_token() == f"planted-access-{50 + at}"
    assert_intact(path)
    assert names(store) == ["ada", "bob"]
    return operations, len(codes)


@pytest.mark.usefixtures("preload")
def test_a_quota_that_ends_during_a_save_is_reported(path):
    """Contract 6: the error says so, also where SQLite reports only an I/O error. Then the same store saves again."""
    operations, failed = run_in_fork(use_up_the_quota, path)
    assert operations > 2
    assert failed > 2


def fail_backups(path):
    store, folder = CustomStoreSQLite(path), path.parent

    def back_up():
        store.backup(folder / "copy.db")

    injection.watch(folder)
    back_up()
    operations = injection.count()
    codes = {}
    for error in (errno.EIO, errno.EDQUOT):
        codes[errno.errorcode[error]] = found = []
        for at in range(1, operations + 1):
            injection.watch(folder)
            injection.fail(at, error, once=True)
            if raised := error_raised_by(back_up):
                assert "uncategorized" not in raised.args[1]
                found.append(raised.cause.code)
    injection.stop()
    back_up()
    files = sorted(file.name for file in folder.iterdir() if "-" not in file.name)
    return codes, files


@pytest.mark.usefixtures("preload")
def test_an_error_of_the_system_outside_of_sqlite_is_reported(path):
    """Contract 6: the disk may also fail while a file is renamed or its folder is synced."""
    codes, files = run_in_fork(fail_backups, path)
    assert "io-error" in codes["EIO"]
    assert "disk-full" in codes["EDQUOT"]
    assert files == ["copy.db", "zohooauth.db"]


def save_with_a_size_limit(path, ending, step):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    def work():
        # Python ignores SIGXFSZ, so that the write fails (setrlimit(2)). The default action ends the process.
        if ending == "killed":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        store = CustomStoreSQLite(path)
        kept = ["ada"]
        store.save_token(login("ada@example.com", 1))
        refusals = 0
        for size in range(0, 150_000, step):
            limit(size)
            user = f"user{size}"
            made = login(f"{user}@example.com", size + 2, redirect_url="x" * 5_000)
            if error_of(lambda made=made: store.save_token(made), path):
                refusals += 1
                limit(hard)
                store.save_token(made)
            limit(hard)
            kept.append(user)
            assert names(store) == sorted(kept), size
        assert refusals > 3
        store.close()

    child = children.fork(work)
    status = os.waitpid(child, 0)[1]
    assert_intact(path)
    with CustomStoreSQLite(path) as store:
        assert "ada" in names(store)
        store.save_token(login("afterwards@example.com", 9))
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


@pytest.mark.parametrize(("ending", "status"), [("refused", 0), ("killed", signal.SIGXFSZ)])
def test_a_limit_of_the_file_size_loses_no_acknowledged_save(path, extent, ending, status):
    """Contract 5: the limit is reached anywhere in a save. It makes a write fail, or it ends the process."""
    assert run_in_fork(save_with_a_size_limit, path, ending, extent.of(5_003, 499)) == int(status)


class Saver(Unprivileged):
    """A process that uses a store, or two."""

    def open_twice(self):
        self.open()
        self.other = CustomStoreSQLite(self.path, busy_timeout=20)
        self.store.save_token(login("ada@example.com", 1))

    def save_without_permission(self):
        """Save with the open store and with a new one. A save is either there afterwards, or it is an error."""
        expected = names(self.store)
        stores = {"open": lambda: self.store, "new": lambda: CustomStoreSQLite(self.path, busy_timeout=20)}
        for number, (name, store) in enumerate(stores.items(), 2):
            made = login(f"{name}@example.com", number)
            code = error_of(lambda store=store, made=made: store().save_token(made), self.path)
            assert code in (None, "permission-denied", "read-only"), code
            expected += [] if code else [name]
        assert names(self.store) == sorted(set(expected))

    def save_again(self):
        self.store.save_token(login("eve@example.com", 5))
        self.other.save_token(login("bob@example.com", 6))
        with CustomStoreSQLite(self.path) as new:
            assert "bob" in names(new)
        assert "eve" in names(self.other)
        assert_intact(self.path)

    def write_to_a_read_only_file(self):
        for call in (
            lambda: self.store.save_token(login("no@example.com", 2)),
            lambda: self.store.delete_token("1"),
            self.store.delete_tokens,
        ):
            assert error_of(call, self.path) == "read-only"
        assert names(self.store) == ["ada"]
        assert self.store.find_token(token("ada@example.com")).get_id() == "1"

    def write_with_permission(self):
        self.store.save_token(login("bob@example.com", 2))
        assert names(self.store) == ["ada", "bob"]


def call(helper, method):
    assert helper.ask(method) == (True, None), method


def take_permission_away(folder, what):
    path = folder / "tokens.db"
    wal = path.with_name("tokens.db-wal")
    paths = {"file": [path], "folder": [folder], "both": [path, folder], "wal": [wal]}[what]
    helper = children.Helper(Saver(path))
    call(helper, "open_twice")
    modes = {one: one.stat().st_mode for one in paths}
    for one in paths:
        one.chmod(0o555 if one == folder else 0o444)
    call(helper, "save_without_permission")
    for one, mode in modes.items():
        one.chmod(mode)
    call(helper, "save_again")
    helper.let_go()


@pytest.mark.parametrize("what", ["file", "folder", "both", "wal"])
def test_permission_that_is_taken_away_and_given_back(tmp_path, what):
    """Contract 6 and 9: without permission a save is an error at most. With it, the same stores save again."""
    folder = tmp_path / "mine"
    folder.mkdir()
    run_in_fork(take_permission_away, folder, what)


def use_a_read_only_file(folder):
    path = folder / "tokens.db"
    path.chmod(0o444)
    helper = children.Helper(Saver(path))
    call(helper, "open")
    call(helper, "write_to_a_read_only_file")
    path.chmod(0o666)
    call(helper, "write_with_permission")
    helper.let_go()


def test_a_read_only_file_can_be_read_and_later_written(tmp_path):
    """Contract 9: a read-only file can be read. An open store saves as soon as the file may be written."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with CustomStoreSQLite(tmp_path / "source.db") as store:
        store.save_token(login())
        store.backup(folder / "tokens.db")
    run_in_fork(use_a_read_only_file, folder)
