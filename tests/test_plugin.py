"""The pytest plugin in the runs of those who do not use it. What it does for those who do: `sdk/test_plugin.py`."""

import inspect
import re

import pytest_zoho_token_store

pytest_plugins = ["pytester"]

WITHOUT_THE_EXTRA = """
import sys

def test_it_has_loaded_nothing():
    assert "pytest_zoho_token_store" in sys.modules
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert loaded.isdisjoint({"zoho_token_store", "zohocrmsdk", "werkzeug", "requests", "sqlite3"})

def test_without_the_extra(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "werkzeug", None)
    request.getfixturevalue("zoho_stand_in")

def test_without_an_sdk(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "zohocrmsdk", None)
    request.getfixturevalue("zoho_store")

def test_without_an_sdk_to_begin_anew(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "zohocrmsdk", None)
    request.getfixturevalue("zoho_fresh_sdk")
"""
ANY_SDK = "zohocrmsdk8_0 (or zohocrmsdk7_0, zohocrmsdk6_0, zohocrmsdk5_0)"
FIXTURES = [value for name, value in vars(pytest_zoho_token_store).items() if name.startswith("zoho_")]


def test_it_costs_nothing_and_says_what_is_missing(pytester):
    """Whoever does not use the plugin loads its one module; whoever lacks what a fixture needs is told so in a line."""
    pytester.makepyfile(WITHOUT_THE_EXTRA)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", timeout=60)
    result.assert_outcomes(passed=1, failed=3)
    begin = next(number for number, line in enumerate(result.outlines) if "= FAILURES =" in line)
    assert [line for line in result.outlines[begin:] if line[:1] not in ("_", "=", "F")] == [
        'zoho_token_store.testing needs Werkzeug: pip install "zoho-token-store[testing]"',
        f"a token store needs the Zoho CRM Python SDK: pip install {ANY_SDK}",
        "the fixtures zoho_… need a Zoho CRM SDK: pip install zohocrmsdk8_0",
    ]


def test_each_is_documented():
    """`pytest --fixtures` has a sentence for each fixture in its first line."""
    assert len(FIXTURES) == 7
    for fixture in FIXTURES:
        assert re.match(r"[A-Z].{20,}[.:]$", inspect.getdoc(fixture).splitlines()[0])
