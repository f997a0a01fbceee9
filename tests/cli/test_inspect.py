"""The commands list, show and check, and wrong usage of any command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from cli.conftest import in_minutes
from click.testing import CliRunner
from support import PLANTED, login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import _inspect
from zoho_token_store._cli._run import cli
from zoho_token_store._cli._tables import SECRETS

KEYS = [
    "id",
    "user_name",
    "client_id",
    "data_centre",
    "api_domain",
    "redirect_url",
    "expires_at",
    "expiry_time",
    "last_saved",
    "has_client_secret",
    "has_refresh_token",
    "has_access_token",
    "has_grant_token",
    "unreadable",
]
CONTROL_SEQUENCES = "\x1b[2J\x1b]0;owned\x07"


def cells(line):
    return re.split(r"  +", line)


@pytest.mark.usefixtures("database")
def test_list_shows_a_table(run):
    """`list` shows each row on one line, without a secret."""
    shown = run("list")
    head, ada, bob, eve = shown.stdout.splitlines()
    assert cells(head) == ["ID", "USER", "CLIENT", "DATA CENTRE", "EXPIRES", "REFRESH TOKEN"]
    assert cells(ada) == ["1", "ada@example.com", "1000.CLIENT", "US", "in 43 min", "yes"]
    assert cells(bob) == ["2", "bob@example.com", "1000.CLIENT", "EU", "3 h ago", "yes"]
    assert cells(eve) == ["3", "eve@example.com", "\N{EN DASH}", "\N{EN DASH}", "3 h ago", "no"]
    assert PLANTED not in shown.output


@pytest.mark.usefixtures("database")
def test_list_as_json(run):
    """`list --json` prints one JSON document with the documented keys and without a secret."""
    shown = run("list", "--json")
    ada, _bob, eve = json.loads(shown.stdout)
    assert list(ada) == KEYS
    assert (ada["id"], ada["user_name"], ada["client_id"]) == ("1", "ada@example.com", "1000.CLIENT")
    assert (ada["data_centre"], ada["api_domain"]) == ("US", "https://www.zohoapis.com")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", ada["expires_at"])
    assert re.fullmatch(r"\d{13}", ada["expiry_time"])
    assert ada["last_saved"].endswith("Z")
    assert [ada[key] for key in KEYS[9:]] == [True, True, True, False, None]
    assert (eve["client_id"], eve["data_centre"], eve["api_domain"], eve["redirect_url"]) == (None, None, None, None)
    assert [eve[key] for key in KEYS[9:]] == [False, False, True, False, None]
    assert shown.stderr == ""
    assert PLANTED not in shown.output


@pytest.mark.usefixtures("database")
def test_json_keys_are_in_the_help(run):
    """The help of `list` names each key of its JSON."""
    words = run("list", "--help").stdout.split()
    assert [key for key in KEYS if not any(word.strip(",.") == key for word in words)] == []


def test_a_database_without_rows(run, path):
    """Without rows, `list` prints a note to stderr, and `list --json` prints an empty array."""
    CustomStoreSQLite(path).close()
    shown = run("list")
    assert (shown.stdout, shown.stderr) == ("", f"{path} has no tokens.\n")
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.parametrize(
    "command", [["list"], ["show", "1"], ["delete", "1"], ["purge"], ["backup", "b"], ["export", "e"]]
)
def test_a_missing_database_is_an_error(run, path, command):
    """A missing database is an error and is not created."""
    failed = run(*command, status=1)
    assert failed.stderr.startswith("Error: ")
    assert str(path) in failed.stderr
    assert not path.exists()


@pytest.mark.parametrize("named", ["by the variable", "by default"])
def test_the_database_without_the_option(database, monkeypatch, named):
    """Without `--db` the environment variable names the database. An empty variable means the default."""
    monkeypatch.chdir(database.parent)
    if named == "by the variable":
        database = database.rename(database.with_name("other.db"))
    variable = {"ZOHO_TOKEN_STORE_DB": database.name if named == "by the variable" else ""}
    assert "ada@example.com" in CliRunner().invoke(cli, ["list"], env=variable).stdout


def test_control_sequences_do_not_reach_the_terminal(run, path):
    """Control characters in a user name are escaped: in texts as Python writes them, in JSON as JSON does."""
    user = f"ada{CONTROL_SEQUENCES}\x7f\n"
    with CustomStoreSQLite(path) as store:
        store.save_token(login(user))
    for command in (["list"], ["show", "1"], ["purge", "--everything"], ["delete", "1", "--yes"]):
        shown = run(*command, status=1 if command[0] == "purge" else 0)
        assert r"ada\x1b[2J\x1b]0;owned\x07\x7f\n" in shown.output
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.output) is None
    with CustomStoreSQLite(path) as store:
        store.save_token(login(user))
    as_json = run("list", "--json").stdout
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", as_json) is None
    assert json.loads(as_json)[0]["user_name"] == user


@pytest.mark.usefixtures("database")
def test_show_masks_the_secrets(run):
    """`show` prints every field. A secret is masked. An absent value is shown as a dash."""
    shown = run("show", "1").stdout
    fields = dict(cells(line) for line in shown.splitlines())
    assert fields["User"] == "ada@example.com"
    assert fields["Data centre"] == "US"
    assert fields["Expires"].startswith("in 43 min (20")
    assert fields["Last saved"].startswith("now (20")
    assert (fields["Client secret"], fields["Refresh token"], fields["Grant token"]) == (
        *["********"] * 2,
        "\N{EN DASH}",
    )
    assert PLANTED not in shown


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_show_reveals_after_a_yes(run, yes):
    """`show --reveal` prints the secrets after a confirmation or with `--yes`."""
    shown = run("show", "1", "--reveal", *yes, answer="" if yes else "y\n")
    fields = dict(cells(line) for line in shown.stdout.splitlines())
    assert fields["Refresh token"] == f"{PLANTED}-refresh-1"
    assert fields["Client secret"] == f"{PLANTED}-client-secret"
    question = "Print the secrets of row 1 (ada@example.com, 1000.CLIENT, US)? [y/N] \n"
    assert shown.stderr == ("" if yes else question)


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yesterday\n"])
@pytest.mark.usefixtures("database")
def test_show_reveals_nothing_without_a_yes(run, answer):
    """Any answer but yes reveals nothing and gives exit status 1. Without any answer, the hint names `--yes`."""
    refused = run("show", "1", "--reveal", answer=answer, status=1)
    assert PLANTED not in refused.output
    assert refused.stdout == ""
    assert ("--yes" in refused.stderr) == (answer == "")


@pytest.mark.usefixtures("database")
def test_show_as_json(run):
    """`show --json` has the keys of `list --json`. Only with `--reveal` does it have the secrets."""
    assert json.loads(run("show", "1", "--json").stdout) == json.loads(run("list", "--json").stdout)[0]
    revealed = json.loads(run("show", "3", "--json", "--reveal", "--yes").stdout)
    assert [revealed[key] for key in SECRETS] == [None, None, f"{PLANTED}-access-3", None]


def test_an_unreadable_expiry(run, path):
    """An expiry that is not a number is shown as it is stored. In JSON, `expires_at` is null."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in="soon\x1b"))
    assert r"soon\x1b (not a time)" in run("show", "1").stdout
    shown = json.loads(run("show", "1", "--json").stdout)
    assert (shown["expires_at"], shown["expiry_time"]) == (None, "soon\x1b")


