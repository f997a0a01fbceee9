"""The arguments and options that several commands have, and the rows that they name."""

import os
from collections.abc import Callable
from typing import Any

import click

from zoho_token_store._native import Administration, Record, StoreError

from . import _tables, _terminal
from ._database import Database, administration

PROGRAM = "zoho-token-store"
DB_VARIABLE = "ZOHO_TOKEN_STORE_DB"
DB_DEFAULT = "zohooauth.db"
TIMEOUT_DEFAULT = 5.0  # seconds
STREAM = "-"  # standard input or standard output
STREAM_PATHS = {
    "import": ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"),
    "export": ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"),
}
_MAX_LISTED_ROWS = 20


def belongs_to(record: Record, user: str) -> bool:
    """Return whether a row is that of a user: the user's name, or its e-mail address in `email:organisation`."""
    name = record.user_name or ""
    return bool(user) and user in (name, name.rpartition(":")[0])


def find_row(opened: Administration, database: Database, token: str) -> Record:
    """Return the row with this ID, or the only row of the user with this name.

    Raises:
        StoreError: There is no such row, or it cannot be read.
        Failure: The user has several rows.

    """
    try:
        return opened.record(token)
    except StoreError as error:
        if error.code != "missing-id" or not token:
            raise
        # An ID wins: otherwise a row with that ID could not be named any more.
        records = [record for record in opened.records() if belongs_to(record, token)]
        if not records:
            raise _unknown_token(error) from None
    if len(records) == 1:
        return records[0]
    message = f"{database.printable_name} has {len(records)} tokens of this user. Nothing was changed."
    raise _terminal.Failure(message + _list_rows(records), "Give the id of one of them.")


def _unknown_token(error: StoreError) -> _terminal.Failure:
    # The message of a `StoreError` decides whether the text may be printed: it may be a secret.
    message = str(error).removesuffix(f" {error.hint}").replace("with the id ", "with the id or user ", 1)
    return _terminal.Failure(message, f'Run "{PROGRAM} list" to see the ids and the users.')


def _list_rows(records: list[Record]) -> str:
    lines = [_tables.label(record) for record in records[:_MAX_LISTED_ROWS]]
    if len(records) > _MAX_LISTED_ROWS:
        lines.append(f"and {len(records) - _MAX_LISTED_ROWS} more")
    return "".join(f"\n  {line}" for line in lines)


def names_stream(ctx: click.Context, file: str) -> bool:
    """Return whether FILE is "-", or another name of the stream that the command uses."""
    return file == STREAM or file in STREAM_PATHS.get(ctx.info_name or "", ())


def complete_id(ctx: click.Context, _parameter: click.Parameter, prefix: str) -> list[Any]:
    """Complete an ID from the database. After any failure there are no completions and no error message."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only shell completion needs it

    db = ctx.find_root().params.get("db") or os.environ.get(DB_VARIABLE) or DB_DEFAULT
    try:
        with administration(Database(db, TIMEOUT_DEFAULT)) as opened:
            return [
                CompletionItem(record.id, help=_terminal.escape_lines(record.user_name or ""))
                for record in opened.records()
                if record.id.startswith(prefix) and record.id.isprintable()
            ]
    except (StoreError, _terminal.Failure):
        return []


Command = Callable[..., None]

token_argument: Callable[[Command], Command] = click.argument("token", metavar="TOKEN", shell_complete=complete_id)
json_option: Callable[[Command], Command] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option: Callable[[Command], Command] = click.option(
    "--dry-run", is_flag=True, help="Print what the command would do, and change nothing."
)


def yes_option(action: str) -> Callable[[Command], Command]:
    """Return the option `--yes`, which skips the confirmation prompt."""
    return click.option("--yes", "-y", "assume_yes", is_flag=True, help=f"{action} without asking.")
