"""Simple stores for comparison: a list, `sqlite3` in memory, and `diskcache`.

`peers.py` describes their limitations. The plain `sqlite3` store is in `plain.py`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

from plain import FIELDS, PlainStore
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KEYS = ("user_name", "id", "grant_token", "refresh_token", "access_token")
COLUMNS = ("id", *FIELDS)


def values(token: OAuthToken) -> list[str | None]:
    """Return the values of a token in the order of `COLUMNS`."""
    user = token.get_user_signature()
    return [token.get_id(), user and user.get_name(), *(getattr(token, f"get_{field}")() for field in FIELDS[1:])]


def fill(token: OAuthToken, row: Sequence[str | None]) -> OAuthToken:
    """Set the values of a row on the token."""
    token.set_id(row[0])
    token.set_user_signature(UserSignature(row[1]))
    token.set_client_id(row[2])
    token.set_client_secret(row[3])
    token.set_refresh_token(row[4])
    token.set_access_token(row[5])
    token.set_grant_token(row[6])
    token.set_expires_in(row[7])
    token.set_redirect_url(row[8])
    token.set_api_domain(row[9])
    return token


def merged(new: Sequence[str | None], old: Sequence[str | None]) -> list[str | None]:
    """Return the new values, and the old ones where there is no new value."""
    return [value or previous for value, previous in zip(new, old, strict=True)]


class ListStore(TokenStore):
    """The SDK's six methods on a list of tuples."""

    def __init__(self) -> None:
        """Start without rows."""
        self.rows: list[tuple[str | None, ...]] = []
        self.last_id = 0

    def _index(self, token: OAuthToken) -> int | None:
        user = token.get_user_signature()
        for column, value in (
            (1, user and user.get_name()),
            (0, token.get_id()),
            (6, token.get_grant_token()),
            (4, token.get_refresh_token()),
            (5, token.get_access_token()),
        ):
            if value:
                for index, row in enumerate(self.rows):
                    if row[column] == value:
                        return index
        return None

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Fill the token from its row."""
        index = self._index(token)
        return None if index is None else fill(token, self.rows[index])

    def find_token_by_id(self, row_id: str) -> OAuthToken | None:
        """Return the token of a row."""
        for row in self.rows:
            if row[0] == row_id:
                return fill(OAuthToken(id=row_id), row)
        return None

    def save_token(self, token: OAuthToken) -> None:
        """Update the token's row, or append one."""
        index = self._index(token)
        if index is None:
            self.last_id += 1
            token.set_id(str(self.last_id))
            self.rows.append(tuple(values(token)))
        else:
            token.set_id(self.rows[index][0])
            self.rows[index] = tuple(merged(values(token), self.rows[index]))

    def delete_token(self, row_id: str) -> None:
        """Delete a row."""
        self.rows = [row for row in self.rows if row[0] != row_id]

    def get_tokens(self) -> list[OAuthToken]:
        """Return the tokens of all rows."""
        return [fill(OAuthToken(id="x"), row) for row in self.rows]

    def delete_tokens(self) -> None:
        """Delete all rows."""
        self.rows.clear()


class MemoryStore(PlainStore):
    """The plain store's SQL on one open connection to `:memory:`."""

    def __init__(self) -> None:
        """Create the table."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        super().__init__(":memory:")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        yield self.connection

    def close(self) -> None:
        """Close the connection, which frees the memory."""
        self.connection.close()


class CacheStore(TokenStore):
    """The SDK's six methods on `diskcache`: one entry per row, and one entry per key of a row."""

    def __init__(self, folder: Path) -> None:
        """Open the cache with `synchronous=FULL`, so that saves are durable. The default is NORMAL."""
        import diskcache

        self.cache: Any = diskcache.Cache(str(folder), eviction_policy="none", sqlite_synchronous=2)

    @staticmethod
    def _keys(row: Sequence[str | None]) -> list[str]:
        by_name = dict(zip(COLUMNS, row, strict=True))
        return [f"{key} {by_name[key]}" for key in KEYS if by_name[key] and key != "id"]

    def _row(self, new: Sequence[str | None]) -> list[str | None] | None:
        for key in self._keys(new):
            if row_id := self.cache.get(key):
                return self.cache.get(f"id {row_id}")
        return self.cache.get(f"id {new[0]}") if new[0] else None

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Fill the token from its row."""
        row = self._row(values(token))
        return fill(token, row) if row else None

    def find_token_by_id(self, row_id: str) -> OAuthToken | None:
        """Return the token of a row."""
        row = self.cache.get(f"id {row_id}")
        return fill(OAuthToken(id=row_id), row) if row else None

    def save_token(self, token: OAuthToken) -> None:
        """Update the token's row, or add one."""
        with self.cache.transact():
            new = values(token)
            old = self._row(new)
            row = merged(new, old) if old else new
            row[0] = old[0] if old else str(self.cache.incr("last id"))
            self.put(row, old)
        token.set_id(row[0])

    def put(self, row: Sequence[str | None], old: Sequence[str | None] | None = None) -> None:
        """Write a row and its keys."""
        before, after = set(self._keys(old) if old else ()), set(self._keys(row))
        for key in before - after:
            del self.cache[key]
        for key in after - before:
            self.cache[key] = row[0]
        self.cache[f"id {row[0]}"] = list(row)

    def delete_token(self, row_id: str) -> None:
        """Delete a row."""
        with self.cache.transact():
            if row := self.cache.pop(f"id {row_id}"):
                for key in self._keys(row):
                    del self.cache[key]

    def get_tokens(self) -> list[OAuthToken]:
        """Return the tokens of all rows."""
        rows = (self.cache.get(f"id {number}") for number in range(1, self.cache.get("last id", 0) + 1))
        return [fill(OAuthToken(id="x"), row) for row in rows if row]

    def delete_tokens(self) -> None:
        """Delete all rows."""
        self.cache.clear()

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()
