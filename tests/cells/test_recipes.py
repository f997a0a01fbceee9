"""The recipes for Django and SQLAlchemy: connections are given back, replaced, and logged without the document."""

from __future__ import annotations

import logging
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cells import places
from support import login

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="MariaDB listens on a Unix socket")


def test_django_gets_each_connection_back(place_of, monkeypatch):
    """Its `close` gives the connection to a pool. Closing the driver's connection does not."""
    places.set_up_django(place_of("django"))
    from django.db.backends.sqlite3.base import DatabaseWrapper

    calls = {"connect": 0, "close": 0}
    for name in calls:
        method = getattr(DatabaseWrapper, name)

        def counted(wrapper, *arguments, name=name, method=method):
            calls[name] += 1
            return method(wrapper, *arguments)

        monkeypatch.setattr(DatabaseWrapper, name, counted)
    store = places.open_store(place_of("django"), "pool")
    store.save_token(login())
    assert len(store) == 1
    assert calls["connect"] == calls["close"] > 0


def test_a_change_in_a_connection_of_django_is_a_transaction(place_of):
    """What is written before an error is taken back."""
    places.set_up_django(place_of("django"))
    cell = places.cell(place_of("django"), "transaction")
    assert cell.swap(b"1", cell.load()[1]) is True
    with closing(places.django_connection()) as connection:
        connection.cursor().execute("DELETE FROM zoho_token_cell")
        connection.rollback()
    assert cell.load()[0] == b"1"


def test_django_does_not_log_the_document(place_of, caplog):
    """With `DEBUG = True`, Django logs the statements of other connections, and none of the recipe."""
    places.set_up_django(place_of("django"))
    from django.db import connections
    from django.test import override_settings

    with override_settings(DEBUG=True), caplog.at_level(logging.DEBUG, "django.db.backends"):
        with closing(connections.create_connection("default")) as other:
            other.cursor().execute("SELECT 'logged'")
        places.open_store(place_of("django"), "logs").save_token(login())
    assert "logged" in caplog.text
    assert "ada@example.com" not in caplog.text


def test_a_pool_of_sqlalchemy_replaces_a_connection_that_the_server_has_closed(place_of):
    """After its idle time, or a restart. `pool_pre_ping` finds out before the cell does."""
    place = place_of("sqlalchemy")
    store = places.open_store(place, "idle")
    store.save_token(login())
    with closing(places.connect_mariadb(place_of("mariadb"))) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = 'app' AND id <> CONNECTION_ID()")
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")
    assert len(store) == 1
    page = (Path(__file__).parents[2] / "docs" / "where-to-keep-tokens.md").read_text(encoding="utf-8")
    assert 'made = sqlalchemy.create_engine("mysql+pymysql://app@db.example.com/app", pool_pre_ping=True)' in page
