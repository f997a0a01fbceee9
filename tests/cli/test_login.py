"""The commands login, logout and refresh: usage, prompts and confirmations. tests/sdk tests what they ask Zoho."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from cli.processes import SCRIPT, Terminal, run_process, without_modules
from own_process import in_own_process
from support import PLANTED, login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import _sdk
from zoho_token_store._native import Administration
from zoho_token_store.testing import ZohoStandIn

NOTHING = " Nothing was changed.\n"
CODE = ["--client-id", "1000.CLIENT", "--grant", "1000.made.up"]


@pytest.fixture
def zoho():
    with ZohoStandIn() as standin:
        yield standin


def where(zoho):
    return ["--api-domain", zoho.url, "--accounts-url", zoho.url]


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["login", "--grant", "1000.made.up"], "Missing option '--client-id'"),
        (["login", "--client-id", "c"], "Give either --grant or --refresh-token-file."),
        (["login", *CODE, "--refresh-token-file", "f"], "Give either --grant or --refresh-token-file."),
        (["login", *CODE[:3], "-", "--client-secret-file", "-"], "Only one option can read stdin."),
        (["login", *CODE, "--client-secret", "planted"], "No such option"),
        (["login", *CODE, "--api-domain", "https://a.example"], "--api-domain and --accounts-url go together."),
        (
            ["logout", "1", "--data-centre", "eu", "--api-domain", "http://a", "--accounts-url", "http://b"],
            "go neither with --data-centre nor with --environment.",
        ),
        (["login", *CODE, "--accounts-url", "accounts.zoho.eu"], "Give a URL such as https://accounts.zoho.eu"),
        (["login", *CODE, "--accounts-url", "https://me:planted@a.example"], "without a user name and a query"),
        (["login", *CODE, "--accounts-url", "https://a.example:x/"], "Give a URL such as"),
        (["login", *CODE, "--environment", "test"], "is not one of"),
        (["login", *CODE, "--data-centre", "mars"], "--data-centre must be one of au, ca, cn, eu, in, jp, sa, us."),
        (["refresh", "--within", "10"], "'10' is not a duration. Examples: 90s, 45m"),
        (["refresh", "--api-domain", "https://a.example"], "--api-domain and --accounts-url go together."),
        (["logout"], "Give either TOKEN or --all-of USER."),
        (["logout", "1", "--all-of", "ada"], "Give either TOKEN or --all-of USER."),
    ],
)
@pytest.mark.usefixtures("database")
def test_wrong_usage(run, command, hint, monkeypatch):
    """Wrong usage gives exit status 2 and a message that names the mistake, and no secret. Nothing is asked."""
    monkeypatch.setenv("ZOHO_CLIENT_SECRET", "made-up")
    refused = run(*command, status=2)
    assert hint in " ".join(refused.stderr.split())
    assert PLANTED not in refused.output


@pytest.mark.parametrize("command", [["login", *CODE], ["logout", "1", "--yes"], ["refresh"]])
def test_without_the_sdk(database, command):
    """Without the SDK, the error says how to install it. Nothing was changed."""
    before = database.read_bytes()
    refused = run_process([*without_modules("zohocrmsdk"), "--db", str(database), *command], ZOHO_CLIENT_SECRET="x")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "Error: This command needs the Zoho CRM SDK, which is not installed. Nothing was changed.\n"
        "Fix: Run pip install zohocrmsdk8_0\n"
    )
    assert database.read_bytes() == before


def test_an_sdk_that_cannot_be_imported(database):
    """If a package of the SDK is missing, the error names it."""
    refused = run_process([*without_modules("requests"), "--db", str(database), "logout", "1", "--yes"])
    assert refused.stderr.endswith(
        "it needs the package requests. Nothing was changed.\nFix: Run pip install requests\n"
    )
    assert refused.returncode == 1


@pytest.mark.parametrize(
    "content",
    [None, b"", b" \n", b"planted secret", b"planted\nsecret", b"\xff", b"\0"],
    ids=["missing", "empty", "blank", "two words", "two lines", "no UTF-8", "NUL"],
)
def test_a_file_without_a_secret(run, path, tmp_path, content):
    """A file that is missing, or that does not have just one word, is an error. Its content is not shown."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    for option in ("--client-secret-file", "--refresh-token-file"):
        code = CODE if option == "--client-secret-file" else [*CODE[:2], "--client-secret-file", __file__]
        refused = run("login", *code[: 4 if option == "--client-secret-file" else 2], option, file, status=1)
        assert refused.stderr.startswith(f"Error: {file} ") or option == "--refresh-token-file"
        assert PLANTED not in refused.output
        assert not path.exists()


