"""The commands that ask Zoho, with the installed SDK: login and logout."""

import json
import os
import sqlite3
import sys

import pytest
from sdk.program import installed_sdk, processes
from zoho_token_store import CustomStoreSQLite, token_from_dict
from zoho_token_store.__main__ import main

SDK = installed_sdk()
LOOK_UPS = ["user", "org"] if SDK >= 6 else []
TIMEOUT = 60
REFUSED = "The login has failed: "


def run_command(arguments, folder, environment, streams):
    """Run the command line in this process, with files as its standard streams, and exit with its status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate(streams):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY, 0o600)
        os.dup2(opened, number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(n, "w" if n else "r", encoding="utf-8", closefd=False) for n in range(3)
    )
    sys.argv[1:] = arguments
    sys.exit(main())


class CommandLine:
    """Runs the command line in a folder of its own. No output may hold a secret of the stand-in."""

    def __init__(self, zoho, folder):
        self.zoho = zoho
        self.folder = folder
        self.folder.mkdir()
        self.streams = [folder.with_name(f"{folder.name}.{name}") for name in ("stdin", "stdout", "stderr")]
        self.database = folder / "zohooauth.db"
        self.where = ["--api-domain", zoho.url, "--accounts-url", zoho.url]

    def start(self, *arguments, answer="", **variables):
        """Start a command. It is forked from a process with the SDK imported, which saves a second."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZOHO_")}
        variables = {"ZOHO_CLIENT_ID": self.zoho.client_id, "ZOHO_CLIENT_SECRET": self.zoho.client_secret, **variables}
        self.streams[0].write_text(answer, encoding="utf-8")
        process = processes.Process(
            target=run_command,
            args=(arguments, str(self.folder), environment | variables, [*map(str, self.streams)]),
            daemon=True,
        )
        process.start()
        return process

    def finish(self, process, status):
        """Wait for the end of a command. Return what it has written to stdout and stderr."""
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        stdout, stderr = (file.read_text(encoding="utf-8") for file in self.streams[1:])
        assert process.exitcode == status, (stdout, stderr)
        for secret in ("1000.access", "1000.refresh", "1000.secret", "1000.code", self.zoho.client_secret):
            assert secret not in stdout + stderr
        assert "Traceback" not in stderr
        return stdout, stderr

    def run(self, *arguments, status=0, answer="", **variables):
        return self.finish(self.start(*arguments, answer=answer, **variables), status)

    def login(self, user, *arguments, status=0, **variables):
        code = user if "." in user and "@" not in user else self.zoho.grant_code(user)
        return self.run("login", "--grant", code, *self.where, *arguments, status=status, **variables)

    def rows(self):
        return json.loads(self.run("list", "--json")[0]) if self.database.exists() else []


@pytest.fixture
def command_line(zoho, tmp_path):
    return CommandLine(zoho, tmp_path / "work")


def kinds(zoho):
    return [call.kind for call in zoho.calls]


def error_and_hint(stderr):
    error, hint = stderr.splitlines()
    assert error.startswith("Error: ")
    assert hint.startswith("Fix: ")
    return error.removeprefix("Error: "), hint.removeprefix("Fix: ")


def test_login_and_logout(command_line, zoho, ada):
    """`login` redeems the code once, saves, and prints the row as `list` does. `logout` revokes and deletes."""
    stdout, stderr = command_line.login("ada@example.com")
    assert (stdout, stderr) == command_line.run("list")
    assert kinds(zoho) == ["login", *LOOK_UPS]
    [row] = command_line.rows()
    assert (row["user_name"], row["client_id"]) == (ada.name if LOOK_UPS else None, zoho.client_id)
    assert (row["has_client_secret"], row["has_refresh_token"], row["has_access_token"]) == (True, True, True)
    stdout, stderr = command_line.run("logout", "1", "--yes", "--json", *command_line.where)
    assert (json.loads(stdout), stderr) == ({"revoked": ["1"], "deleted": ["1"], "failed": {}}, "")
    assert zoho.revocations == 1
    assert command_line.rows() == []
    # The SDK puts files of its own into the current folder, if it is not told otherwise.
    assert {file.name.partition("-")[0] for file in command_line.folder.iterdir()} == {"zohooauth.db"}


