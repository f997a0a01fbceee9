"""Greenlets that meet at one expiry: they share a thread, and one that waits must let the others go on."""

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
FOREVER = 300  # seconds of a lease that no test could sit out


@pytest.fixture
def zoho():
    with ZohoStandIn(latency=0.2) as standin:
        yield standin


@pytest.fixture
def setting(zoho, tmp_path):
    """What a program needs to know: its store on a file, Zoho, and a folder for the SDK."""
    arguments = {"path": str(tmp_path / "tokens.db"), "refresh_lease": FOREVER}
    folder = str(tmp_path)
    return {"kind": "CustomStoreSQLite", "arguments": arguments, "environment": zoho.environment(), "folder": folder}


@pytest.fixture
def tokens(zoho, setting):
    """How programs name the row of a user whose access token has expired: by its id, and by its refresh token."""
    from sdk.member import expired_token

    fields = {"client_id": zoho.client_id, "client_secret": zoho.client_secret}
    fields["refresh_token"] = zoho.refresh_token("ada@example.com")
    token = expired_token(fields)
    with CustomStoreSQLite(setting["arguments"]["path"]) as store:
        store.save_token(token)
    return [{"id": token.get_id()}, fields]


@pytest.fixture
def start(setting, tmp_path):
    """Start greenlets that ask with these tokens, all at once, in a program with these of gevent's patches."""
    programs = []

    def start_one(tokens, **patches):
        program = subprocess.Popen(
            [sys.executable, HERE / "greenlets.py", json.dumps(patches), tmp_path / "ticked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        programs.append(program)
        program.stdin.write(pickle.dumps((setting, {"seed": None, "tokens": tokens})))
        program.stdin.flush()
        return program

    yield start_one
    for program in programs:
        program.kill()
        program.communicate()


def ends(program):
    """Wait until it has ended well. What it told, and how often another greenlet ticked since one had begun to wait."""
    told, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    events = [json.loads(line) for line in told.splitlines()]
    return Outcome(events), events[-1]["count"]


def assert_all_served(outcome, count):
    assert [(answer["error"], answer["logged"]) for answer in outcome.answers] == [(None, [])] * count
    assert {answer["row"] for answer in outcome.answers} == {"1"}
    assert outcome.total("gave_up") == 0


def test_greenlets_at_one_expiry(start, zoho, tokens):
    """Rule 8: greenlets of one thread wait for each other, and the one they wait for goes on: 1 token call."""
    outcome, ticks = ends(start(tokens * 4))
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)
    assert (outcome.total("taken"), outcome.total("waited")) == (1, 7)
    assert ticks > 0


def test_greenlets_wait_for_another_process(start, zoho, setting, tokens, tmp_path):
    """Rule 8: while greenlets wait for another process, the others of their thread go on."""
    holder = Crowd(setting, "hold", {"token": tokens[0]})
    try:
        holder.until("holds")
        program = start(tokens * 4)
        # Only then does the holder go on: if the waits held the thread, they would last until they gave up.
        until = time.monotonic() + 30
        while not (ticked := (tmp_path / "ticked").exists()) and time.monotonic() < until:
            time.sleep(0.005)
        assert ticked
        assert zoho.token_calls == 0
        holder.go_on()
        assert_all_served(holder.ends(), 1)
    finally:
        holder.kill()
    outcome, _ = ends(program)
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)
    assert (outcome.total("taken"), outcome.total("waited")) == (0, 8)


def test_greenlets_that_cannot_wait_for_each_other(start, zoho, tokens):
    """Rule 8: where sleeping holds the whole thread, no greenlet waits for another of it: it would be in vain."""
    outcome, _ = ends(start(tokens * 2, time=False))
    assert zoho.token_calls <= 4
    assert [(answer["error"], answer["logged"]) for answer in outcome.answers] == [(None, [])] * 4
    assert [outcome.total(counter) for counter in ("waited", "gave_up")] == [0, 0]
