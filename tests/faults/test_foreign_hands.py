"""Contract 7: other code uses the file, too, in the same process or with its own SQLite in another process.

Four processes save at the same time. Afterwards Python's SQLite must find each acknowledged save in the file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path

import children
import pytest
from faults.checks import assert_users
from own_process import run_in_fork
from support import login, token
from zoho_token_store import CustomStoreSQLite

COLUMNS = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, redirect_url, "
    "api_domain"
)


def open_store(path):
    return CustomStoreSQLite(path, busy_timeout=children.TIMEOUT)


def save(store, child, number):
    store.save_token(login(f"user{child}.{number}@example.com", 1000 * child + number))


def saved(processes, count):
    return [f"user{child}.{number}@example.com" for child in range(processes) for number in range(count)]


@contextlib.contextmanager
def repeating(work, path):
    """Call `work(path)` again and again in a thread of this process, until the end of the block."""
    stop, calls = threading.Event(), []

    def repeat():
        while not stop.is_set():
            work(path)
            calls.append(work)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(children.TIMEOUT)
        assert calls


def read_and_copy(path):
    connection = sqlite3.connect(path)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    connection.close()
    shutil.copy(path, f"{path}-copy-{os.getpid()}")


def read_and_copy_if_it_exists(path):
    with contextlib.suppress(sqlite3.Error, OSError):
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True)
        with contextlib.closing(connection):
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        shutil.copy(path, f"{path}-copy-{os.getpid()}")


def save_while_other_code_reads(path, count):
    kept = open_store(path)

    def work(child):
        with repeating(read_and_copy, path):
            for number in range(count):
                if number % 2:
                    save(kept, child, number)
                else:
                    # These stores are opened and closed, so again and again some process is the last to close the file.
                    with open_store(path) as store:
                        save(store, child, number)

    children.at_once(4, work, 100)
    assert_users(path, saved(4, count))


def test_code_that_opens_and_closes_the_file_costs_no_acknowledged_save(path, extent):
    """Contract 7: `sqlite3.connect(path).close()` and `shutil.copy(path)` drop the POSIX locks of the process."""
    run_in_fork(save_while_other_code_reads, path, extent.of(40, 200))


def save_beside_the_sample(path, count):
    CustomStoreSQLite(path).close()

    def save_as_the_sample_does(child):
        for number in range(count):
            # High ids, because the stores give out rising ids.
            row = [f"{100_000 - number}", f"user{child}.{number}@example.com", "1000.CLIENT", "planted-secret"]
            row += [f"planted-refresh-{number}", "planted-access", None, "1", None, None]
            connection = sqlite3.connect(path, timeout=children.TIMEOUT)
            with connection:
                connection.execute(f"INSERT INTO oauthtoken({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", row)
            connection.close()

    def work(child):
        if child == 0:
            save_as_the_sample_does(child)
            return
        for number in range(count):
            with open_store(path) as store:
                save(store, child, number)

    children.at_once(4, work, 100)
    assert_users(path, saved(4, count))


def test_the_sample_may_write_beside_stores(path, extent):
    """Contract 7: any number of processes can use one file at the same time. The samples can be among them."""
    run_in_fork(save_beside_the_sample, path, extent.of(40, 200))


def run_or_be_refused(connection, statement):
    try:
        connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "no transaction is active" not in str(error):
            raise


def maintain_while_stores_save(path, count, statements):
    ended = Path(f"{path}-ended")
    ended.mkdir()
    CustomStoreSQLite(path).close()

    def maintain():
        connection = sqlite3.connect(path, timeout=0.01, isolation_level=None)
        for statement in statements.split(";"):
            run_or_be_refused(connection, statement)
        connection.close()

    def work(child):
        if child == 0:
            deadline = time.monotonic() + children.TIMEOUT
            while len(list(ended.iterdir())) < 3 and time.monotonic() < deadline:
                maintain()
                time.sleep(0.002)
            return
        try:
            with open_store(path) as kept:
                for number in range(count):
                    if number % 10:
                        save(kept, child - 1, number)
                        continue
                    with open_store(path) as store:
                        save(store, child - 1, number)
                assert kept.find_token(token(f"user{child - 1}.0@example.com"))
        finally:
            (ended / f"{child}").touch()

    children.at_once(4, work, 100)
    with CustomStoreSQLite(path), contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert_users(path, saved(3, count))


@pytest.mark.parametrize(
    "statements", ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA journal_mode=DELETE", "BEGIN EXCLUSIVE; COMMIT"]
)
def test_other_programs_may_maintain_the_file_while_stores_save(path, extent, statements):
    """Contract 7, 9: another SQLite changes the whole file, or gets an error. The stores stay in WAL mode."""
    run_in_fork(maintain_while_stores_save, path, extent.of(20, 200), statements)


def create_while_other_code_reads(path, count, rounds):
    def work(child):
        with repeating(read_and_copy_if_it_exists, file), open_store(file) as store:
            for number in range(count):
                save(store, child, number)

    for turn in range(rounds):
        file = path.with_name(f"{path.name}-{turn}")
        children.at_once(4, work)
        assert_users(file, saved(4, count))


def test_code_that_reads_the_file_while_it_is_created_and_closed_costs_no_save(path, extent):
    """Contract 7: all stores begin at once without a file, each beside other code, and close one after the other."""
    run_in_fork(create_while_other_code_reads, path, 5, extent.of(8, 100))


def save_and_be_killed(path, users):
    """Leave a WAL with acknowledged saves beside the file."""

    def work():
        store = open_store(path)
        for user in users:
            store.save_token(login(user))
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.waitpid(children.fork(work), 0)[1] == signal.SIGKILL
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


@contextlib.contextmanager
def another_program(path, then):
    """Have the file open in Python's SQLite, in another process that calls `then(path)` and stays to the end."""
    opened, ready = os.pipe()
    gate, ended = os.pipe()

    def work():
        os.close(ended)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT count(*) FROM oauthtoken").fetchone()
            then(path)
            os.write(ready, b".")
            os.read(gate, 1)

    child = children.fork(work)
    os.close(ready)
    os.close(gate)
    try:
        assert os.read(opened, 1) == b"."
        yield
    finally:
        os.close(ended)
        os.close(opened)
        children.join([child])


def open_beside_a_program_that_lost_its_lock(path):
    users = ["ada@example.com", "bob@example.com"]
    save_and_be_killed(path, users)
    # Closing the file drops the program's lock on it, but not its lock on the `-shm`.
    with another_program(path, Path.read_bytes):
        open_store(path).close()
        assert_users(path, users)
    assert_users(path, users)


def test_saves_in_a_wal_stay_beside_a_program_that_has_lost_its_lock_on_the_file(path):
    """Contract 7: only a WAL that is certainly another file's is removed."""
    run_in_fork(open_beside_a_program_that_lost_its_lock, path)


def open_beside_a_program_whose_file_was_renamed(path):
    moved = path.with_name("moved.db")
    save_and_be_killed(path, ["ada@example.com"])
    with another_program(path, lambda path: path.rename(moved)):
        with open_store(path) as store:
            store.save_token(login("bob@example.com"))
        assert_users(path, ["bob@example.com"])


def test_a_wal_that_another_program_uses_for_a_renamed_file_is_not_replayed_into_a_new_file(path):
    """Contract 7: the path names another file now."""
    run_in_fork(open_beside_a_program_whose_file_was_renamed, path)