def test_login_without_a_user_and_from_streams(command_line, zoho, ada, tmp_path):
    """`--no-user` asks Zoho for no user. The code comes from stdin, the secret from a file. `--json` prints the row."""
    secret = tmp_path / "secret"
    secret.write_text(f"{zoho.client_secret}\n", encoding="utf-8")
    arguments = ["login", "--grant", "-", "--client-secret-file", str(secret), "--no-user", "--json"]
    code = zoho.grant_code(ada)
    stdout, stderr = command_line.run(*arguments, *command_line.where, answer=f"{code}\n", ZOHO_CLIENT_SECRET="made-up")
    assert ([json.loads(stdout)], stderr) == (command_line.rows(), "")
    assert json.loads(stdout)["user_name"] is None
    assert kinds(zoho) == ["login"]


def test_login_with_a_refresh_token(command_line, zoho, ada, tmp_path):
    """A refresh token in a file is tried, and saved. If the database has it already, Zoho is not asked."""
    file = tmp_path / "token"
    file.write_text(zoho.refresh_token(ada), encoding="utf-8")
    arguments = ["login", "--refresh-token-file", str(file), *command_line.where]
    stdout, stderr = command_line.run(*arguments)
    assert stderr == ""
    assert kinds(zoho) == ["refresh", *LOOK_UPS]
    again, stderr = command_line.run(*arguments)
    assert again == stdout
    assert stderr == "The database has these tokens already.\n"
    assert len(zoho.calls) == len(["refresh", *LOOK_UPS])
    zoho.revoke_user(ada)
    other = CommandLine(zoho, tmp_path / "other")
    error, hint = error_and_hint(other.run(*arguments, status=1)[1])
    assert error == f"{REFUSED}{zoho.url.removeprefix('http://')} has answered invalid_code. Nothing was saved."
    assert hint.startswith("It was revoked, or it belongs to another client")


def test_zoho_refuses_a_login(command_line, zoho, ada):
    """Zoho's answer is an error with a hint. Nothing is saved, and the code is not shown."""
    host = zoho.url.removeprefix("http://")
    redirected = zoho.add_client("https://app.example.com/callback")
    code = zoho.grant_code(ada)
    for client_id, secret, grant, expected in (
        (zoho.client_id, zoho.client_secret, "1000.made.up", "invalid_code"),
        ("1000.MADE-UP", zoho.client_secret, code, "invalid_client"),
        (redirected.id, redirected.secret, zoho.grant_code(ada, redirected), "invalid_redirect_uri"),
    ):
        variables = {"ZOHO_CLIENT_ID": client_id, "ZOHO_CLIENT_SECRET": secret}
        error, hint = error_and_hint(command_line.login(grant, status=1, **variables)[1])
        assert error.startswith(REFUSED)
        assert error == f"{REFUSED}{host} has answered {expected}. Nothing was saved."
        assert grant not in error + hint
    zoho.deny_next()
    error, hint = error_and_hint(command_line.login(code, status=1)[1])
    assert "Access Denied" in error
    assert hint.startswith("Wait ten minutes")
    assert command_line.rows() == []


def test_zoho_cannot_be_reached(command_line, zoho, ada):
    """A dropped connection, an HTML page and a made-up answer are errors with a hint. The code can be tried again."""
    code = zoho.grant_code(ada)
    for failure, expected in (
        ({"drop": True}, "cannot be reached (ConnectionError)"),
        ({}, "has not answered as Zoho does"),
        ({"body": {"error": "1000.a-made-up.echo 4711"}}, "has not answered as Zoho does"),
    ):
        zoho.fail_next(**failure)
        error, hint = error_and_hint(command_line.login(code, status=1)[1])
        assert error == f"{REFUSED}{zoho.url.removeprefix('http://')} {expected}. Nothing was saved."
        assert hint.startswith("Check the network and the URL")
    assert command_line.rows() == []
    command_line.login(code)
    assert len(command_line.rows()) == 1


