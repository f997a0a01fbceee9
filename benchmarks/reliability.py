"""The same faults on this store, on the SDK's `FileStore` and on a plain `sqlite3` store: `make reliability`.

Prints a table in Markdown: of how many tries of each fault how many lost something that had been saved.
- *lost*: a row whose `save_token` had returned is not found, or has not the values that were saved last;
- *denied*: a save that raised, though nothing but other users' saves was in the way.

`tests/faults` asks more of this store, and asserts it; here is only what can be asked of all three.
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
IN_TIME = 120  # seconds for a crowd: far more than it needs
Rows = dict[str, str]  # user name: refresh token


class Kind(NamedTuple):
    """One of the stores that are compared."""

    name: str
    open: Callable[[Path], TokenStore]


KINDS = [
    Kind("`CustomStoreSQLite`", lambda path: CustomStoreSQLite(path, busy_timeout=30)),
    Kind("SDK's `FileStore`", lambda path: FileStore(str(path))),
    Kind("plain `sqlite3`", PlainStore),
]


def user(number: int) -> str:
    """Name a user."""
    return f"user{number}@example.com"


def save(store: TokenStore, number: int, generation: int = 0) -> None:
    """Save a user's login; a later generation is a new login of the same user."""
    store.save_token(login(user(number), 1000 * number + generation))


def seeded(kind: Kind, folder: Path) -> tuple[Path, Rows]:
    """Make a file with a few users."""
    path = folder / "tokens"
    store = kind.open(path)
    for number in range(USERS):
        save(store, number)
    close(store)
    return path, rows_of(kind, path)


def close(store: TokenStore) -> None:
    """Close it, if it can be."""
    getattr(store, "close", lambda: None)()


def rows_of(kind: Kind, path: Path, users: int = USERS + 1) -> Rows:
    """Return what a store finds in a file of these users, asked for one by one: one bad row hides no other."""
    store = kind.open(path)
    found = {}
    for number in range(users):
        with contextlib.suppress(Exception):
            if row := store.find_token(token(user(number))):
                found[user(number)] = values(row)["refresh_token"]
    close(store)
    return found


def in_child(work: Callable[[], object]) -> object:
    """Do it in a process of its own and return what it returned, an error's text, or `None` if it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(IN_TIME)
        with contextlib.suppress(BaseException):
            os.close(reading)
            try:
                told = work()
            except BaseException as error:
                told = f"{type(error).__name__}: {''.join(traceback.format_exception_only(error))}"
            with os.fdopen(writing, "w") as pipe:
                json.dump(told, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else None


@contextlib.contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    """Work in a copy of a folder."""
    copied = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    yield copied
    shutil.rmtree(copied)


def deeds_of(kind: Kind, folder: Path, act: Callable[[TokenStore], None]) -> int:
    """Count what an act does to the disk."""

    def count() -> int:
        store = kind.open(folder / "tokens")
        SHIM.faults_watch(str(folder).encode())
        act(store)
        return SHIM.faults_count()

    return in_child(count)


def update(store: TokenStore) -> None:
    """Save a new login of a known user."""
    save(store, 2, 1)


def insert(store: TokenStore) -> None:
    """Save a new user."""
    save(store, USERS)


def delete(store: TokenStore) -> None:
    """Log a user out."""
    store.delete_token(store.find_token(token(user(3))).get_id())


def is_whole(kind: Kind, folder: Path, before: Rows, changed: str) -> bool:
    """Tell whether all rows are there, and the one that was being changed is as before or as after."""
    found = in_child(lambda: rows_of(kind, folder / "tokens"))
    if not isinstance(found, dict):
        return False
    others = {name: value for name, value in before.items() if name != changed}
    new = {user(2): "planted-refresh-2001", user(USERS): f"planted-refresh-{1000 * USERS}"}.get(changed)
    return {name: value for name, value in found.items() if name != changed} == others and (
        found.get(changed) in (before.get(changed), new)
    )


CHANGES = ((update, user(2)), (insert, user(USERS)), (delete, user(3)))


def at_each_deed(kind: Kind, home: Path, faults: list[Callable[[int], None]]) -> str:
    """Make three changes, with each fault at each of their deeds, and count what of the rows is not whole."""
    folder = home / "seed"
    folder.mkdir()
    _, before = seeded(kind, folder)
    tries = lost = 0
    for act, changed in CHANGES:
        with copy_of(folder) as copied:
            count = deeds_of(kind, copied, act)
        for at, fault in itertools.product(range(1, count + 1), faults):
            with copy_of(folder) as copied:

                def work(at: int = at, fault: Callable = fault, copied: Path = copied, act: Callable = act) -> None:
                    store = kind.open(copied / "tokens")
                    SHIM.faults_watch(str(copied).encode())
                    fault(at)
                    act(store)

                in_child(work)
                tries += 1
                lost += not is_whole(kind, copied, before, changed)
    return of(lost, tries)


def killed(kind: Kind, home: Path) -> str:
    """Kill it before and in the middle of each deed."""
    halves = [lambda at, half=half: SHIM.faults_kill(ctypes.c_long(at), half) for half in (0, 1)]
    return at_each_deed(kind, home, halves)


def full(kind: Kind, home: Path) -> str:
    """Have no room on the disk, from each deed on."""
    return at_each_deed(kind, home, [lambda at: SHIM.faults_fail(ctypes.c_long(at), errno.ENOSPC, 0)])


def power(kind: Kind, home: Path) -> str:
    """Cut the power right after a save: files as of their last sync, names as of the folder's."""
    shots, folder = home / "shots", home / "live"
    shots.mkdir()
    folder.mkdir()

    def work() -> list[int]:
        SHIM.faults_watch(str(folder).encode())
        SHIM.faults_power(str(shots).encode())
        store = kind.open(folder / "tokens")
        taken = []
        for number in range(20):
            save(store, number)
            taken.append(SHIM.faults_syncs())
        return taken

    lost = 0
    taken = in_child(work)
    for number, shot in enumerate(taken):
        path = shots / str(shot) / "tokens"
        found = in_child(lambda path=path: rows_of(kind, path, 20)) if path.exists() else {}
        lost += not isinstance(found, dict) or any(user(earlier) not in found for earlier in range(number + 1))
    return of(lost, len(taken))


