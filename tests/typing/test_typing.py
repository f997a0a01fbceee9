"""The package in type checkers, in editors, and in Python's `help` and `inspect`."""

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
STORES = [
    zoho_token_store.CustomStoreSQLite,
    zoho_token_store.CustomStorePostgreSQL,
    zoho_token_store.CustomStoreShared,
    zoho_token_store.CustomStoreInMemory,
    zoho_token_store.CustomStoreList,
]


def run(*command: object) -> str:
    """Run a type checker and return its output. Exit status 1 means that it found errors."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


def mypy(folder: Path) -> set[tuple[str, int]]:
    """Return the file and line of each error of `mypy --strict`, with the configuration from docs/typing.md."""
    [override] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "typing.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "pyproject.toml").write_text(override, encoding="utf-8")
    options = ["--strict", "--config-file", folder / "pyproject.toml", "--cache-dir", folder / "cache"]
    output = run("mypy", *options, PROGRAM, MISTAKES)
    return {(Path(file).name, int(line)) for file, line in re.findall(r"^(.+?):(\d+): error:", output, re.MULTILINE)}


def pyright(folder: Path) -> set[tuple[str, int]]:
    """Return the file and line of each error of pyright in its default mode."""
    settings = {"include": [str(PROGRAM), str(MISTAKES)], "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    report = json.loads(run("basedpyright", "--project", folder, "--pythonpath", sys.executable, "--outputjson"))
    assert report["summary"]["filesAnalyzed"] == 2
    errors = [error for error in report["generalDiagnostics"] if error["severity"] == "error"]
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}


@pytest.mark.parametrize("checker", [mypy, pyright], ids=lambda checker: checker.__name__)
def test_type_checkers_find_exactly_the_marked_errors(tmp_path, checker):
    """mypy and pyright find no error in program.py, and exactly those in mistakes.py that are marked there."""
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    expected = {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if "# expected: " in line}
    assert len(expected) == 19
    assert checker(tmp_path) == expected


def stub() -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """Return the classes and functions of the stub, and the methods and properties of classes, by their names."""
    tree = ast.parse((ROOT / "python" / "zoho_token_store" / "_native.pyi").read_text(encoding="utf-8"))
    items = [item for item in tree.body if isinstance(item, ast.ClassDef | ast.FunctionDef)]
    classes = [item for item in items if isinstance(item, ast.ClassDef)]
    members = {
        f"{each.name}.{member.name}": member
        for each in classes
        for member in each.body
        if isinstance(member, ast.FunctionDef)
    }
    return {each.name: each for each in items} | members


# Python has docstrings of its own for special methods such as `__len__`.
FIRST_LINES = {name: ast.get_docstring(node).splitlines()[0] for name, node in stub().items() if ".__" not in name}
CALLABLES = {
    name.removesuffix(".__init__"): node
    for name, node in stub().items()
    if isinstance(node, ast.FunctionDef)
    and not node.decorator_list
    and (".__" not in name or name.endswith(".__init__"))
}


def native(name: str) -> object:
    """Return the class, method or property with this name in the native module."""
    return functools.reduce(getattr, name.split("."), zoho_token_store._native)


@pytest.mark.parametrize("name", FIRST_LINES)
def test_docstrings_begin_as_in_the_stub(name):
    """The docstring of each native class, function and method begins with the first line of the stub's docstring."""
    assert inspect.getdoc(native(name)).startswith(FIRST_LINES[name])


@pytest.mark.parametrize("name", CALLABLES)
def test_signatures_are_those_of_the_stub(name):
    """`inspect.signature` of a class, function or method shows the arguments of the stub, with their defaults."""
    arguments = CALLABLES[name].args
    for argument in [*arguments.args, *arguments.kwonlyargs, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    found = inspect.signature(native(name)).replace(return_annotation=inspect.Signature.empty)
    # A method in Python has annotations, too.
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    found = found.replace(parameters=bare)
    expected = re.sub(r"^self(, )?", "", ast.unparse(arguments))
    # `inspect` shows the default `...`, which stands for "not given", by its name.
    shown = str(found).replace("=Ellipsis", "=...")
    assert re.sub(r"^\((self(, /)?)?(, )?", "(", shown) == f"({expected})"


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
def test_help_of_a_store_is_complete(store):
    """`help` of a store shows its arguments with their defaults, the stub's name, and a sentence about each method."""
    text = pydoc.render_doc(store, renderer=pydoc.plaintext)
    # Newer Pythons print each argument of a long signature on its own line.
    assert f"{store.__name__}{inspect.signature(store)}" in re.sub(r"[\s|]+", " ", text).replace("( ", "(").replace(
        " )", ")"
    )
    assert "_native.pyi" in text
    for method in ("find_token(self, /, token)", "purge(self, /, idle_for=None)", "close(self, /)"):
        assert re.search(rf"^ \|  {re.escape(method)}.*\n \|      [A-Z].*\.$", text, re.MULTILINE), method


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.__name__)
@pytest.mark.parametrize(("method", "text"), [("find_token", "Complete a token from its row."), ("purge", "idle_for:")])
def test_an_editor_shows_the_stubs_docstring(store, method, text):
    """For a method of a store, an editor shows the docstring of the stub."""
    code = f"from zoho_token_store import {store.__name__}\n\nstore = {store.__name__}()\nstore.{method}"
    [found] = jedi.Script(code, path=ROOT / "user.py").infer(4, len(f"store.{method}"))
    assert text in found.docstring()


def test_an_editor_shows_the_constructors_arguments():
    """While a user types a call of a constructor, an editor shows its arguments."""
    code = "from zoho_token_store import CustomStoreSQLite\n\nCustomStoreSQLite("
    [signature] = jedi.Script(code, path=ROOT / "user.py").get_signatures(3, len("CustomStoreSQLite("))
    names = [parameter.name for parameter in signature.params]
    timing = ["refresh_lease", "refresh_ahead", "refresh_backoff", "busy_timeout"]
    assert names == ["path", "keys", *timing, "raise_on_missing_id"]
