"""The example `keep_fresh`: it refreshes what expires soon, survives failures, and ends when it is told to."""

import sys
import time

import pytest
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

from .conftest import EXAMPLES, TIMEOUT_SECONDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it needs POSIX signals")
KEEP_FRESH = EXAMPLES / "keep_fresh.py"
VALID = "planted-valid-access-token"
FOR_EVER = 10 * TIMEOUT_SECONDS
ROUND_AFTER_ROUND = ("--every", 0.1)


def save(workspace, zoho, user, left=300):
    """Save a token that is valid for `left` more seconds."""
    credentials = (zoho.client_id, zoho.client_secret)
    name = UserSignature(user.name)
    token = OAuthToken(*credentials, refresh_token=zoho.refresh_token(user), access_token=VALID, user_signature=name)
    token.set_expires_in(str(int((time.time() + left) * 1000)))
    token.set_api_domain(zoho.url)
    with CustomStoreSQLite(workspace.database) as store:
        store.save_token(token)


def refreshed_rows(workspace):
    with CustomStoreSQLite(workspace.database) as store:
        return [token.get_id() for token in store.get_tokens() if token.get_access_token() != VALID]


def wait_until(condition, log):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.02)


def run_once(workspace, *options, **environment):
    """Run one round to its end. Return the exit status and what it printed."""
    process, log = workspace.start(KEEP_FRESH, "--once", *options, **environment)
    return process.wait(TIMEOUT_SECONDS), log.read_text(encoding="utf-8")


def test_one_round(workspace, zoho, ada):
    """A round refreshes each row that expires soon, in its data centre. The next one has nothing to do."""
    with ZohoStandIn(location="eu") as eu:
        save(workspace, zoho, ada)
        save(workspace, eu, eu.add_user("bob@example.com"))
        save(workspace, zoho, zoho.add_user("eve@example.com"), left=3000)
        for counts in ("2 refreshed, 1 skipped, 0 failed", "0 refreshed, 3 skipped, 0 failed"):
            status, printed = run_once(workspace, STAND_IN_EU=eu.url)
            assert (status, printed.count(counts)) == (0, 1), printed
            assert refreshed_rows(workspace) == ["1", "2"]
            assert (zoho.refreshes, eu.refreshes) == (zoho.token_calls, eu.token_calls) == (1, 1)


def test_a_round_with_a_failure(workspace, zoho, ada):
    """The log names the row and the reason, and cron or systemd sees the exit status."""
    save(workspace, zoho, ada)
    save(workspace, zoho, zoho.add_user("bob@example.com"))
    zoho.fail_next(1, status=200, body={"error": "invalid_code"})
    status, printed = run_once(workspace)
    assert status == 1
    assert "1 refreshed, 0 skipped, 1 failed" in printed
    assert "row 1: INVALID TOKEN ERROR - invalid_code" in printed
    assert refreshed_rows(workspace) == ["2"]


def test_a_round_in_which_nothing_works(workspace, zoho, ada):
    """With one user, every failure is one of all rows. The log has one line about it."""
    save(workspace, zoho, ada)
    zoho.fail_next(1, status=200, body={"error": "invalid_code"})
    status, printed = run_once(workspace)
    [line] = printed.splitlines()
    assert status == 1
    assert "ERROR keep_fresh: this round has failed: refresh: " in line
    assert "INVALID TOKEN ERROR - invalid_code" in line


@pytest.mark.parametrize("options", [("--once",), ROUND_AFTER_ROUND])
def test_a_folder_without_a_database(workspace, options):
    """The program names the path, and makes no file."""
    process, log = workspace.start(KEEP_FRESH, *options)
    assert process.wait(TIMEOUT_SECONDS) == 1
    assert log.read_text(encoding="utf-8").startswith(f"keep_fresh: there is no token database {workspace.database}.")
    assert not workspace.database.exists()


def test_rounds_go_on_after_a_failure_and_end_at_sigterm(workspace, zoho, ada):
    """While Zoho is down, every round fails. Afterwards the row is refreshed once."""
    save(workspace, zoho, ada)
    zoho.stop()
    process, log = workspace.start(KEEP_FRESH, *ROUND_AFTER_ROUND)
    workspace.wait_for(process, log, r"(?s)this round has failed.*this round has failed")
    zoho.start()
    workspace.wait_for(process, log, "1 refreshed, 0 skipped, 0 failed")
    workspace.wait_for(process, log, "0 refreshed, 1 skipped, 0 failed")
    workspace.stop(process)
    assert process.returncode == 0
    assert log.read_text(encoding="utf-8").endswith("keep_fresh: stopped\n")
    assert zoho.token_calls == 1


def test_sigterm_while_zoho_does_not_answer(workspace, zoho, ada):
    """The program ends at once, and the next one can refresh the row."""
    save(workspace, zoho, ada)
    zoho.fail_next(hang=FOR_EVER)
    process, log = workspace.start(KEEP_FRESH, *ROUND_AFTER_ROUND, "--timeout", FOR_EVER)
    wait_until(lambda: zoho.token_calls == 1, log)
    workspace.stop(process)
    assert process.returncode == 0
    assert log.read_text(encoding="utf-8").endswith("keep_fresh: stopped\n")
    assert refreshed_rows(workspace) == []
    status, printed = run_once(workspace)
    assert (status, refreshed_rows(workspace)) == (0, ["1"]), printed


def test_zoho_does_not_answer(workspace, zoho, ada):
    """One refresh that hangs does not keep the other rows from theirs, and is tried again."""
    save(workspace, zoho, ada)
    save(workspace, zoho, zoho.add_user("bob@example.com"))
    zoho.fail_next(hang=FOR_EVER)
    process, log = workspace.start(KEEP_FRESH, *ROUND_AFTER_ROUND, "--timeout", 1)
    wait_until(lambda: refreshed_rows(workspace) == ["1", "2"], log)
    workspace.wait_for(process, log, "row 1: .*Timeout")
    workspace.stop(process)
