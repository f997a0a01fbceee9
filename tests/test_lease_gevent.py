"""The refresh lease and gevent: greenlets share a thread, so a greenlet that waits must not block the others.

`greenlets.py` is the program that these tests run.
"""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sdk.crowd import Crowd, Outcome
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and process groups")

HERE = Path(__file__).parent
LONGER_THAN_ANY_TEST = 300  # seconds; if a test waits until the lease expires, it fails


@pytest.fixture
def zoho():
    with ZohoStandIn(latency=0.2) as standin:
        yield standin


@pytest.fixture
def setting(zoho, tmp_path):
    """The settings of a program: a store on a file, the stand-in for Zoho, and a folder for the SDK."""
    arguments = {"path": str(tmp_path / "tokens.db"), "refresh_lease": LONGER_THAN_ANY_TEST}
    folder = str(tmp_path)
    return {"kind": "CustomStoreSQLite", "arguments": arguments, "environment": zoho.environment(), "folder": folder}


@pytest.fixture
def tokens(zoho, setting):
    """Save a row whose access token has expired. Return two tokens that name it: by its id, and by its credentials."""
    from sdk.member import expired_token

    fields = {"client_id": zoho.client_id, "client_secret": zoho.client_secret}
    fields["refresh_token"] = zoho.refresh_token("ada@example.com")
    token = expired_token(fields)
    with CustomStoreSQLite(setting["arguments"]["path"]) as store:
        store.save_token(token)
    return [{"id": token.get_id()}, fields]


@pytest.fixture
def start(setting, tmp_path):
    """A function that starts a program. The program has one greenlet for each token, and all of them ask at once.

    The keyword arguments go to gevent's `patch_all`.
    """
    programs = []

    def start_one(tokens, method="threads", arguments=None, **patches):
        program = subprocess.Popen(
            [sys.executable, HERE / "greenlets.py", json.dumps(patches), tmp_path / "ticked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        programs.append(program)
        program.stdin.write(pickle.dumps((setting, method, arguments or {"seed": None, "tokens": tokens})))
        program.stdin.flush()
        return program

    yield start_one
    for program in programs:
        program.kill()
        program.communicate()


def result(program):
    """Wait until a program has ended. Return its outcome and its last event."""
    printed, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    events = [json.loads(line) for line in printed.splitlines()]
    return Outcome(events), events[-1]


def assert_all_served(outcome, count):
    assert [(answer["error"], answer["logged"]) for answer in outcome.answers] == [(None, [])] * count
    assert {answer["row"] for answer in outcome.answers} == {"1"}
    assert outcome.total("gave_up") == 0


def test_greenlets_at_one_expiry_make_one_token_call(start, zoho, tokens):
    """Rule 8: greenlets of one thread wait for the one that refreshes, and do not block it: 1 token call."""
    outcome, end = result(start(tokens * 4))
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)
    assert (outcome.total("taken"), outcome.total("waited")) == (1, 7)
    assert end["count"] > 0, "another greenlet runs during the waits"


def test_greenlets_that_wait_for_another_process_let_others_run(start, zoho, setting, tokens, tmp_path):
    """Rule 8: while greenlets wait for another process, another greenlet of their thread runs."""
    holder = Crowd(setting, "hold", {"token": tokens[0]})
    try:
        holder.until("holds")
        program = start(tokens * 4)
        # The holder is still waiting here. If the waiting greenlets blocked their thread, it would not tick.
        deadline = time.monotonic() + 30
        while not (ticked := (tmp_path / "ticked").exists()) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert ticked
        assert zoho.token_calls == 0
        holder.go_on()
        assert_all_served(holder.ends(), 1)
    finally:
        holder.kill()
    outcome, _ = result(program)
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)
    assert (outcome.total("taken"), outcome.total("waited")) == (0, 8)


def test_greenlets_do_not_wait_for_each_other_if_sleep_blocks_the_thread(start, zoho, tokens):
    """Rule 8: if gevent has not replaced `time.sleep`, a waiting greenlet would block the one that refreshes."""
    outcome, _ = result(start(tokens * 2, time=False))
    assert zoho.token_calls <= 4
    assert [(answer["error"], answer["logged"]) for answer in outcome.answers] == [(None, [])] * 4
    assert [outcome.total(counter) for counter in ("waited", "gave_up")] == [0, 0]


def test_a_refresh_ahead_runs_in_a_greenlet(start, zoho, setting, tokens):
    """Rule 17: the requests of other greenlets go on meanwhile, and no thread is started."""
    with CustomStoreSQLite(setting["arguments"]["path"]) as store:
        [token] = store.get_tokens()
        token.set_access_token("planted-valid-access-token")
        token.set_expires_in(str(int((time.time() + 240) * 1000)))
        store.save_token(token)
    setting["arguments"]["refresh_ahead"] = 300
    zoho.latency = 1
    outcome, end = result(start(None, "ahead_here", {"token": tokens[0], "threads": 8}))
    assert (zoho.token_calls, end["elsewhere"]) == (1, 0)
    assert {answer["error"] for answer in outcome.answers} == {None}
    # Each greenlet has requested the token more than once while Zoho took a second.
    assert len(outcome.answers) > 2 * 8
    assert outcome.answers[-1]["row"] == "1"
    assert [outcome.total(counter) for counter in ("taken", "taken_ahead", "waited")] == [1, 1, 0]
