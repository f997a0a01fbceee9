"""The refresh lease in one process: log lines, counters, and errors of the lease itself (`docs/lease.md`).

`test_lease_trouble.py` has the difficult cases. `sdk/test_lease.py` has several processes and the other SDKs.
"""

from __future__ import annotations

import os
import sqlite3

import pytest
from lease_program import LONGER_THAN_ANY_TEST, Program, lease_keys, start_thread, wait_until
from own_process import drop_privileges, in_own_process, run_in_new_interpreter
from support import token
from zoho_token_store import CustomStoreList, CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


@in_own_process
def test_each_lease_event_is_logged_without_a_secret(path):
    """The logger `zoho_token_store` reports who acquires a lease, who waits for it and who releases it."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    refresh = program.begin_refresh()
    program.get_token("refresh token")
    refresh.join(20)
    lines = [line.replace(str(os.getpid()), "PID") for line in program.log]
    [waited] = [line for line in lines if "waited" in line]
    assert waited.startswith("INFO FILE: waited 0.")
    assert waited.endswith(" s for the refresh of another requester")
    lines.remove(waited)
    assert sorted(lines) == [
        'DEBUG FILE: process PID refreshes the id "1": waiting',
        'DEBUG FILE: released the lease to refresh the id "1" with the new token',
        'INFO FILE: acquired the lease to refresh the id "1", for 10 s',
    ]
    secrets = [value for name, value in program.credentials.items() if name != "client_id"]
    assert not any(secret in line for secret in secrets for line in lines)
    assert repr(store.lease_info()).startswith("LeaseInfo(taken=1, waited=1, gave_up=0, longest_wait=0.")


@pytest.mark.parametrize("by", ["id", "refresh token"])
@in_own_process
def test_a_failed_refresh_releases_its_lease_and_logs_it(path, by):
    """Rule 11: once `get_token` has raised, the lease is released without another call of the store."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    error = program.fail_to_refresh(by)
    assert getattr(error, "code", None) != "TOKEN_STORE"
    assert program.log[-1] == 'INFO FILE: acquired the lease to refresh the id "1", for 10 s'
    program.log.clear()
    del error  # this frees the frame of `get_token`, too
    assert lease_keys(path) == []
    store.lease_info()  # logs the release, because no other call of the store has done so
    assert program.log == ['INFO FILE: released the lease to refresh the id "1": no new token was saved']


ALIVE_AT_THE_END = []


def end_with_a_failed_refresh(path):
    program = Program(path)
    program.use(CustomStoreSQLite(path))
    ALIVE_AT_THE_END.append(program.fail_to_refresh("refresh token"))
    return len(lease_keys(path))


def test_a_program_that_ends_releases_its_leases(path):
    """Rule 11: a program releases its leases when it ends, even if the error of the failed refresh is still alive."""
    assert run_in_new_interpreter(end_with_a_failed_refresh, path) == 1
    assert lease_keys(path) == []


@in_own_process
def test_closing_a_store_releases_its_leases(path):
    """Rule 11: a closed store holds no lease."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    error = program.fail_to_refresh()
    assert len(lease_keys(path)) == 1
    store.close()
    assert lease_keys(path) == []
    del error


@in_own_process
def test_a_refresh_for_one_user_releases_the_lease_of_a_failed_one_for_another(path):
    """Rule 11: when a thread begins another refresh, it releases the lease of its earlier, failed refresh."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    bob = program.new_credentials("bob@example.com")
    store.save_token(token("bob@example.com", **bob, access_token="expired too", expires_in="1"))
    error = program.fail_to_refresh()
    program.log.clear()
    OAuthToken(id="2").get_token()
    assert program.log == [
        'INFO FILE: released the lease to refresh the id "1": no new token was saved',
        'INFO FILE: acquired the lease to refresh the id "2", for 10 s',
        'DEBUG FILE: released the lease to refresh the id "2" with the new token',
    ]
    del error


