"""Commands that copy rows between the database and other files: import, export, backup, restore."""

import os
import sys

import click

from zoho_token_store._native import Administration, Source, StoreError, read_source

from . import _format, _terminal
from ._group import administration, yes_option

_FILE = click.Path(readable=False)  # see the option --db
_BATCH_ROWS = 500  # rows per transaction: other writers wait for a batch for some milliseconds
_PROGRESS_BAR_ROWS = 2000  # an import of fewer rows is too short for a progress bar
_SQLITE = "SQLite"


@click.command("import", short_help="Import the tokens of another store.")
@click.argument("file", type=_FILE)
@click.pass_obj
def import_(db: str, *, file: str) -> None:
    """Import the tokens of FILE. FILE is not changed.

    \b
    FILE can be one of these. Its content decides which:
      a text file of the SDK's FileStore (sdk_tokens.txt)
      a SQLite database of this library or of the vendor's sample
      a file that "export" wrote

    If the database already has a row for a token, the import fills in its missing fields. It keeps the access token
    with the later expiry. A second import of the same file adds no rows. A missing database is created.

    \b
    Examples:
      zoho-token-store import sdk_tokens.txt
      zoho-token-store --db new.db import old.db
    """  # noqa: D301 - see `cli`
    source = read_source(file)
    with administration(db, make=True) as opened:
        new, updated, unchanged, skipped = _import_in_batches(opened, source)
    counts = f"{new} new, {updated} updated, {unchanged} unchanged, {skipped} skipped"
    reason = " (no token in it)" if skipped else ""
    what = f"{_format.escape_unprintable(file)} ({source.kind}, {_format.count(len(source), 'row')})"
    _terminal.print_result(f"{what}: {counts}{reason}.")


def _import_in_batches(opened: Administration, source: Source) -> tuple[int, int, int, int]:
    new = updated = unchanged = skipped = done = 0
    total = len(source)
    hidden = total <= _PROGRESS_BAR_ROWS or not _terminal.stderr_is_terminal()
    try:
        with click.progressbar(length=total, label="Importing", file=sys.stderr, hidden=hidden) as bar:
            while done < total:
                size = min(_BATCH_ROWS, total - done)
                batch = opened.import_rows(source, done, size)
                new += batch.new
                updated += batch.updated
                unchanged += batch.unchanged
                skipped += batch.skipped
                done += size
                bar.update(size)
    except (KeyboardInterrupt, StoreError):
        if done:
            # The number of imported rows is unknown: the interrupted batch may be committed, too.
            _terminal.note("The import stopped early. Imported rows are kept. Run it again to import the rest.")
        raise
    return new, updated, unchanged, skipped


@click.command("export", short_help="Write all tokens as JSON Lines.")
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.pass_obj
def export(db: str, *, file: str, force: bool) -> None:
    """Write all tokens into FILE as JSON Lines, to move them to another machine or program.

    Each line is an object with the columns of a row. FILE contains the secrets in plain text, and only you can read it.
    "import" reads it back. For a copy on the same machine, use "backup" instead.

    \b
    Examples:
      zoho-token-store export tokens.jsonl
      zoho-token-store export tokens.jsonl --force
    """  # noqa: D301 - see `cli`
    if not force and os.path.lexists(file):
        raise _terminal.Failure(f"{file} exists already. Nothing was changed.", "Pass --force to overwrite it.")
    with administration(db) as opened:
        written = opened.export(file, overwrite=force)
    _terminal.print_result(
        f"Wrote {_format.count(written, 'row')} to {_format.escape_unprintable(file)}. "
        "The file contains secrets: delete it after use."
    )


@click.command("backup", short_help="Write a copy while others use the database.")
@click.argument("file", type=_FILE)
@click.pass_obj
def backup(db: str, *, file: str) -> None:
    """Write a consistent copy of the database into FILE, while other programs use the database.

    Only you can read FILE. It appears under its name once it is complete. An older backup is replaced, any other
    existing file is not. Do not copy the database with other tools (cp): such a copy can miss the latest saves.

    \b
    Examples:
      zoho-token-store backup /var/backups/zohooauth.db
      zoho-token-store backup "zohooauth-$(date +%F).db"
    """  # noqa: D301 - see `cli`
    with administration(db) as opened:
        opened.backup(file)
    _terminal.print_result(f"Backed up {_format.escape_unprintable(db)} to {_format.escape_unprintable(file)}.")


@click.command("restore", short_help="Replace all tokens with those of a backup.")
@click.argument("file", type=_FILE)
@yes_option("Restore")
@click.pass_obj
def restore(db: str, *, file: str, assume_yes: bool) -> None:
    """Replace all tokens of the database with those of FILE, a backup.

    The replacement is one transaction. Programs can keep using the database: they see either the old rows or those of
    the backup. Never copy a backup over a database that is in use. A missing database is created.

    To add the tokens of another database to the existing ones, use "import".

    \b
    Examples:
      zoho-token-store restore /var/backups/zohooauth.db
      zoho-token-store --db new.db restore /var/backups/zohooauth.db --yes
    """  # noqa: D301 - see `cli`
    source = read_source(file)
    if source.kind != _SQLITE:
        message = f"{file} is not a backup, so it cannot be restored. The file was left untouched."
        raise _terminal.Failure(message, "Import it. An import keeps the rows that are already there.")
    if os.path.exists(db) and os.path.samefile(db, file):  # noqa: PTH110, PTH121 - see `_count_rows`
        message = f"{file} is the token database itself. Nothing was changed."
        raise _terminal.Failure(message, "Give the path of another file.")
    before = _count_rows(db)
    restoring = _format.count(len(source), "row")
    if before:
        replaced = "the 1 row" if before == 1 else f"all {before} rows"
        _terminal.confirm(f"Replace {replaced} of {db} with {restoring} from {file}?", assume_yes=assume_yes)
    with administration(db, make=True) as opened:
        restored = opened.restore(source)
    _terminal.print_result(
        f"Restored {_format.count(restored, 'row')} from {_format.escape_unprintable(file)}. "
        f"The database had {_format.count(before, 'row')} before."
    )


def _count_rows(db: str) -> int:
    """Count the rows. A missing database has none and is not created."""
    if not os.path.exists(db):  # noqa: PTH110 - the import of pathlib would take a tenth of a run's time
        return 0
    with administration(db) as opened:
        return len(opened)
