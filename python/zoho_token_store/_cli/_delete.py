"""Commands that delete rows: delete, purge."""

import click

from zoho_token_store._native import StoreError

from . import _format, _tables, _terminal
from ._group import administration, id_argument, yes_option


def _parse_duration(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else _format.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("delete", short_help="Delete a token.")
@id_argument
@yes_option("Delete")
@click.pass_obj
def delete(db: str, *, row_id: str, assume_yes: bool) -> None:
    """Delete the token with this ID and scrub its residue from the disk.

    The user has to log in again. This command does not contact Zoho, so a copy of the token stays valid. To invalidate
    every copy, revoke the token at Zoho.

    \b
    Examples:
      zoho-token-store delete 3
      zoho-token-store delete 3 --yes
    """  # noqa: D301 - see `cli`
    with administration(db) as opened:
        try:
            label = _tables.label(opened.record(row_id))
        except StoreError as error:
            if error.code == "missing-id":
                raise
            # A row that cannot be read can still be deleted.
            label = f"row {_format.escape_unprintable(row_id)}"
        _terminal.confirm(f"Delete {label}?", assume_yes=assume_yes)
        opened.delete(row_id)
    _terminal.print_result(f"Deleted {label}.")


@click.command("purge", short_help="Delete the tokens that can never be used again.")
@click.option(
    "--idle-for",
    callback=_parse_duration,
    metavar="DURATION",
    help="Also delete tokens not saved for this long: 90s, 45m, 12h, 30d, 4w.",
)
@yes_option("Delete")
@click.pass_obj
def purge(db: str, *, idle_for: float | None, assume_yes: bool) -> None:
    """Delete the tokens that can never be used again: no refresh token, and the access token has expired.

    With --idle-for, also delete the tokens that no program has saved for that long. Their users have to log in again.
    The SDK saves a token at each refresh, so a token in use is not idle.

    The command lists the tokens to delete and asks for confirmation.

    \b
    Examples:
      zoho-token-store purge
      zoho-token-store purge --idle-for 90d
      zoho-token-store purge --idle-for 90d --yes
    """  # noqa: D301 - see `cli`
    with administration(db) as opened:
        records = opened.purgeable(idle_for)
        if not records:
            _terminal.print_result("Nothing to delete.")
            return
        table = _tables.columns(records, _terminal.now_ms(), with_last_saved=True)
        _terminal.print_result(_tables.render(table, _terminal.stdout_width()))
        what = "this row" if len(records) == 1 else f"these {len(records)} rows"
        _terminal.confirm(f"Delete {what}?", assume_yes=assume_yes)
        deleted = opened.purge([record.id for record in records], idle_for)
    _terminal.print_result(f"Deleted {_format.count(deleted, 'row')}.")
