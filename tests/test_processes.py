"""Threads, processes, forks, and a file that changes under a running store (contract 5, 7).

`faults/` has more processes and more threads at once, and most changes to the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path

import children
import pytest
from own_process import in_own_process
from support import another_program_holding, everything, in_threads, login, rows_seen_elsewhere, token, values
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

IN_MEMORY = pytest.mark.parametrize("kind", [CustomStoreInMemory, CustomStoreList], ids=lambda kind: kind.__name__)


def save(store, user, number=1, **values):
    store.save_token(login(f"{user}@example.com", number, **values))


def finds(store, user):
    return store.find_token(token(f"{user}@example.com")) is not None


@pytest.fixture
def store(path):
    with CustomStoreSQLite(path, busy_timeout=30) as made:
        yield made


def test_a_save_that_is_refused_does_not_fail_the_saves_committed_with_it(store):
    """Contract 5: saves of several threads are committed together, but a bad token fails only its own save."""
    saved, refused = [], []

    def work(thread):
        for number in range(40):
            good = (thread + number) % 3 > 0
            mine = login(f"user{thread}.{number}@example.com", 100 * thread + number)
            if not good:
                mine = token(f"user{thread}.{number}@example.com", client_id="1000.CLIENT")
            try:
                store.save_token(mine)
                saved.append((mine.get_user_signature().get_name(), mine.get_id(), good))
            except SDKException as error:
                refused.append((good, error.cause.code))

    in_threads(8, work)
    assert set(refused) == {(False, "empty-token")}
    assert all(good for _, _, good in saved)
    assert len(saved) + len(refused) == 8 * 40
    names = {found.get_id(): found.get_user_signature().get_name() for found in store.get_tokens()}
    assert names == {row_id: name for name, row_id, _ in saved}


def test_other_threads_run_while_a_save_waits(store, path):
    """Contract 7: the GIL is released around every write and every wait, and a find does not wait for a save."""
    save(store, "ada")
    with another_program_holding(path, "begin immediate"):
        waiting = threading.Thread(target=save, args=(store, "bob", 2))
        waiting.start()
        # If the waiting save held the GIL, this thread would stop here until the save had timed out.
        assert finds(store, "ada")
        assert not finds(store, "bob")
        assert waiting.is_alive()
    waiting.join(60)
    assert finds(store, "bob")


@in_own_process
def test_processes_that_save_one_new_user_at_once_make_one_row(path):
    """Contract 5: finding the row and writing it are one transaction, so two processes never both insert."""

    def work(_):
        with CustomStoreSQLite(path, busy_timeout=30) as store:
            for number in range(50):
                save(store, f"shared{number}", number)

    children.at_once(6, work)
    assert rows_seen_elsewhere(path) == everything(50)


@in_own_process
def test_a_repeated_find_sees_each_save_of_another_process(path):
    """Contract 2: the read cache never hides a later save."""
    store = CustomStoreSQLite(path, busy_timeout=30)
    save(store, "ada")
    save(store, "bob", 2)
    saved, tell_saved = os.pipe()
    found, tell_found = os.pipe()

    def user(number):
        return "ada" if number % 3 else "bob"

    def save_and_wait():
        for number in range(300):
            save(store, user(number), access_token=f"made-up {number}")
            os.write(tell_saved, b"x")
            os.read(found, 1)

    child = children.fork(save_and_wait)
    for number in range(300):
        os.read(saved, 1)
        for _ in range(3):
            row = store.find_token(token(f"{user(number)}@example.com"))
            assert row.get_access_token() == f"made-up {number}"
        os.write(tell_found, b"x")
    children.join([child])


@IN_MEMORY
@in_own_process
def test_a_store_in_memory_works_after_a_fork_while_other_threads_save(kind):
    """Contract 7: the child can use the store, even if a thread of the parent held the store's lock during the fork.

    `faults/test_forks.py` shows the same for a file.
    """
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns if a process with threads forks
    store, done = kind(), threading.Event()

    def work(thread):
        number = 0
        while not done.is_set():
            number += 1
            save(store, f"thread{thread}.{number % 20}", 100 * thread + number % 20)
            store.find_token(token(f"thread{thread}.1@example.com"))

    def use_in_child(fork):
        for number in range(5):
            save(store, f"fork{fork}.{number}", 1000 + 10 * fork + number)
        assert finds(store, f"fork{fork}.4")
        assert len(store.get_tokens()) <= len(store)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    try:
        for fork in range(15):
            children.join([children.fork(lambda fork=fork: use_in_child(fork))])
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert all(finds(store, f"thread{thread}.1") for thread in range(3))


@IN_MEMORY
@in_own_process
def test_a_store_in_memory_has_its_own_rows_in_each_process_after_a_fork(kind):
    """Contract 7: the child starts with the parent's rows. After the fork, neither sees what the other one saves."""
    store = kind()
    save(store, "before", 0)

    def save_in_child():
        save(store, "child", 1)
        assert len(store) == 2

    children.join([children.fork(save_in_child)])
    assert len(store) == 1


