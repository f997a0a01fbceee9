"""A cell that is a row of a database."""

from __future__ import annotations

import re
import sys
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ._cell import DocumentTooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_NAME = 100
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
            connect: A function that returns a connection outside of any transaction, whose rows are tuples. The cell
                commits on it, and closes it.
            table: The table, which may have a schema: letters, digits, `_` and `.`. It is made if it is missing. The
                cell does not quote it. So it begins with a letter, and is no keyword of SQL such as `order`.
            name: The name of the row, which has 1 to 100 characters. Each store has a row of its own.
            paramstyle: The placeholders of the driver. `None`: the driver's module says it.
        """
        if not re.fullmatch(r"\w+(\.\w+)*", table):
            raise ValueError("table is a name of letters, digits and _")
        if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME:
            raise ValueError(f"name is a text of 1 to {_LONGEST_NAME} characters")
        self.connect, self.table, self.name, self.paramstyle = connect, table, name, paramstyle

    def load(self) -> tuple[bytes | None, str | None]:
        """Select the row. The version is a column with a random text."""
        with _connected(self.connect) as connection:
            try:
                loaded = self._select(connection)
            except Exception as error:  # noqa: BLE001 - each driver has its own
                _create(self.table, connection)
                try:
                    loaded = self._select(connection)
                except Exception:  # noqa: BLE001 - the first one says what is wrong
                    raise error from None
            connection.rollback()
        return loaded

    def swap(self, document: bytes, version: str | None) -> bool:
        """Update the row if it has this version, or insert the first one. Commit if the whole document is there."""
        mark = uuid.uuid4().hex
        values = [document.decode("ascii"), mark, self.name]
        if version is None:
            statement = f"INSERT INTO {self.table} (document, version, name) VALUES (?, ?, ?)"  # noqa: S608
        else:
            statement = f"UPDATE {self.table} SET document = ?, version = ? WHERE name = ? AND version = ?"  # noqa: S608
            values.append(version)
        with _connected(self.connect) as connection:
            try:
                count = self._execute(connection, statement, *values).rowcount
            except Exception as error:
                if all(kind.__name__ != "IntegrityError" for kind in type(error).__mro__):
                    raise
                connection.rollback()
                if self._select(connection)[1] == version:
                    raise
                return False  # another program has inserted the row
            stored, found = self._select(connection) if count == 1 else (None, None)
            if found == mark and stored != document:
                took, size = len(stored or b""), len(document)
                raise DocumentTooLarge(f"the column document of {self.table} took {took} of {size} bytes")
            connection.commit()
        return bool(count == 1)

    def _select(self, connection: Any) -> tuple[bytes | None, str | None]:
        select = f"SELECT document, version, name FROM {self.table} WHERE name = ?"  # noqa: S608 - it was checked
        return _values(self._execute(connection, select, self.name).fetchone(), self.name)

    def _execute(self, connection: Any, statement: str, *values: object) -> Any:
        style = self.paramstyle or _paramstyle(connection)
        parts = statement.split("?")
        marks = [_PLACEHOLDERS[style].format(number) for number in range(1, len(parts))]
        statement = "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))
        cursor = connection.cursor()
        cursor.execute(statement, {f"v{n}": value for n, value in enumerate(values, 1)} if style == "named" else values)
        return cursor


@contextmanager
def _connected(connect: Callable[[], Any]) -> Iterator[Any]:
    """Close the connection in the end. After an error, roll back first. The caller gets the first error."""
    connection = connect()
    try:
        yield connection
    except BaseException:
        for end in (connection.rollback, connection.close):
            with suppress(Exception):
                end()
        raise
    connection.close()


def _create(table: str, connection: Any) -> None:
    """Make the table, if it is missing and the user may. If not, the next statement says what is wrong."""
    for text in _TEXT_TYPES:
        columns = f"name VARCHAR(100) NOT NULL PRIMARY KEY, version VARCHAR(32) NOT NULL, document {text} NOT NULL"
        with suppress(Exception):  # another type is tried
            connection.rollback()
            connection.cursor().execute(f"CREATE TABLE {table} ({columns})")
            connection.commit()
            return
    with suppress(Exception):
        connection.rollback()


def _values(row: Any, own_name: str) -> tuple[bytes | None, str | None]:
    """Return the document and the version of a row. Some databases find a name without case, accents or blanks."""
    if row is None:
        return None, None
    try:
        document, version, name = row[0], row[1], row[2]
    except (KeyError, TypeError):
        raise TypeError("a row is no tuple: connect with a plain cursor, without DictCursor or dict_row") from None
    if _bytes(name) != own_name.encode():
        raise ValueError(f"the database takes another row for the name {own_name!r}: give a name that differs in more")
    return _bytes(document), version


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
    return text.encode() if isinstance(text, str) else bytes(text)
