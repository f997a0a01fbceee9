"""A file on a file system that other machines may use: the store warns, and works without WAL (contract 9)."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing

import pytest
from faults import injection
from own_process import run_in_fork
from support import login, token
from zoho_token_store import CustomStoreSQLite

NFS = 0x6969

pytestmark = pytest.mark.usefixtures("preload")


def journal_mode(path):
    with closing(sqlite3.connect(path)) as connection:
        [(mode,)] = connection.execute("PRAGMA journal_mode").fetchall()
    return mode


class Warnings(logging.Handler):
    """Keeps the messages of all warnings."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def use_on(file_system, path):
    """Save two users, each with a new store. Return the warnings, whether each store used a WAL, and the row count."""
    warnings = Warnings()
    logging.getLogger("zoho_token_store").addHandler(warnings)
    injection.report_file_system(file_system)
    has_wal = []
    for user in ("ada@example.com", "bob@example.com"):
        with CustomStoreSQLite(path) as store:
            store.save_token(login(user, len(user)))
            assert store.find_token(token(user)).get_user_signature().get_name() == user
            has_wal.append(path.with_name(f"{path.name}-wal").exists())
    return warnings.messages, has_wal, len(CustomStoreSQLite(path).get_tokens())


@pytest.mark.parametrize(("number", "name"), [(NFS, "NFS"), (0xFF534D42, "CIFS"), (0x65735546, "FUSE")])
def test_a_file_on_a_network_causes_one_warning_and_has_no_wal(path, number, name):
    """Contract 9: WAL needs shared memory, which two machines do not have. The store uses a rollback journal."""
    CustomStoreSQLite(path).close()
    assert journal_mode(path) == "wal"
    [warning], has_wal, rows = run_in_fork(use_on, number, path)
    assert warning.startswith(f"{path} is on a file system that several machines may use ({name})")
    assert (has_wal, rows) == ([False, False], 2)
    assert journal_mode(path) == "delete"


def test_a_file_on_a_network_keeps_wal_while_another_process_uses_it(path):
    """Contract 7: the other process would not notice a change of the journal mode."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("eve@example.com", 3))
        _, has_wal, rows = run_in_fork(use_on, NFS, path)
        assert (has_wal, rows) == ([True, True], 3)
        assert len(store.get_tokens()) == 3
    assert journal_mode(path) == "wal"


def test_a_file_on_a_local_disk_causes_no_warning(path):
    """The common local file systems: ext4, tmpfs and overlay."""
    for number in (0xEF53, 0x01021994, 0x794C7630):
        warnings, has_wal, rows = run_in_fork(use_on, number, path.with_name(f"{number}.db"))
        assert (warnings, has_wal, rows) == ([], [True, True], 2)