@in_own_process
def test_a_fork_by_c_code_leaves_the_parents_connection_alone(path):
    """Contract 7: a fork by C code runs no fork hook of Python. The child still opens a connection of its own."""
    store = CustomStoreSQLite(path, busy_timeout=30)
    save(store, "before", 0)
    child = ctypes.PyDLL(None).fork()
    if child == 0:
        for number in range(20):
            save(store, f"child{number}", 100 + number)
        store.close()
        del store
        os._exit(0)
    for number in range(20):
        save(store, f"parent{number}", 200 + number)
    children.join([child])
    save(store, "after", 1)
    assert len(store) == 42
    assert rows_seen_elsewhere(path) == everything(42)


@in_own_process
def test_a_fork_hook_may_use_the_store(path):
    """Contract 7: while a thread forks, its own fork hooks may use the store."""
    os.register_at_fork(before=lambda: finds(store, "before"), after_in_child=lambda: len(store))
    store = CustomStoreSQLite(path)
    save(store, "before", 0)
    children.join([children.fork(lambda: save(store, "child", 1))])
    assert len(store) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
@in_own_process
def test_a_fork_while_a_store_is_opened_inherits_no_open_file(path):
    """Contract 7: a child inherits no open database, not even if a log handler forks during the warning on opening."""
    CustomStoreSQLite(path).close()
    path.chmod(0o644)

    def open_files():
        handles = Path("/proc/self/fd").iterdir()
        targets = [handle.readlink() for handle in handles if handle.is_symlink()]
        return [target.name for target in targets if target.name.startswith(path.name) and target.name != path.name]

    class Forks(logging.Handler):
        def emit(self, _record):
            child = os.fork()
            if child == 0:
                os._exit(len(open_files()))
            inherited.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    inherited = []
    logging.getLogger("zoho_token_store").addHandler(Forks())
    store = CustomStoreSQLite(path)
    assert inherited == [0]
    assert len(store) == 0
    assert set(open_files()) == {f"{path.name}-wal", f"{path.name}-shm"}


@in_own_process
def test_a_killed_process_loses_no_acknowledged_save_and_disturbs_no_other_process(path):
    """Contract 5: `save_token` returns after the row is durable. Contract 7: the other processes go on."""
    acknowledged, acknowledge = os.pipe()

    def save_without_end():
        with CustomStoreSQLite(path) as store:
            number = 0
            while True:
                number += 1
                save(store, f"user{number}", number)
                os.write(acknowledge, b"x")

    child = children.fork(save_without_end)
    os.close(acknowledge)
    survivor = CustomStoreSQLite(path)
    count = sum(len(os.read(acknowledged, 1)) for _ in range(50))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(acknowledged, 4096):
        count += len(more)
    save(survivor, "survivor", 0)
    users = {values(made)["user"] for made in survivor.get_tokens()}
    assert {f"user{number}@example.com" for number in range(1, count + 1)} <= users


