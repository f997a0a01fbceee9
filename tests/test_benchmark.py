"""Every part of the benchmark runs, on small tables. `make bench` measures the actual figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import targets  # noqa: E402
from measure import Figures, Key  # noqa: E402

ANOTHER_STORE = Path(__file__).parent / "benchmark_peer.py"


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark forks processes")
def test_a_fast_run_has_every_section_and_names_what_was_left_out(tmp_path):
    """The report has all peers in every section. A peer that is missing or fails is listed with the reason."""
    shutil.copy(ANOTHER_STORE, tmp_path / "another.py")
    another = ["--peer", "another:AnotherStore", "--peer-path", tmp_path]
    command = [sys.executable, BENCHMARKS / "bench.py", "--fast", "--folder", tmp_path, "--mariadb", "127.0.0.1:1"]
    done = subprocess.run(
        [*command, *another, "--json", tmp_path / "found.json"],
        capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    figures = {tuple(figure[name] for name in Key._fields): figure for figure in found["figures"]}

    assert {section for section, *_ in figures} >= set(targets.SECTIONS)
    hot = {operation for section, operation, *_ in figures if section == targets.HOT}
    for peer in (*targets.OURS, targets.BEST, targets.PLAIN, targets.PYTHON_LIST, targets.PYTHON_MEMORY, "FileStore"):
        assert {operation for section, operation, _, of in figures if (section, of) == (targets.HOT, peer)} == hot, peer
    # Only times are checked. The memory of a hundred rows can be 0, and so can the saves per second of a slow store.
    times = {key: figure["median"] for key, figure in figures.items() if figure["unit"] == "s" and figure["runs"]}
    assert [key for key, median in times.items() if not median > 0] == []
    assert len(found["targets"]) == len(targets.all_targets())

    assert (targets.HOT, "find by refresh token", 10, "AnotherStore") in figures
    why = found["left out"]
    eleventh = "RuntimeError: saving user 11 fails: IntegrityError: UNIQUE"
    assert why["DBStore"] == "no MariaDB answers on 127.0.0.1:1"
    assert why["AnotherStore, 100 rows and more"].startswith(eleventh)
    assert why["AnotherStore, find by user, 10 rows"] == "finds no row or a wrong row"
    for name in why:
        assert f"\n- {name}: " in done.stdout
    assert list(tmp_path.glob("bench-*")) == [], "the benchmark removes its files"


def test_a_debug_build_is_refused():
    """Only a fast run accepts a debug build. Other figures of it would be meaningless."""
    code = """
import runpy, sys
from zoho_token_store import _native
_native.__profile__ = "debug"
sys.argv = ["bench.py"]
runpy.run_path(f"{sys.path[0]}/bench.py", run_name="__main__")
"""
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zoho_token_store is a debug build, and its figures would be meaningless. Run: make bench\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the benchmark uses a forkserver")
def test_a_fast_run_of_the_lease_benchmark_counts_as_the_rules_say(tmp_path):
    """Each table has its rows, and the token calls are those of docs/lease.md. Only times differ on a slow machine."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "refresh_lease.py", "--fast"],
        capture_output=True, text=True, timeout=110, check=False, cwd=BENCHMARKS, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"^\| (\D.*?) \| (.*) \|$", done.stdout, re.MULTILINE))
    rows = {name: cells.split(" | ") for name, cells in rows.items()}
    # Token calls, denied calls, and requests without a token.
    assert rows["with a lease (the default)"][:3] == ["1", "0", "0"], done.stdout
    assert rows["ahead (`refresh_ahead=300`), 4 minutes left"][:3] == ["1", "0", "0"], done.stdout
    assert rows["`store.refused`"][:3] == ["1", "0", "0"], done.stdout
    assert re.search(r"refresh_ahead=300`: [1-9]\d* requests .*, 0 without a token", done.stdout), done.stdout
    assert {"without a lease (`refresh_lease=0`)", "the default, 30 s", "a made-up expiry"} <= set(rows), done.stdout
    # The requests that asked Zoho have its answer. The errors of all others name the next attempt.
    calls, errors, named = map(int, rows["the default, 30 s"][:3])
    assert 0 < calls <= errors - named < errors, done.stdout
    assert list(tmp_path.iterdir()) == [], "the benchmark removes its files"


OVER, UNDER = Key("hot", "find", 10, "plain"), Key("hot", "find", 10, "CustomStoreSQLite")


@pytest.mark.parametrize(
    ("over", "under", "bound", "value", "reached"),
    [
        ([8.0], [2.0], {"least": 4}, 4, True),
        ([8.0], [2.0], {"least": 4.1}, 4, False),
        ([8.0], [2.0], {"most": 4}, 4, True),
        ([8.0], [2.0], {"most": 3.9}, 4, False),
        ([1.0, 8.0, 90.0], [2.0], {"least": 4}, 4, True),  # the median of the runs
        ([8.0], None, {"most": 8}, 8, True),  # a single figure, not a ratio
        ([8.0], None, {"most": 7.9}, 8, False),
        ([], [2.0], {"most": 4}, None, None),  # not measured
        ([8.0], [], {"least": 4}, None, None),
        ([8.0], [0.0], {"least": 4}, None, None),
    ],
)
def test_a_target_includes_its_bound(over, under, bound, value, reached):
    """A target is a bound of a median or of a ratio of two medians. Without a measurement there is no verdict."""
    figures = Figures()
    for key, runs in ((OVER, over), (UNDER, under or [])):
        for run in runs:
            figures.add(key, run)
    target = targets.Target("times", OVER, None if under is None else UNDER, **bound)
    assert targets.judge(target, figures)[1:] == (value, reached)


def test_each_target_is_about_this_library():
    """One of the figures of each target is this library's, and each target has exactly one bound."""
    for target in targets.all_targets():
        assert target.about.peer in (*targets.OURS, targets.OURSELVES)
        assert (target.least is None) != (target.most is None)
