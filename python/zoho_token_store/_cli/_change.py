"""Commands that delete: delete, purge."""

import click

from zoho_token_store._native import StoreError

from . import _tables, _terminal, _words
from ._group import administration, id_argument, row, yes_option


def _seconds(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else _words.duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("delete", short_help="Delete a token.")
@id_argument
@yes_option("Delete")
@click.pass_obj
def delete(db: str, *, wanted: str, sure: bool) -> None:
    """Delete the token with this ID, and what is left of it on the disk.

    Its user has to log in again. Zoho is not told: to take the token away from whoever has a copy of it, revoke it at
    Zoho.

    \b
    Examples:
      zoho-token-store delete 3
      zoho-token-store delete 3 --yes
    """  # noqa: D301 - as in the group
    with administration(db) as opened:
        try:
            who = _tables.name(row(opened, db, wanted))
        except StoreError:
            # One that cannot be read is often the one to be deleted.
            who = f"row {_words.visible(wanted)}"
        _terminal.ask(f"Delete {who}?", sure=sure)
        opened.delete(wanted)
    _terminal.say(f"Deleted {who}.")


@click.command("purge", short_help="Delete the tokens that can never be used again.")
@click.option(
    "--idle-for",
    callback=_seconds,
    metavar="DURATION",
    help="Delete tokens not saved for that long, too: 90s, 45m, 12h, 30d, 4w.",
)
@yes_option("Delete")
@click.pass_obj
def purge(db: str, *, idle_for: float | None, sure: bool) -> None:
    """Delete the tokens that can never be used again: no refresh token, and the access token has expired.

    With --idle-for, those that no program has saved for that long go, too, and their users have to log in again. A
    token in use is saved at each refresh. What will go is shown first, then you are asked.

    \b
    Examples:
      zoho-token-store purge
      zoho-token-store purge --idle-for 90d
      zoho-token-store purge --idle-for 90d --yes
    """  # noqa: D301 - as in the group
    with administration(db) as opened:
        records = opened.purgeable(idle_for)
        if not records:
            _terminal.say("Nothing to delete.")
            return
        _terminal.say(_tables.render(_tables.of_rows(records, _terminal.now(), with_age=True), _terminal.width()))
        what = "this row" if len(records) == 1 else f"these {len(records)} rows"
        _terminal.ask(f"Delete {what}?", sure=sure)
        deleted = opened.purge([record.id for record in records], idle_for)
    _terminal.say(f"Deleted {_words.count(deleted, 'row')}.")
