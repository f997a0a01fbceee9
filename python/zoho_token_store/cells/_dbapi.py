"""A cell that is a row of a database."""

from __future__ import annotations

import re
import sys
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLACEHOLDERS = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric": ":{0}", "named": ":v{0}"}
# A type for long text: MySQL and MariaDB (their TEXT has 64 KB) and SQLite; PostgreSQL and SQL Server; Oracle.
_TEXT_TYPES = ("LONGTEXT", "TEXT", "CLOB")


class DBAPICell:
    """A document in one row of a table, through any connection of Python's DB-API 2.0.

    It cannot warn about a file of SQLite that other users can read, because it does not know which file that is.

    Example:
        >>> cell = DBAPICell(lambda: sqlite3.connect("app.db"))
        >>> cell.load()
        (None, None)
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        table: str = "zoho_token_cell",
        name: str = "default",
        paramstyle: str | None = None,
    ) -> None:
        """Say how to connect. Nothing is connected yet.

        Args:
            connect: A function that returns a connection outside of any transaction. The cell commits on it, and
                closes it.
            table: The table, which may have a schema: letters, digits, `_` and `.`. It is made if it is missing.
            name: The name of the row. Each store has a row of its own.
            paramstyle: The placeholders of the driver. `None`: the driver's module says it.
        """
        if not re.fullmatch(r"\w+(\.\w+)*", table):
            raise ValueError("table is a name of letters, digits and _")
        self.connect, self.table, self.name, self.paramstyle = connect, table, name, paramstyle

    def load(self) -> tuple[bytes | None, str | None]:
        """Select the row. The version is a column with a random text."""
        with closing(self.connect()) as connection:
            select = f"SELECT document, version FROM {self.table} WHERE name = ?"  # noqa: S608 - the name was checked
            try:
                row = self._execute(connection, select, self.name).fetchone()
            except Exception:  # noqa: BLE001 - each driver has its own; if the table is there, the second one is raised
                connection.rollback()
                self._create(connection)
                row = self._execute(connection, select, self.name).fetchone()
            connection.rollback()
        return (None, None) if row is None else (_bytes(row[0]), row[1])

    def swap(self, document: bytes, version: str | None) -> bool:
        """Update the row if it has this version, or insert the first one."""
        values = (document.decode("ascii"), uuid.uuid4().hex, self.name)
        with closing(self.connect()) as connection:
            try:
                if version is None:
                    insert = f"INSERT INTO {self.table} (document, version, name) VALUES (?, ?, ?)"  # noqa: S608
                    count = self._execute(connection, insert, *values).rowcount
                else:
                    change = f"UPDATE {self.table} SET document = ?, version = ?"  # noqa: S608
                    update = f"{change} WHERE name = ? AND version = ?"
                    count = self._execute(connection, update, *values, version).rowcount
            except Exception as error:
                connection.rollback()
                if version is None and any(kind.__name__ == "IntegrityError" for kind in type(error).__mro__):
                    return False  # another program has inserted the row
                raise
            connection.commit()
        return bool(count == 1)

    def _execute(self, connection: Any, statement: str, *values: object) -> Any:
        style = self.paramstyle or _paramstyle(connection)
        parts = statement.split("?")
        marks = [_PLACEHOLDERS[style].format(number) for number in range(1, len(parts))]
        statement = "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))
        cursor = connection.cursor()
        cursor.execute(statement, {f"v{n}": value for n, value in enumerate(values, 1)} if style == "named" else values)
        return cursor

    def _create(self, connection: Any) -> None:
        for text in _TEXT_TYPES:
            columns = f"name VARCHAR(100) NOT NULL PRIMARY KEY, version VARCHAR(32) NOT NULL, document {text} NOT NULL"
            try:
                self._execute(connection, f"CREATE TABLE {self.table} ({columns})")
                connection.commit()
            except Exception:  # noqa: BLE001 - another type is tried, or the next statement says what is wrong
                connection.rollback()
            else:
                return


def _paramstyle(connection: Any) -> str:
    """Return the `paramstyle` of the driver's module. SQLAlchemy's connection has the driver's in an attribute."""
    parts = type(getattr(connection, "driver_connection", connection)).__module__.split(".")
    modules = (sys.modules.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    for module in modules:
        if style := getattr(module, "paramstyle", None):
            return str(style)
    raise ValueError("the driver does not say how it writes placeholders: give paramstyle")


def _bytes(document: Any) -> bytes:
    text = document.read() if hasattr(document, "read") else document
    return text.encode("ascii") if isinstance(text, str) else bytes(text)
