"""A simple token store for comparison: psycopg 3 on PostgreSQL.

It is what a good Python programmer would write first: one table, an index for each key, one statement for a find and
one transaction for a save. Up to `CONNECTIONS` connections are kept open, or each call opens one.

It lacks what costs time or work: the rules for which row a token names, the refresh lease, a second attempt after the
loss of a connection, a limit on the time of a call, and forks. Two first saves of one user at the same time make two
rows. Psycopg prepares the statements that are used often, which a pooler may not allow.
"""

from __future__ import annotations

import contextlib
import queue
from typing import TYPE_CHECKING, Any

import psycopg
from plain import FIELDS
from stores import COLUMNS, KEYS, fill, values
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECTIONS = 4  # as many as `CustomStorePostgreSQL` keeps
SELECT = f"SELECT id::text, {', '.join(FIELDS)} FROM tokens"
INSERT = f"INSERT INTO tokens ({', '.join(FIELDS)}) VALUES ({', '.join(['%s'] * len(FIELDS))}) RETURNING id::text"
UPDATE = f"UPDATE tokens SET {', '.join(f'{field} = coalesce(%s, {field})' for field in FIELDS)} WHERE id = %s"
POSITIONS = {key: COLUMNS.index(key) for key in KEYS}


def lookup(new: Sequence[str | None]) -> tuple[str, list[str | None]]:
    """Return a statement that finds a token's row by its first key that has one, and its parameters."""
    present = {key: new[position] for key, position in POSITIONS.items() if new[position]}
    if not present:
        return f"{SELECT} WHERE false", []
    condition = " OR ".join(f"{key} = %s" for key in present)
    parameters = list(present.values())
    if len(present) == 1:
        return f"{SELECT} WHERE {condition}", parameters
    order = ", ".join(f"({key} = %s) IS TRUE DESC" for key in present)
    return f"{SELECT} WHERE {condition} ORDER BY {order} LIMIT 1", parameters * 2


class PsycopgStore(TokenStore):
    """The SDK's six methods on a table with ten columns and four indexes."""

    def __init__(self, dsn: str, schema: str, *, is_kept: bool) -> None:
        """Create the table if it does not exist. `is_kept`: keep connections open between calls."""
        self.dsn, self.schema, self.is_kept = dsn, schema, is_kept
        # The connection that was used last is used first. `None` is one that was not opened yet.
        self.idle: queue.LifoQueue[psycopg.Connection[Any] | None] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self.idle.put(None)
        with self._connection() as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            columns = ", ".join(f"{field} text" for field in FIELDS)
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS tokens (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns})"
            )
            for key in KEYS:
                if key != "id":
                    connection.execute(f"CREATE INDEX IF NOT EXISTS by_{key} ON tokens ({key})")

    def _open(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True, options=f"-c search_path={self.schema}")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        if not self.is_kept:
            with contextlib.closing(self._open()) as connection:
                yield connection
            return
        kept = self.idle.get()
        try:
            kept = kept or self._open()
            yield kept
        finally:
            self.idle.put(kept)

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Fill the token from its row."""
        statement, parameters = lookup(values(token))
        with self._connection() as connection:
            row = connection.execute(statement, parameters).fetchone()
        return fill(token, row) if row else None

    def find_token_by_id(self, row_id: str) -> OAuthToken | None:
        """Return the token of a row."""
        with self._connection() as connection:
            row = connection.execute(f"{SELECT} WHERE id = %s", (row_id,)).fetchone()
        return fill(OAuthToken(id=row_id), row) if row else None

    def save_token(self, token: OAuthToken) -> None:
        """Update the token's row, or insert one."""
        new = values(token)
        statement, parameters = lookup(new)
        with self._connection() as connection, connection.transaction():
            row = connection.execute(f"{statement} FOR UPDATE", parameters).fetchone()
            if row:
                connection.execute(UPDATE, (*new[1:], row[0]))
            else:
                row = connection.execute(INSERT, new[1:]).fetchone()
        token.set_id(row[0])

    def delete_token(self, row_id: str) -> None:
        """Delete a row."""
        with self._connection() as connection:
            connection.execute("DELETE FROM tokens WHERE id = %s", (row_id,))

    def get_tokens(self) -> list[OAuthToken]:
        """Return the tokens of all rows."""
        with self._connection() as connection:
            rows = connection.execute(f"{SELECT} ORDER BY tokens.id").fetchall()
        return [fill(OAuthToken(id="x"), row) for row in rows]

    def delete_tokens(self) -> None:
        """Delete all rows."""
        with self._connection() as connection:
            connection.execute("DELETE FROM tokens")

    def close(self) -> None:
        """Close the connections that are kept."""
        while not self.idle.empty():
            if connection := self.idle.get_nowait():
                connection.close()
