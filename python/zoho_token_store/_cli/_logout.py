"""The command logout: revoke tokens at Zoho, and delete their rows."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import click

from zoho_token_store._native import Administration, Record, StoreError

from . import _format, _sdk, _tables, _terminal
from ._database import Database, administration
from ._options import PROGRAM, belongs_to, complete_id, find_row, json_option, yes_option

if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter


@click.command("logout", short_help="Revoke a token at Zoho, and delete it.")
@click.argument("token", metavar="[TOKEN]", required=False, shell_complete=complete_id)
@click.option("--all-of", "user", metavar="USER", help="Log out all tokens of this user.")
@click.option("--keep-row", is_flag=True, help="Only revoke. Delete no row.")
@_sdk.zoho_options
@json_option
@yes_option("Revoke")
@click.pass_obj
def logout(  # noqa: PLR0913 - one argument per option
    database: Database,
    *,
    token: str | None,
    user: str | None,
    keep_row: bool,
    zoho: _sdk.Zoho,
    as_json: bool,
    assume_yes: bool,
) -> None:
    """Revoke TOKEN at Zoho, an ID or a user with one token, and then delete its row. This needs the SDK.

    After that, no copy of the refresh token can be used, nor its access tokens. A row without a refresh token has
    nothing to revoke, so it is only deleted. If a refresh token cannot be revoked, its row is kept, and the exit status
    is 1. To delete such a row nevertheless, use "delete".

    The request goes to the data centre of the row's API domain. The options --data-centre, or --api-domain and
    --accounts-url, are for rows without an API domain, or whose API domain is the one given.

    With --json, print an object with the keys revoked and deleted (the IDs of rows) and failed (the reasons, by ID).

    \b
    Examples:
      zoho-token-store logout 3
      zoho-token-store logout --all-of ada@example.com --yes
    """  # noqa: D301 - see `cli`
    if (token is None) == (user is None):
        raise click.UsageError("Give either TOKEN or --all-of USER.")
    with administration(database) as opened:
        records = [find_row(opened, database, token)] if token is not None else _rows_of(opened, database, user or "")
        sdk = _sdk.load()
        given = zoho.load(sdk) if zoho.is_given() else None
        _confirm(records, keep_row=keep_row, assume_yes=assume_yes)
        if not keep_row:
            # If the rows could not be deleted, fail before they are revoked.
            opened.try_to_write()
        outcome = _Logout(sdk, given, opened)
        for record in records:
            outcome.log_out(record, keep_row=keep_row)
    if as_json:
        report = {"revoked": outcome.revoked, "deleted": outcome.deleted, "failed": outcome.failed}
        _terminal.print_result(_tables.to_json(report))
    elif outcome.lines:
        _terminal.print_result("\n".join(outcome.lines))
    if outcome.failed:
        _fail_not_revoked(records, outcome.failed)


def _rows_of(opened: Administration, database: Database, user: str) -> list[Record]:
    records = [record for record in opened.records() if belongs_to(record, user)]
    if not records:
        message = f"{database.printable_name} has no tokens of this user. Nothing was changed."
        raise _terminal.Failure(message, f'Run "{PROGRAM} list" to see the ids and the users.')
    return records


def _confirm(records: list[Record], *, keep_row: bool, assume_yes: bool) -> None:
    action = "Revoke" if keep_row else "Revoke and delete"
    if len(records) == 1:
        _terminal.confirm(f"{action} {_tables.label(records[0])}?", assume_yes=assume_yes)
        return
    if not assume_yes:
        table = _tables.columns(records, _terminal.now_ms(), with_last_saved=True)
        _terminal.note(_tables.render(table, _terminal.stdout_width()))
    _terminal.confirm(f"{action} these {len(records)} rows?", assume_yes=assume_yes)


class _Logout:
    """Revokes and deletes rows one by one, and collects what became of each."""

    def __init__(self, sdk: _sdk.Sdk, given: "DataCenter.Environment | None", opened: Administration) -> None:
        self._sdk = sdk
        self._given = given
        self._opened = opened
        self._answers: dict[str, str | None] = {}
        self.revoked: list[str] = []
        self.deleted: list[str] = []
        self.failed: dict[str, str] = {}
        self.lines: list[str] = []

    def log_out(self, record: Record, *, keep_row: bool) -> None:
        """Revoke the refresh token of a row, and delete the row if that has worked or if there is no such token."""
        label = _tables.label(record)
        done = "revoked"
        try:
            refresh_token = self._opened.reveal(record.id).get("refresh_token")
            if refresh_token is None:
                done = "had no refresh token to revoke"
            else:
                # Several rows can have the same refresh token.
                if refresh_token not in self._answers:
                    self._answers[refresh_token] = self._revoke(record, refresh_token)
                if reason := self._answers[refresh_token]:
                    self.failed[record.id] = reason
                    return
                self.revoked.append(record.id)
                if self._opened.reveal(record.id).get("refresh_token") != refresh_token:
                    self.failed[record.id] = "revoked, but not deleted: the user has logged in again meanwhile"
                    return
            if not keep_row:
                self._opened.delete(record.id)
                self.deleted.append(record.id)
        except StoreError as error:
            self.failed[record.id] = f"{done}, but not deleted. {error}"
            return
        self.lines.append(f"{label[:1].upper()}{label[1:]}: {done}, {'kept' if keep_row else 'deleted'}.")

    def _revoke(self, record: Record, refresh_token: str) -> str | None:
        """Let the SDK revoke a token. Return why that has failed, or `None`."""
        environment = _sdk.environment_of(self._sdk, record, self._given)
        if isinstance(environment, str):
            return environment
        url: str = environment.accounts_url
        try:
            with _sdk.asking_zoho(self._sdk):
                is_revoked = self._sdk.oauth_token.revoke_refresh_token(
                    refresh_token, url + self._sdk.constants.REVOKE_URL
                )
        except self._sdk.exception as error:
            return _sdk.explain(error, url).reason
        return None if is_revoked else f"{_sdk.host_of(url)} has refused. It may be revoked already"


def _fail_not_revoked(records: Iterable[Record], reasons: dict[str, str]) -> NoReturn:
    rows = [f"{_tables.label(record)}: {reasons[record.id]}" for record in records if record.id in reasons]
    number = _format.count(len(rows), "row")
    raise _terminal.Failure(
        f"{number} could not be logged out, and {'is' if len(rows) == 1 else 'are'} kept.\n  " + "\n  ".join(rows),
        f'Try again later. If you know that the token is revoked, run "{PROGRAM} delete ID".',
    )