def test_zoho_sends_no_refresh_token(command_line, zoho, ada):
    """Without a refresh token the login stands. The message says what to do, and the exit status is 1."""
    answer = {"access_token": zoho.access_token(ada), "expires_in": 3600, "api_domain": zoho.url}
    zoho.fail_next(status=200, body=answer)
    stdout, stderr = command_line.login("ada@example.com", status=1)
    error, hint = error_and_hint(stderr)
    assert error == "The row is saved, but Zoho has sent no refresh token. So this login ends within the hour."
    assert "access_type=offline and prompt=consent" in hint
    assert stdout == command_line.run("list")[0]
    # There is nothing to revoke.
    stdout, _ = command_line.run("logout", "1", "--yes", *command_line.where)
    assert stdout.endswith(": had no refresh token to revoke, deleted.\n")
    assert command_line.rows() == []


@pytest.mark.parametrize("failure", [{}, {"drop": True}, {"status": 401, "body": {"code": "OAUTH_SCOPE_MISMATCH"}}])
def test_zoho_does_not_say_who_the_user_is(command_line, zoho, failure):
    """The tokens are saved without a user name. A note names the missing scopes. SDK 5 does not ask for the user."""
    zoho.fail_next(target="api", **failure)
    stdout, stderr = command_line.login("ada@example.com")
    assert bool(stderr) == bool(LOOK_UPS)
    assert stderr == "" or stderr.startswith(
        "The row has no user name, because Zoho has not answered who the user is. "
    )
    assert stdout == command_line.run("list")[0]
    assert command_line.rows()[0]["has_refresh_token"]


def test_a_login_that_cannot_be_saved(command_line, zoho):
    """If the save fails after Zoho has accepted the code, the command says so, and prints no row."""
    command_line.login("ada@example.com")
    zoho.latency = 3
    zoho.clear_calls()
    code = zoho.grant_code("bob@example.com")
    process = command_line.start("--timeout", "0.2", "login", "--grant", code, *command_line.where)
    while not zoho.calls:  # the command has checked the database, and waits for the answer
        assert process.is_alive()
    # In this process no store has the file open.
    other = sqlite3.connect(command_line.database, isolation_level=None)
    other.execute("begin immediate")
    try:
        stdout, stderr = command_line.finish(process, 1)
    finally:
        other.execute("rollback")
        other.close()
    assert stdout == ""
    error, hint = error_and_hint(stderr)
    assert error.startswith("Zoho has accepted the login, but the tokens are not saved, and are lost when this")
    assert "Then log in again: a grant code cannot be used twice." in hint
    assert zoho.logins == 1
    assert len(command_line.rows()) == 1


def test_a_code_is_not_used_if_the_database_cannot_be_written(command_line, zoho):
    """If another program locks the database, the command fails before it uses the code."""
    command_line.login("ada@example.com")
    zoho.clear_calls()
    other = sqlite3.connect(command_line.database, isolation_level=None)
    other.execute("begin immediate")
    code = zoho.grant_code("bob@example.com")
    try:
        for arguments in (["login", "--grant", code], ["logout", "1", "--yes"]):
            _, stderr = command_line.run("--timeout", "0.2", *arguments, *command_line.where, status=1)
            assert "--timeout SECONDS" in stderr
    finally:
        other.execute("rollback")
        other.close()
    assert zoho.calls == []
    command_line.login(code)


