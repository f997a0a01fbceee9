"""Inject the same faults into this store, the SDK's `FileStore` and a plain `sqlite3` store: `make reliability`.

It prints a table in Markdown: for each fault, how many tries lost something that had been saved.

- *lost*: `save_token` has returned, but the row is not found or does not have the values that were saved last.
- *denied*: a save raised an exception although only saves of other users were running.

`tests/faults` asserts more about this store. This program has only the faults that apply to all three.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

sys.path.insert(0, str(TESTS))

import children
from plain import PlainStore
from support import login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore, TokenStore

SHIM = ctypes.CDLL(None)
USERS = 5
TIMEOUT_SECONDS = 120  # limit for several processes or threads; they need much less
Rows = dict[str, str]  # the refresh token of each user name


class Kind(NamedTuple):
    """A kind of store that is compared."""

    name: str
    open: Callable[[Path], TokenStore]


KINDS = [
    Kind("`CustomStoreSQLite`", lambda path: CustomStoreSQLite(path, busy_timeout=30)),
    Kind("SDK's `FileStore`", lambda path: FileStore(str(path))),
    Kind("plain `sqlite3`", PlainStore),
]


def user(number: int) -> str:
    """Return the name of a user."""
    return f"user{number}@example.com"


def save(store: TokenStore, number: int, generation: int = 0) -> None:
    """Save a user's login. Each generation is a new login of the same user."""
    store.save_token(login(user(number), 1000 * number + generation))


def create_file(kind: Kind, folder: Path) -> tuple[Path, Rows]:
    """Create a file with a few users. Return its path and its rows."""
    path = folder / "tokens"
    store = kind.open(path)
    for number in range(USERS):
        save(store, number)
    close(store)
    return path, rows_of(kind, path)


def close(store: TokenStore) -> None:
    """Close the store if it has a method for that."""
    getattr(store, "close", lambda: None)()


def rows_of(kind: Kind, path: Path, users: int = USERS + 1) -> Rows:
    """Return the rows that a store finds in a file. It looks them up one by one, so a bad row does not hide others."""
    store = kind.open(path)
    found = {}
    for number in range(users):
        with contextlib.suppress(Exception):
            if row := store.find_token(token(user(number))):
                found[user(number)] = values(row)["refresh_token"]
    close(store)
    return found


