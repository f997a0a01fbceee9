"""The command status: on one screen, as JSON, as metrics, and with --watch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time

import pytest
from cli.conftest import in_minutes
from cli.processes import SCRIPT, Terminal, environment, run_process
from click.testing import CliRunner
from own_process import in_own_process
from prometheus_client.parser import text_string_to_metric_families
from support import DATA, PLANTED, login
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli._run import cli
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

DASH = "\N{EN DASH}"
PREFIX = "zoho_token_store_"


def cells(line):
    return re.split(r"  +", line)


def metrics(text):
    """Parse metrics with the parser of Prometheus's own client. Return each value by its name and severity."""
    assert text.endswith("\n")
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type == "gauge" for family in families)
    assert len({family.name for family in families}) == len(families) == 6
    samples = [sample for family in families for sample in family.samples]
    assert len({sample.labels["database"] for sample in samples}) == 1
    return {
        ".".join([sample.name.removeprefix(PREFIX), *filter(None, [sample.labels.get("severity")])]): sample.value
        for sample in samples
    }


def test_status_shows_rows_and_findings(run, database):
    """`status` shows each row on one line, and below it what `check` finds. Its exit status does not depend on that."""
    shown = run("status")
    head, ada, bob, eve, *report = shown.stdout.splitlines()
    assert cells(head) == ["ID", "USER", "EXPIRES", "LAST SAVED", "FAILING SINCE", "LEASE HELD BY"]
    assert cells(ada) == ["1", "ada@example.com", "in 43 min", "now", DASH, DASH]
    assert cells(bob)[2] == cells(eve)[2] == "3 h ago"
    assert report == ["", *run("check", status=1).stdout.splitlines()]
    assert report[1] == f"{database}: 1 warning"
    assert PLANTED not in shown.output


@pytest.mark.usefixtures("database")
def test_status_as_json(run, path):
    """`status --json` prints the documented keys: those of `list` and `check`, and those of refreshes. No secret."""
    shown = run("status", "--json")
    found = json.loads(shown.stdout)
    assert list(found) == ["database", "schema_version", "rows", "findings"]
    assert (found["database"], found["schema_version"]) == (str(path), 1)
    listed = json.loads(run("list", "--json").stdout)
    refreshes = {"failing_since": None, "failures": 0, "lease_held_by": None}
    assert found["rows"] == [{**row, **refreshes} for row in listed]
    assert found["findings"] == json.loads(run("check", "--json", status=1).stdout)
    assert PLANTED not in shown.output
    documented = " ".join(run("status", "--help").stdout.split())
    assert all(key in documented for key in [*found, *refreshes])


@pytest.mark.usefixtures("database")
def test_status_as_metrics(run):
    """`status --prometheus` prints metrics that Prometheus's own parser reads. The help names each. No secret."""
    shown = run("status", "--prometheus")
    found = metrics(shown.stdout)
    assert abs(found.pop("oldest_save_timestamp_seconds") - time.time()) < 60
    assert found == {
        "rows": 3,
        "rows_expired": 2,
        "rows_refresh_failing": 0,
        "schema_version": 1,
        "findings.error": 0,
        "findings.warning": 1,
    }
    assert PLANTED not in shown.output
    documented = " ".join(run("status", "--help").stdout.split())
    assert all(name.partition(".")[0] in documented for name in found)


def test_metrics_of_an_empty_database(run, path):
    """Without rows there is no oldest save, and no value for it."""
    CustomStoreSQLite(path).close()
    found = metrics(run("status", "--prometheus").stdout)
    assert "oldest_save_timestamp_seconds" not in found
    assert found["rows"] == 0
    assert run("status").stdout == f"{path} has no tokens.\n\n{path}: nothing found\n"