def test_a_client_secret_that_is_missing(run, path, monkeypatch):
    """Without a terminal there is no prompt. Two variables for one secret are refused."""
    monkeypatch.delenv("ZOHO_CLIENT_SECRET", raising=False)
    refused = run("login", *CODE, status=1)
    assert refused.stderr == (
        "Error: The client secret is missing, and stdin is not a terminal to ask for it. Nothing was changed.\n"
        "Fix: Set ZOHO_CLIENT_SECRET, or give --client-secret-file FILE.\n"
    )
    monkeypatch.setenv("ZOHO_CLIENT_SECRET", PLANTED)
    monkeypatch.setenv("ZOHO_CLIENT_SECRET_FILE", PLANTED)
    refused = run("login", *CODE, status=1)
    assert refused.stderr.startswith("Error: ZOHO_CLIENT_SECRET and ZOHO_CLIENT_SECRET_FILE are both set: ")
    assert PLANTED not in refused.stderr
    assert not path.exists()


@pytest.mark.parametrize("name", ["ZOHO_DATA_CENTRE", "ZOHO_ENVIRONMENT"])
def test_the_data_centre_of_a_variable(run, zoho, path, monkeypatch, name):
    """`login` reads the variables if no option says where Zoho is. A wrong value is wrong usage."""
    monkeypatch.setenv("ZOHO_CLIENT_SECRET", "made-up")
    monkeypatch.setenv(name, "mars")
    option = name.removeprefix("ZOHO_").lower().replace("_", "-")
    assert f"--{option} must be one of " in run("login", *CODE, status=2).stderr
    assert not path.exists()
    refused = run_process([*SCRIPT, "--db", str(path), "login", *CODE, *where(zoho)])
    assert "has answered invalid_client" in refused.stderr
    # An option replaces its own variable, and not the other one.
    other = ["--data-centre", "eu"] if name == "ZOHO_ENVIRONMENT" else ["--environment", "sandbox"]
    assert f"--{option} must be one of " in run("login", *CODE, *other, status=2).stderr


def test_prompts_on_a_terminal(zoho, path):
    """On a terminal, the code and the client secret are asked for, and do not appear on the screen."""
    command = [*SCRIPT, "--db", str(path), "login", "--client-id", zoho.client_id, "--grant", "-", *where(zoho)]
    code = zoho.grant_code("ada@example.com")
    with Terminal(command) as terminal:
        terminal.read_until("Client secret: ")
        terminal.type(f"{zoho.client_secret}\r")
        terminal.read_until("Grant code: ")
        terminal.type(f"{code}\r")
        status, shown = terminal.wait()
    assert status == 0, shown
    assert "ada@example" in shown
    assert zoho.client_secret not in shown
    assert code not in shown


@pytest.mark.parametrize(("keys", "status"), [("\r", 1), ("\x04", 1), ("\x03", 130)])
def test_a_prompt_without_an_answer(zoho, path, keys, status):
    """Enter, Ctrl-D and Ctrl-C end the command. Nothing was changed, and Zoho was not asked."""
    with Terminal([*SCRIPT, "--db", str(path), "login", *CODE, *where(zoho)]) as terminal:
        terminal.read_until("Client secret: ")
        terminal.type(keys)
        ended, shown = terminal.wait()
    assert ended == status
    assert "Traceback" not in shown
    assert ("Error: The client secret is missing. Nothing was changed.\n" in shown) == (status == 1)
    assert zoho.calls == []
    assert not path.exists()


def test_ctrl_c_while_zoho_does_not_answer(zoho, path):
    """Ctrl-C ends the command at once, without a traceback. Nothing was saved."""
    zoho.fail_next(hang=60)
    command = [*SCRIPT, "--db", str(path), "login", *CODE, *where(zoho)]
    with Terminal(command, ZOHO_CLIENT_SECRET="made-up") as terminal:
        while not zoho.calls:
            time.sleep(0.02)
        terminal.type("\x03")
        status, shown = terminal.wait()
    assert (status, shown.strip().removeprefix("^C").strip()) == (130, "")
    with CustomStoreSQLite(path) as store:
        assert len(store) == 0