@in_own_process
def test_a_store_that_is_dropped_during_a_fork_does_not_block(path):
    """Contract 7: no thread waits for a fork while it holds the GIL. Otherwise each drop would take `busy_timeout`."""
    warnings.simplefilter("ignore", DeprecationWarning)
    done = threading.Event()

    def work(make):
        while not done.is_set():
            store = make()
            store.save_token(login())
            del store

    makers = [CustomStoreList, lambda: CustomStoreSQLite(path, busy_timeout=60)]
    threads = [threading.Thread(target=work, args=(make,)) for make in makers]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            children.join([children.fork(lambda: None)])
    finally:
        done.set()
        for thread in threads:
            thread.join(30)


def test_no_save_waits_for_a_reader_with_an_old_snapshot(store, path):
    """Contract 9: a reader's snapshot delays the scrub of deleted secrets, but no save."""
    store.import_tokens(login(f"user{number}@example.com", number) for number in range(3))
    with another_program_holding(path, "begin; select * from oauthtoken"):
        store.delete_token("1")
        for number in range(200):  # if each save waited for a second, the test would reach its time limit
            save(store, "user2", 2, access_token=f"planted-renewed-{number}")
    save(store, "user2", 2)
    assert not any(b"planted-refresh-0" in file.read_bytes() for file in path.parent.iterdir())


@in_own_process
def test_a_link_that_changes_does_not_affect_stores_on_its_old_file(path):
    """Contract 7: after a link has changed, the next call works on its new target. The old target keeps its rows."""
    one, two, link = (path.with_name(name) for name in ("one.db", "two.db", "link.db"))
    link.symlink_to(one)
    CustomStoreSQLite(two).close()
    CustomStoreSQLite(one).close()
    stores = []

    def save_to_one(user, number):
        if not stores:
            stores.append(CustomStoreSQLite(one, busy_timeout=30))
        save(stores[0], user, number)
        return len(stores[0])

    other = children.Helper(save_to_one)
    with CustomStoreSQLite(link) as store:
        save(store, "first", 1)
        with another_program_holding(one, "begin; select * from oauthtoken"):
            assert other.ask("second", 2) == (True, 2)
            link.unlink()
            link.symlink_to(two)
            save(store, "third", 3)
            assert len(store) == 1
        assert other.ask("fourth", 4) == (True, 3)
        other.let_go()
    assert rows_seen_elsewhere(one) == everything(3)
    assert rows_seen_elsewhere(two) == everything(1)


@in_own_process
def test_a_file_that_is_deleted_again_and_again_is_never_an_error(path):
    """Contract 7: after the file was deleted under running stores, the next call of each process works."""

    def work(child):
        with CustomStoreSQLite(path, busy_timeout=30) as store:
            for number in range(150):
                if child == 0:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                else:
                    save(store, f"user{child}.{number}", 1000 * child + number)
                    finds(store, f"user{child}.{number}")

    children.at_once(3, work)
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    assert rows_seen_elsewhere(path)[1] == "ok"


@in_own_process
def test_a_backup_is_a_snapshot_while_another_process_writes(path, tmp_path):
    """Contract 10: `backup` is consistent: it has both tokens of an import, or neither."""
    ready, tell_ready = os.pipe()
    going = tmp_path / "going"
    going.touch()

    def import_pairs():
        with CustomStoreSQLite(path) as store:
            os.write(tell_ready, b"x")
            number = 0
            while going.exists():
                number += 2
                store.import_tokens([login(f"user{n}@example.com", n) for n in (number, number + 1)])

    child = children.fork(import_pairs)
    os.read(ready, 1)
    with CustomStoreSQLite(path, busy_timeout=30) as store:
        try:
            for number in range(10):
                backup = tmp_path / f"backup{number}.db"
                store.backup(backup)
                # A plain copy of the backup is complete, too: the backup has no WAL.
                shutil.copyfile(backup, tmp_path / "copy.db")
                with CustomStoreSQLite(tmp_path / "copy.db") as copied:
                    assert len(copied) % 2 == 0
        finally:
            going.unlink()
            children.join([child])
