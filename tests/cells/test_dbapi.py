"""A row of a database: what is cut, what is found under another name, and what a connection does."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

import pytest
from cells import places
from cells.test_shared import failure
from support import login
from zoho_token_store import CustomStoreShared
from zoho_token_store.cells import DBAPICell, DocumentTooLarge

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="MariaDB listens on a Unix socket")


@pytest.fixture
def place(place_of):
    return place_of("mariadb")


class Connection:
    """A connection of SQLite, whose methods a test replaces."""

    def __init__(self, path, **methods):
        self.inner = sqlite3.connect(path)
        vars(self).update(methods)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.fixture
def cell(tmp_path):
    """A function that makes a cell, whose connections have other methods."""

    def make(**methods):
        return DBAPICell(lambda: Connection(tmp_path / "app.db", **methods), paramstyle="qmark")

    return make


def test_a_column_that_cuts_the_document_is_an_error_and_the_old_document_stays(place):
    """MariaDB without a strict `sql_mode` takes the first 65535 bytes, and says nothing."""
    with closing(places.connect_mariadb(place)) as connection:
        columns = "name VARCHAR(100) NOT NULL PRIMARY KEY, version VARCHAR(32) NOT NULL, document TEXT NOT NULL"
        connection.cursor().execute(f"CREATE TABLE short ({columns})")
    cell = DBAPICell(lambda: places.connect_mariadb(place, sql_mode=""), table="short")
    with pytest.raises(DocumentTooLarge, match="column document of short took 65535 of 65536 bytes"):
        cell.swap(b"a" * 65536, None)
    assert cell.load() == (None, None)
    assert cell.swap(b"a" * 65535, None) is True
    before = cell.load()
    with pytest.raises(DocumentTooLarge):
        cell.swap(b"b" * 65536, before[1])
    assert cell.load() == before


@pytest.mark.parametrize("name", ["", "n" * 101, None, 5, b"name"], ids=["empty", "long", "None", "int", "bytes"])
def test_a_name_that_is_no_text_or_too_long_is_refused(name):
    """The column has 100 characters."""
    with pytest.raises(ValueError, match="name is a text of 1 to 100 characters"):
        DBAPICell(lambda: None, name=name)
    assert DBAPICell(lambda: None, name="n" * 100).name == "n" * 100


@pytest.mark.parametrize("name", ["ACME", "acme ", "acmé"])
def test_a_row_that_the_database_finds_under_another_name_is_refused(place, name):
    """MariaDB compares without case, accents and blanks at the end. These are the tokens of another tenant."""
    own, other = (places.open_store(place, each) for each in ("acme", name))
    own.save_token(login())
    for call in (other.get_tokens, other.delete_tokens, lambda: other.save_token(login("bob@example.com", 2))):
        assert "another row for the name" in str(failure(call).__cause__)
    with pytest.raises(ValueError, match="another row for the name"):
        places.cell(place, name).swap(b"", None)  # its owner has inserted it after the load
    assert len(own) == 1


def test_an_insert_that_fails_for_another_reason_is_no_conflict(cell, tmp_path):
    """Otherwise the store tries again until its time is over."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        checked = "document TEXT NOT NULL CHECK (document <> 'no')"
        connection.execute(f"CREATE TABLE zoho_token_cell (name TEXT PRIMARY KEY, version TEXT NOT NULL, {checked})")
    one = cell()
    with pytest.raises(sqlite3.IntegrityError):
        one.swap(b"no", None)
    assert one.swap(b"yes", None) is True
    assert one.swap(b"other", None) is False
    with pytest.raises(sqlite3.IntegrityError):
        one.swap(b"no", one.load()[1])


def test_the_first_error_is_raised_if_the_rollback_fails_too(cell):
    """The second one says only that the connection is closed."""

    def fail(error):
        def method(*_arguments):
            raise error

        return method

    lost = {"cursor": fail(ConnectionError("the first")), "rollback": fail(ValueError), "close": fail(ValueError)}
    for call in (cell(**lost).load, lambda: cell(**lost).swap(b"", None), lambda: cell(**lost).swap(b"", "1")):
        with pytest.raises(ConnectionError, match="the first"):
            call()
    del lost["cursor"]
    with pytest.raises(ConnectionError, match="the first"):
        cell(**lost, commit=fail(ConnectionError("the first"))).swap(b"", cell().load()[1])


def test_each_connection_is_closed_and_a_failed_change_is_rolled_back(cell):
    """Also if the caller is interrupted."""
    calls = []

    def interrupted():
        raise KeyboardInterrupt

    methods = {method: lambda method=method: calls.append(method) for method in ("rollback", "close")}
    with pytest.raises(KeyboardInterrupt):
        cell(**methods, cursor=interrupted).load()
    assert calls == ["rollback", "close"]


def test_rows_that_are_dicts_are_refused(place):
    """The connection was made for another use."""
    from pymysql.cursors import DictCursor

    dicts = DBAPICell(lambda: places.connect_mariadb(place, cursorclass=DictCursor), name="dicts")
    assert dicts.load() == (None, None)
    assert places.cell(place, "dicts").swap(b"1", None) is True
    with pytest.raises(TypeError, match="plain cursor, without DictCursor"):
        dicts.load()


def test_rows_that_can_be_indexed_are_taken(tmp_path):
    """`sqlite3.Row` is no tuple."""

    def connect():
        connection = sqlite3.connect(tmp_path / "app.db")
        connection.row_factory = sqlite3.Row
        return connection

    store = CustomStoreShared(DBAPICell(connect))
    store.save_token(login())
    assert len(store) == 1
