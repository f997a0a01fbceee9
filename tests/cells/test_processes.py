"""Many processes on one cell: no change is lost, no id is used twice, and one of them refreshes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cells import places
from sdk.crowd import Crowd
from sdk.test_lease import assert_all_served, credentials
from zoho_token_store.testing import ZohoStandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, process groups and signals")

KINDS = ["redis", "mariadb", "file"]
TIMEOUT = 240  # seconds; it takes some on a machine with nothing else to do

SAVE = """
import json, sys
sys.path.insert(0, ".")
from cells import places
from support import login
place, writer, count = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = places.open_store(place, "crowd", busy_timeout=200)
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    store.save_token(login(f"u{writer}-{n}", 100 * writer + n))
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_processes_save_new_users_at_the_same_time(kind, place_of, extent):
    """All users are there, and no id was used twice. The long form is 16 processes with 20 users each."""
    place, writers, count = place_of(kind), extent.of(5, 16), extent.of(6, 20)
    command = [sys.executable, "-c", SAVE, json.dumps(place)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[1]}
    programs = [subprocess.Popen([*command, str(writer), str(count)], **options) for writer in range(writers)]
    try:
        assert [program.stdout.readline() for program in programs] == ["ready\n"] * writers
        for program in programs:
            program.stdin.write("\n")
            program.stdin.flush()
        for program in programs:
            program.communicate(timeout=TIMEOUT)
        assert [program.returncode for program in programs] == [0] * writers
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    rows = places.open_store(place, "crowd").get_tokens()
    users = {row.get_user_signature().get_name() for row in rows}
    assert (len(rows), len({row.get_id() for row in rows}), len(users)) == (writers * count,) * 3


@pytest.mark.parametrize("kind", KINDS)
def test_12_processes_at_one_expiry(kind, place_of, tmp_path):
    """12 processes make 1 token call at one expiry, and all are served with its token."""
    from sdk.member import expired_token

    place = {**place_of(kind)}
    with ZohoStandIn(latency=0.2) as zoho:
        ada = zoho.add_user("ada@example.com", "1001")
        store = places.open_store(place, "expiry")
        store.save_token(expired_token(credentials(zoho, refresh_token=zoho.refresh_token(ada))))
        setting = {
            "kind": "cells.places:open_store",
            "arguments": {"place": place, "name": "expiry"},
            "environment": zoho.environment(),
            "folder": str(tmp_path),
        }
        crowd = Crowd(setting, "processes", {"tokens": [{"id": "1"}] * 12})
        try:
            outcome = crowd.ends()
        finally:
            crowd.kill()
        assert zoho.token_calls == 1
        assert_all_served(outcome, 12)
        assert outcome.total("taken") == 1
