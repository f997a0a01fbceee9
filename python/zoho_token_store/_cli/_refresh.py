"""The command refresh: refresh tokens that expire soon."""

import os
from typing import TYPE_CHECKING

import click

from zoho_token_store._native import Record, StoreAtAddress

from . import _format, _sdk, _tables, _terminal
from ._database import Database, administration, key_arguments
from ._options import complete_id, find_row, json_option

if TYPE_CHECKING:
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter


def _parse_within(_ctx: click.Context, _parameter: click.Parameter, text: str) -> float:
    try:
        return _format.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("refresh", short_help="Refresh the tokens that expire soon.")
@click.argument("tokens", metavar="[TOKEN]...", nargs=-1, shell_complete=complete_id)
@click.option(
    "--within",
    default="10m",
    show_default=True,
    metavar="DURATION",
    callback=_parse_within,
    help="Refresh the tokens with less than this left: 90s, 10m.",
)
@_sdk.zoho_options
@json_option
@click.pass_obj
def refresh(
    database: Database,
    *,
    tokens: tuple[str, ...],
    within: float,
    zoho: _sdk.Zoho,
    as_json: bool,
) -> None:
    """Refresh the tokens that expire soon: all, or each TOKEN, an ID or a user with one token. This needs the SDK.

    It is for a job that runs every few minutes, so that no program has to wait for Zoho. Tokens that are valid for long
    enough are skipped, and so are those that a program is refreshing at this moment. The exit status is 1 if a token
    could not be refreshed. The others are refreshed nevertheless.

    A request goes to the data centre of the row's API domain. The options --data-centre, or --api-domain and
    --accounts-url, are for rows without an API domain, or whose API domain is the one given.

    With --json, print an object with the keys refreshed and skipped (the IDs of rows) and failed (the reasons, by ID).

    \b
    Examples:
      zoho-token-store refresh
      zoho-token-store refresh --within 15m 3 4
    """  # noqa: D301 - see `cli`
    with administration(database) as opened:
        chosen = [find_row(opened, database, token) for token in tokens] if tokens else opened.records()
    records = {record.id: record for record in chosen}
    sdk = _sdk.load()
    given = zoho.load(sdk) if zoho.is_given() else None
    unreachable = _unreachable(sdk, chosen, given)
    reachable = [row_id for row_id in records if row_id not in unreachable]
    refreshed, skipped, failed = _refresh(sdk, database, within, reachable, given)
    latest = _terminal.now_ms() + int(within * 1000)
    for row_id, reason in unreachable.items():
        if _is_due(records[row_id], latest):
            failed[row_id] = reason
        else:
            skipped.append(row_id)
    if as_json:
        _terminal.print_result(_tables.to_json({"refreshed": refreshed, "skipped": skipped, "failed": failed}))
    else:
        _terminal.print_result(f"{_format.count(len(refreshed), 'row')} refreshed, {len(skipped)} skipped.")
    if failed:
        lines = [f"{_tables.label(records[row_id])}: {reason}" for row_id, reason in failed.items()]
        number = _format.count(len(failed), "row")
        raise _terminal.Failure(
            f"{number} could not be refreshed.\n  " + "\n  ".join(lines),
            "If Zoho answers invalid_code, the user has to log in again. Otherwise fix the cause shown "
            "above, and try again later.",
        )


def _refresh(
    sdk: _sdk.Sdk, database: Database, within: float, ids: list[str], given: "DataCenter.Environment | None"
) -> tuple[list[str], list[str], dict[str, str]]:
    from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig  # noqa: PLC0415 - see `_sdk`

    from zoho_token_store._refresh import refresh_rows  # noqa: PLC0415

    # `Initializer.initialize` would also look for a token.
    initializer = sdk.initializer()
    initializer.environment = given
    initializer.sdk_config = SDKConfig()
    initializer.resource_path = os.getcwd()  # noqa: PTH109 - pathlib starts slowly
    keys = key_arguments()
    before, sdk.initializer.initializer = sdk.initializer.initializer, initializer
    try:
        with _sdk.asking_zoho(sdk), StoreAtAddress(database.address, busy_timeout=database.timeout, **keys) as store:
            return refresh_rows(store, within, ids)
    finally:
        sdk.initializer.initializer = before


def _unreachable(sdk: _sdk.Sdk, records: list[Record], given: "DataCenter.Environment | None") -> dict[str, str]:
    """Return the reasons why the SDK cannot ask Zoho about rows."""
    found = {record.id: _sdk.environment_of(sdk, record, given) for record in records}
    return {row_id: reason for row_id, reason in found.items() if isinstance(reason, str)}


def _is_due(record: Record, latest_ms: int) -> bool:
    return not record.has_access_token or (record.expires_at is not None and record.expires_at < latest_ms)
