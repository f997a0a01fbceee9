"""Contract 5 to 7 and 9 when the process is killed, the power fails, or the disk refuses, at every single deed.

A *deed* is a write, sync, truncation, unlinking, renaming or linking in the store's folder; `faults.c` counts them,
`victim.py` is the program that they happen to.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SAVES = ("update", "replace", "insert")
DELETES = ("delete", "delete_all")


@pytest.fixture
def suffer(shim, tmp_path, extent):
    """Run `victim.py` and return what it saw."""

    def run(way, act):
        done = subprocess.run(
            [sys.executable, HERE / "victim.py", way, act, tmp_path],
            env={**os.environ, "LD_PRELOAD": str(shim), **({"LONG": "yes"} if extent.is_long else {})},
            capture_output=True,
            text=True,
            timeout=extent.of(100, 300),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def whole(found):
    """Check that SQLite and the store can read every database, and return their rows."""
    for name, (sound, rows) in found.items():
        assert sound, f"{name}: {rows}"
    return {name: rows for name, (_, rows) in found.items()}


@pytest.mark.parametrize("act", [*SAVES, *DELETES, "backup", "open_new", "migrate", "close"])
def test_a_process_killed_at_any_deed_leaves_all_or_nothing(suffer, act):
    """Contract 5: killed before or in the middle of any deed, what was acknowledged is there and every row is whole."""
    seen = suffer("kill", act)
    before, after = whole(seen["before"]), whole(seen["after"])
    assert len(seen["seen"]) > 8
    outcomes = set()
    for fault in seen["seen"]:
        assert fault["status"] == signal.SIGKILL, fault["told"]
        for name, rows in whole(fault["found"]).items():
            assert rows in (before.get(name, []), after[name]), f"{name} after {fault['at']}"
            outcomes.add(rows == after[name])
    # The last fault comes when nearly all is done: that of a delete is only the wiping of traces.
    assert outcomes == {True, False} or before == after or act in ("backup", "open_new")


def test_a_power_cut_after_any_sync_loses_nothing_acknowledged(suffer):
    """Contract 5: each file as of its last sync, the names as of the folder's: the last acknowledged save is there."""
    seen = suffer("power", "all")
    steps, found = seen["steps"], seen["found"]
    assert len(found) > 30
    for shot, left in found.items():
        done = max((at for at, step in enumerate(steps) if step["syncs"] <= int(shot)), default=None)
        rows = whole(left).get("tokens.db")
        if done is None:
            # The store is still being made, and nothing was acknowledged.
            assert not rows, shot
            continue
        allowed = [steps[done]["rows"], *(step["rows"] for step in steps[done + 1 : done + 2])]
        assert rows in allowed, f"sync {shot}, after {steps[done]['did']}"
    # Every acknowledged step ended with a sync of its own.
    acknowledged = [step["syncs"] for step in steps if step["did"] != "open"]
    assert all(one < other for one, other in itertools.pairwise(acknowledged))


@pytest.mark.parametrize("act", [*SAVES, *DELETES, "backup", "open_new", "migrate", "close"])
def test_a_disk_that_refuses_any_deed_is_an_error_and_no_more(suffer, act):
    """Contract 6: full or broken at any deed, once or for good, a clear error, earlier rows whole; then it goes on."""
    seen = suffer("fail", act)
    before, after = whole(seen["before"]), whole(seen["after"])
    failed = 0
    for fault in seen["seen"]:
        assert fault["status"] == 0, f"{fault['at']} {fault['error']}: {fault['told']}"
        told, rows = fault["told"]
        found = whole(fault["found"])
        assert told is None or fault["error"] != "ENOENT", told
        if told is not None:
            failed += 1
            code, message = told
            assert code == "TOKEN_STORE"
            assert "nothing stored is lost" in message or "left untouched" in message
            # SQLite calls only a write that finds no room "full".
            assert "the system reported" in message or (fault["error"] == "ENOSPC" and "full" in message)
        if rows is None:
            assert all(rows in (before.get(name, []), after[name]) for name, rows in found.items())
            continue
        # The same store saved once more when the disk worked again.
        *rest, last = rows
        assert last["user"] == "afterwards@example.com"
        assert found["tokens.db"] == rows
        assert rest == (after if told is None else before)["tokens.db"], fault["at"]
    assert failed > len(seen["seen"]) // 4 or act == "close"
