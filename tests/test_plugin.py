"""The pytest plugin in suites that do not use it or lack its packages. `sdk/test_plugin.py` tests its fixtures."""

import inspect
import re
import shutil
from pathlib import Path

import pytest_zoho_token_store

pytest_plugins = ["pytester"]

SUITE = Path(__file__).parent / "plugin_without_packages.py"
ANY_SDK = "zohocrmsdk8_0 (or zohocrmsdk7_0, zohocrmsdk6_0, zohocrmsdk5_0)"
FIXTURES = [value for name, value in vars(pytest_zoho_token_store).items() if name.startswith("zoho_")]


def test_the_plugin_imports_nothing_early_and_names_missing_packages(pytester):
    """In a suite that does not use it, the plugin imports only itself. A missing package is reported in one line."""
    shutil.copy(SUITE, pytester.path / "test_suite.py")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", timeout=60)
    result.assert_outcomes(passed=1, failed=3)
    begin = next(number for number, line in enumerate(result.outlines) if "= FAILURES =" in line)
    assert [line for line in result.outlines[begin:] if line[:1] not in ("_", "=", "F")] == [
        'zoho_token_store.testing needs Werkzeug: pip install "zoho-token-store[testing]"',
        f"a token store needs the Zoho CRM Python SDK: pip install {ANY_SDK}",
        "the fixtures zoho_… need a Zoho CRM SDK: pip install zohocrmsdk8_0",
    ]


def test_each_fixture_is_documented():
    """The first line of each fixture's docstring, which `pytest --fixtures` shows, is a complete sentence."""
    assert len(FIXTURES) == 7
    for fixture in FIXTURES:
        assert re.match(r"[A-Z].{20,}[.:]$", inspect.getdoc(fixture).splitlines()[0])
