"""The fastest durable token store that one can write in Python with `sqlite3`, as a measure for the other stores.

One connection is kept open to read and one to write, in WAL mode with `synchronous=FULL`. There is an index for each
key. Each statement is compiled once. A find is one `SELECT`, ten getters, and the setters whose values differ. A save
writes only the values that differ.

It lacks what costs time or work: the rules for which row a token names, the refresh lease, forks, replaced and damaged
files, private file modes, and the removal of deleted secrets.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

from plain import BUSY_TIMEOUT_SECONDS, FIELDS
from stores import COLUMNS, fill, merged, values
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import Any

KEYS = ("user_name", "id", "grant_token", "refresh_token", "access_token")
POSITIONS = {key: COLUMNS.index(key) for key in KEYS}
SELECT = f"SELECT {', '.join(COLUMNS)} FROM tokens"
SELECTS = {key: f"{SELECT} WHERE {key} = ?" for key in KEYS}
INSERT = f"INSERT INTO tokens ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))})"
SETTERS = [getattr(OAuthToken, f"set_{field}") for field in ("id", "user_signature", *FIELDS[1:])]
USER = COLUMNS.index("user_name")


class BestPythonStore(TokenStore):
    """The SDK's six methods on a table with ten columns and four indexes."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open the two connections, and create the table if it does not exist."""
        self.writing_lock = threading.Lock()
        self.writer, self.reader = (
            sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
            for _ in range(2)
        )
        for connection in (self.writer, self.reader):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        columns = ", ".join(f"{field} TEXT" for field in FIELDS)
        self.writer.execute(f"CREATE TABLE IF NOT EXISTS tokens (id INTEGER PRIMARY KEY, {columns})")
        for key in KEYS:
            if key != "id":
                self.writer.execute(f"CREATE INDEX IF NOT EXISTS by_{key} ON tokens ({key})")

    @staticmethod
    def _row(connection: sqlite3.Connection, new: Sequence[str | None]) -> tuple[Any, ...] | None:
        for key, position in POSITIONS.items():
            if (value := new[position]) and (row := connection.execute(SELECTS[key], (value,)).fetchone()):
                return row
        return None

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Fill the token from its row."""
        old = values(token)
        row = self._row(self.reader, old)
        if row is None:
            return None
        token.set_id(str(row[0]))
        for position in range(1, len(COLUMNS)):
            if (value := row[position]) and value != old[position]:
                SETTERS[position](token, UserSignature(value) if position == USER else value)
        return token

    def find_token_by_id(self, row_id: str) -> OAuthToken | None:
        """Return the token of a row."""
        row = self.reader.execute(SELECTS["id"], (row_id,)).fetchone()
        return fill(OAuthToken(id=row_id), (row_id, *row[1:])) if row else None

    def save_token(self, token: OAuthToken) -> None:
        """Update the token's row, or insert one."""
        new = values(token)
        with self.writing_lock:
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                row_id = self._write(new)
            except BaseException:
                self.writer.execute("ROLLBACK")
                raise
            self.writer.execute("COMMIT")
        token.set_id(str(row_id))

    def _write(self, new: list[str | None]) -> int | None:
        row = self._row(self.writer, new)
        if row is None:
            return self.writer.execute(INSERT, new[1:]).lastrowid
        whole = merged(new, row)
        changed = [position for position in range(1, len(COLUMNS)) if whole[position] != row[position]]
        if changed:
            changes = ", ".join(f"{COLUMNS[position]} = ?" for position in changed)
            arguments = [*(whole[position] for position in changed), row[0]]
            self.writer.execute(f"UPDATE tokens SET {changes} WHERE id = ?", arguments)
        return row[0]

    def delete_token(self, row_id: str) -> None:
        """Delete a row."""
        with self.writing_lock:
            self.writer.execute("DELETE FROM tokens WHERE id = ?", (row_id,))

    def get_tokens(self) -> list[OAuthToken]:
        """Return the tokens of all rows."""
        rows = self.reader.execute(f"{SELECT} ORDER BY id").fetchall()
        return [fill(OAuthToken(id="x"), (str(row[0]), *row[1:])) for row in rows]

    def delete_tokens(self) -> None:
        """Delete all rows."""
        with self.writing_lock:
            self.writer.execute("DELETE FROM tokens")

    def close(self) -> None:
        """Close both connections."""
        self.reader.close()
        self.writer.close()