def test_logout_of_some_rows(command_line, zoho, ada, bob):
    """Rows that cannot be revoked are reported and kept, and the exit status is 1. The others are deleted."""
    gone = zoho.refresh_token(ada)
    zoho.revoke_user(ada)
    twice = zoho.refresh_token(ada)
    with CustomStoreSQLite(command_line.database) as store:
        client = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, "user_name": ada.name}
        for number, (refresh_token, domain) in enumerate(
            [(gone, zoho.url), (twice, zoho.url), (zoho.refresh_token(ada), "https://zoho.example"), (None, zoho.url)]
        ):
            values = {"refresh_token": refresh_token, "access_token": f"planted-{number}", "api_domain": domain}
            store.save_token(token_from_dict({**client, **values, "client_id": f"1000.{number}"}))
        store.save_token(token_from_dict({**client, "user_name": bob.name, "refresh_token": twice}))
        store.save_token(token_from_dict({**client, "user_name": bob.name, "refresh_token": zoho.refresh_token(bob)}))
    ids = [row["id"] for row in command_line.rows()]
    kept = command_line.run("logout", "2", "--keep-row", "--yes", *command_line.where)
    assert kept[0].endswith(": revoked, kept.\n")
    stdout, stderr = command_line.run(
        "logout", "--all-of", "ada@example.com", "--yes", "--json", *command_line.where, status=1
    )
    report = json.loads(stdout)
    host = zoho.url.removeprefix("http://")
    assert report["failed"] == {
        "1": f"{host} has refused. It may be revoked already",
        "2": f"{host} has refused. It may be revoked already",
        "3": "the SDK does not know its API domain: give it as --api-domain, with --accounts-url",
    }
    assert (report["revoked"], report["deleted"]) == ([], ["4"])
    assert stderr.startswith("Error: 3 rows could not be logged out, and are kept.\n  row 1 (")
    assert stderr.endswith(
        '\nFix: Try again later. If you know that the token is revoked, run "zoho-token-store delete ID".\n'
    )
    assert [row["id"] for row in command_line.rows()] == ["1", "2", "3", *ids[4:]]


def test_a_new_login_during_a_logout_is_kept(command_line, zoho, ada):
    """If the user logs in again while Zoho revokes the old token, the row is kept with the new one."""
    command_line.login("ada@example.com", "--no-user")
    zoho.latency = 2
    process = command_line.start("logout", "1", "--yes", "--json", *command_line.where)
    while "revoke" not in kinds(zoho):
        assert process.is_alive()
    with CustomStoreSQLite(command_line.database) as store:
        store.save_token(token_from_dict({"id": "1", "refresh_token": zoho.refresh_token(ada)}))
    stdout, stderr = command_line.finish(process, 1)
    reason = "revoked, but not deleted: the user has logged in again meanwhile"
    assert json.loads(stdout) == {"revoked": ["1"], "deleted": [], "failed": {"1": reason}}
    assert reason in stderr
    assert [row["id"] for row in command_line.rows()] == ["1"]


def test_logout_of_rows_without_an_api_domain(command_line, zoho, ada):
    """For a row without an API domain, the options say where Zoho is. Rows with one refresh token are revoked once."""
    refresh_token = zoho.refresh_token(ada)
    with CustomStoreSQLite(command_line.database) as store:
        for number in range(2):
            values = {"user_name": ada.name, "client_id": f"1000.{number}", "client_secret": "planted"}
            store.save_token(token_from_dict({**values, "refresh_token": refresh_token}))
    _, stderr = command_line.run("logout", "1", "--yes", status=1)
    assert "it has no API domain: give --data-centre" in stderr
    zoho.fail_next(target="revoke", drop=True)
    _, stderr = command_line.run("logout", "1", "--yes", *command_line.where, status=1)
    assert f"{zoho.url.removeprefix('http://')} cannot be reached (ConnectionError)" in stderr
    assert zoho.revocations == 0
    stdout, _ = command_line.run("logout", "--all-of", ada.name, "--yes", *command_line.where)
    assert stdout.count(": revoked, deleted.\n") == len(stdout.splitlines()) == 2
    assert zoho.revocations == 1
    assert command_line.rows() == []