@pytest.mark.parametrize("command", [["show", "99"], ["delete", "99"], ["delete", "99", "--yes"], ["show", ""]])
@pytest.mark.usefixtures("database")
def test_an_unknown_id(run, path, command):
    """An unknown ID or user is an error. The hint says how to see the IDs and users."""
    failed = run(*command, status=1)
    hint = "Check that it is the right store, and list its tokens. After a logout, the user has to log in again."
    if command[1]:
        hint = f'Run "zoho-token-store --db {path} list" to see the ids and the users.'
    assert failed.stderr.endswith(f"\nFix: {hint}\n")
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_check_finds_nothing(run, path):
    """`check` of a database without problems has exit status 0."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in=in_minutes(30)))
    assert run("check").stdout == f"{path}: nothing found\n"
    assert json.loads(run("check", "--json").stdout) == []


def test_check_warns(run, database):
    """Warnings give exit status 1. The first line counts them, and each has a hint."""
    shown = run("check", status=1).stdout
    assert shown.startswith(f"{database}: 1 warning\n\nwarning  unusable (row 3)\n")
    assert "\n  Fix: " in shown
    [finding] = json.loads(run("check", "--json", status=1).stdout)
    assert list(finding) == ["code", "severity", "ids", "message", "hint", "cure"]
    assert (finding["code"], finding["severity"], finding["ids"]) == ("unusable", "warning", ["3"])


def test_check_finds_an_error(run, path):
    """Errors give exit status 2."""
    path.write_text("no database, for sure\n" * 300, encoding="utf-8")
    path.chmod(0o600)
    shown = run("check", status=2).stdout
    assert shown.startswith(f"{path}: 1 error\n\nerror  not-a-database\n")
    assert [finding["code"] for finding in json.loads(run("check", "--json", status=2).stdout)] == ["not-a-database"]


def test_check_that_cannot_run(run, path):
    """A missing file and wrong usage give exit status 3: monitors read 2 as an error in the database."""
    missing = run("check", status=3)
    assert missing.stderr.startswith("Error: ")
    assert "Fix: Name the database with --db PATH before the command, or in ZOHO_TOKEN_STORE_DB." in missing.stderr
    assert missing.stdout == ""
    assert "No such option" in run("check", "--wrong", status=3).stderr
    run("check", "too", "much", status=3)
    assert not path.exists()


def test_an_unreadable_file_is_not_wrong_usage(run, database, monkeypatch):
    """The permissions of a file are checked when it is opened, not by click: it would give exit status 2."""
    assert database.exists()
    monkeypatch.setattr(os, "access", lambda *_arguments, **_keywords: False)
    run("check", status=1)
    run("import", database.with_name("missing"), status=1)


def test_check_names_the_first_rows(run, path):
    """`check` lists the first twenty IDs of a finding, and `check --json` lists all."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(
            token(f"user-{n}@example.com", access_token=f"planted-{n}", expires_in="1") for n in range(30)
        )
    first = ", ".join(map(str, range(1, 21)))
    assert f"unusable (rows {first} and 10 more)" in run("check", status=1).stdout
    assert len(json.loads(run("check", "--json", status=1).stdout)[0]["ids"]) == 30


