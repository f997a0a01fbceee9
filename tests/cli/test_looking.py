"""list, show and check."""

from __future__ import annotations

import json
import os
import re

import pytest
from cli.conftest import in_minutes
from click.testing import CliRunner
from support import PLANTED, login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import _look
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
]
DRIVES = "\x1b[2J\x1b]0;owned\x07"


def cells(line):
    return re.split(r"  +", line)


@pytest.mark.usefixtures("database")
def test_list_shows_a_table(run):
    """`list` shows each row in a line, without a secret."""
    shown = run("list")
    head, ada, bob, eve = shown.stdout.splitlines()
    assert cells(head) == ["ID", "USER", "CLIENT", "DATA CENTRE", "EXPIRES", "REFRESH TOKEN"]
    assert cells(ada) == ["1", "ada@example.com", "1000.CLIENT", "US", "in 43 min", "yes"]
    assert cells(bob) == ["2", "bob@example.com", "1000.CLIENT", "EU", "3 h ago", "yes"]
    assert cells(eve) == ["3", "eve@example.com", "\N{EN DASH}", "\N{EN DASH}", "3 h ago", "no"]
    assert PLANTED not in shown.output


@pytest.mark.usefixtures("database")
def test_list_for_programs(run):
    """`list --json` prints one JSON document, with the keys that its help names, and no secret."""
    shown = run("list", "--json")
    ada, _bob, eve = json.loads(shown.stdout)
    assert list(ada) == KEYS
    assert (ada["id"], ada["user_name"], ada["client_id"]) == ("1", "ada@example.com", "1000.CLIENT")
    assert (ada["data_centre"], ada["api_domain"]) == ("US", "https://www.zohoapis.com")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", ada["expires_at"])
    assert re.fullmatch(r"\d{13}", ada["expiry_time"])
    assert ada["last_saved"].endswith("Z")
    assert [ada[key] for key in KEYS[9:]] == [True, True, True, False]
    assert (eve["client_id"], eve["data_centre"], eve["api_domain"], eve["redirect_url"]) == (None, None, None, None)
    assert [eve[key] for key in KEYS[9:]] == [False, False, True, False]
    assert shown.stderr == ""
    assert PLANTED not in shown.output


@pytest.mark.usefixtures("database")
def test_keys_for_programs_are_in_the_help(run):
    """Whoever writes a program finds each key in the help."""
    said = run("list", "--help").stdout.split()
    assert [key for key in KEYS if not any(word.strip(",.") == key for word in said)] == []


def test_a_database_without_rows(run, path):
    """Of no rows `list` says so on stderr, and prints an empty array for programs."""
    CustomStoreSQLite(path).close()
    shown = run("list")
    assert (shown.stdout, shown.stderr) == ("", f"{path} has no tokens.\n")
    assert json.loads(run("list", "--json").stdout) == []


@pytest.mark.parametrize(
    "command", [["list"], ["show", "1"], ["delete", "1"], ["purge"], ["backup", "b"], ["export", "e"]]
)
def test_a_database_that_is_missing(run, path, command):
    """A database that is not there is an error, and is not made."""
    failed = run(*command, status=1)
    assert failed.stderr.startswith("Error: ")
    assert str(path) in failed.stderr
    assert not path.exists()


@pytest.mark.parametrize("named", ["by the variable", "by default"])
def test_the_database_without_the_option(database, monkeypatch, named):
    """Without `--db` the environment names the database; an empty variable names none."""
    monkeypatch.chdir(database.parent)
    if named == "by the variable":
        database = database.rename(database.with_name("other.db"))
    variable = {"ZOHO_TOKEN_STORE_DB": database.name if named == "by the variable" else ""}
    assert "ada@example.com" in CliRunner().invoke(cli, ["list"], env=variable).stdout


