"""The command init: make the tables of a token database."""

import click

from zoho_token_store._native import init_sql

from . import _format, _inspect, _tables, _terminal
from ._database import Database, administration
from ._options import json_option


@click.command("init", short_help="Create the database, or the tables of a server's database.")
@click.option("--sql", is_flag=True, help="Only print the statements that make the tables of a PostgreSQL database.")
@json_option
@click.pass_obj
def init(database: Database, *, sql: bool, as_json: bool) -> None:
    """Create the token database if it is missing. An existing one keeps its rows.

    A file is created. On a server, the tables are created in the database, in the schema of the address
    ("?schema=NAME") or in the first schema of the search path. Programs do the same when they open a store.

    With --sql, nothing is created. The statements are printed, for an administrator: a program whose user may not
    create tables can use tables that these statements have made. If the address names a schema, the tables are made in
    it. The schema has to be there.

    With --json, print an object with the key rows (how many rows the database has), or with --sql the key sql.

    \b
    Examples:
      zoho-token-store --db postgresql://crm@db.example.com/tokens init
      zoho-token-store init --sql | psql -v ON_ERROR_STOP=1 tokens
    """  # noqa: D301 - see `cli`
    if sql:
        statements = _in_schema(init_sql(), database.address.schema)
        if as_json:
            _terminal.print_result(_tables.to_json({"sql": statements}))
        else:
            _terminal.print_utf8(statements)
        return
    with administration(database, make=True) as opened:
        rows = len(opened)
    if database.path is None:
        _require_complete_tables(database)
    if as_json:
        _terminal.print_result(_tables.to_json({"rows": rows}))
    else:
        _terminal.print_result(f"{database.printable_name} is ready. It has {_format.count(rows, 'row')}.")


def _in_schema(statements: str, schema: str | None) -> str:
    """Return the statements, which are one transaction, so that they make the tables in this schema."""
    if schema is None:
        return statements
    quoted = '"' + schema.replace('"', '""') + '"'
    return statements.replace("BEGIN;\n", f"BEGIN;\nSET LOCAL search_path TO {quoted};\n", 1)


def _require_complete_tables(database: Database) -> None:
    """Fail if the database still lacks parts of the tables: only what holds nothing lasting is made again."""
    for finding in _inspect.find_problems(database):
        if finding.code == "changed-tables":
            message = f"{_format.escape_unprintable(finding.message)}. Nothing was changed."
            raise _terminal.Failure(message, finding.hint)
