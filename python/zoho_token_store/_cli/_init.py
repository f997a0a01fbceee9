"""The command init: make the tables of a token database."""

import click

from zoho_token_store._native import init_sql

from . import _format, _tables, _terminal
from ._group import Database, administration, json_option


@click.command("init", short_help="Create the database, or the tables of a server's database.")
@click.option("--sql", is_flag=True, help="Only print the statements that make the tables of a PostgreSQL database.")
@json_option
@click.pass_obj
def init(database: Database, *, sql: bool, as_json: bool) -> None:
    """Create the token database if it is missing. An existing one keeps its rows.

    A file is created. On a server, the tables are created in the database, in the schema of the address
    ("?schema=NAME") or in the first schema of the search path. Programs do the same when they open a store.

    With --sql, nothing is created. The statements are printed, for an administrator: a program whose user may not
    create tables can use tables that these statements have made.

    With --json, print an object with the key rows (how many rows the database has), or with --sql the key sql.

    \b
    Examples:
      zoho-token-store --db postgresql://crm@db.example.com/tokens init
      zoho-token-store init --sql | psql -v ON_ERROR_STOP=1 tokens
    """  # noqa: D301 - see `cli`
    if sql:
        if as_json:
            _terminal.print_result(_tables.to_json({"sql": init_sql()}))
        else:
            _terminal.print_utf8(init_sql())
        return
    with administration(database, make=True) as opened:
        rows = len(opened)
    if as_json:
        _terminal.print_result(_tables.to_json({"rows": rows}))
    else:
        _terminal.print_result(f"{database.printable_name} is ready. It has {_format.count(rows, 'row')}.")
