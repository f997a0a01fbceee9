"""What type checkers and editors make of the package, and what `help` and `inspect` show."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import jedi
import pytest
import zoho_token_store

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAM, MISTAKES = HERE / "program.py", HERE / "mistakes.py"
STORES = [zoho_token_store.CustomStoreSQLite, zoho_token_store.CustomStoreInMemory, zoho_token_store.CustomStoreList]


def run(*command: object) -> str:
    """Run a type checker, which fails where it finds something, and return what it says."""
    said = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, timeout=110, check=False
    )
    assert said.returncode in {0, 1}, said.stderr
    return said.stdout


def mypy(folder: Path) -> set[tuple[str, int]]:
    """Return file and line of each error of `mypy --strict`, with what docs/typing.md has users write."""
    [override] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "typing.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "pyproject.toml").write_text(override, encoding="utf-8")
    options = ["--strict", "--config-file", folder / "pyproject.toml", "--cache-dir", folder / "cache"]
    said = run("mypy", *options, PROGRAM, MISTAKES)
    return {(Path(file).name, int(line)) for file, line in re.findall(r"^(.+?):(\d+): error:", said, re.MULTILINE)}


def pyright(folder: Path) -> set[tuple[str, int]]:
    """Return file and line of each error of pyright's, in the mode that it has unless it is told otherwise."""
    settings = {"include": [str(PROGRAM), str(MISTAKES)], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    said = json.loads(run("basedpyright", "--project", folder, "--pythonpath", sys.executable, "--outputjson"))
    assert said["summary"]["filesAnalyzed"] == 2
    errors = [error for error in said["generalDiagnostics"] if error["severity"] == "error"]
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}


@pytest.mark.parametrize("checker", [mypy, pyright], ids=lambda checker: checker.__name__)
def test_a_users_program_passes_and_mistakes_do_not(tmp_path, checker):
    """A user's program has no error in it, and one full of mistakes has them where it says so and nowhere else."""
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    expected = {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if "# expected: " in line}
    assert len(expected) == 18
    assert checker(tmp_path) == expected


def stub() -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """Return the stub's public classes, their constructors, methods and properties by their names."""
    tree = ast.parse((ROOT / "python" / "zoho_token_store" / "_native.pyi").read_text(encoding="utf-8"))
    public = {*zoho_token_store.__all__, "TokenStoreBase"}
    classes = [item for item in tree.body if isinstance(item, ast.ClassDef) and item.name in public]
    members = {f"{each.name}.{it.name}": it for each in classes for it in each.body if isinstance(it, ast.FunctionDef)}
    return {each.name: each for each in classes} | members


# Of `__len__` and its like Python keeps docstrings of its own.
DOCUMENTED = {name: ast.get_docstring(it).splitlines()[0] for name, it in stub().items() if ".__" not in name}
CALLED = {
    name.removesuffix(".__init__"): it
    for name, it in stub().items()
    if isinstance(it, ast.FunctionDef) and not it.decorator_list and (".__" not in name or name.endswith(".__init__"))
}


def shown(name: str) -> object:
    """Return what has this name in the module."""
    return functools.reduce(getattr, name.split("."), zoho_token_store._native)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_help_begins_as_the_stub_does(name):
    """What Python itself shows of a class or method begins with the sentence that the stub begins with."""
    assert inspect.getdoc(shown(name)).startswith(DOCUMENTED[name])


@pytest.mark.parametrize("name", CALLED)
def test_signatures_are_those_of_the_stub(name):
    """`inspect.signature` of a class or method shows the arguments of the stub, with their defaults."""
    arguments = CALLED[name].args
    for argument in [*arguments.args, *arguments.kwonlyargs]:
        argument.annotation = None
    seen = inspect.signature(shown(name)).replace(return_annotation=inspect.Signature.empty)
    assert re.sub(r"^\((self, /)?(, )?", "(", str(seen)) == re.sub(r"^self(, )?", "(", ast.unparse(arguments)) + ")"


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_help_reads_well(store):
    """`help` of a store has its arguments with their defaults, where to read on, and a sentence about each method."""
    text = pydoc.render_doc(store, renderer=pydoc.plaintext)
    # Later Pythons give each argument of a long signature a line.
    assert f"{store.__name__}{inspect.signature(store)}" in re.sub(r"[\s|]+", " ", text).replace("( ", "(").replace(
        " )", ")"
    )
    assert "_native.pyi" in text
    for method in ("find_token(self, /, token)", "purge(self, /, idle_for=None)", "close(self, /)"):
        assert re.search(rf"^ \|  {re.escape(method)}.*\n \|      [A-Z].*\.$", text, re.MULTILINE), method


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
@pytest.mark.parametrize(("method", "says"), [("find_token", "Complete a token from its row."), ("purge", "idle_for:")])
def test_an_editor_shows_the_stubs_docstring(store, method, says):
    """Where the cursor is on a method of a store, an editor shows what the stub says, arguments and all."""
    code = f"from zoho_token_store import {store.__name__}\n\nstore = {store.__name__}()\nstore.{method}"
    [found] = jedi.Script(code, path=ROOT / "user.py").infer(4, len(f"store.{method}"))
    assert says in found.docstring()


def test_an_editor_shows_the_constructors_arguments():
    """While the arguments of a constructor are typed, an editor shows them."""
    code = "from zoho_token_store import CustomStoreSQLite\n\nCustomStoreSQLite("
    [shown] = jedi.Script(code, path=ROOT / "user.py").get_signatures(3, len("CustomStoreSQLite("))
    names = [parameter.name for parameter in shown.params]
    assert names == ["path", "refresh_lease", "busy_timeout", "raise_on_missing_id"]
