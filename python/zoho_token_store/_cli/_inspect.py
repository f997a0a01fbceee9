"""Commands that change nothing: list, show, check."""

import click

from zoho_token_store._native import Finding, Record, check

from . import _format, _tables, _terminal
from ._database import Database, administration, key_arguments
from ._group import for_command_line, with_database
from ._options import PROGRAM, belongs_to, find_row, json_option, token_argument, yes_option

_ERROR = "error"
_MAX_LISTED_IDS = 20


@click.command("list", short_help="List the tokens in a table.")
@click.option("--user", metavar="NAME", help="List only the tokens of this user.")
@click.option("--expired", is_flag=True, help="List only the tokens whose access token has expired.")
@json_option
@click.pass_obj
def list_(database: Database, *, user: str | None, expired: bool, as_json: bool) -> None:
    """List the tokens in a table.

    NAME is a user name as the table shows it, or its e-mail address.

    EXPIRES is the expiry of the access token. An expired access token is normal: the SDK gets a new one with the
    refresh token. On a terminal, long values are cut to fit its width ("…"). In a file or pipe they are complete.
    PROBLEM says why a row cannot be read: its key is missing, it was altered, or it is in clear text. See "check".

    With --json, print an array with one object per row. Its keys are id, user_name, client_id, data_centre, api_domain,
    redirect_url, expires_at and last_saved (ISO 8601, UTC), expiry_time (as stored: milliseconds, as a string),
    has_client_secret, has_refresh_token, has_access_token, has_grant_token, and unreadable ("unknown-key", "altered" or
    "plaintext" if the row cannot be read). A value that is absent is null.

    \b
    Examples:
      zoho-token-store list
      zoho-token-store --db /var/lib/crm/zohooauth.db list
      zoho-token-store list --user ada@example.com
      zoho-token-store list --json | jq -r '.[].user_name'
    """  # noqa: D301 - see `cli`
    with administration(database) as opened:
        records = opened.records()
    now_ms = _terminal.now_ms()
    listed = [
        record
        for record in records
        if (user is None or belongs_to(record, user))
        and (not expired or (record.expires_at is not None and record.expires_at <= now_ms))
    ]
    if as_json:
        _terminal.print_result(_tables.to_json([_tables.json_object(record) for record in listed]))
    elif listed:
        _terminal.print_result(_tables.render(_tables.columns(listed, now_ms), _terminal.stdout_width()))
    elif records:
        _terminal.note(f"{database.printable_name} has no such tokens.")
    else:
        _terminal.note(f"{database.printable_name} has no tokens.")
    _note_unreadable(listed)


def _note_unreadable(records: list[Record]) -> None:
    """Tell how many of the rows cannot be read, and what to do."""
    if unreadable := sum(record.unreadable is not None for record in records):
        hint = with_database(click.get_current_context(), f'To see why, run "{PROGRAM} check".')
        _terminal.note(f"{_format.count(unreadable, 'row')} cannot be read. {hint}")


@click.command("show", short_help="Show all fields of a token.")
@token_argument
@json_option
@click.option("--reveal", is_flag=True, help="Also print the secrets, after a confirmation.")
@yes_option("Reveal")
@click.pass_obj
def show(database: Database, *, token: str, as_json: bool, reveal: bool, assume_yes: bool) -> None:
    """Show all fields of TOKEN: an ID, or the name or e-mail address of a user with one token.

    Secrets are masked. With --reveal they are printed after a confirmation. Before you confirm, check who can see the
    screen and whether the output is recorded.

    With --json, print an object with the same keys as "list --json". With --reveal it also has the keys client_secret,
    refresh_token, access_token and grant_token.

    \b
    Examples:
      zoho-token-store show 3
      zoho-token-store show ada@example.com --json
      zoho-token-store show 3 --reveal
    """  # noqa: D301 - see `cli`
    with administration(database) as opened:
        record = find_row(opened, database, token)
        secrets = None
        if reveal:
            _terminal.confirm(f"Print the secrets of {_tables.label(record)}?", assume_yes=assume_yes)
            secrets = opened.reveal(record.id)
    if as_json:
        _terminal.print_result(_tables.to_json(_tables.json_object(record, secrets)))
    else:
        _terminal.print_result(_tables.render_fields(record, secrets, _terminal.now_ms()))
    _note_unreadable([record])


