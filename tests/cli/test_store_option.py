"""`--store`: the commands on a cell that a program of the user has made."""

from __future__ import annotations

import shutil
import sys

import pytest
from click.testing import CliRunner
from support import DATA
from zoho_token_store import CustomStoreShared
from zoho_token_store._cli._run import cli
from zoho_token_store.cells import FileCell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the file of a cell has a lock of POSIX")

MODULE = """
from zoho_token_store import CustomStoreShared
from zoho_token_store.cells import FileCell

def cell():
    return FileCell("tokens.jsonl")

def store():
    return CustomStoreShared(cell())

def other():
    return object()

def with_argument(name):
    return FileCell(name)

def with_default(name="tokens.jsonl"):
    return FileCell(name)

number = 5
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a command on a function of `program.py`, in the folder of that file."""
    (tmp_path / "program.py").write_text(MODULE)
    shutil.copyfile(DATA / "filestore-sdk_tokens.txt", tmp_path / "sdk_tokens.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("program", None)

    def run_command(*arguments, function="cell", status=0, answer=""):
        store = ["--store", f"program:{function}"]
        result = CliRunner().invoke(cli, [*store, *arguments], prog_name="zoho-token-store", input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, (result.stdout, result.stderr)
        return result

    return run_command


def test_the_commands_work_on_a_cell(run, tmp_path):
    """Import, list, check, show, status, delete, export, backup."""
    assert "41 new" in run("import", "sdk_tokens.txt").output
    store = CustomStoreShared(FileCell("tokens.jsonl"))
    ids = [token.get_id() for token in store.get_tokens()]
    assert len(ids) == 41
    for function in ("cell", "store", "with_default"):
        assert len(run("list", function=function).stdout.splitlines()) == 42
    run("show", ids[0])
    assert "the cell FileCell" in run("check", status=1).output
    run("status")
    run("delete", ids[0], "--yes")
    assert len(store) == 40
    run("export", "rows.jsonl")
    assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 41
    run("backup", "copy.db")
    copy = CliRunner().invoke(cli, ["--db", str(tmp_path / "copy.db"), "list"])
    assert len(copy.stdout.splitlines()) == 41


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", "program:missing cannot be used (AttributeError"),
        ("other", "program:other returns an object of type object"),
        ("number", "program:number is no function, but an object of type int"),
        ("with_argument", "program:with_argument needs arguments"),
    ],
)
def test_a_function_that_is_not_there_or_returns_something_else(run, function, message):
    """The message says what is needed."""
    result = run("list", function=function, status=1)
    assert message in result.stderr
    assert "returns a cell or a CustomStoreShared" in result.stderr


def test_a_module_that_is_not_there_and_two_places():
    """`--db` and `--store` exclude each other."""
    result = CliRunner().invoke(cli, ["--store", "no_such_module:cell", "list"])
    assert (result.exit_code, "ModuleNotFoundError" in result.stderr) == (1, True)
    for store in ("../app:cell", ".app:cell", "app..x:cell", ":cell", "app", "app:"):
        result = CliRunner().invoke(cli, ["--store", store, "list"])
        assert (result.exit_code, f"{store} is not MODULE:FUNCTION" in result.stderr) == (1, True)
    result = CliRunner().invoke(cli, ["--db", "a.db", "--store", "a:b", "list"])
    assert (result.exit_code, "not both" in result.stderr) == (2, True)
