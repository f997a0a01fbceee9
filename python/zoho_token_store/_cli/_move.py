"""Commands that bring rows in and out: import, export, backup, restore."""

import os
import sys

import click

from zoho_token_store._native import Administration, Source, StoreError, read_source

from . import _terminal, _words
from ._group import administration, yes_option

_FILE = click.Path(readable=False)  # as that of --db
_BATCH = 500  # rows in one transaction: others wait for it some milliseconds
_MANY = 2000  # rows from which on a progress bar is worth its flicker
_SQLITE = "SQLite"


@click.command("import", short_help="Bring in the tokens of another store.")
@click.argument("file", type=_FILE)
@click.pass_obj
def import_(db: str, *, file: str) -> None:
    """Bring in the tokens of FILE, which is not changed.

    \b
    What FILE may be, found by its content:
      a text file of the SDK's FileStore (sdk_tokens.txt)
      a SQLite database of this library or of the vendor's sample
      a file that "export" wrote

    A token whose row is there already fills up what the row lacks, and replaces its access token if it expires later.
    So nothing is there twice when this is run twice. A database that is missing is made.

    \b
    Examples:
      zoho-token-store import sdk_tokens.txt
      zoho-token-store --db new.db import old.db
    """  # noqa: D301 - as in the group
    source = read_source(file)
    with administration(db, make=True) as opened:
        new, updated, unchanged, skipped = _import_in_batches(opened, source)
    counts = f"{new} new, {updated} updated, {unchanged} unchanged, {skipped} skipped"
    why = " (no token in it)" if skipped else ""
    _terminal.say(f"{_words.visible(file)} ({source.kind}, {_words.count(len(source), 'row')}): {counts}{why}.")


def _import_in_batches(opened: Administration, source: Source) -> tuple[int, int, int, int]:
    new = updated = unchanged = skipped = done = 0
    total = len(source)
    hidden = total <= _MANY or not _terminal.errors_are_seen()
    try:
        with click.progressbar(length=total, label="Importing", file=sys.stderr, hidden=hidden) as bar:
            while done < total:
                size = min(_BATCH, total - done)
                batch = opened.import_rows(source, done, size)
                new += batch.new
                updated += batch.updated
                unchanged += batch.unchanged
                skipped += batch.skipped
                done += size
                bar.update(size)
    except (KeyboardInterrupt, StoreError):
        if done:
            # Not how many: the batch that was on its way may be in as well.
            _terminal.note("Stopped on the way. What is imported stays; to go on, run it again.")
        raise
    return new, updated, unchanged, skipped


@click.command("export", short_help="Write all tokens as JSON Lines.")
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@click.pass_obj
def export(db: str, *, file: str, force: bool) -> None:
    """Write all tokens into FILE as JSON Lines, to move them to another machine or program.

    Each line is an object with the columns of a row. FILE holds the secrets in the clear, and is readable by you
    alone; "import" reads it back. To keep a copy on the same machine, "backup" is better.

    \b
    Examples:
      zoho-token-store export tokens.jsonl
      zoho-token-store export tokens.jsonl --force
    """  # noqa: D301 - as in the group
    if not force and os.path.lexists(file):
        raise _terminal.Failure(f"{file} exists. To overwrite it: --force")
    with administration(db) as opened:
        written = opened.export(file, overwrite=force)
    _terminal.say(
        f"Wrote {_words.count(written, 'row')} to {_words.visible(file)}. It holds secrets: delete it after use."
    )


@click.command("backup", short_help="Write a copy while others use the database.")
@click.argument("file", type=_FILE)
@click.pass_obj
def backup(db: str, *, file: str) -> None:
    """Write a consistent copy of the database into FILE, while others use it.

    FILE is readable by you alone, and takes its name once it is whole. An older backup is replaced, any other file is
    not. Copying the database by other means (cp) can miss what was saved last.

    \b
    Examples:
      zoho-token-store backup /var/backups/zohooauth.db
      zoho-token-store backup "zohooauth-$(date +%F).db"
    """  # noqa: D301 - as in the group
    with administration(db) as opened:
        opened.backup(file)
    _terminal.say(f"Backed up {_words.visible(db)} to {_words.visible(file)}.")


@click.command("restore", short_help="Put a backup's tokens in place of all tokens.")
@click.argument("file", type=_FILE)
@yes_option("Restore")
@click.pass_obj
def restore(db: str, *, file: str, sure: bool) -> None:
    """Put the tokens of FILE, a backup, in place of all tokens of the database.

    It happens in one transaction inside the live file: programs that use it need not be stopped, and see either the
    rows of before or those of the backup. Never copy a backup over a database in use instead. To add the tokens of
    another database to those that are there: "import". A database that is missing is made.

    \b
    Examples:
      zoho-token-store restore /var/backups/zohooauth.db
      zoho-token-store --db new.db restore /var/backups/zohooauth.db --yes
    """  # noqa: D301 - as in the group
    source = read_source(file)
    if source.kind != _SQLITE:
        raise _terminal.Failure(f'{file} is no backup: it is of the kind "{source.kind}", which "import" brings in')
    if os.path.exists(db) and os.path.samefile(db, file):  # noqa: PTH110, PTH121 - as in _rows
        raise _terminal.Failure("the file to read is the token database itself; nothing was changed")
    before = _rows(db)
    coming = _words.count(len(source), "row")
    if before:
        _terminal.ask(f"Replace {_all(before)} of {db} with {coming} of {file}?", sure=sure)
    with administration(db, make=True) as opened:
        restored = opened.restore(source)
    _terminal.say(f"Restored {_words.count(restored, 'row')} from {_words.visible(file)}; there were {before} before.")


def _rows(db: str) -> int:
    """Count the rows, without making the database before the question is answered."""
    if not os.path.exists(db):  # noqa: PTH110 - importing pathlib costs a tenth of a run
        return 0
    with administration(db) as opened:
        return len(opened)


def _all(number: int) -> str:
    return "the 1 row" if number == 1 else f"all {number} rows"