def test_text_from_outside_does_not_reach_the_terminal(run, path):
    """A user name that would drive the terminal is shown escaped, and escaped as JSON has it for programs."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(f"ada{DRIVES}\x7f\n"))
    for command in (["list"], ["show", "1"], ["purge", "--idle-for", "0s"], ["delete", "1", "--yes"]):
        shown = run(*command, status=1 if command[0] == "purge" else 0)
        assert r"ada\x1b[2J\x1b]0;owned\x07\x7f\n" in shown.output
        assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown.output) is None
    with CustomStoreSQLite(path) as store:
        store.save_token(login(f"ada{DRIVES}\x7f\n"))
    as_json = run("list", "--json").stdout
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", as_json) is None
    assert json.loads(as_json)[0]["user_name"] == f"ada{DRIVES}\x7f\n"


@pytest.mark.usefixtures("database")
def test_show_masks_the_secrets(run):
    """`show` prints every field; of a secret it says whether it is there."""
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
def test_show_reveals_when_told_to(run, yes):
    """`show --reveal` prints the secrets after a yes, which `--yes` gives beforehand."""
    shown = run("show", "1", "--reveal", *yes, answer="" if yes else "y\n")
    fields = dict(cells(line) for line in shown.stdout.splitlines())
    assert fields["Refresh token"] == f"{PLANTED}-refresh-1"
    assert fields["Client secret"] == f"{PLANTED}-client-secret"
    question = "This prints the secrets of row 1 (ada@example.com, 1000.CLIENT, US) to the screen. Go on? [y/N] \n"
    assert shown.stderr == ("" if yes else question)


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yesterday\n"])
@pytest.mark.usefixtures("database")
def test_show_reveals_nothing_otherwise(run, answer):
    """Any other answer, or none, reveals nothing and is exit status 1."""
    refused = run("show", "1", "--reveal", answer=answer, status=1)
    assert PLANTED not in refused.output
    assert refused.stdout == ""
    assert ("--yes" in refused.stderr) == (answer == "")


@pytest.mark.usefixtures("database")
def test_show_for_programs(run):
    """`show --json` has the keys of `list --json`, and the secrets only when revealed."""
    assert json.loads(run("show", "1", "--json").stdout) == json.loads(run("list", "--json").stdout)[0]
    revealed = json.loads(run("show", "3", "--json", "--reveal", "--yes").stdout)
    assert [revealed[key] for key in SECRETS] == [None, None, f"{PLANTED}-access-3", None]


def test_an_expiry_that_is_none(run, path):
    """An expiry that cannot be read is shown as it is stored, and is null for programs."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in="soon\x1b"))
    assert r"soon\x1b (not a time)" in run("show", "1").stdout
    shown = json.loads(run("show", "1", "--json").stdout)
    assert (shown["expires_at"], shown["expiry_time"]) == (None, "soon\x1b")


