"""The examples that run to their end print what they promise, and ask Zoho no more often than they must."""

import multiprocessing
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
from zoho_token_store.testing import Client, ZohoStandIn

from .conftest import EXAMPLES, HOUR


def test_each_example_is_run():
    """No example is without a test that runs it: the demonstration has `make demo`, the suite `sdk/test_plugin.py`."""
    here = Path(__file__).parent
    run = "".join(file.read_text(encoding="utf-8") for file in here.glob("test_*.py"))
    names = {file.stem for file in EXAMPLES.glob("*.py")} - {"demo", "test_with_zoho"}
    assert len(names) >= 7
    assert {name for name in names if name not in run} == set()


def test_notebook(stage, zoho, ada):
    """The notebook logs in once; run again, it goes on with the stored token."""
    code = zoho.grant_code(ada)
    for _ in range(2):
        assert stage.run(EXAMPLES / "notebook.py", ZOHO_GRANT_CODE=code) == [ada.name, "1001"]
    assert zoho.token_calls == 1


def test_sandbox_and_production(stage, zoho, ada):
    """One user of one client has two rows, one in production and one in the sandbox, and each refreshes on its own."""
    with ZohoStandIn() as sandbox:
        sandbox.know_client(client := Client(zoho.client_id, zoho.client_secret))
        codes = {
            "STAND_IN_SANDBOX": sandbox.url,
            "ZOHO_GRANT_CODE": zoho.grant_code(ada),
            "ZOHO_SANDBOX_GRANT_CODE": sandbox.grant_code(ada, client),
        }
        for number in (0, 1):
            assert stage.run(EXAMPLES / "sandbox_and_production.py", **codes) == [
                "production: organisation 1001, row 1",
                "sandbox: organisation 1001, row 2",
                "production: organisation 1001, row 1",
            ]
            for one, asked in ((zoho, 2), (sandbox, 1)):
                assert (one.logins, one.refreshes) == (1, number)
                assert [call.path for call in one.calls].count("/crm/v8/org") == asked * (number + 1) + 1
            sandbox.clock = lambda clock=sandbox.clock: clock() + HOUR
            stage.let_an_hour_pass()
    assert stage.rows() == [("1", ada.name), ("2", ada.name)]


@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
def test_multiprocessing_job(stage, zoho, ada, start_method):
    """Four processes at one expiry ask Zoho once, and do all of the work, however they are started."""
    job = EXAMPLES / "multiprocessing_job.py"
    environment = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada), "START_METHOD": start_method}
    zoho.latency = 0.2
    zoho.api_latency = 0.05
    for number in (1, 2):
        printed = stage.run(job, **environment)
        done = [re.fullmatch(r"task (\d+): organisation 1001, process (\d+)", line) for line in printed]
        assert [int(one[1]) for one in done] == list(range(12))
        assert len({one[2] for one in done}) > 1
        assert zoho.token_calls == number
        stage.let_an_hour_pass()


def test_notify_on_save(stage, zoho, ada):
    """The subclass tells once of the login's save, and once of the refresh's."""
    refresh_token = zoho.refresh_token(ada)
    for _ in range(2):
        printed = stage.run(EXAMPLES / "notify_on_save.py", ZOHO_REFRESH_TOKEN=refresh_token)
        assert printed == [f"saved row 1 of {ada.name}"]
        stage.let_an_hour_pass()


LAMBDA = """
import json, os, pathlib, sys
package = sys.argv[1]
sys.path.insert(0, package)
if os.name == "posix" and os.geteuid() == 0:  # permissions do not apply to root
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chdir(package)
try:
    pathlib.Path(package, "written").touch()
    sys.exit("the package folder can be written to")
except PermissionError:
    pass
from aws_lambda import handler
for _ in range(2):
    print(json.dumps(handler({}, None)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions, and Lambda is Linux")
def test_aws_lambda(stage, zoho, ada, open_folder):
    """A cold start asks Zoho once, a warm one not at all, and nothing is written into the read-only package folder."""
    package, tmp = open_folder / "package", open_folder / "tmp"
    package.mkdir()
    tmp.mkdir()
    tmp.chmod(0o1777)
    shutil.copy(EXAMPLES / "aws_lambda.py", package)
    (package / "aws_lambda.py").chmod(0o444)
    (open_folder / "run.py").write_text(LAMBDA, encoding="utf-8")
    package.chmod(0o555)
    settings = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada), "TMPDIR": str(tmp)}
    try:
        printed = stage.run(open_folder / "run.py", package, **settings)
        assert printed == ['{"organisation": "1001"}'] * 2
        assert zoho.token_calls == 1
        assert [file.name for file in package.iterdir()] == ["aws_lambda.py"]
        assert stat.S_IMODE((tmp / "zohooauth.db").stat().st_mode) == 0o600
        # The next instance, on the disk of this one: it is the file that makes a start warm.
        stage.run(open_folder / "run.py", package, **settings)
        assert zoho.token_calls == 1
    finally:
        package.chmod(0o755)
