"""Commands that only look: list, show, check."""

import click

from zoho_token_store._native import Finding, check

from . import _tables, _terminal, _words
from ._group import administration, id_argument, json_option, row, yes_option

_ERROR = "error"


@click.command("list", short_help="List the tokens in a table.")
@json_option
@click.pass_obj
def list_(db: str, *, in_json: bool) -> None:
    """List the tokens in a table.

    EXPIRES is when the access token does. That it has expired is no fault: the SDK gets a new one if there is a refresh
    token. On a terminal the table is cut to its width ("…"); into a file or pipe it goes whole.

    With --json: an array with an object for each row, whose keys are id, user_name, client_id, data_centre, api_domain,
    redirect_url, expires_at and last_saved (ISO 8601, UTC), expiry_time (as stored: milliseconds, as a string), and
    has_client_secret, has_refresh_token, has_access_token, has_grant_token. What is absent is null.

    \b
    Examples:
      zoho-token-store list
      zoho-token-store --db /var/lib/crm/zohooauth.db list
      zoho-token-store list --json | jq -r '.[].user_name'
    """  # noqa: D301 - as in the group
    with administration(db) as opened:
        records = opened.records()
    if in_json:
        _terminal.say(_tables.as_json([_tables.as_data(record) for record in records]))
    elif records:
        _terminal.say(_tables.render(_tables.of_rows(records, _terminal.now()), _terminal.width()))
    else:
        _terminal.note(f"{_words.visible(db)} has no tokens.")


@click.command("show", short_help="Show all fields of a token.")
@id_argument
@json_option
@click.option("--reveal", is_flag=True, help="Print the secrets, too, after a question.")
@yes_option("Reveal")
@click.pass_obj
def show(db: str, *, wanted: str, in_json: bool, reveal: bool, sure: bool) -> None:
    """Show all fields of the token with this ID.

    Secrets are masked. With --reveal they are printed, after a question: mind who can see the screen, and where its
    output is kept.

    With --json: an object with the keys that "list --json" has; with --reveal also client_secret, refresh_token,
    access_token and grant_token.

    \b
    Examples:
      zoho-token-store show 3
      zoho-token-store show 3 --json
      zoho-token-store show 3 --reveal
    """  # noqa: D301 - as in the group
    with administration(db) as opened:
        record = row(opened, db, wanted)
        secrets = None
        if reveal:
            who = _tables.name(record)
            _terminal.ask(f"This prints the secrets of {who} to the screen. Go on?", sure=sure)
            secrets = opened.reveal(wanted)
    if in_json:
        _terminal.say(_tables.as_json(_tables.as_data(record, secrets)))
    else:
        _terminal.say(_tables.fields(record, secrets, _terminal.now()))


@click.command("check", short_help="Look for trouble, and tell the cure.")
@json_option
@click.pass_context
def check_(ctx: click.Context, *, in_json: bool) -> None:
    """Look for trouble in the database, and tell the cure of each finding.

    It looks at the file (is it a token database, whole, of this version, its owner's alone, in WAL mode, on a local
    disk?) and at the rows (duplicates, access tokens without a readable expiry or with one far ahead, tokens that can
    never be used again). It changes nothing.

    \b
    Exit status, as monitoring has it:
      0  nothing found
      1  warnings
      2  errors
      3  could not look: no such file, say

    With --json: an array with an object for each finding, whose keys are code, severity ("error" or "warning"), ids (of
    the rows concerned), message and cure.

    \b
    Examples:
      zoho-token-store check
      zoho-token-store --db /var/lib/crm/zohooauth.db check --json
    """  # noqa: D301 - as in the group
    db: str = ctx.obj
    findings = sorted(check(db), key=lambda finding: finding.severity != _ERROR)
    if in_json:
        _terminal.say(_tables.as_json([_as_data(finding) for finding in findings]))
    else:
        _terminal.say("\n".join([_summary(db, findings), *map(_described, findings)]))
    ctx.exit(_status(findings))


def _as_data(finding: Finding) -> dict[str, object]:
    return {key: getattr(finding, key) for key in ("code", "severity", "ids", "message", "cure")}


def _errors(findings: list[Finding]) -> int:
    return sum(finding.severity == _ERROR for finding in findings)


def _status(findings: list[Finding]) -> int:
    return 2 if _errors(findings) else min(len(findings), 1)


def _summary(db: str, findings: list[Finding]) -> str:
    """Say it in the first line: that is the one that a monitor shows."""
    errors = _errors(findings)
    counts = [(errors, "error"), (len(findings) - errors, "warning")]
    found = ", ".join(_words.count(number, thing) for number, thing in counts if number)
    return f"{_words.visible(db)}: {found or 'nothing found'}"


def _described(finding: Finding) -> str:
    paint = _terminal.red if finding.severity == _ERROR else _terminal.yellow
    rows = f" ({_ids(finding.ids)})" if finding.ids else ""
    return (
        f"\n{paint(finding.severity)}  {_terminal.bold(finding.code)}{rows}\n"
        f"  {_terminal.escaped(finding.message)}\n"
        f"  Cure: {_terminal.escaped(finding.cure)}"
    )


def _ids(ids: list[str], most: int = 20) -> str:
    shown = ", ".join(_words.visible(each) for each in ids[:most])
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return f"{'row' if len(ids) == 1 else 'rows'} {shown}{more}"