@pytest.mark.parametrize(
    ("domain", "given", "accounts"),
    [
        ("https://www.zohoapis.com", {}, "https://accounts.zoho.com"),
        ("https://sandbox.zohoapis.eu/", {}, "https://accounts.zoho.eu"),
        ("https://www.zohoapis.com", {"data_centre": "eu"}, "https://accounts.zoho.com"),
        (None, {"data_centre": "IN", "environment": "Sandbox"}, "https://accounts.zoho.in"),
        (None, {}, None),
        ("https://zoho.example", {}, None),
        ("https://zoho.example", {"data_centre": "eu"}, None),
        (
            "https://zoho.example/",
            {"api_domain": "https://zoho.example", "accounts_url": "https://a.example"},
            "https://a.example",
        ),
        ("https://zoho.other", {"api_domain": "https://zoho.example", "accounts_url": "https://a.example"}, None),
    ],
)
def test_who_gets_the_secrets_of_a_row(path, domain, given, accounts):
    """The data centre of the row's API domain does. A given one does only for rows without another API domain."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com", api_domain=domain))
    database = Administration(path)
    sdk = _sdk.load()
    zoho = _sdk.Zoho(*(given.get(name) for name in ("data_centre", "environment", "api_domain", "accounts_url")))
    found = _sdk.environment_of(sdk, database.record("1"), zoho.load(sdk) if zoho.is_given() else None)
    database.close()
    assert (None if isinstance(found, str) else found.accounts_url.removesuffix("/oauth/v2/token")) == accounts


@pytest.mark.usefixtures("database")
def test_logout_asks(run, path):
    """`logout` asks before it asks Zoho. Several rows are listed."""
    refused = run("logout", "1", answer="n\n", status=1)
    assert refused.stderr.startswith("Revoke and delete row 1 (ada@example.com, 1000.CLIENT, US)? [y/N] ")
    assert run("logout", "1", "--keep-row", status=1).stderr.startswith("Revoke row 1 (")
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com", 7, client_id="1000.OTHER"))
    refused = run("logout", "--all-of", "ada@example.com", status=1)
    assert "\nRevoke and delete these 2 rows? [y/N] \n" in refused.stderr
    assert refused.stdout == ""
    refused = run("logout", "ada@example.com", status=1)
    assert "has 2 tokens of this user" in refused.stderr
    refused = run("logout", "--all-of", "unknown@example.com", "--yes", status=1)
    assert refused.stderr.startswith(f"Error: {path} has no tokens of this user. Nothing was changed.\n")
    with CustomStoreSQLite(path) as store:
        assert len(store) == 4


def test_a_row_without_a_refresh_token(run, path):
    """There is nothing to revoke at Zoho. `logout` deletes the row, and with `--keep-row` says so."""
    with CustomStoreSQLite(path) as store:
        store.save_token(token("eve@example.com", access_token="planted-access"))
    kept = run("logout", "1", "--keep-row", "--yes")
    assert kept.stdout == "Row 1 (eve@example.com): had no refresh token to revoke, kept.\n"
    gone = run("logout", "1", "--yes")
    assert gone.stdout == "Row 1 (eve@example.com): had no refresh token to revoke, deleted.\n"
    with CustomStoreSQLite(path) as store:
        assert len(store) == 0


@in_own_process
def test_a_read_only_file(tmp_path):
    """The code is not used, and nothing is revoked, if the file cannot be written."""
    from click.testing import CliRunner
    from own_process import drop_privileges
    from zoho_token_store._cli._run import cli

    os.chdir(tmp_path)
    with CustomStoreSQLite() as store:
        store.save_token(login("ada@example.com"))
    Path("zohooauth.db").chmod(0o400)
    tmp_path.chmod(0o500)
    drop_privileges()
    with ZohoStandIn() as zoho:
        variables = {"ZOHO_CLIENT_SECRET": zoho.client_secret, "ZOHO_CLIENT_ID": zoho.client_id}
        code = zoho.grant_code("ada@example.com")
        for arguments in (["login", "--grant", code], ["logout", "1", "--yes"]):
            refused = CliRunner().invoke(cli, [*arguments, *where(zoho)], env=variables)
            assert refused.exit_code == 1
            assert "cannot be written" in refused.stderr, refused.stderr
        assert zoho.calls == []
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("command", [["logout", "1", "--yes"], ["logout", "--all-of", "ada"], ["refresh"]])
def test_a_missing_database_is_not_created(run, path, command):
    """Only `login` creates a database."""
    assert "Fix: Name the database with --db PATH" in run(*command, status=1).stderr
    assert not path.exists()


@pytest.mark.usefixtures("database")
def test_a_token_in_place_of_an_id_is_not_printed(run):
    """A long ID, or one with a dot, may be a secret, and is not printed."""
    for command in (["logout", "--yes"], ["refresh"]):
        assert "1000.planted" not in run(*command, "1000.planted", status=1).stderr
        assert 'no token with the id or user "99"' in run(*command, "99", status=1).stderr
