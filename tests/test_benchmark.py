"""The benchmark works, all of it, on small tables; what its figures are is for `make bench` to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import targets  # noqa: E402
from measure import Figures, Key  # noqa: E402

# Like the vendor's sample it has a file of a name of its own, and gives the 11th user an id that is taken.
ANOTHER_STORE = """
import sqlite3

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken


class AnotherStore:
    def __init__(self):
        self.run("CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, refresh UNIQUE, access)")

    def run(self, sql, *values):
        with sqlite3.connect("zohooauth.db") as connection:
            rows = connection.execute(sql, values).fetchall()
        connection.close()
        return rows

    def find_token(self, token):
        for row in self.run("SELECT * FROM tokens WHERE refresh = ?", token.get_refresh_token()):
            return self.fill(token, row)

    def find_token_by_id(self, row_id):
        return self.fill(OAuthToken(id="x"), *self.run("SELECT * FROM tokens WHERE id = ?", row_id))

    def fill(self, token, row):
        token.set_id(row[0]), token.set_refresh_token(row[1]), token.set_access_token(row[2])
        return token

    def save_token(self, token):
        refresh, access = token.get_refresh_token(), token.get_access_token()
        if not self.run("UPDATE tokens SET access = ? WHERE refresh = ? RETURNING id", access, refresh):
            ((last,),) = self.run("SELECT max(id) FROM tokens")
            token.set_id(str(int(last or 0) + 1))
            self.run("INSERT INTO tokens VALUES (?, ?, ?)", token.get_id(), refresh, access)

    def delete_token(self, row_id):
        self.run("DELETE FROM tokens WHERE id = ?", row_id)

    def get_tokens(self):
        return [self.fill(OAuthToken(id="x"), row) for row in self.run("SELECT * FROM tokens")]
"""


@pytest.mark.skipif(sys.platform == "win32", reason="its crowds are forked")
def test_a_fast_run_has_every_section_and_says_who_was_left_out(tmp_path):
    """Peers that are missing or fail are named, with the reason; all others are in every section."""
    (tmp_path / "another.py").write_text(ANOTHER_STORE)
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
    for peer in (*targets.OURS, targets.PLAIN, targets.PYTHON_LIST, targets.PYTHON_MEMORY, "FileStore"):
        assert {operation for section, operation, _, of in figures if (section, of) == (targets.HOT, peer)} == hot, peer
    # What a hundred rows take may be no memory at all, and the slowest crowd may save nothing in so short a time.
    times = {key: figure["median"] for key, figure in figures.items() if figure["unit"] == "s" and figure["runs"]}
    assert [key for key, median in times.items() if not median > 0] == []
    assert len(found["targets"]) == len(targets.all_targets())

    assert (targets.HOT, "find by refresh token", 10, "AnotherStore") in figures
    why = found["left out"]
    eleventh = "RuntimeError: saving user 11 fails: IntegrityError: UNIQUE"
    assert why["DBStore"] == "no MariaDB answers on 127.0.0.1:1"
    assert why["AnotherStore, 100 rows and more"].startswith(eleventh)
    assert why["AnotherStore, find by user, 10 rows"] == "finds nothing, or another's row"
    for name in why:
        assert f"\n- {name}: " in done.stdout
    assert list(tmp_path.glob("bench-*")) == [], "its files are gone"


def test_a_debug_build_is_refused():
    """Figures of a debug build say nothing."""
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
    assert done.stderr == "zoho_token_store is a debug build, whose figures say nothing: make bench\n"


OVER, UNDER = Key("hot", "find", 10, "plain"), Key("hot", "find", 10, "CustomStoreSQLite")


@pytest.mark.parametrize(
    ("over", "under", "bound", "value", "reached"),
    [
        ([8.0], [2.0], {"least": 4}, 4, True),
        ([8.0], [2.0], {"least": 4.1}, 4, False),
        ([8.0], [2.0], {"most": 4}, 4, True),
        ([8.0], [2.0], {"most": 3.9}, 4, False),
        ([1.0, 8.0, 90.0], [2.0], {"least": 4}, 4, True),  # medians of the runs
        ([8.0], None, {"most": 8}, 8, True),  # a figure alone
        ([8.0], None, {"most": 7.9}, 8, False),
        ([], [2.0], {"most": 4}, None, None),  # not measured
        ([8.0], [], {"least": 4}, None, None),
        ([8.0], [0.0], {"least": 4}, None, None),
    ],
)
def test_a_target_is_reached_from_its_bound_on(over, under, bound, value, reached):
    """A target bounds the ratio of two medians, or one median; what was not measured is not judged."""
    figures = Figures()
    for key, runs in ((OVER, over), (UNDER, under or [])):
        for run in runs:
            figures.add(key, run)
    target = targets.Target("times", OVER, None if under is None else UNDER, **bound)
    assert targets.judge(target, figures)[1:] == (value, reached)


def test_each_target_is_of_a_figure_of_ours():
    """Whatever is compared, one side is ours, and there is one bound."""
    for target in targets.all_targets():
        assert target.about.peer in (*targets.OURS, targets.OURSELVES)
        assert (target.least is None) != (target.most is None)
