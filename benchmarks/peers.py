"""The stores that are compared: how each is made in a folder, how it is filled quickly, and what it lacks."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.util
import itertools
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import stores
import tokens
import zoho_token_store
from plain import FIELDS, PlainStore
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore, TokenStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")

CHUNK = 1_000  # rows in one transaction, or a twentieth of them all
# Seconds. Who needs more than FILL_ROW for each row it is filled with, and more than FILL in all, or MOST, is left out.
FILL_ROW, FILL, MOST = 0.0008, 10.0, 360.0
NO_MORE = 1_000  # rows of a store that is filled by `save_token`


def numbered(rows: int) -> Iterable[tuple[str, ...]]:
    """Return whole rows, the id first."""
    return ((str(number + 1), *tokens.row(number)) for number in range(rows))


def chunks(items: Iterable[T], rows: int) -> Iterator[list[T]]:
    """Divide what a store is filled with, and give up if it takes too long."""
    deadline = time.monotonic() + max(FILL, min(FILL_ROW * rows, MOST))
    left = iter(items)
    filled = 0
    while chunk := list(itertools.islice(left, max(CHUNK, rows // 20))):
        yield chunk
        filled += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError(f"filling it takes too long: {filled} rows were in when time was up")


@dataclasses.dataclass(frozen=True)
class Peer:
    """One of the stores. It crosses to other processes, and is opened there again."""

    name: str = ""
    about: str = ""
    kept: str = "file"  # or "memory", or "server"
    durable: bool = True  # is a row on the disk when `save_token` returns?
    most: int = 10**5  # rows that it is measured with

    @property
    def is_copied(self) -> bool:
        """Tell whether its folder can be filled once and copied."""
        return self.kept == "file"

    def open(self, home: Path) -> TokenStore:
        """Make the store on what its folder has."""
        raise NotImplementedError

    def fill(self, store: TokenStore, home: Path, rows: int) -> list[str] | None:
        """Add the rows, in the quickest way there is. Returns their ids; `None`: they count from 1."""
        raise NotImplementedError

    def close(self, store: TokenStore) -> None:
        """Close the store, if it can be."""
        getattr(store, "close", lambda: None)()


@dataclasses.dataclass(frozen=True)
class Ours(Peer):
    """One of our three classes."""

    most: int = 10**6

    def open(self, home: Path) -> TokenStore:
        """Make it by its name."""
        made: type = getattr(zoho_token_store, self.name)
        return made(home / "tokens.db") if self.kept == "file" else made()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Import tokens."""
        for chunk in chunks(map(tokens.login, range(rows)), rows):
            store.import_tokens(chunk)


class Plain(Peer):
    """`plain.py`."""

    def open(self, home: Path) -> TokenStore:
        """Make it on a file."""
        return PlainStore(home / "plain.db")

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert them with one statement."""
        connection = sqlite3.connect(home / "plain.db")
        with connection:
            insert(connection, rows)
        connection.close()


class Memory(Peer):
    """`stores.MemoryStore`."""

    def open(self, home: Path) -> TokenStore:  # noqa: ARG002
        """Make it."""
        return stores.MemoryStore()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert them with one statement."""
        insert(store.connection, rows)


def insert(connection: sqlite3.Connection, rows: int) -> None:
    """Insert rows into the plain store's table."""
    marks = ", ".join("?" for _ in range(len(FIELDS) + 1))
    connection.executemany(f"INSERT INTO tokens (id, {', '.join(FIELDS)}) VALUES ({marks})", numbered(rows))


class PythonList(Peer):
    """`stores.ListStore`."""

    def open(self, home: Path) -> TokenStore:  # noqa: ARG002
        """Make it."""
        return stores.ListStore()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Set its list."""
        store.rows = list(numbered(rows))
        store.last_id = rows


class File(Peer):
    """The SDK's `FileStore`."""

    def open(self, home: Path) -> TokenStore:
        """Make it on a file."""
        return FileStore(str(home / "sdk_tokens.txt"))

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Write its CSV behind the line of headers."""
        with (home / "sdk_tokens.txt").open("a", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_MINIMAL).writerows(numbered(rows))


class Cache(Peer):
    """`stores.CacheStore`."""

    def open(self, home: Path) -> TokenStore:
        """Make it in the folder."""
        return stores.CacheStore(home / "cache")

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Put them in transactions of many."""
        for chunk in chunks(numbered(rows), rows):
            with store.cache.transact():
                for row in chunk:
                    store.put(row)
        store.cache["last id"] = rows


@dataclasses.dataclass(frozen=True)
class Given(Peer):
    """A class that was given with `--peer`; its constructor takes a path or nothing."""

    most: int = NO_MORE
    module: str = ""
    class_name: str = ""
    folder: str = ""

    @property
    def is_copied(self) -> bool:
        """Nobody knows where it keeps them."""
        return False

    def open(self, home: Path) -> TokenStore:
        """Make it: `Class(path)`, or `Class()` in its folder, where it may have a file of a name of its own."""
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        made = getattr(importlib.import_module(self.module), self.class_name)
        os.chdir(home)
        try:
            return made(str(home / "zohooauth.db"))
        except TypeError:
            return made()

    def fill(self, store: TokenStore, home: Path, rows: int) -> list[str]:
        """Save them one by one."""
        os.chdir(home)
        ids = []
        for number in range(rows):
            token = tokens.login(number)
            try:
                store.save_token(token)
            except Exception as error:
                raise RuntimeError(f"saving user {number + 1} fails: {in_short(error)}") from error
            ids.append(str(token.get_id()))
        return ids


OURS = ("CustomStoreSQLite", "CustomStoreInMemory", "CustomStoreList")
ALWAYS: tuple[Peer, ...] = (
    Ours("CustomStoreSQLite", "WAL, synchronous=FULL"),
    Ours("CustomStoreInMemory", "SQLite in memory", kept="memory", durable=False),
    Ours("CustomStoreList", "a list in memory", kept="memory", durable=False),
    Plain("plain", "`sqlite3`, one connection per call, SQLite's defaults: journal DELETE, synchronous=FULL"),
    File("FileStore", "the SDK's; writes the whole file anew and does not sync it", durable=False),
    Memory("sqlite3 :memory:", "the plain store's SQL, one open connection", kept="memory", durable=False),
    PythonList("Python list", "a list of tuples, scanned", kept="memory", durable=False),
)


def in_short(error: BaseException) -> str:
    """Say what went wrong, on one line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}".partition("\n")[0][:160]


def cache() -> Peer | str:
    """Return the peer over `diskcache`, or why it is left out."""
    if importlib.util.find_spec("diskcache") is None:
        return "not installed (make bench installs it)"
    return Cache("diskcache", "WAL, synchronous=FULL (its default is NORMAL); a row's keys are entries of their own")


def given(spec: str, folder: Path) -> Given:
    """Return a peer of a class that the user names as `module:Class`."""
    module, _, name = spec.partition(":")
    about = f"given as {spec}; filled by its `save_token`"
    return Given(name, about, module=module, class_name=name, folder=str(folder))
