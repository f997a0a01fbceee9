"""The examples that are not servers: each prints the expected output and makes no superfluous token call."""

import multiprocessing
import re
import shutil
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from zoho_token_store.testing import Client, ZohoStandIn

from .conftest import EXAMPLES, HOUR_SECONDS

HERE = Path(__file__).parent


def test_each_example_has_a_test():
    """A test here runs each example, except the demos (`make demo …`) and `test_with_zoho` (`sdk/test_plugin.py`)."""
    tests = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py"))
    names = {file.stem for file in EXAMPLES.glob("*.py")} - {"demo", "demo_postgres", "test_with_zoho"}
    assert len(names) >= 7
    assert {name for name in names if name not in tests} == set()


def test_notebook(workspace, zoho, ada):
    """The notebook logs in once. A second run uses the stored token."""
    code = zoho.grant_code(ada)
    for _ in range(2):
        assert workspace.run(EXAMPLES / "notebook.py", ZOHO_GRANT_CODE=code) == [ada.name, "1001"]
    assert zoho.token_calls == 1


def test_sandbox_and_production(workspace, zoho, ada):
    """A user has one row for production and one for the sandbox. Each is refreshed separately."""
    with ZohoStandIn() as sandbox:
        sandbox.know_client(client := Client(zoho.client_id, zoho.client_secret))
        codes = {
            "STAND_IN_SANDBOX": sandbox.url,
            "ZOHO_GRANT_CODE": zoho.grant_code(ada),
            "ZOHO_SANDBOX_GRANT_CODE": sandbox.grant_code(ada, client),
        }
        for number in (0, 1):
            assert workspace.run(EXAMPLES / "sandbox_and_production.py", **codes) == [
                "production: organisation 1001, row 1",
                "sandbox: organisation 1001, row 2",
                "production: organisation 1001, row 1",
            ]
            for server, calls_per_run in ((zoho, 2), (sandbox, 1)):
                assert (server.logins, server.refreshes) == (1, number)
                # One more call is the SDK's look-up after the login.
                paths = [call.path for call in server.calls]
                assert paths.count("/crm/v8/org") == calls_per_run * (number + 1) + 1
            sandbox.clock = lambda clock=sandbox.clock: clock() + HOUR_SECONDS
            workspace.let_an_hour_pass()
    assert workspace.rows() == [("1", ada.name), ("2", ada.name)]


CALLBACK = "https://app.example.com/callback"


def consent_to(login_url, user):
    """Log a user in on the consent page, as a browser does. Return the URL of the redirect."""
    response = requests.post(login_url, data={"user": user.name}, allow_redirects=False, timeout=10)
    assert response.status_code == 302, response.text
    return response.headers["Location"]


def test_several_data_centres(workspace, zoho, ada):
    """A login goes to the user's data centre. So does a refresh in a new process, which has only the token database."""
    program = EXAMPLES / "several_data_centres.py"
    with ZohoStandIn(location="eu") as eu:
        zoho.know_data_centre(eu)
        bob = eu.add_user("bob@example.com", "1002")
        settings = {"STAND_IN_EU": eu.url, "ZOHO_REDIRECT_URL": CALLBACK}
        [login_url] = workspace.run(program, "--login-url", **settings)
        assert login_url.startswith(zoho.url)
        workspace.run(program, "--callback", consent_to(login_url, bob), **settings)
        lines = [f"row 1: {bob.name}, organisation 1002", f"row 2: {ada.name}, organisation 1001"]
        assert workspace.run(program, "--callback", consent_to(login_url, ada), **settings) == lines
        for hour in range(2):
            assert [(centre.logins, centre.refreshes) for centre in (zoho, eu)] == [(1, hour), (1, hour)]
            eu.clock = lambda clock=eu.clock: clock() + HOUR_SECONDS
            workspace.let_an_hour_pass()
            assert workspace.run(program, **settings) == lines
        assert {call.outcome for centre in (zoho, eu) for call in centre.calls} == {"ok"}