def in_child(work: Callable[[], object]) -> object:
    """Run a function in a child process. Return its result, the text of its error, or `None` if it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(TIMEOUT_SECONDS)
        with contextlib.suppress(BaseException):
            os.close(reading)
            try:
                result = work()
            except BaseException as error:
                result = f"{type(error).__name__}: {''.join(traceback.format_exception_only(error))}"
            with os.fdopen(writing, "w") as pipe:
                json.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return json.loads(result) if result else None


@contextlib.contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    """Provide a temporary copy of a folder."""
    copied = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    yield copied
    shutil.rmtree(copied)


def count_operations(kind: Kind, folder: Path, change: Callable[[TokenStore], None]) -> int:
    """Return the number of I/O operations of a change."""

    def count() -> int:
        store = kind.open(folder / "tokens")
        SHIM.faults_watch(str(folder).encode())
        change(store)
        return SHIM.faults_count()

    return in_child(count)


def update(store: TokenStore) -> None:
    """Save a new login of a known user."""
    save(store, 2, 1)


def insert(store: TokenStore) -> None:
    """Save a new user."""
    save(store, USERS)


def delete(store: TokenStore) -> None:
    """Delete the row of a user."""
    store.delete_token(store.find_token(token(user(3))).get_id())


def is_intact(kind: Kind, folder: Path, before: Rows, changed: str) -> bool:
    """Return whether the changed row has its old or its new state and all other rows are unchanged."""
    found = in_child(lambda: rows_of(kind, folder / "tokens"))
    if not isinstance(found, dict):
        return False
    others = {name: value for name, value in before.items() if name != changed}
    new = {user(2): "planted-refresh-2001", user(USERS): f"planted-refresh-{1000 * USERS}"}.get(changed)
    return {name: value for name, value in found.items() if name != changed} == others and (
        found.get(changed) in (before.get(changed), new)
    )


CHANGES = ((update, user(2)), (insert, user(USERS)), (delete, user(3)))


def inject_at_each_operation(kind: Kind, home: Path, faults: list[Callable[[int], None]]) -> str:
    """Make three changes with each fault at each of their I/O operations. Count the tries after which rows are lost."""
    folder = home / "seed"
    folder.mkdir()
    _, before = create_file(kind, folder)
    tries = lost = 0
    for change, changed in CHANGES:
        with copy_of(folder) as copied:
            count = count_operations(kind, copied, change)
        for at, fault in itertools.product(range(1, count + 1), faults):
            with copy_of(folder) as copied:

                def work(
                    at: int = at, fault: Callable = fault, copied: Path = copied, change: Callable = change
                ) -> None:
                    store = kind.open(copied / "tokens")
                    SHIM.faults_watch(str(copied).encode())
                    fault(at)
                    change(store)

                in_child(work)
                tries += 1
                lost += not is_intact(kind, copied, before, changed)
    return describe(lost, tries)


def killed(kind: Kind, home: Path) -> str:
    """Kill the process before and in the middle of each I/O operation."""
    kills = [lambda at, half=half: SHIM.faults_kill(ctypes.c_long(at), half) for half in (0, 1)]
    return inject_at_each_operation(kind, home, kills)


def disk_full(kind: Kind, home: Path) -> str:
    """Let each I/O operation and all after it fail with "no space left on device"."""
    return inject_at_each_operation(kind, home, [lambda at: SHIM.faults_fail(ctypes.c_long(at), errno.ENOSPC, 0)])


def power_cut(kind: Kind, home: Path) -> str:
    """Cut the power right after a save.

    After a power cut, a file has the content of its last sync, and a folder has the entries of its last sync.
    """
    shots, folder = home / "shots", home / "live"
    shots.mkdir()
    folder.mkdir()

    def work() -> list[int]:
        SHIM.faults_watch(str(folder).encode())
        SHIM.faults_power(str(shots).encode())
        store = kind.open(folder / "tokens")
        shot_numbers = []
        for number in range(20):
            save(store, number)
            shot_numbers.append(SHIM.faults_syncs())
        return shot_numbers

    lost = 0
    shot_numbers = in_child(work)
    for number, shot in enumerate(shot_numbers):
        path = shots / str(shot) / "tokens"
        found = in_child(lambda path=path: rows_of(kind, path, 20)) if path.exists() else {}
        lost += not isinstance(found, dict) or any(user(earlier) not in found for earlier in range(number + 1))
    return describe(lost, len(shot_numbers))


class Crowd(NamedTuple):
    """The number of processes, and the number of users that each saves."""

    processes: int
    each: int


def crowd(
    kind: Kind, home: Path, size: Crowd, work: Callable[[TokenStore, int], None], store: TokenStore | None = None
) -> str:
    """Let processes save at the same time. Count the acknowledged saves whose rows are lost."""
    path = home / "tokens"
    logs = home / "logs"
    logs.mkdir()

    def process(child: int) -> None:
        opened = store
        with (logs / str(child)).open("w") as out:
            for number in range(child * size.each, (child + 1) * size.each):
                try:
                    opened = opened or kind.open(path)
                    work(opened, number)
                    out.write(f"{number}\n")
                except Exception:
                    out.write("-1\n")
                out.flush()
        if store is None and opened is not None:
            close(opened)

    children.at_once(size.processes, process, TIMEOUT_SECONDS)
    logged = [int(line) for file in logs.iterdir() for line in file.read_text().split()]  # -1 is a failed save
    acknowledged = [number for number in logged if number >= 0]
    found = in_child(lambda: rows_of(kind, path, size.processes * size.each))
    found = found if isinstance(found, dict) else {}
    return describe(sum(user(number) not in found for number in acknowledged), len(logged), logged.count(-1))


def processes(kind: Kind, home: Path) -> str:
    """Save 25 new users in each of 8 processes."""
    return crowd(kind, home, Crowd(8, 25), save)


def forked(kind: Kind, home: Path) -> str:
    """Save 25 new users in each of 5 children, with a store that was opened before the fork."""
    return crowd(kind, home, Crowd(5, 25), save, kind.open(home / "tokens"))


def other_file_handles(kind: Kind, home: Path) -> str:
    """Save in 4 processes while a thread in each of them opens, reads and closes the file, and copies it.

    Closing any file handle drops all POSIX locks of the process on the file: see "How To Corrupt An SQLite Database
    File", section 2.2.
    """
    path = home / "tokens"
    kind.open(path)
    running = threading.Event()

    def open_and_close() -> None:
        while True:
            with contextlib.suppress(sqlite3.Error, OSError):
                connection = sqlite3.connect(path)
                try:
                    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                finally:
                    connection.close()
            with contextlib.suppress(OSError):
                shutil.copy(path, home / f"copy-{os.getpid()}")

    def work(store: TokenStore, number: int) -> None:
        if not running.is_set():
            running.set()
            threading.Thread(target=open_and_close, daemon=True).start()
        save(store, number)

    return crowd(kind, home, Crowd(4, 25), work)


def threads(kind: Kind, home: Path) -> str:
    """Save 25 new users in each of 8 threads, with one store."""
    path = home / "tokens"
    store = kind.open(path)
    acknowledged: list[int] = []
    failed: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 25):
            try:
                save(store, number)
                acknowledged.append(number)
            except Exception:
                failed.append(number)

    running = [threading.Thread(target=work, args=(25 * number,)) for number in range(8)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(TIMEOUT_SECONDS)
    found = in_child(lambda: rows_of(kind, path, 200))
    found = found if isinstance(found, dict) else {}
    return describe(sum(user(number) not in found for number in acknowledged), 200, len(failed))


def deleted(kind: Kind, home: Path) -> str:
    """Delete the file before every save."""
    path = home / "tokens"
    store = kind.open(path)
    lost = denied = 0
    for number in range(20):
        path.unlink(missing_ok=True)
        try:
            save(store, number)
        except Exception:
            denied += 1
            continue
        found = in_child(lambda: rows_of(kind, path, 20))
        lost += not isinstance(found, dict) or user(number) not in found
    return describe(lost, 20, denied)


def another_database(home: Path) -> bytes:
    """Return the content of another program's SQLite database."""
    path = home / "another"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    return path.read_bytes()


