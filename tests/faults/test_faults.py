"""Contract 5 to 7 and 9: a process is killed, the power is cut, or the disk fails, at every single I/O operation.

An *operation* is a write, sync, truncation, unlink, rename or link in the folder of the store. `faults.c` counts them
and injects the faults, and `target.py` has the processes that it injects them into.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from pathlib import Path

import pytest
from faults import target
from own_process import run_in_fork

SAVES = ("update", "replace", "insert")
DELETES = ("delete", "delete_all")
SCENARIOS = (*SAVES, *DELETES, "lease", "backup", "open_new", "migrate", "close")
MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.usefixtures("preload")


@pytest.fixture
def folder(tmp_path):
    """A folder on a file system in memory, if there is one. The faults are simulated, so no disk is needed."""
    in_memory = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else tmp_path) as made:
        yield Path(made)


def assert_intact(found):
    """Check that SQLite and the store can read every database. Return the rows of each."""
    for name, (intact, rows) in found.items():
        assert intact, f"{name}: {rows}"
    return {name: rows for name, (_, rows) in found.items()}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_process_killed_at_any_operation_leaves_all_or_nothing(folder, scenario):
    """Contract 5: each acknowledged save is there, and every row is complete."""
    seen = run_in_fork(target.kill, scenario, folder)
    before, after = assert_intact(seen["before"]), assert_intact(seen["after"])
    assert len(seen["seen"]) > 8
    outcomes = set()
    for fault in seen["seen"]:
        assert fault["status"] == signal.SIGKILL, fault["result"]
        for name, rows in assert_intact(fault["found"]).items():
            assert rows in (before.get(name, []), after[name]), f"{name} after {fault['at']}"
            outcomes.add(rows == after[name])
    # Some faults come before the change and some after it: the last operations of a delete scrub residue.
    assert outcomes == {True, False} or before == after or scenario in ("backup", "open_new")


def test_a_power_cut_after_any_sync_loses_nothing_acknowledged(folder):
    """Contract 5: it leaves each file as of its last sync, and the names as of the last sync of the folder."""
    seen = run_in_fork(target.cut_power, folder)
    steps, found = seen["steps"], seen["found"]
    assert len(found) > 25
    for cut, left in found.items():
        done = max((at for at, step in enumerate(steps) if step["syncs"] <= int(cut)), default=None)
        rows = assert_intact(left).get("tokens.db")
        if done is None:
            # The constructor has not returned yet, so nothing is acknowledged.
            assert not rows, cut
            continue
        allowed = [steps[done]["rows"], *(step["rows"] for step in steps[done + 1 : done + 2])]
        assert rows in allowed, f"sync {cut}, after {steps[done]['scenario']}"
    # Every acknowledged step has its own sync.
    acknowledged = [step["syncs"] for step in steps if step["scenario"] != "open"]
    assert all(one < other for one, other in itertools.pairwise(acknowledged))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_operation_that_fails_is_a_clear_error_and_loses_nothing(folder, scenario, extent):
    """Contract 6: the disk is full or broken, once or for good. When it works again, the same store works, too."""
    seen = run_in_fork(target.fail, scenario, folder, extent.is_long)
    before, after = assert_intact(seen["before"]), assert_intact(seen["after"])
    failed = 0
    for fault in seen["seen"]:
        assert fault["status"] == 0, f"{fault['at']} {fault['error']}: {fault['result']}"
        raised, rows = fault["result"]
        found = assert_intact(fault["found"])
        assert raised is None or fault["error"] != "ENOENT", raised
        assert raised is None or scenario != "lease", "a failure of the lease is not an error of the find"
        if raised is not None:
            failed += 1
            sdk_code, code, message = raised
            assert sdk_code == "TOKEN_STORE"
            assert "Nothing was changed" in message
            # SQLite reports "full" only for a write without room.
            assert code == "io-error" or (fault["error"] == "ENOSPC" and code == "disk-full"), fault
        if rows is None:
            assert all(rows in (before.get(name, []), after[name]) for name, rows in found.items())
            continue
        # The same store has saved one more token after the fault.
        *rest, last = rows
        assert last["user"] == "afterwards@example.com"
        assert found["tokens.db"] == rows
        assert rest == (after if raised is None else before)["tokens.db"], fault["at"]
    assert failed > len(seen["seen"]) // 4 or scenario in ("lease", "close")