UNUSABLE_TABLES = {
    "another table": "CREATE TABLE zoho_token_lease (one)",
    "a view": "CREATE VIEW zoho_token_lease AS SELECT 1 AS one",
}


@pytest.mark.parametrize("unusable", UNUSABLE_TABLES)
@in_own_process
def test_an_unusable_lease_table_is_only_a_warning(path, unusable):
    """Rule 1: an error of the lease itself never reaches the SDK."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()
    with sqlite3.connect(path) as connection:
        connection.execute(UNUSABLE_TABLES[unusable])
    assert program.get_token() == store.get_tokens()[0].get_access_token() != "expired"
    [line] = program.log
    assert line.startswith("WARNING FILE: continues without a lease: FILE ")


@in_own_process
def test_a_lease_on_a_read_only_file_counts_in_its_process(tmp_path):
    """Rule 1: a store without write permission cannot store a lease, and the refresh continues."""
    path, copy = tmp_path / "tokens.db", tmp_path / "tokens.db.copy"
    program = Program(path)
    with CustomStoreSQLite(path) as source:
        program.use(source)
        program.save_expired_token()
        source.backup(copy)
    copy.chmod(0o444)
    drop_privileges()
    program.use(CustomStoreSQLite(copy))
    assert program.get_token() != "expired"
    assert program.zoho.token_calls == 1
    warning = 'WARNING FILE.copy: acquired the lease to refresh the id "1" in this process only: FILE.copy cannot'
    assert any(line.startswith(warning) for line in program.log)


@in_own_process
def test_a_dropped_lease_table_is_created_again(path):
    """Rule 13: anyone may drop the table at any time."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    for _ in range(3):
        program.save_expired_token()
        program.get_token()
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE zoho_token_lease")
    assert store.lease_info().taken == 3


@in_own_process
def test_only_the_sdks_get_token_acquires_a_lease(path):
    """Rule 2: a script that looks a token up gets the row at once, even from a function called `get_token`."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    program.save_expired_token()

    def get_token():
        found = store.find_token(OAuthToken(**program.credentials))
        return [found.get_access_token(), store.find_token_by_id("1").get_access_token()]

    assert get_token() == ["expired", "expired"]
    assert store.lease_info().taken == 0
    # Tracing libraries wrap the SDK's method. The store has to recognize it nevertheless.
    original = OAuthToken.get_token

    def traced(*arguments):
        return original(*arguments)

    def traced_twice(*arguments):
        return traced(*arguments)

    OAuthToken.get_token = traced_twice
    program.get_token()
    assert store.lease_info().taken == 1


@in_own_process
def test_refresh_lease_0_turns_leases_off(path):
    """`refresh_lease=0`: no lease, no lease table and no log line."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, refresh_lease=0))
    program.save_expired_token()
    program.get_token()
    tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'zoho_token_lease'"
    assert sqlite3.connect(path).execute(tables).fetchone() == (0,)
    assert store.lease_info().taken == 0
    assert program.log == []


@in_own_process
def test_deleting_a_row_ends_the_wait_for_it(path):
    """Rule 9: if the row is deleted, a waiting call raises the error of a missing id at once."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, refresh_lease=LONGER_THAN_ANY_TEST))
    program.save_expired_token()
    program.zoho.fail_next(1, hang=60)
    program.begin_refresh()
    codes = []

    def wait():
        try:
            program.get_token()
        except SDKException as error:
            codes.append(error.cause.code)

    waiter = start_thread(wait)
    wait_until(lambda: program.waiting() == 1)
    store.delete_token("1")
    waiter.join(20)
    assert codes == ["missing-id"]


def test_the_counters_are_a_snapshot():
    """`lease_info()` returns counters that cannot be changed."""
    info = CustomStoreList().lease_info()
    assert (info.taken, info.waited, info.gave_up, info.longest_wait) == (0, 0, 0, 0.0)
    with pytest.raises(AttributeError):
        info.taken = 1