def other_files(kind: Kind, home: Path) -> str:
    """Open a file that is not a token database, find and save. Count the files that are overwritten."""
    path = home / "tokens"
    overwritten = 0

    def work() -> None:
        store = kind.open(path)
        with contextlib.suppress(Exception):
            store.find_token(token(user(1)))
        save(store, 1)

    others = [b"my only copy of something else\n" * 40, b"id\n", bytes(range(256)) * 20, another_database(home)]
    for other in others:
        path.write_bytes(other)
        in_child(work)
        overwritten += path.read_bytes() != other
    return f"{overwritten} of {len(others)} written to"


def residue(kind: Kind, home: Path) -> str:
    """Search all files for a deleted refresh token, and return their modes."""
    path, _ = create_file(kind, home)
    store = kind.open(path)
    delete(store)
    files = [file for file in home.iterdir() if file.is_file()]
    left = any(b"planted-refresh-3000" in file.read_bytes() for file in files)
    modes = sorted({f"{file.stat().st_mode & 0o777:o}" for file in files})
    return f"{'still readable' if left else 'gone'}; mode {', '.join(modes)}"


def describe(lost: int, tries: int, denied: int = 0) -> str:
    """Return the text of a table cell."""
    return f"{lost} of {tries} lost" + (f", {denied} denied" if denied else "")


FAULTS = {
    "killed at any write, sync, truncation or unlinking of a save or delete": killed,
    "power cut right after a save has returned": power_cut,
    "disk full from any I/O operation of a save or delete on": disk_full,
    "8 processes save 25 users each": processes,
    "8 threads save 25 users each": threads,
    "5 children of a fork save 25 users each": forked,
    "4 processes save 25 users each; a thread in each opens, closes and copies the file": other_file_handles,
    "the file deleted before each save": deleted,
    "a file that is not a token database": other_files,
    "a deleted refresh token, and the file's mode (umask 022)": residue,
}


def main() -> None:
    """Inject every fault into every kind of store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only faults whose name contains this text", default="")
    options = parser.parse_args()
    logging.disable()  # failures are counted, not logged
    os.umask(0o022)
    version = importlib.metadata.version
    sys.stdout.write(
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"zohocrmsdk8_0 {version('zohocrmsdk8_0')}, SQLite {sqlite3.sqlite_version} (plain), "
        f"zoho-token-store {version('zoho-token-store')}\n\n"
    )
    sys.stdout.write(f"| Fault | {' | '.join(kind.name for kind in KINDS)} |\n| --- | --- | --- | --- |\n")
    for name, fault in FAULTS.items():
        if options.only not in name:
            continue
        cells = []
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as home:
                cells.append(str(in_child(lambda kind=kind, fault=fault, home=home: fault(kind, Path(home)))))
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def run_with_shim() -> None:
    """Start this program again with the shim for libc that injects the faults."""
    with tempfile.TemporaryDirectory() as folder:
        shim = Path(folder) / "faults.so"
        source = TESTS / "faults" / "faults.c"
        subprocess.run(
            [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True, timeout=60
        )
        done = subprocess.run(
            [sys.executable, *sys.argv], env={**os.environ, "LD_PRELOAD": str(shim)}, check=False, timeout=1800
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main() if hasattr(SHIM, "faults_watch") else run_with_shim()