def test_the_summary_of_findings(monkeypatch, run, path):
    """The summary counts errors and warnings. Errors are listed first, and one error gives exit status 2."""

    class Finding:
        def __init__(self, severity):
            self.severity = severity
            self.code, self.ids, self.message, self.hint = "made-up", [], "Two\nlines\x1b", "none"

    monkeypatch.setattr(
        _inspect, "check", lambda _address, **_: [Finding("warning"), Finding("error"), Finding("warning")]
    )
    shown = run("check", status=2).stdout
    assert shown.startswith(f"{path}: 1 error, 2 warnings\n")
    assert [line.split()[0] for line in shown.splitlines() if "made-up" in line] == ["error", "warning", "warning"]
    assert "Two\nlines\\x1b\n" in shown


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["lst"], "No such command"),
        (["show"], "Missing argument 'TOKEN'"),
        (["list", "--wrong"], "No such option"),
        (["list", "--db", "x"], "--db goes before the command"),
        (["list", "--timeout", "9"], '"zoho-token-store --timeout SECONDS list"'),
        (["--timeout", "-1", "list"], "Give a number of seconds from 0 to 86400"),
        (["--timeout", "nan", "list"], "Give a number of seconds from 0 to 86400"),
        (["purge", "--idle-for", "30m", "--yes"], "less than 1h would also delete tokens in use"),
        (["purge", "--idle-for", "0s", "--yes"], "To delete all tokens, use --everything"),
        (["purge", "--idle-for", "9w", "--everything"], "does not go with --idle-for"),
        (["export", "-", "--json"], "cannot have the output of --json"),
        (["backup", "-"], 'use "export -"'),
        (["restore", "-"], 'use "import -"'),
        (["purge", "--idle-for", "30"], "'30' is not a duration. Examples: 90s, 45m, 12h, 30d, 4w"),
        (["purge", "--idle-for", f"{'9' * 20}w"], "Examples: 90s, 45m, 12h, 30d, 4w"),
        ([], "Missing command"),
    ],
)
def test_wrong_usage(run, command, hint):
    """Wrong usage gives exit status 2 and a message that names the mistake."""
    assert hint in run(*command, status=2).stderr


