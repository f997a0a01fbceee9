"""Commands that copy rows between the database and other files: import, export, backup, restore."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from zoho_token_store._native import Administration, Source, StoreError, read_stdin

from . import _format, _tables, _terminal
from ._database import Database, administration, key_arguments
from ._options import STREAM, dry_run_option, json_option, names_stream, yes_option

_FILE = click.Path(readable=False)  # see the option --db
_BATCH_ROWS = 500  # the most rows per transaction: other writers wait for it, for about a second at most
_PROGRESS_BAR_ROWS = 2000  # an import of fewer rows is too short for a progress bar
_LISTED_POSITIONS = 20  # rows that a remark names; the others are only counted
_SQLITE = "SQLite"


@click.command("import", short_help="Import the tokens of another store.")
@click.argument("file", type=_FILE)
@dry_run_option
@json_option
@click.pass_context
def import_(ctx: click.Context, *, file: str, dry_run: bool, as_json: bool) -> None:
    """Import the tokens of FILE, or of standard input if FILE is "-". FILE is not changed.

    \b
    FILE can be one of these. Its content decides which:
      a text file of an SDK's FileStore (sdk_tokens.txt)
      the table of an SDK's DBStore, exported as CSV
      a SQLite database of this library or of the vendor's sample
      a file that "export" wrote
    It can also be the address of a database on a server (postgresql://...).

    If the database already has a row for a token, the import fills in its missing fields. It keeps the access token
    with the later expiry. A second import of the same file adds no rows. A missing database is created.

    Remarks on stderr list each row that was not imported, or not as it is. A file of FileStore does not say how many
    rows it has, so compare the number of rows if the file may be cut short.

    With --json, print an object with the keys kind (of the file), rows, new, updated, unchanged, skipped, remarks
    (each with its text and the positions of its rows) and dry_run.

    \b
    Examples:
      zoho-token-store import sdk_tokens.txt
      zoho-token-store --db new.db import old.db
      zoho-token-store --db postgresql://crm@db.example.com/tokens import old.db
      gpg -d tokens.jsonl.gpg | zoho-token-store import -
    """  # noqa: D301 - see `cli`
    database: Database = ctx.obj
    from_stream = names_stream(ctx, file)
    given = Database(file, database.timeout)
    source = read_stdin() if from_stream else given.read()
    with (
        _rehearsal(database, None if from_stream else given)
        if dry_run
        else administration(database, make=True) as opened
    ):
        (new, updated, unchanged, skipped), remarks = _import_in_batches(opened, source)
    groups = _group([*source.remarks, *remarks])
    if as_json:
        report = {"kind": source.kind, "rows": len(source), "new": new, "updated": updated, "unchanged": unchanged}
        listed = [{"text": text, "positions": positions} for text, positions in groups.items()]
        _terminal.print_result(_tables.to_json({**report, "skipped": skipped, "remarks": listed, "dry_run": dry_run}))
        return
    counts = f"{new} new, {updated} updated, {unchanged} unchanged, {skipped} skipped"
    name = "standard input" if from_stream else given.printable_name
    what = f"{name} ({source.kind}, {_format.count(len(source), 'row')})"
    _terminal.print_result(f"{'Would import ' if dry_run else ''}{what}: {counts}.")
    for text, positions in groups.items():
        _terminal.note(f"{_listed(positions)}: {text}")


@contextmanager
def _rehearsal(database: Database, source: Database | None) -> Iterator[Administration]:
    """Open a copy of the database in memory. A missing database has no rows and is not created."""
    if source is not None:
        _require_another_file(database, source)
    opened = Administration.rehearsal(_read_if_there(database), **key_arguments())
    try:
        yield opened
    finally:
        opened.close()


def _read_if_there(database: Database) -> Source | None:
    is_there = database.has_tables() if database.path is None else os.path.lexists(database.path)
    return database.read() if is_there else None


def _require_another_file(database: Database, source: Database) -> None:
    one, other = database.path, source.path
    if one is None or other is None:
        return
    exists = os.path.exists(one) and os.path.exists(other)  # noqa: PTH110 - see `_count_rows`
    if exists and os.path.samefile(one, other):  # noqa: PTH121 - see `_count_rows`
        message = f"{other} is the token database itself. Nothing was changed."
        raise _terminal.Failure(message, "Give the path of another file.")


def _group(remarks: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the positions of each remark."""
    groups: dict[str, list[str]] = {}
    for remark, position in remarks:
        groups.setdefault(remark, []).append(position)
    return groups


def _listed(positions: list[str]) -> str:
    """Return for example "Lines 2, 3, 5 and 12 more"."""
    unit, _, first = positions[0].rpartition(" ")
    numbers = [first, *(position.rpartition(" ")[2] for position in positions[1:_LISTED_POSITIONS])]
    more = len(positions) - len(numbers)
    rest = f" and {more} more" if more else ""
    return f"{unit.capitalize()}{'s' if len(positions) > 1 else ''} {', '.join(numbers)}{rest}"


def _import_in_batches(
    opened: Administration, source: Source
) -> tuple[tuple[int, int, int, int], list[tuple[str, str]]]:
    new = updated = unchanged = skipped = done = 0
    remarks: list[tuple[str, str]] = []
    total = len(source)
    hidden = total <= _PROGRESS_BAR_ROWS or not _terminal.stderr_is_terminal()
    try:
        with click.progressbar(length=total, label="Importing", file=sys.stderr, hidden=hidden) as bar:
            while done < total:
                batch = opened.import_rows(source, done, _BATCH_ROWS)
                new += batch.new
                updated += batch.updated
                unchanged += batch.unchanged
                skipped += batch.skipped
                remarks += batch.remarks
                done += batch.rows
                bar.update(batch.rows)
    except (KeyboardInterrupt, StoreError):
        if done:
            # The number of imported rows is unknown: the interrupted batch may be committed, too.
            _terminal.note("The import stopped early. Imported rows are kept. Run it again to import the rest.")
        raise
    return (new, updated, unchanged, skipped), remarks


@click.command("export", short_help="Write all tokens as JSON Lines.")
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Overwrite FILE. With -, write even to a terminal.")
@json_option
@click.pass_context
def export(ctx: click.Context, *, file: str, force: bool, as_json: bool) -> None:
    """Write all tokens into FILE as JSON Lines, to move them to another machine or program.

    The first line says how many rows follow. Each other line is an object with the columns of a row. FILE contains the
    secrets in plain text, even if the database is encrypted, and only you can read it. "import" reads it back. For a
    copy on the same machine, use "backup" instead.

    If FILE is "-", the tokens go to standard output, for a pipe. To see them on a terminal, add --force.

    With --json, print an object with the key rows: how many rows were written.

    \b
    Examples:
      zoho-token-store export tokens.jsonl
      zoho-token-store export - | gpg -e -r ada@example.com > tokens.jsonl.gpg
      zoho-token-store export - | ssh other zoho-token-store import -
    """  # noqa: D301 - see `cli`
    database: Database = ctx.obj
    if names_stream(ctx, file):
        _export_to_stdout(database, force=force, as_json=as_json)
        return
    if not force and os.path.lexists(file):
        raise _terminal.Failure(f"{file} exists already. Nothing was changed.", "Pass --force to overwrite it.")
    with administration(database) as opened:
        _say_that_an_export_is_in_clear_text()
        written = opened.export(file, overwrite=force)
    _report(
        as_json,
        {"rows": written},
        f"Wrote {_format.count(written, 'row')} to {_format.escape_unprintable(file)}. "
        "The file contains secrets: delete it after use.",
    )


def _say_that_an_export_is_in_clear_text() -> None:
    if key_arguments():
        _terminal.note("An export is in clear text: it is not encrypted with the keys of the database.")


def _export_to_stdout(database: Database, *, force: bool, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("Standard output has the tokens, so it cannot have the output of --json.")
    if _terminal.stdout_is_terminal() and not force:
        message = "The secrets of all tokens would appear on the terminal. Nothing was written."
        raise _terminal.Failure(message, "Pipe the output into another program, or pass --force.")
    _terminal.flush_stdout()
    with administration(database) as opened:
        _say_that_an_export_is_in_clear_text()
        written = opened.export_to_stdout()
    _terminal.note(f"Wrote {_format.count(written, 'row')} to standard output. It contains secrets.")
    if _terminal.stdout_is_exposed_file():
        _terminal.note("Standard output is a file that other users can read: run chmod 600 on it.")


def _report(as_json: bool, data: dict[str, object], text: str) -> None:  # noqa: FBT001 - a flag of the command line
    _terminal.print_result(_tables.to_json(data) if as_json else text)


def _refuse_stream(file: str, instead: str) -> None:
    """Refuse "-" where a SQLite database is read or written: SQLite opens a path. "./-" is a file of that name."""
    if file == STREAM:
        raise click.UsageError(
            f'A SQLite database cannot go through a pipe. Give the path of a file, or use "{instead}".'
        )


@click.command("backup", short_help="Write a copy while others use the database.")
@click.argument("file", type=_FILE)
@json_option
@click.pass_obj
def backup(database: Database, *, file: str, as_json: bool) -> None:
    """Write a consistent copy of the database into FILE, while other programs use the database.

    Only you can read FILE. It appears under its name once it is complete. An older backup is replaced, any other
    existing file is not. Do not copy the database with other tools (cp): such a copy can miss the latest saves. A
    backup is as encrypted as the database, so it needs the same keys.

    With --json, print an object with the key file.

    \b
    Examples:
      zoho-token-store backup /var/backups/zohooauth.db
      zoho-token-store backup "zohooauth-$(date +%F).db"
    """  # noqa: D301 - see `cli`
    _refuse_stream(file, f"export {STREAM}")
    with administration(database) as opened:
        opened.backup(file)
    text = f"Backed up {database.printable_name} to {_format.escape_unprintable(file)}."
    _report(as_json, {"file": file}, text)


@click.command("restore", short_help="Replace all tokens with those of a backup.")
@click.argument("file", type=_FILE)
@dry_run_option
@json_option
@yes_option("Restore")
@click.pass_obj
def restore(database: Database, *, file: str, dry_run: bool, as_json: bool, assume_yes: bool) -> None:
    """Replace all tokens of the database with those of FILE, a backup.

    The replacement is one transaction. Programs can keep using the database: they see either the old rows or those of
    the backup. Never copy a backup over a database that is in use. A missing database is created.

    To add the tokens of another database to the existing ones, use "import".

    With --json, print an object with the keys restored, before (numbers of rows) and dry_run.

    \b
    Examples:
      zoho-token-store restore /var/backups/zohooauth.db
      zoho-token-store --db new.db restore /var/backups/zohooauth.db --yes
    """  # noqa: D301 - see `cli`
    _refuse_stream(file, f"import {STREAM}")
    given = Database(file, database.timeout)
    source = given.read()
    if source.kind != _SQLITE:
        message = f"{given.name} is not a backup, so it cannot be restored. It was left untouched."
        raise _terminal.Failure(message, "Import it. An import keeps the rows that are already there.")
    _require_another_file(database, given)
    before = _count_rows(database)
    restored = len(source)
    if dry_run:
        # Fails where the restore would, such as at a row that the keys do not open.
        with _rehearsal(database, given) as opened:
            opened.restore(source)
    else:
        if before:
            question = f"Replace {_replacement(before, restored, database.name, file)}?"
            _terminal.confirm(question, assume_yes=assume_yes)
        with administration(database, make=True) as opened:
            restored = opened.restore(source)
    name = _format.escape_unprintable(file)
    if dry_run and before:
        text = f"Would replace {_replacement(before, restored, database.printable_name, name)}."
    else:
        restoring, rows = _format.count(restored, "row"), _format.count(before, "row")
        done, had = ("Would restore", f"has {rows}") if dry_run else ("Restored", f"had {rows} before")
        text = f"{done} {restoring} from {name}. The database {had}."
    _report(as_json, {"restored": restored, "before": before, "dry_run": dry_run}, text)


def _replacement(before: int, restored: int, database: str, file: str) -> str:
    replaced = "the 1 row" if before == 1 else f"all {before} rows"
    return f"{replaced} of {database} with {_format.count(restored, 'row')} from {file}"


def _count_rows(database: Database) -> int:
    """Count the rows. A missing database has none and is not created."""
    # The import of pathlib would take a tenth of a run's time.
    is_there = database.has_tables() if database.path is None else os.path.exists(database.path)  # noqa: PTH110
    if not is_there:
        return 0
    with administration(database) as opened:
        return len(opened)
