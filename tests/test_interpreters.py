"""Sub-interpreters, which mod_wsgi and uWSGI make. `tests/servers` has a real uWSGI."""

from __future__ import annotations

import importlib
import sys

import pytest
from own_process import run_in_new_interpreter

APPLICATION = """
import sys
sys.path[:0] = {path!r}
try:
    import zoho_token_store
except ImportError as error:
    text = str(error)
else:
    text = "imported"
with open({output!r}, "a", encoding="utf-8") as file:
    print(text, file=file)
"""


def run_in_sub_interpreters(output, count, first_in_main):
    """Import the package in sub-interpreters, and keep them until the process ends, as a server does."""
    code = APPLICATION.format(path=[entry for entry in sys.path if entry], output=output)
    if first_in_main:
        exec(code, {})
    if sys.version_info >= (3, 13):
        interpreters = importlib.import_module("_interpreters")
        create, run = (lambda: interpreters.create("legacy")), interpreters.exec
    else:
        interpreters = importlib.import_module("_xxsubinterpreters")
        # Servers make interpreters that share the GIL. Before 3.12 there are no others.
        options = {"isolated": False} if sys.version_info >= (3, 12) else {}
        create, run = (lambda: interpreters.create(**options)), interpreters.run_string
    sys.kept = [create() for _ in range(count)]
    for interpreter in sys.kept:
        run(interpreter, code)


@pytest.mark.parametrize("first_in_main", [False, True], ids=["sub-interpreters", "main-first"])
def test_the_import_in_a_sub_interpreter_is_an_error_and_the_process_ends(tmp_path, first_in_main):
    """The error names the server's setting. On CPython 3.10 and 3.11 the process would hang at its end otherwise."""
    output = tmp_path / "imports.txt"
    run_in_new_interpreter(run_in_sub_interpreters, str(output), 2, first_in_main)
    lines = output.read_text(encoding="utf-8").splitlines()
    if first_in_main:
        assert lines.pop(0) == "imported"
    assert len(lines) == 2
    for line in lines:
        assert "main interpreter" in line
        assert "WSGIApplicationGroup %{GLOBAL}" in line
        assert "single-interpreter = true" in line
