"""Commands that delete rows: delete, purge."""

import click

from zoho_token_store._native import StoreError

from . import _format, _tables, _terminal
from ._database import Database, administration
from ._options import dry_run_option, find_row, json_option, token_argument, yes_option

# An access token lives for an hour, so the SDK saves the row of a busy user only once an hour.
_MIN_IDLE_SECONDS = 3600.0


def _parse_idle_for(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = _format.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds < _MIN_IDLE_SECONDS:
        raise click.BadParameter(
            "less than 1h would also delete tokens in use: the SDK saves a token once an hour. "
            "To delete all tokens, use --everything. A month is 30d: m means minutes."
        )
    return seconds


@click.command("delete", short_help="Delete a token.")
@token_argument
@dry_run_option
@json_option
@yes_option("Delete")
@click.pass_obj
def delete(database: Database, *, token: str, dry_run: bool, as_json: bool, assume_yes: bool) -> None:
    """Delete TOKEN, an ID or a user with one token, and scrub its residue from the disk.

    The user has to log in again. This command does not contact Zoho, so a copy of the token stays valid. To invalidate
    every copy, revoke the token at Zoho.

    With --json, print an object with the keys deleted (the IDs of the deleted rows) and dry_run.

    \b
    Examples:
      zoho-token-store delete 3
      zoho-token-store delete ada@example.com --yes
    """  # noqa: D301 - see `cli`
    with administration(database) as opened:
        try:
            record = find_row(opened, database, token)
            row_id, label = record.id, _tables.label(record)
        except StoreError as error:
            if error.code == "missing-id":
                raise
            # A row that cannot be read can still be deleted.
            row_id, label = token, f"row {_format.escape_unprintable(token)}"
        if not dry_run:
            _terminal.confirm(f"Delete {label}?", assume_yes=assume_yes)
            opened.delete(row_id)
    if as_json:
        _print_deleted([row_id], dry_run=dry_run)
    else:
        _terminal.print_result(f"{'Would delete' if dry_run else 'Deleted'} {label}.")


def _print_deleted(ids: list[str], *, dry_run: bool) -> None:
    _terminal.print_result(_tables.to_json({"deleted": ids, "dry_run": dry_run}))


@click.command("purge", short_help="Delete the tokens that can never be used again.")
@click.option(
    "--idle-for",
    callback=_parse_idle_for,
    metavar="DURATION",
    help="Also delete tokens not saved for this long: 12h, 30d, 4w. At least 1h.",
)
@click.option("--everything", is_flag=True, help="Delete all tokens.")
@dry_run_option
@json_option
@yes_option("Delete")
@click.pass_obj
def purge(  # noqa: PLR0913 - one argument per option
    database: Database, *, idle_for: float | None, everything: bool, dry_run: bool, as_json: bool, assume_yes: bool
) -> None:
    """Delete the tokens that can never be used again: no refresh token, and the access token has expired.

    With --idle-for, also delete the tokens that no program has saved for that long. Their users have to log in again.
    The SDK saves a token at each refresh, at most once an hour, so a token that is used every day is not idle for 2d.

    The command lists the tokens to delete and asks for confirmation. With --json, it prints an object with the keys
    deleted (the IDs of the deleted rows) and dry_run.

    \b
    Examples:
      zoho-token-store purge
      zoho-token-store purge --idle-for 90d --dry-run
      zoho-token-store purge --idle-for 90d --yes
    """  # noqa: D301 - see `cli`
    if everything and idle_for is not None:
        raise click.UsageError("--everything deletes all tokens, so it does not go with --idle-for.")
    with administration(database) as opened:
        records = opened.records() if everything else opened.purgeable(idle_for)
        ids = [record.id for record in records]
        if records and not (as_json and (assume_yes or dry_run)):
            table = _tables.columns(records, _terminal.now_ms(), with_last_saved=True)
            show = _terminal.note if as_json else _terminal.print_result
            show(_tables.render(table, _terminal.stdout_width()))
        deleted = 0
        if records and not dry_run:
            what = "this row" if len(records) == 1 else f"these {len(records)} rows"
            _terminal.confirm(f"Delete {what}?", assume_yes=assume_yes)
            deleted = opened.delete_rows(ids) if everything else opened.purge(ids, idle_for)
            # A row that was saved meanwhile may have stayed.
            left = {record.id for record in opened.records()} if deleted < len(ids) else set()
            ids = [row_id for row_id in ids if row_id not in left]
    if as_json:
        _print_deleted(ids, dry_run=dry_run)
    elif not records:
        _terminal.print_result("Nothing to delete.")
    else:
        done = (
            f"Would delete {_format.count(len(records), 'row')}"
            if dry_run
            else f"Deleted {_format.count(deleted, 'row')}"
        )
        _terminal.print_result(f"{done}.")
