"""`check()` and its findings, seen from Python. Each kind of finding has its test in `tests/rust/check.rs`."""

from __future__ import annotations

import sqlite3

import pytest
from own_process import drop_privileges, run_in_fork
from support import PLANTED, login
from zoho_token_store import CustomStoreSQLite, Finding
from zoho_token_store._native import check

FAR = "9999999999999"


@pytest.fixture
def store(path):
    """A store on a file. `tests/rust/contract.rs` checks the rows of every backend."""
    with CustomStoreSQLite(path) as made:
        yield made


def test_a_sound_store_has_no_findings(store):
    """A check finds nothing in a file and rows that are sound."""
    store.save_token(login(expires_in="1"))
    assert store.check() == []


def test_a_finding_has_a_code_a_severity_ids_a_message_and_a_hint(store):
    """A finding cannot be changed, and contains no secret."""
    store.save_token(login("ada@example.com", 1, expires_in=FAR))
    store.save_token(login("bob@example.com", 2, expires_in="1"))
    store.save_token(login("eve@example.com", 3, expires_in=None))
    far, none = sorted(store.check(), key=lambda finding: finding.ids)
    assert isinstance(far, Finding)
    assert (far.code, far.severity, far.ids) == ("far-expiry", "warning", ["1"])
    assert (none.code, none.ids) == ("no-expiry", ["3"])
    for finding in (far, none):
        assert finding.message
        assert finding.hint
        assert PLANTED not in f"{finding!r}{finding.message}{finding.hint}"
        assert finding.code in repr(finding)
        with pytest.raises(AttributeError):
            finding.code = "other"


def damage_the_schema(path):
    sqlite3.connect(path, isolation_level=None).executescript(
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, '(user_name)', '(client_id)') "
        "WHERE name = 'zoho_token_store_user_name'"
    )


def test_damage_to_an_open_file_is_a_finding(path):
    """If a file is damaged while a store has it open, `check()` returns a finding and does not raise."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in="1"))
        run_in_fork(damage_the_schema, path)
        [finding] = store.check()
    assert (finding.code, finding.severity, finding.ids) == ("damaged", "error", [])
    assert str(path) in finding.message


def dump(path):
    return [*sqlite3.connect(path).iterdump()]


def test_a_check_changes_nothing(path):
    """Two checks in a row have the same findings, and the rows stay as they are."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in=FAR))
        assert [finding.code for finding in store.check()] == ["far-expiry"]
        # In another process: if this one opened and closed the file, it would drop the store's POSIX locks.
        before = run_in_fork(dump, path)
        assert [finding.code for finding in store.check()] == ["far-expiry"]
        assert run_in_fork(dump, path) == before
    assert sum("INSERT INTO" in statement and "oauthtoken" in statement for statement in before) == 1


def codes_without_privileges(path):
    drop_privileges()
    return [finding.code for finding in check(path)]


def test_a_file_in_a_read_only_folder_has_no_wal(tmp_path):
    """In a read-only folder SQLite cannot use WAL. That is a finding, because a find has to wait for a save."""
    path = tmp_path / "backup.db"
    with CustomStoreSQLite(tmp_path / "live.db") as store:
        store.save_token(login(expires_in="1"))
        store.backup(path)
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        assert run_in_fork(codes_without_privileges, path) == ["permissions", "no-wal"]
    finally:
        tmp_path.chmod(0o755)
