"""Every part of the benchmark runs, with few calls. `make bench-postgres` measures the actual figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OURS = "CustomStorePostgreSQL"
CALLS = {"find by refresh token", "find by user", "find by id", "save, update", "save, new"}


@pytest.mark.timeout(300)  # it starts two servers and many processes
def test_a_fast_run_has_every_table_and_names_what_was_left_out(tmp_path):
    """Our store has a figure in every table. A peer that is not there is listed with the reason."""
    found_file = tmp_path / "found.json"
    command = [sys.executable, ROOT / "benchmarks" / "bench_postgres.py", "--fast", "--json", found_file]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(found_file.read_text())
    why = found["left out"]

    figures = {(one["section"], one["operation"], one["rows"]): one for one in found["figures"] if one["peer"] == OURS}
    expected = {("One thread", call, rows) for rows in (10, 100) for call in CALLS}
    expected |= {("16 threads", call, 100) for call in ("finds", "saves")}
    assert set(figures) == expected
    assert [key for key, one in figures.items() if one["unit"] == "s" and not one["median"] > 0] == []
    assert [key for key, one in figures.items() if one["failed"] or one["lost"]] == []

    bare = {(one["operation"], one["rows"]) for one in found["figures"] if one["peer"] == "bare"}
    all_bare = {(what, rows) for what in ("find", "save") for rows in (10, 100)}
    # `make postgres-floor` builds the program.
    assert bare == (set() if "bare statements" in why else all_bare)
    assert ("bare statements" in why) is not (ROOT / "target" / "postgres_floor").exists()
    peers = {one["peer"] for one in found["figures"]}
    assert {"psycopg, 4 connections kept", "psycopg, a connection per call"} <= peers
    assert ("DBStore" in peers) is not ("DBStore" in why)
    for name in why:
        assert f"\n- {name}: " in done.stdout

    rows = dict(re.findall(r"^\| (\D.*?) \| (.*) \|$", done.stdout, re.MULTILINE))
    # Token calls, denied calls, and requests without a token.
    assert rows["with a lease (the default)"].split(" | ")[:3] == ["1", "0", "0"], done.stdout
    assert "postgresql://" not in done.stdout + found_file.read_text(), "the address of a server may have a password"
    assert list(tmp_path.iterdir()) == [found_file], "the benchmark removes its files"
