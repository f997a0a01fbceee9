"""The command status: rows and findings on one screen, as JSON, or as metrics."""

import os
import time
from typing import NamedTuple

import click

from zoho_token_store._native import Finding, Record, RefreshState, StoreError

from . import _format, _inspect, _tables, _terminal
from ._database import Database, administration
from ._options import json_option

_WATCH_SECONDS = 2.0
_MIN_WATCH_SECONDS = 0.1
_MAX_WATCH_SECONDS = 86400.0
# How many times as long as a look at the database the pause after it is. Each look reads the whole file.
_PAUSE_FACTOR = 10
_MIN_LISTED_ROWS = 3


class _Status(NamedTuple):
    database: Database
    schema_version: int
    rows: list[tuple[Record, RefreshState]]
    findings: list[Finding]
    now_ms: int


def _parse_watch(_ctx: click.Context, _parameter: click.Parameter, seconds: float | None) -> float | None:
    if seconds is not None and not _MIN_WATCH_SECONDS <= seconds <= _MAX_WATCH_SECONDS:  # also refuses "nan"
        raise click.BadParameter("Give a number of seconds from 0.1 to 86400.")
    return seconds


@click.command("status", short_help="Show tokens, refreshes and problems on one screen.")
@click.option(
    "--watch",
    type=float,
    is_flag=False,
    flag_value=_WATCH_SECONDS,
    metavar="[SECONDS]",
    callback=_parse_watch,
    help="Show it again and again, every 2 seconds if not told otherwise, until Ctrl-C.",
)
@json_option
@click.option("--prometheus", is_flag=True, help="Print metrics in the text format of Prometheus.")
@click.pass_obj
def status(database: Database, *, watch: float | None, as_json: bool, prometheus: bool) -> None:
    """Show on one screen what "list" and "check" show, and which refreshes fail or run.

    FAILING SINCE is the first of the refreshes that have failed since the last one that succeeded. LEASE HELD BY is the
    process that refreshes the row. Rows whose refreshes fail come first. Nothing is changed.

    With --watch, the screen is redrawn. A large database is read less often, so that this takes at most a tenth of the
    time. In a pipe, the screens come one after the other.

    With --json, print an object with the keys database, schema_version, rows and findings. The rows have the keys of
    "list --json", and failing_since (ISO 8601, UTC), failures (how often) and lease_held_by (a process ID, as a
    string). The findings have the keys of "check --json".

    With --prometheus, print gauges for the textfile collector of node_exporter. Their names begin with
    zoho_token_store_: rows, rows_expired, rows_refresh_failing, oldest_save_timestamp_seconds, schema_version, and
    findings (by severity). The label database is the path of the file, or the server's host, port and database.

    The exit status is 0 even if there are findings. It is 1 if the database cannot be read.

    \b
    Examples:
      zoho-token-store status
      zoho-token-store status --watch 5
      zoho-token-store status --prometheus > new && mv new zoho.prom
    """  # noqa: D301 - see `cli`
    if prometheus and (as_json or watch is not None):
        raise click.UsageError("--prometheus goes neither with --json nor with --watch.")
    if watch is not None:
        _watch(database, watch, as_json=as_json)
    found = _read(database)
    if prometheus:
        _terminal.print_utf8(_metrics(found))
    else:
        _terminal.print_result(_json(found) if as_json else _screen(found, None))


def _read(database: Database) -> _Status:
    # These two look into the file before this process opens it: see `open_to_inspect` in the native layer.
    version = database.schema_version()
    findings = _inspect.find_problems(database)
    with administration(database) as opened:
        return _Status(database, version, opened.refresh_states(), findings, _terminal.now_ms())


def _watch(database: Database, seconds: float, *, as_json: bool) -> None:
    """Show the status until an interrupt. A failure of the first look is an error. Later ones are shown."""
    is_first = True
    while True:
        begun = time.monotonic()
        try:
            found = _read(database)
            text = _json(found) if as_json else _screen(found, _terminal.stdout_height())
        except StoreError as error:
            if is_first:
                raise
            text = _tables.to_json({"error": str(error)}) if as_json else _terminal.escape_lines(f"Error: {error}")
        _terminal.redraw(text if is_first or as_json or _terminal.stdout_is_terminal() else f"\n{text}")
        is_first = False
        time.sleep(max(seconds, _PAUSE_FACTOR * (time.monotonic() - begun)))


