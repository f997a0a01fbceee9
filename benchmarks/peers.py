"""The stores that are compared: how to open each in a folder, how to fill it quickly, and its limitations."""

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
from best import BestPythonStore
from plain import FIELDS, PlainStore
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore, TokenStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

T = TypeVar("T")

MIN_CHUNK_ROWS = 1_000  # rows in one transaction; a twentieth of all rows if that is more
# The time limit for filling a store is `FILL_ROW_SECONDS` per row, but at least `MIN_FILL_SECONDS` and at most
# `MAX_FILL_SECONDS`. A slower store is left out.
FILL_ROW_SECONDS, MIN_FILL_SECONDS, MAX_FILL_SECONDS = 0.0008, 10.0, 360.0
MAX_SAVED_ROWS = 1_000  # for a store that can only be filled with `save_token`


def numbered(rows: int) -> Iterable[tuple[str, ...]]:
    """Return rows with their ids as the first column."""
    return ((str(number + 1), *tokens.row(number)) for number in range(rows))


def chunks(items: Iterable[T], rows: int) -> Iterator[list[T]]:
    """Divide the rows for a store into chunks.

    Raises:
        TimeoutError: The store takes too long.
    """
    deadline = time.monotonic() + max(MIN_FILL_SECONDS, min(FILL_ROW_SECONDS * rows, MAX_FILL_SECONDS))
    remaining = iter(items)
    filled = 0
    while chunk := list(itertools.islice(remaining, max(MIN_CHUNK_ROWS, rows // 20))):
        yield chunk
        filled += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError(f"filling it takes too long: only {filled} of {rows} rows within the time limit")


@dataclasses.dataclass(frozen=True)
class Peer:
    """A store that is compared. It can be pickled for another process, which opens the store itself."""

    name: str = ""
    about: str = ""
    kept: str = "file"  # or "memory", or "server"
    durable: bool = True  # whether a row is on the disk when `save_token` returns
    most: int = 10**5  # maximum number of rows

    @property
    def is_copied(self) -> bool:
        """Return whether its folder can be filled once and then be copied."""
        return self.kept == "file"

    def open(self, home: Path) -> TokenStore:
        """Open the store with the files in this folder."""
        raise NotImplementedError

    def fill(self, store: TokenStore, home: Path, rows: int) -> list[str] | None:
        """Add rows in the fastest possible way. Return their ids, or `None` if they are 1, 2, 3 and so on."""
        raise NotImplementedError

    def close(self, store: TokenStore) -> None:
        """Close the store if it has a method for that."""
        getattr(store, "close", lambda: None)()


@dataclasses.dataclass(frozen=True)
class Ours(Peer):
    """One of our three classes."""

    most: int = 10**6

    def open(self, home: Path) -> TokenStore:
        """Open a store of the class with this name."""
        store_class: type = getattr(zoho_token_store, self.name)
        return store_class(home / "tokens.db") if self.kept == "file" else store_class()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Import tokens."""
        for chunk in chunks(map(tokens.login, range(rows)), rows):
            store.import_tokens(chunk)


class Plain(Peer):
    """`plain.PlainStore`."""

    def open(self, home: Path) -> TokenStore:
        """Open the file."""
        return PlainStore(home / "plain.db")

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert the rows in one transaction."""
        connection = sqlite3.connect(home / "plain.db")
        with connection:
            insert(connection, rows)
        connection.close()


class BestPython(Peer):
    """`best.BestPythonStore`."""

    def open(self, home: Path) -> TokenStore:
        """Open the file."""
        return BestPythonStore(home / "best.db")

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert the rows in one transaction."""
        store.writer.execute("BEGIN")
        insert(store.writer, rows)
        store.writer.execute("COMMIT")


class Memory(Peer):
    """`stores.MemoryStore`."""

    def open(self, home: Path) -> TokenStore:  # noqa: ARG002
        """Open an empty store."""
        return stores.MemoryStore()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert the rows."""
        insert(store.connection, rows)


def insert(connection: sqlite3.Connection, rows: int) -> None:
    """Insert rows into the plain store's table."""
    marks = ", ".join("?" for _ in range(len(FIELDS) + 1))
    connection.executemany(f"INSERT INTO tokens (id, {', '.join(FIELDS)}) VALUES ({marks})", numbered(rows))


class PythonList(Peer):
    """`stores.ListStore`."""

    def open(self, home: Path) -> TokenStore:  # noqa: ARG002
        """Open an empty store."""
        return stores.ListStore()

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Replace the store's list."""
        store.rows = list(numbered(rows))
        store.last_id = rows


class File(Peer):
    """The SDK's `FileStore`."""

    def open(self, home: Path) -> TokenStore:
        """Open the file."""
        return FileStore(str(home / "sdk_tokens.txt"))

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Append the rows to the CSV file, after its header."""
        with (home / "sdk_tokens.txt").open("a", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_MINIMAL).writerows(numbered(rows))


class Cache(Peer):
    """`stores.CacheStore`."""

    def open(self, home: Path) -> TokenStore:
        """Open the cache in the folder."""
        return stores.CacheStore(home / "cache")

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Put the rows in large transactions."""
        for chunk in chunks(numbered(rows), rows):
            with store.cache.transact():
                for row in chunk:
                    store.put(row)
        store.cache["last id"] = rows


@dataclasses.dataclass(frozen=True)
class Given(Peer):
    """A class from `--peer`. Its constructor takes a path, or no argument."""

    most: int = MAX_SAVED_ROWS
    module: str = ""
    class_name: str = ""
    folder: str = ""

    @property
    def is_copied(self) -> bool:
        """Return `False`: the location of its rows is unknown."""
        return False

    def open(self, home: Path) -> TokenStore:
        """Call `Class(path)`. If it takes no path, call `Class()` in the folder, for a file with a fixed name."""
        if self.folder not in sys.path:
            sys.path.insert(0, self.folder)
        store_class = getattr(importlib.import_module(self.module), self.class_name)
        os.chdir(home)
        try:
            return store_class(str(home / "zohooauth.db"))
        except TypeError:
            return store_class()

    def fill(self, store: TokenStore, home: Path, rows: int) -> list[str]:
        """Save the rows one by one."""
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
    BestPython("best Python", "`sqlite3`, connections kept open, an index for each key, WAL, synchronous=FULL"),
    Plain("plain", "`sqlite3`, one connection per call, SQLite's defaults: journal DELETE, synchronous=FULL"),
    File("FileStore", "the SDK's; rewrites the whole file at each save and does not sync it", durable=False),
    Memory("sqlite3 :memory:", "the plain store's SQL, one open connection", kept="memory", durable=False),
    PythonList("Python list", "a list of tuples, scanned", kept="memory", durable=False),
)


def in_short(error: BaseException) -> str:
    """Describe an error on one line."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}".partition("\n")[0][:160]


def cache() -> Peer | str:
    """Return the peer with `diskcache`, or the reason why it is left out."""
    if importlib.util.find_spec("diskcache") is None:
        return "not installed (make bench installs it)"
    return Cache("diskcache", "WAL, synchronous=FULL (its default is NORMAL); each key of a row is an entry")


def given(spec: str, folder: Path) -> Given:
    """Return the peer for a class that the user names as `module:Class`."""
    module, _, name = spec.partition(":")
    about = f"from --peer {spec}; filled with its `save_token`"
    return Given(name, about, module=module, class_name=name, folder=str(folder))
