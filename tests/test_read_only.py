"""A database on a read-only medium, or without write permission on the file and its folder (contract 9).

Permission bits stand for the medium, because a container cannot mount one. So the readers have no root privileges.
`src/backends/sqlite/read_only.rs` has the rule.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from typing import TYPE_CHECKING

import children
import pytest
from own_process import Unprivileged, drop_privileges, run_in_fork
from support import DATA, login, token, values
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._native import Administration, StoreError, check, read_source
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def names(store):
    return [values(made)["user"].removesuffix("@example.com") for made in store.get_tokens()]


def files(folder):
    return sorted(file.name for file in folder.iterdir())


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Let the owner write the folder and its files for a while. Everybody can read them."""
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    try:
        yield
    finally:
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A read-only folder with a database that a store has closed. It is in WAL mode."""
    folder = tmp_path / "medium"
    folder.mkdir()
    with writable(folder):
        with CustomStoreSQLite(folder / "tokens.db") as store:
            store.save_token(login("ada@example.com", 1))
        assert (folder / "tokens.db").read_bytes()[18:20] == b"\2\2"
        assert files(folder) == ["tokens.db"]
    return folder


def code_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except SDKException as error:
        return error.cause.code
    except StoreError as error:
        return error.code
    return None


def use(path, other):
    """Use the database without any right to write it. Return what each call found."""
    drop_privileges()
    with CustomStoreSQLite(path) as store:
        found = store.find_token(token("ada@example.com"))
        seen = {
            "names": names(store),
            "find": [found.get_id(), values(found)["refresh_token"]],
            "by id": values(store.find_token_by_id("1"))["user"],
            "check": [finding.code for finding in store.check()],
            "save": code_of(lambda: store.save_token(login("bob@example.com", 2))),
            "delete": code_of(lambda: store.delete_token("1")),
            "names after": names(store),
        }
        store.backup(other / "backup.db")
    with contextlib.closing(Administration(path)) as administration:
        seen["list"] = [record.user_name for record in administration.records()]
        seen["export"] = administration.export(other / "export.jsonl")
    seen["check of file"] = [finding.code for finding in check(path)]
    seen["source"] = len(read_source(path))
    with CustomStoreSQLite(other / "backup.db") as store:
        seen["backup"] = names(store)
    return seen


def test_a_database_that_was_closed_is_read_where_it_cannot_be_written(medium, tmp_path):
    """Finds, list, check, export and backup work. A change fails. Nothing is written."""
    path = medium / "tokens.db"
    before = path.read_bytes()
    assert run_in_fork(use, path, tmp_path) == {
        "names": ["ada"],
        "find": ["1", values(login("ada@example.com", 1))["refresh_token"]],
        "by id": "ada@example.com",
        "check": ["permissions"],
        "save": "read-only",
        "delete": "read-only",
        "names after": ["ada"],
        "list": ["ada@example.com"],
        "export": 1,
        "check of file": ["permissions"],
        "source": 1,
        "backup": ["ada"],
    }
    assert (path.read_bytes(), files(medium)) == (before, ["tokens.db"])


class Reader(Unprivileged):
    """A process that has the database open."""

    def names(self):
        return [names(self.store), values(self.store.find_token(token("ada@example.com")))["access_token"]]


def read_while_another_process_writes(folder):
    path = folder / "tokens.db"
    reader = children.Helper(Reader(path))
    assert reader.ask("open") == (True, None)
    seen = [reader.ask("names")]
    for number in (2, 3):
        with writable(folder), CustomStoreSQLite(path) as store:
            store.save_token(login(f"user{number}@example.com", number))
            store.save_token(token("ada@example.com", access_token=f"planted-new-{number}"))
            for file in folder.iterdir():
                file.chmod(0o644)
            seen.append(reader.ask("names"))
        seen.append(reader.ask("names"))
    reader.let_go()
    assert [succeeded for succeeded, _ in seen] == [True] * 5, seen
    ada = values(login("ada@example.com", 1))["access_token"]
    assert [found for _, found in seen] == [
        [["ada"], ada],
        *2 * [[["ada", "user2"], "planted-new-2"]],
        *2 * [[["ada", "user2", "user3"], "planted-new-3"]],
    ]


def test_a_reader_sees_what_a_process_with_permission_writes(medium):
    """Another user may write the file. A reader sees each save, while the writer has the file open and afterwards."""
    run_in_fork(read_while_another_process_writes, medium)


def leave_a_wal(folder, endings):
    """Copy a database into the folder while a store has it open, as a killed program leaves it."""
    with writable(folder):
        source = folder.parent / "live.db"
        shutil.copy(folder / "tokens.db", source)
        with CustomStoreSQLite(source) as store:
            store.save_token(login("bob@example.com", 2))
            for ending in endings:
                shutil.copy(f"{source}{ending}", folder / f"tokens.db{ending}")


def open_and_list(path):
    drop_privileges()
    try:
        with CustomStoreSQLite(path) as store:
            return names(store)
    except SDKException as error:
        return [error.cause.code, error.args[1]]


def codes_of_files(path):
    drop_privileges()
    return [code_of(lambda: read_source(path)), code_of(lambda: check(path))]


def test_saves_in_a_wal_that_cannot_be_read_are_an_error(medium):
    """Without its `-shm` a WAL cannot be read there. Rows without the saves in it would be old ones."""
    run_in_fork(leave_a_wal, medium, ["", "-wal"])
    code, message = run_in_fork(open_and_list, medium / "tokens.db")
    assert code == "needs-recovery"
    assert "Copy the file and its -wal into a folder" in message
    assert run_in_fork(codes_of_files, medium / "tokens.db") == ["needs-recovery", "needs-recovery"]
    assert files(medium) == ["tokens.db", "tokens.db-wal"]


def test_saves_in_a_wal_with_its_shm_are_read(medium):
    """SQLite reads both where it can write neither."""
    run_in_fork(leave_a_wal, medium, ["", "-wal", "-shm"])
    assert run_in_fork(open_and_list, medium / "tokens.db") == ["ada", "bob"]


def test_a_file_that_has_to_be_migrated_is_not_changed(medium):
    """A file of the vendor's sample cannot be migrated there. The error says so."""
    with writable(medium):
        path = medium / "sample.db"
        shutil.copy(DATA / "sample-zohooauth.db", path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    code, message = run_in_fork(open_and_list, path)
    assert code == "read-only"
    assert "it has to be migrated first" in message


def read_beside_a_writer(folder, count):
    path = folder / "tokens.db"
    gate, ended = os.pipe()
    os.set_blocking(gate, False)

    def write():
        os.close(ended)
        deadline = time.monotonic() + children.TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                return os.read(gate, 1)  # the other end is closed
            with CustomStoreSQLite(path) as store:
                store.save_token(login("ada@example.com", 1))
        return None

    writer = children.fork(write)
    drop_privileges()
    found = [code_of(lambda: open_and_find(path)) for _ in range(count)]
    os.close(ended)
    children.join([writer])
    return [code for code in found if code is not None]


def open_and_find(path):
    with CustomStoreSQLite(path) as store:
        assert store.find_token_by_id("1")


def test_a_reader_does_not_fail_because_a_writer_adds_or_removes_a_wal(medium, extent):
    """Each store of the writer adds a `-wal` and a `-shm`, and removes them when it is closed."""
    assert run_in_fork(read_beside_a_writer, medium, extent.of(100, 2_000)) == []


def read_without_a_trace(path):
    drop_privileges()
    with CustomStoreSQLite(path) as store:
        return [names(store), [finding.code for finding in store.check()], files(path.parent)]


def test_a_reader_who_may_write_the_folder_leaves_nothing_that_stops_the_owner(tmp_path):
    """A `-wal` and a `-shm` of the reader would stay, and the owner of the database could not write them."""
    path = tmp_path / "tokens.db"
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com", 1))
    path.chmod(0o444)
    tmp_path.chmod(0o777)
    assert run_in_fork(read_without_a_trace, path) == [["ada"], ["permissions"], ["tokens.db"]]


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_no_store_has_the_name_of_a_file_that_sqlite_keeps_beside_a_database(tmp_path, ending):
    """SQLite would remove it, or replay it, with the database that has the rest of the name."""
    assert code_of(lambda: CustomStoreSQLite(tmp_path / f"tokens.db{ending}")) == "reserved-name"
    assert files(tmp_path) == []


def open_unreadable(path):
    drop_privileges()
    return code_of(lambda: CustomStoreSQLite(path))


def test_a_file_that_this_user_may_not_read_is_a_matter_of_permissions(tmp_path):
    """Often the first run was made as root."""
    path = tmp_path / "tokens.db"
    CustomStoreSQLite(path).close()
    path.chmod(0o200)
    assert run_in_fork(open_unreadable, path) == "permission-denied"