@click.command("check", short_help="Check the database for problems.")
@json_option
@click.pass_context
def check_(ctx: click.Context, *, as_json: bool) -> None:
    """Check the database for problems, and print how to fix each one. Nothing is changed.

    The command checks the file: its integrity, schema version, permissions, WAL mode and file system. Of a database on
    a server, it checks the tables, settings, clock and connection. In the rows it finds duplicates, access tokens
    without a readable expiry or with one far ahead, refreshes that fail, and tokens that can never be used again. Of
    encrypted rows, it finds those under a missing key, altered ones, and those that "rekey" has to rewrite.

    \b
    Exit status, as monitoring plugins use it:
      0  nothing found
      1  warnings
      2  errors
      3  the check could not run, for example because the file is missing

    With --json, print an array with one object per finding. Its keys are code, severity ("error" or "warning"), ids (of
    the affected rows), message and hint (how to fix it). The key cure is the old name of hint.

    \b
    Examples:
      zoho-token-store check
      zoho-token-store --db /var/lib/crm/zohooauth.db check --json
    """  # noqa: D301 - see `cli`
    database: Database = ctx.obj
    findings = find_problems(database)
    if as_json:
        _terminal.print_result(_tables.to_json([finding_object(finding) for finding in findings]))
    else:
        _terminal.print_result("\n".join([summary(database.printable_name, findings), *map(describe, findings)]))
    ctx.exit(_exit_status(findings))


def find_problems(database: Database) -> list[Finding]:
    """Check a database, and return the findings in the order in which they are shown."""
    keys = key_arguments()
    findings = database.open(lambda address: check(address, busy_timeout=database.timeout, **keys))
    return sorted(findings, key=lambda finding: finding.severity != _ERROR)


def finding_object(finding: Finding) -> dict[str, object]:
    """Return the object that `--json` prints for a finding."""
    found = {key: getattr(finding, key) for key in ("code", "severity", "ids", "message")}
    hint = for_command_line(finding.hint)
    return {**found, "hint": hint, "cure": hint}


def count_errors(findings: list[Finding]) -> int:
    """Return the number of findings with the severity "error"."""
    return sum(finding.severity == _ERROR for finding in findings)


def _exit_status(findings: list[Finding]) -> int:
    return 2 if count_errors(findings) else min(len(findings), 1)


def summary(name: str, findings: list[Finding]) -> str:
    """Return the first line of the report. Monitors show only this line."""
    errors = count_errors(findings)
    counts = [(errors, "error"), (len(findings) - errors, "warning")]
    found = ", ".join(_format.count(number, severity) for number, severity in counts if number)
    return f"{name}: {found or 'nothing found'}"


def describe(finding: Finding) -> str:
    """Return the lines about a finding."""
    hint = with_database(click.get_current_context(), for_command_line(finding.hint))
    style = _terminal.red if finding.severity == _ERROR else _terminal.yellow
    rows = f" ({_list_ids(finding.ids)})" if finding.ids else ""
    return (
        f"\n{style(finding.severity)}  {_terminal.bold(finding.code)}{rows}\n"
        f"  {_terminal.escape_lines(finding.message)}\n"
        f"  Fix: {_terminal.escape_lines(hint)}"
    )


def _list_ids(ids: list[str]) -> str:
    shown = ", ".join(_format.escape_unprintable(row_id) for row_id in ids[:_MAX_LISTED_IDS])
    more = f" and {len(ids) - _MAX_LISTED_IDS} more" if len(ids) > _MAX_LISTED_IDS else ""
    return f"{'row' if len(ids) == 1 else 'rows'} {shown}{more}"
