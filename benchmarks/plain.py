"""A simple token store for comparison: `sqlite3`, one connection per call.

It follows the vendor's articles: one table, one row per user, and each method opens and closes the file. Unlike them it
uses SQL parameters, and one transaction for the lookup and the write of a save. SQLite has its default settings.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

FIELDS = (
    *("user_name", "client_id", "client_secret", "refresh_token", "access_token"),
    *("grant_token", "expires_in", "redirect_url", "api_domain"),
)
BUSY_TIMEOUT_SECONDS = 30


class PlainStore(TokenStore):
    """The SDK's six methods on a table with ten columns."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Create the table if it does not exist."""
        self.path = path
        with self._connection() as connection:
            columns = ", ".join(f"{field} TEXT" for field in FIELDS)
            connection.execute(f"CREATE TABLE IF NOT EXISTS tokens (id INTEGER PRIMARY KEY, {columns})")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()

    @staticmethod
    def _row(connection: sqlite3.Connection, token: OAuthToken) -> tuple[str | int | None, ...] | None:
        user = token.get_user_signature()
        keys = [
            ("user_name", user and user.get_name()),
            ("id", token.get_id()),
            ("grant_token", token.get_grant_token()),
            ("refresh_token", token.get_refresh_token()),
            ("access_token", token.get_access_token()),
        ]
        for column, value in keys:
            if value:
                query = f"SELECT id, {', '.join(FIELDS)} FROM tokens WHERE {column} = ?"
                if row := connection.execute(query, (value,)).fetchone():
                    return row
        return None

    @staticmethod
    def _fill(token: OAuthToken, row: tuple[str | int | None, ...]) -> OAuthToken:
        row_id, user, *rest = row
        token.set_id(str(row_id))
        if user:
            token.set_user_signature(UserSignature(user))
        for field, value in zip(FIELDS[1:], rest, strict=True):
            if value:
                getattr(token, f"set_{field}")(value)
        return token

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Fill the token from its row."""
        with self._connection() as connection:
            row = self._row(connection, token)
        return self._fill(token, row) if row else None

    def find_token_by_id(self, row_id: str) -> OAuthToken | None:
        """Return the token of a row."""
        with self._connection() as connection:
            row = connection.execute(f"SELECT id, {', '.join(FIELDS)} FROM tokens WHERE id = ?", (row_id,)).fetchone()
        return self._fill(OAuthToken(id=row_id), row) if row else None

    def save_token(self, token: OAuthToken) -> None:
        """Update the token's row, or insert one."""
        user = token.get_user_signature()
        values = [user and user.get_name(), *(getattr(token, f"get_{field}")() for field in FIELDS[1:])]
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if row := self._row(connection, token):
                merged = [new or old for new, old in zip(values, row[1:], strict=True)]
                changes = ", ".join(f"{field} = ?" for field in FIELDS)
                connection.execute(f"UPDATE tokens SET {changes} WHERE id = ?", (*merged, row[0]))
                row_id = row[0]
            else:
                marks = ", ".join("?" for _ in FIELDS)
                cursor = connection.execute(f"INSERT INTO tokens ({', '.join(FIELDS)}) VALUES ({marks})", values)
                row_id = cursor.lastrowid
            connection.execute("COMMIT")
        token.set_id(str(row_id))

    def delete_token(self, row_id: str) -> None:
        """Delete a row."""
        with self._connection() as connection:
            connection.execute("DELETE FROM tokens WHERE id = ?", (row_id,))

    def get_tokens(self) -> list[OAuthToken]:
        """Return the tokens of all rows."""
        with self._connection() as connection:
            rows = connection.execute(f"SELECT id, {', '.join(FIELDS)} FROM tokens ORDER BY id").fetchall()
        return [self._fill(OAuthToken(id="x"), row) for row in rows]

    def delete_tokens(self) -> None:
        """Delete all rows."""
        with self._connection() as connection:
            connection.execute("DELETE FROM tokens")
