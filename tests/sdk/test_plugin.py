"""The pytest plugin's fixtures in a user's suite, with the installed SDK."""

import shutil
from pathlib import Path

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "test_with_zoho.py"


def test_the_fixtures_in_a_users_suite(pytester, monkeypatch):
    """The example suite passes, and no test of a suite sees state that another left in the SDK."""
    # No call may go through a proxy: nothing listens on this port.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(EXAMPLE, pytester.path)
    shutil.copy(HERE / "plugin_suite.py", pytester.path / "test_suite.py")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", timeout=60)
    result.assert_outcomes(passed=5 + 7)
