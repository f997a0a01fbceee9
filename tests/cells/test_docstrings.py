"""The examples in the docstrings of the cells."""

from __future__ import annotations

import doctest
import sqlite3
import sys
import threading
from typing import ClassVar

import pytest
from zoho_token_store import cells

NAMES = {"ClassVar": ClassVar, "sqlite3": sqlite3, "threading": threading, **vars(cells)}


@pytest.mark.skipif(sys.platform == "win32", reason="the file of a cell has a lock of POSIX")
@pytest.mark.parametrize("name", ["__doc__", "Cell", "DBAPICell", "DocumentTooLarge", "FileCell"])
def test_the_example_gives_the_result_that_it_shows(name, tmp_path, monkeypatch):
    """Those of Redis and Secrets Manager need a server: the contract runs over them."""
    monkeypatch.chdir(tmp_path)
    text = cells.__doc__ if name == "__doc__" else getattr(cells, name).__doc__
    test = doctest.DocTestParser().get_doctest(text, dict(NAMES), name, "cells", 0)
    assert test.examples
    problems: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=problems.append)
    assert "".join(problems) == ""


@pytest.mark.parametrize("name", ["DBAPICell", "FileCell", "RedisCell", "SecretsManagerCell"])
def test_a_cell_is_short(name):
    """The class has fewer than 60 lines of code."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(getattr(cells, name)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    assert len(ast.unparse(tree).split("\n")) < 60