@pytest.mark.parametrize("command", [["show", "99"], ["delete", "99"], ["delete", "99", "--yes"], ["show", ""]])
@pytest.mark.usefixtures("database")
def test_an_id_that_is_not_there(run, command):
    """An unknown id is an error that says where the ids are."""
    failed = run(*command, status=1)
    assert '"zoho-token-store list" shows the ids' in failed.stderr
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_check_finds_nothing(run, path):
    """Of a sound database `check` says so, with exit status 0."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login(expires_in=in_minutes(30)))
    assert run("check").stdout == f"{path}: nothing found\n"
    assert json.loads(run("check", "--json").stdout) == []


def test_check_warns(run, database):
    """Warnings are exit status 1; the first line counts them, and each has its cure."""
    shown = run("check", status=1).stdout
    assert shown.startswith(f"{database}: 1 warning\n\nwarning  unusable (row 3)\n")
    assert "  Cure: " in shown
    [finding] = json.loads(run("check", "--json", status=1).stdout)
    assert list(finding) == ["code", "severity", "ids", "message", "cure"]
    assert (finding["code"], finding["severity"], finding["ids"]) == ("unusable", "warning", ["3"])


def test_check_finds_an_error(run, path):
    """Errors are exit status 2."""
    path.write_text("no database, for sure\n" * 300, encoding="utf-8")
    path.chmod(0o600)
    shown = run("check", status=2).stdout
    assert shown.startswith(f"{path}: 1 error\n\nerror  not-a-database\n")
    assert [finding["code"] for finding in json.loads(run("check", "--json", status=2).stdout)] == ["not-a-database"]


def test_check_could_not_look(run, path):
    """A file that is missing, and wrong usage, are exit status 3: to a monitor, 2 would be an error in the database."""
    missing = run("check", status=3)
    assert missing.stderr.startswith("Error: ")
    assert missing.stdout == ""
    assert "No such option" in run("check", "--wrong", status=3).stderr
    run("check", "too", "much", status=3)
    assert not path.exists()


def test_whether_a_file_may_be_read_is_no_matter_of_usage(run, database, monkeypatch):
    """The system decides about permissions when a file is opened, and what it says is no exit status 2."""
    assert database.exists()
    monkeypatch.setattr(os, "access", lambda *_arguments, **_keywords: False)
    run("check", status=1)
    run("import", database.with_name("missing"), status=1)


def test_check_names_the_first_rows(run, path):
    """Of very many rows `check` names the first twenty, and `--json` all."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(
            token(f"user-{n}@example.com", access_token=f"planted-{n}", expires_in="1") for n in range(30)
        )
    first = ", ".join(map(str, range(1, 21)))
    assert f"unusable (rows {first} and 10 more)" in run("check", status=1).stdout
    assert len(json.loads(run("check", "--json", status=1).stdout)[0]["ids"]) == 30


def test_the_summary_of_findings(monkeypatch, run, path):
    """The summary counts errors and warnings; errors come first, and decide the exit status."""

    class Finding:
        def __init__(self, severity):
            self.severity = severity
            self.code, self.ids, self.message, self.cure = "made-up", [], "Two\nlines\x1b", "none"

    monkeypatch.setattr(_look, "check", lambda _path: [Finding("warning"), Finding("error"), Finding("warning")])
    shown = run("check", status=2).stdout
    assert shown.startswith(f"{path}: 1 error, 2 warnings\n")
    assert [line.split()[0] for line in shown.splitlines() if "made-up" in line] == ["error", "warning", "warning"]
    assert "Two\nlines\\x1b\n" in shown


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["lst"], "No such command"),
        (["show"], "Missing argument 'ID'"),
        (["list", "--wrong"], "No such option"),
        (["list", "--db", "x"], "--db goes before the command"),
        (["purge", "--idle-for", "30"], "write 90s, 45m, 12h, 30d or 4w"),
        (["purge", "--idle-for", f"{'9' * 20}w"], "write 90s, 45m, 12h, 30d or 4w"),
        ([], "Missing command"),
    ],
)
def test_wrong_usage(run, command, hint):
    """Wrong usage is exit status 2 and says what would be right."""
    assert hint in run(*command, status=2).stderr


def test_version(run):
    """`--version` prints the version of the package."""
    from zoho_token_store import __version__

    assert run("--version").stdout == f"zoho-token-store {__version__}\n"


def test_a_database_that_one_may_not_look_for(path, tmp_path, run):
    """A path that cannot be looked at is not called missing."""
    (tmp_path / "file").touch()
    path.symlink_to(tmp_path / "file" / "zohooauth.db")
    refused = run("list", status=1).stderr
    assert "a part of the path is not a folder" in refused


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", [["show"], ["delete", "--yes"]])
def test_a_token_in_the_place_of_an_id_is_not_repeated(run, command):
    """What is long or has a dot may be a secret; any other id is named."""
    for secret in ("1000.planted", "planted" * 4):
        assert secret not in run(*command, secret, status=1).stderr
    assert "the id 99:" in run(*command, "99", status=1).stderr