@pytest.mark.usefixtures("database")
def test_a_user_in_place_of_an_id(run):
    """`show` and `delete` take the user of one row. A user with several rows is refused with a list of these rows."""
    assert json.loads(run("show", "bob@example.com", "--json").stdout)["id"] == "2"
    assert "bob@example.com" in run("delete", "bob@example.com", "--yes").stdout
    assert [row["id"] for row in json.loads(run("list", "--json").stdout)] == ["1", "3"]
    assert "has no token with that id" in run("show", "bob@example.com", status=1).stderr


def test_an_ambiguous_user(run, path):
    """A user with several rows has to be named by an ID. The user's e-mail address is enough, but not a part of it."""
    with CustomStoreSQLite(path) as store:
        for number, domain in enumerate(["https://www.zohoapis.com", "https://www.zohoapis.eu"]):
            store.save_token(login("ada@example.com:1001", number, api_domain=domain))
        store.save_token(login("ada@example.com.example.org:1001", 7))
        store.save_token(login("eve@example.com:1002", 8, id="bob@example.com:1003"))
        store.save_token(login("bob@example.com:1003", 9))
    for command in (["show"], ["delete", "--yes"]):
        for user in ("ada@example.com:1001", "ada@example.com"):
            refused = run(*command, user, status=1)
            assert refused.stdout == ""
            assert refused.stderr == (
                f"Error: {path} has 2 tokens of this user. Nothing was changed.\n"
                "  row 1 (ada@example.com:1001, 1000.CLIENT, US)\n"
                "  row 2 (ada@example.com:1001, 1000.CLIENT, EU)\n"
                "Fix: Give the id of one of them.\n"
            )
        run(*command, "ada@example", status=1)
    # An ID wins over a user.
    assert json.loads(run("show", "bob@example.com:1003", "--json").stdout)["user_name"] == "eve@example.com:1002"
    assert len(json.loads(run("list", "--json").stdout)) == 5


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--user", "ada@example.com"], ["1"]),
        (["--user", "ada@example.com:1001"], ["1"]),
        (["--expired"], ["2", "3"]),
        (["--user", "bob@example.com", "--expired"], ["2"]),
        (["--user", "ada@example.com", "--expired"], []),
        (["--user", ""], []),
    ],
)
def test_list_with_filters(run, path, options, ids):
    """`list` shows the rows of a user, those with an expired access token, or those that are both."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com:1001", 1, expires_in=in_minutes(43)))
        store.save_token(login("bob@example.com", 2, expires_in=in_minutes(-1)))
        store.save_token(token("eve@example.com", access_token="planted-access-3", expires_in=in_minutes(-200)))
        store.save_token(token("mia@example.com", refresh_token="planted-refresh-4"))
    shown = run("list", *options)
    assert [cells(line)[0] for line in shown.stdout.splitlines()[1:]] == ids
    assert shown.stderr == ("" if ids else f"{path} has no such tokens.\n")
    assert [row["id"] for row in json.loads(run("list", "--json", *options).stdout)] == ids


def test_the_timeout(run, database):
    """`--timeout` says how long a command waits for a lock. The hint names this option, not the one of the library."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE')"
    )
    program += "; print('locked', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        failed = run("--timeout", "0.3", "delete", "1", "--yes", status=1)
        other.stdin.close()
    assert "for 0.3 s" in failed.stderr
    assert "Fix: Try again, wait longer (--timeout SECONDS, before the command), or find" in failed.stderr
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_version(run):
    """`--version` prints the version of the package."""
    from zoho_token_store import __version__

    assert run("--version").stdout == f"zoho-token-store {__version__}\n"


def test_a_path_through_a_file(path, tmp_path, run):
    """A path that leads through a file, not a folder, is not reported as a missing database."""
    (tmp_path / "file").touch()
    path.symlink_to(tmp_path / "file" / "zohooauth.db")
    refused = run("list", status=1).stderr
    assert "cannot be the path of a file (a part of it is not a folder)" in refused


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", [["show"], ["delete", "--yes"]])
def test_a_token_in_place_of_an_id_is_not_printed(run, command):
    """A long ID, or one with a dot, may be a secret and is not printed. Any other ID is printed."""
    for secret in ("1000.planted", "planted" * 4):
        assert secret not in run(*command, secret, status=1).stderr
    assert 'has no token with the id or user "99".' in run(*command, "99", status=1).stderr
