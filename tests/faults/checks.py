"""Checks that several tests of faults share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def users_in(path: Path) -> list[str]:
    """Check that Python's SQLite finds the file intact. Return the users of its rows, sorted."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
        # The file may have been renamed before a store has made its table.
        has_table = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'oauthtoken'").fetchone()
        users = sorted(user for (user,) in connection.execute("SELECT user_name FROM oauthtoken")) if has_table else []
    assert len(users) == len(set(users)), f"{path}: {users}"
    return users


def assert_users(path: Path, expected: Iterable[str]) -> None:
    """Check that the file is intact, and that it has one row for each of these users and no other row."""
    users, expected = set(users_in(path)), set(expected)
    assert sorted(expected - users) == [], "acknowledged saves are lost"
    assert sorted(users - expected) == [], "rows without an acknowledged save"