def _screen(found: _Status, height: int | None) -> str:
    """Return the table of rows and the findings. With `height`, as many rows as fit into that many lines."""
    name = found.database.printable_name
    about = [
        "",
        _inspect.summary(name, found.findings),
        *map(_inspect.describe, found.findings),
    ]
    report = "\n".join(about)
    rows = sorted(found.rows, key=lambda row: row[1].failing_since is None)
    shown = rows
    if height is not None:
        # The other lines: the heading, the count of the rows that are left out, and the cursor.
        shown = rows[: max(_MIN_LISTED_ROWS, height - report.count("\n") - 1 - 3)]
    lines = [_tables.render(_columns(shown, found.now_ms), _terminal.stdout_width())]
    if not rows:
        lines = [f"{name} has no tokens."]
    if len(shown) < len(rows):
        lines.append(f"and {_format.count(len(rows) - len(shown), 'more row')}")
    return "\n".join([*lines, report])


def _columns(rows: list[tuple[Record, RefreshState]], now_ms: int) -> _tables.Table:
    table = _tables.columns([record for record, _ in rows], now_ms, with_last_saved=True)
    table = {head: table[head] for head in ("ID", "USER", "EXPIRES", "LAST SAVED")}
    table["FAILING SINCE"] = [_failing(state, now_ms) for _, state in rows]
    table["LEASE HELD BY"] = [f"process {state.held_by}" if state.held_by else _format.ABSENT for _, state in rows]
    return {**table, **_tables.problems([record for record, _ in rows])}


def _failing(state: RefreshState, now_ms: int) -> str:
    since = _format.relative_time(state.failing_since, now_ms)
    return since if state.failing_since is None else f"{since} ({_format.count(state.failures, 'time')})"


def _json(found: _Status) -> str:
    rows = [
        {
            **_tables.json_object(record),
            "failing_since": _format.iso_time(state.failing_since),
            "failures": state.failures,
            "lease_held_by": state.held_by,
        }
        for record, state in found.rows
    ]
    return _tables.to_json(
        {
            "database": found.database.name,
            "schema_version": found.schema_version,
            "rows": rows,
            "findings": [_inspect.finding_object(finding) for finding in found.findings],
        }
    )


def _metrics(found: _Status) -> str:
    """Return the metrics in the text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    records = [record for record, _ in found.rows]
    expired = sum(record.expires_at is not None and record.expires_at <= found.now_ms for record in records)
    failing = sum(state.failing_since is not None for _, state in found.rows)
    saves = [record.last_saved for record in records if record.last_saved is not None]
    errors = _inspect.count_errors(found.findings)
    by_severity = {"error": errors, "warning": len(found.findings) - errors}
    name = found.database.name
    if found.database.path is not None:
        name = os.path.abspath(name)  # noqa: PTH100 - the import of pathlib would take a tenth of a run's time
    label = f'database="{_escape_label(name)}"'
    gauges: list[tuple[str, str, dict[str, int | float]]] = [
        ("rows", "Rows of the database.", {label: len(records)}),
        ("rows_expired", "Rows whose access token has expired. Its next use refreshes it.", {label: expired}),
        (
            "rows_refresh_failing",
            "Rows with refreshes that failed since the last success.",
            {label: failing},
        ),
        (
            "oldest_save_timestamp_seconds",
            "When the row was saved that was saved longest ago.",
            {label: min(saves) / 1000} if saves else {},
        ),
        ("schema_version", "Version of the database's schema.", {label: found.schema_version}),
        (
            "findings",
            "Problems that zoho-token-store check finds.",
            {f'{label},severity="{severity}"': number for severity, number in by_severity.items()},
        ),
    ]
    lines = []
    for name, text, samples in gauges:
        lines += [f"# HELP zoho_token_store_{name} {text}", f"# TYPE zoho_token_store_{name} gauge"]
        lines += [f"zoho_token_store_{name}{{{labels}}} {value}" for labels, value in samples.items()]
    return "".join(f"{line}\n" for line in lines)


def _escape_label(text: str) -> str:
    # A path can have bytes that are not UTF-8.
    text = text.encode(errors="backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