@pytest.mark.parametrize("name", ['a"b', "a\\nb\\", "a\nb", "Zoë", os.fsdecode(b"\xff")])
def test_the_path_in_a_label(tmp_path, name):
    """The label with the path is escaped, and it is UTF-8 whatever the encoding of stdout is."""
    path = tmp_path / name
    CustomStoreSQLite(path).close()
    done = run_process([*SCRIPT, "--db", str(path), "status", "--prometheus"], PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    [rows] = [family for family in text_string_to_metric_families(done.stdout) if family.name == f"{PREFIX}rows"]
    assert rows.samples[0].labels == {"database": str(path).replace("\udcff", "\\udcff")}


def test_a_relative_path_is_absolute_in_the_label(path, monkeypatch):
    """Metrics of two databases with one name do not get the same label."""
    CustomStoreSQLite(path).close()
    monkeypatch.chdir(path.parent)
    shown = CliRunner().invoke(cli, ["--db", path.name, "status", "--prometheus"]).stdout
    assert f'rows{{database="{path}"}} 0\n' in shown


def test_an_older_file(run, path):
    """`status` does not migrate a file of the sample. It has schema version 0."""
    path.write_bytes((DATA / "sample-zohooauth.db").read_bytes())
    path.chmod(0o600)
    before = path.read_bytes()
    found = json.loads(run("status", "--json").stdout)
    assert (found["schema_version"], found["findings"][0]["code"]) == (0, "older-schema")
    assert found["rows"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", [[], ["--json"], ["--prometheus"], ["--watch"]])
def test_a_file_that_cannot_be_read(run, path, option):
    """If the file is missing or no database, there is an error, and no output that looks like metrics."""
    missing = run("status", *option, status=1)
    assert missing.stdout == ""
    assert "Fix: Name the database with --db PATH before the command" in missing.stderr
    path.write_text("no database, for sure\n" * 300, encoding="utf-8")
    refused = run("status", *option, status=1)
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"Error: {path} is not a token database")


@in_own_process
def test_refreshes_that_fail_or_run(path):
    """`status` says since when and how often refreshes of a row fail, and which process refreshes a row."""

    def run(*arguments):
        return CliRunner().invoke(cli, ["--db", str(path), *arguments]).stdout

    with ZohoStandIn() as zoho, CustomStoreSQLite(path) as store:
        client = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, "api_domain": zoho.url}
        for number, user in enumerate(["ada@example.com", "bob@example.com"], 1):
            refresh_token = zoho.refresh_token(user)
            store.save_token(login(user, number, **client, refresh_token=refresh_token, expires_in=in_minutes(-9)))
        zoho.deny_next(2)
        for _ in range(2):
            with pytest.raises(SDKException):
                Initializer.initialize(zoho.environment(), OAuthToken(id="2"), store=store)
        zoho.latency = 20
        refresh = threading.Thread(target=lambda: OAuthToken(id="1").get_token(), daemon=True)
        refresh.start()
        for _ in range(200):
            rows = json.loads(run("status", "--json"))["rows"]
            if rows[0]["lease_held_by"]:
                break
            time.sleep(0.02)
        # The row whose refreshes fail comes first.
        _, bob, ada, *_ = run("status").splitlines()
        found = metrics(run("status", "--prometheus"))
        checked = run("check")
    refresh.join(30)
    assert [row["lease_held_by"] for row in rows] == [str(os.getpid()), None]
    assert [row["failures"] for row in rows] == [0, 2]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[1]["failing_since"])
    assert re.fullmatch(r"(now|\d+ s ago) \(2 times\)", cells(bob)[4])
    assert cells(ada)[4:] == [DASH, f"process {os.getpid()}"]
    assert (found["rows_refresh_failing"], found["rows_expired"], found["findings.warning"]) == (1, 2, 1)
    assert checked.startswith(f"{path}: 1 warning\n\nwarning  refresh-failing (row 2)\n")


@pytest.mark.usefixtures("database")
def test_wrong_usage_of_status(run):
    """Metrics are for a collector, so they go with nothing else. The interval has bounds."""
    for other in ("--json", "--watch"):
        assert (
            "--prometheus goes neither with --json nor with --watch"
            in run("status", "--prometheus", other, status=2).stderr
        )
    for seconds in ("0", "nan", "1e9"):
        assert "Give a number of seconds from 0.1 to 86400." in run("status", "--watch", seconds, status=2).stderr


def watching(path, *arguments):
    return subprocess.Popen(
        [*SCRIPT, "--db", str(path), "status", "--watch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )


def read_lines(process, until):
    lines = []
    while not lines or until not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    return lines


def test_watching_through_a_pipe(database):
    """In a pipe, the screens come one after the other. A database that is gone is reported, and watched further."""
    with watching(database, "0.1") as process:
        try:
            first = read_lines(process, "Fix:")
            assert read_lines(process, "Fix:") == ["\n", *first]
            away = database.rename(database.with_name("away.db"))
            assert "\n" in read_lines(process, "Error: ")
            away.rename(database)
            read_lines(process, "ada@example.com")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr.read().strip() == ""
        finally:
            process.kill()


def test_watching_as_json(database):
    """`--watch --json` prints one document after the other."""
    with watching(database, "0.1", "--json") as process:
        try:
            for _ in range(2):
                lines = [process.stdout.readline()]
                while lines[-1] != "}\n":
                    lines.append(process.stdout.readline())
                assert len(json.loads("".join(lines))["rows"]) == 3
        finally:
            process.kill()


def test_watching_on_a_terminal(path):
    """On a terminal the screen is redrawn, and only as many rows are shown as fit. Ctrl-C ends it without a message."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user-{n}@example.com", n, expires_in=in_minutes(30)) for n in range(40))
    with Terminal([*SCRIPT, "--db", str(path), "status", "--watch", "0.1"]) as terminal:
        screen = terminal.read_until("nothing found\r\n\x1b[H\x1b[2J").split("\x1b[H\x1b[2J")[1]
        terminal.type("\x03")
        status, shown = terminal.wait()
    lines = screen.splitlines()
    assert "and 21 more rows" in lines
    assert len(lines) < 24
    assert status == 130
    assert "Traceback" not in shown
    with Terminal([*SCRIPT, "--db", str(path), "status", "--watch", "0.1"], TERM="dumb") as terminal:
        terminal.read_until("nothing found")
        assert "\x1b" not in terminal.read_until("ID")