def test_a_forged_location_gets_no_secret(workspace, zoho):
    """A callback with another accounts server sends nothing there, and an unknown location is refused."""
    program = EXAMPLES / "several_data_centres.py"
    settings = {"ZOHO_REDIRECT_URL": CALLBACK}
    with ZohoStandIn() as forged:
        query = f"code=1000.made.up&accounts-server={forged.url}&location="
        for location in ("us", "forged"):
            with pytest.raises(pytest.fail.Exception):
                workspace.run(program, "--callback", f"{CALLBACK}?{query}{location}", **settings)
        assert (forged.calls, zoho.logins) == ([], 1)


@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
def test_multiprocessing_job(workspace, zoho, ada, start_method):
    """Four processes refresh an expired token once and do all tasks, with every start method."""
    job = EXAMPLES / "multiprocessing_job.py"
    environment = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada), "START_METHOD": start_method}
    zoho.latency = 0.2
    zoho.api_latency = 0.25  # so that all processes have started before the tasks are done
    for number in (1, 2):
        printed = workspace.run(job, **environment)
        tasks = [re.fullmatch(r"task (\d+): organisation 1001, process (\d+)", line) for line in printed]
        assert [int(task[1]) for task in tasks] == list(range(12))
        assert len({task[2] for task in tasks}) > 1
        assert zoho.token_calls == number
        workspace.let_an_hour_pass()


def test_refused_token(workspace, zoho, ada):
    """Sixteen threads of four processes have a refused access token: one refresh, and sixteen answers."""
    settings = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada)}
    answers = ["organisation 1001"] * 4
    assert workspace.run(EXAMPLES / "refused_token.py", **settings) == answers
    # Another program gets an access token, and the one that is stored is one too many.
    zoho.live_tokens = 1
    refresh = {"grant_type": "refresh_token", "client_id": zoho.client_id, "client_secret": zoho.client_secret}
    data = {**refresh, "refresh_token": settings["ZOHO_REFRESH_TOKEN"]}
    assert "access_token" in requests.post(zoho.accounts_url, data=data, timeout=10).json()
    zoho.live_tokens = 15
    zoho.clear_calls()
    zoho.latency = 0.2
    with ThreadPoolExecutor(4) as programs:
        runs = programs.map(lambda _: workspace.run(EXAMPLES / "refused_token.py", **settings), range(4))
        assert list(runs) == [answers] * 4
    assert zoho.refreshes == 1


def test_notify_on_save(workspace, zoho, ada):
    """The subclass sends one notification for the save of a login and one for that of a refresh."""
    refresh_token = zoho.refresh_token(ada)
    for _ in range(2):
        printed = workspace.run(EXAMPLES / "notify_on_save.py", ZOHO_REFRESH_TOKEN=refresh_token)
        assert printed == [f"saved row 1 of {ada.name}"]
        workspace.let_an_hour_pass()


@pytest.mark.skipif(sys.platform == "win32", reason="it needs POSIX permissions, and Lambda runs on Linux")
def test_aws_lambda(workspace, zoho, ada, tmp_path):
    """A cold start makes one token call, a warm start none. Nothing is written into the read-only package folder."""
    package, tmp = tmp_path / "package", tmp_path / "tmp"
    tmp_path.chmod(0o700)  # like root's home and the folders of `mktemp -d`
    package.mkdir()
    tmp.mkdir()
    tmp.chmod(0o1777)
    shutil.copy(EXAMPLES / "aws_lambda.py", package)
    (package / "aws_lambda.py").chmod(0o444)
    package.chmod(0o555)
    settings = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada), "TMPDIR": str(tmp)}
    try:
        printed = workspace.run(HERE / "run_lambda.py", package, **settings)
        assert printed == ['{"organisation": "1001"}'] * 2
        assert zoho.token_calls == 1
        assert [file.name for file in package.iterdir()] == ["aws_lambda.py"]
        assert stat.S_IMODE((tmp / "zohooauth.db").stat().st_mode) == 0o600
        # A new process with the same `/tmp` is a warm start, too: the token is in the file, not in memory.
        workspace.run(HERE / "run_lambda.py", package, **settings)
        assert zoho.token_calls == 1
    finally:
        package.chmod(0o755)