class Crowd(NamedTuple):
    """How many processes save how many users each."""

    processes: int
    each: int


def crowd(
    kind: Kind, home: Path, size: Crowd, work: Callable[[TokenStore, int], None], store: TokenStore | None = None
) -> str:
    """Let processes save, and count what of it is there at the end."""
    path = home / "tokens"
    told = home / "told"
    told.mkdir()

    def process(child: int) -> None:
        opened = store
        with (told / str(child)).open("w") as out:
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

    children.at_once(size.processes, process, IN_TIME)
    all_told = [int(line) for file in told.iterdir() for line in file.read_text().split()]
    acknowledged = [number for number in all_told if number >= 0]
    found = in_child(lambda: rows_of(kind, path, size.processes * size.each))
    found = found if isinstance(found, dict) else {}
    return of(sum(user(number) not in found for number in acknowledged), len(all_told), all_told.count(-1))


def processes(kind: Kind, home: Path) -> str:
    """Save 25 new users in each of 8 processes."""
    return crowd(kind, home, Crowd(8, 25), save)


def forked(kind: Kind, home: Path) -> str:
    """Save 25 new users in each of 5 children, with a store made before the fork."""
    return crowd(kind, home, Crowd(5, 25), save, kind.open(home / "tokens"))


def foreign_hands(kind: Kind, home: Path) -> str:
    """Save in 4 processes, while a thread in each of them opens, reads and closes the file, and copies it."""
    path = home / "tokens"
    kind.open(path)
    running = threading.Event()

    def meddle() -> None:
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
            threading.Thread(target=meddle, daemon=True).start()
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
        thread.join(IN_TIME)
    found = in_child(lambda: rows_of(kind, path, 200))
    found = found if isinstance(found, dict) else {}
    return of(sum(user(number) not in found for number in acknowledged), 200, len(failed))


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
    return of(lost, 20, denied)


def another_database(home: Path) -> bytes:
    """Return the file of another program."""
    path = home / "another"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    return path.read_bytes()


def damaged(kind: Kind, home: Path) -> str:
    """Open a file of something else, find and save."""
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


def readable(kind: Kind, home: Path) -> str:
    """Look for a deleted refresh token in all files, and who may read them."""
    path, _ = seeded(kind, home)
    store = kind.open(path)
    delete(store)
    files = [file for file in home.iterdir() if file.is_file()]
    left = any(b"planted-refresh-3000" in file.read_bytes() for file in files)
    modes = sorted({f"{file.stat().st_mode & 0o777:o}" for file in files})
    return f"{'still readable' if left else 'gone'}; mode {', '.join(modes)}"


def of(lost: int, tries: int, denied: int = 0) -> str:
    """Say it in words."""
    return f"{lost} of {tries} lost" + (f", {denied} denied" if denied else "")


FAULTS = {
    "killed at any write, sync, truncation or unlinking of a save or delete": killed,
    "power cut right after a save has returned": power,
    "disk full from any deed of a save or delete on": full,
    "8 processes save 25 users each": processes,
    "8 threads save 25 users each": threads,
    "5 children of a fork save 25 users each": forked,
    "4 processes save 25 users each; a thread in each opens, closes and copies the file": foreign_hands,
    "the file deleted before each save": deleted,
    "a file of something else": damaged,
    "a deleted refresh token, and the file's mode (umask 022)": readable,
}


def main() -> None:
    """Try every fault on every kind of store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only faults whose name has this in it", default="")
    options = parser.parse_args()
    logging.disable()  # of failures that are counted
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
        seen = []
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as home:
                seen.append(str(in_child(lambda kind=kind, fault=fault, home=home: fault(kind, Path(home)))))
        sys.stdout.write(f"| {name} | {' | '.join(seen)} |\n")
        sys.stdout.flush()


def with_faults() -> None:
    """Start this program again with the faults in front of libc."""
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
    main() if hasattr(SHIM, "faults_watch") else with_faults()
