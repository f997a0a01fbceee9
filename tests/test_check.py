"""What `check()` finds, as a program sees it. Each kind of finding has its test in Rust (`tests/rust/files.rs`)."""

import pytest
from support import PLANTED, UNPRIVILEGED, login, run_program, run_python, token
from zoho_token_store import CustomStoreSQLite, Finding
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

FAR = "9999999999999"

# In another process: to open and close the file would drop the locks of this one's store.
DUMP = "import sqlite3, sys; print([*sqlite3.connect(sys.argv[1]).iterdump()])"
ROWS = (
    "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM oauthtoken').fetchone()[0])"
)


def test_a_sound_store_has_no_findings(store):
    """Nothing is found where nothing is wrong."""
    store.save_token(login(expires_in="1"))
    assert store.check() == []


def test_a_finding_says_what_and_where_and_what_to_do(store):
    """A finding has a code, a severity, the rows, a message and a cure, and no secret."""
    store.save_token(login("ada@example.com", 1, expires_in=FAR))
    store.save_token(login("bob@example.com", 2, expires_in="1"))
    store.save_token(token("eve@example.com", access_token=f"{PLANTED}-3"))
    far, none = sorted(store.check(), key=lambda finding: finding.ids)
    assert isinstance(far, Finding)
    assert (far.code, far.severity, far.ids) == ("far-expiry", "warning", ["1"])
    assert (none.code, none.ids) == ("no-expiry", ["3"])
    for finding in (far, none):
        assert finding.message
        assert finding.cure
        assert PLANTED not in f"{finding!r}{finding.message}{finding.cure}"
        assert finding.code in repr(finding)
        with pytest.raises(AttributeError):
            finding.code = "other"


def test_damage_under_a_running_store_is_found(path):
    """A file that is damaged while a store has it open is a finding, not a failure."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in="1"))
        run_python(
            "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None).executescript("
            "\"PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, '(user_name)', '(client_id)') "
            "WHERE name = 'zoho_token_store_user_name'\")",
            path,
        )
        [finding] = store.check()
    assert (finding.code, finding.severity, finding.ids) == ("damaged", "error", [])
    assert str(path) in finding.message


def test_a_check_changes_nothing(path):
    """The rows are the same afterwards, and others can save all the while."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in=FAR))
        assert [finding.code for finding in store.check()] == ["far-expiry"]
        before = run_python(DUMP, path)
        assert [finding.code for finding in store.check()] == ["far-expiry"]
        assert run_python(DUMP, path) == before
    assert run_python(ROWS, path) == "1\n"


def test_a_file_that_nobody_can_switch_to_wal_is_found(open_folder):
    """Where the folder may not be written, there is no WAL, and finds wait for saves."""
    path = open_folder / "backup.db"
    with CustomStoreSQLite(open_folder / "live.db") as store:
        store.save_token(login(expires_in="1"))
        store.backup(path)
    path.chmod(0o644)
    open_folder.chmod(0o555)
    code = UNPRIVILEGED + "from zoho_token_store._native import check; print([f.code for f in check(sys.argv[1])])"
    try:
        assert run_program(code, path) == "['permissions', 'no-wal']\n"
    finally:
        open_folder.chmod(0o755)


def test_a_closed_store_cannot_be_checked(store):
    """A closed store says so."""
    store.close()
    with pytest.raises(SDKException) as caught:
        store.check()
    assert "check: this store" in repr(caught.value)