def test_refresh(command_line, zoho):
    """`refresh` makes one refresh for each token that expires soon. It needs no other login, and looks no user up."""
    command_line.login("ada@example.com")
    command_line.login("bob@example.com", "--no-user")
    zoho.clear_calls()
    stdout, stderr = command_line.run("refresh", *command_line.where)
    assert (stdout, stderr, zoho.calls) == ("0 rows refreshed, 2 skipped.\n", "", [])
    before = [row["expiry_time"] for row in command_line.rows()]
    stdout, stderr = command_line.run("refresh", "--within", "2h", "1", "2", "1", "--json", *command_line.where)
    assert (json.loads(stdout), stderr) == ({"refreshed": ["1", "2"], "skipped": [], "failed": {}}, "")
    assert [kind for kind in kinds(zoho) if kind not in LOOK_UPS] == ["refresh", "refresh"]
    assert all(row["expiry_time"] > old for row, old in zip(command_line.rows(), before, strict=True))
    zoho.clear_calls()
    assert command_line.run("refresh", "--within", "2h", "2", *command_line.where)[0] == "1 row refreshed, 0 skipped.\n"
    assert zoho.refreshes == 1


def test_refreshes_that_fail(command_line, zoho, ada, bob):
    """A row that cannot be refreshed is reported with the reason. The others are refreshed. The exit status is 1."""
    for user in (ada, bob):
        command_line.login(user.email)
    with CustomStoreSQLite(command_line.database) as store:
        client = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, "expiry_time": 1}
        for name, domain in (("elsewhere", "https://zoho.example"), ("nowhere", None)):
            values = {"user_name": name, "refresh_token": f"planted-{name}", "access_token": f"planted-{name}-2"}
            store.save_token(token_from_dict({**client, **values, "api_domain": domain}))
    zoho.revoke_user(bob)
    zoho.clear_calls()
    stdout, stderr = command_line.run("refresh", "--within", "2h", "--json", *command_line.where, status=1)
    report = json.loads(stdout)
    assert report["refreshed"] == ["1"]
    assert report["failed"].keys() == {"2", "3", "4"}
    assert "invalid_code" in report["failed"]["2"]
    assert report["failed"]["3"] == "the SDK does not know its API domain: give it as --api-domain, with --accounts-url"
    assert "invalid_code" in report["failed"]["4"]  # the row has no API domain, so the given one is asked
    assert stderr.startswith("Error: 3 rows could not be refreshed.\n  row 2 (")
    assert "\nFix: If Zoho answers invalid_code, the user has to log in again." in stderr
    assert zoho.refreshes == 3
    # Without an address there is no request. If everything fails, it is the same report.
    stdout, stderr = command_line.run("refresh", "--json", "3", "4", status=1)
    report = json.loads(stdout)
    assert (report["refreshed"], report["skipped"]) == ([], [])
    assert report["failed"]["4"] == "it has no API domain: give --data-centre"
    assert "planted" not in stdout + stderr
    zoho.stop()
    _, stderr = command_line.run("refresh", "1", "--within", "2h", *command_line.where, status=1)
    assert "1 row could not be refreshed." in stderr


def test_the_commands_that_ask_zoho_work_on_a_server(command_line, zoho, dsn, schema):
    """`login` makes the tables, `refresh` refreshes, and `logout` deletes the row, on a PostgreSQL server."""
    database = {"ZOHO_TOKEN_STORE_DB": f"{dsn}&schema={schema}"}
    stdout, _ = command_line.login("ada@example.com", "--json", **database)
    assert json.loads(stdout)["id"] == "1"
    stdout, _ = command_line.run("refresh", "--within", "2h", "--json", *command_line.where, **database)
    assert json.loads(stdout) == {"refreshed": ["1"], "skipped": [], "failed": {}}
    assert kinds(zoho) == ["login", *LOOK_UPS, "refresh"]
    stdout, _ = command_line.run("logout", "1", "--yes", *command_line.where, **database)
    assert stdout.endswith(": revoked, deleted.\n")
    assert json.loads(command_line.run("list", "--json", **database)[0]) == []
    assert zoho.revocations == 1
    assert not command_line.database.exists()
