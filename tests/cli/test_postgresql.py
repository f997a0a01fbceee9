"""The command line on a database of a PostgreSQL server: each command takes an address where it takes a file."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest
from cli.conftest import in_minutes
from cli.processes import SCRIPT, Terminal, run_process
from click.testing import CliRunner
from support import DATABASE_PASSWORD as PASSWORD
from support import login, token
from zoho_token_store import CustomStorePostgreSQL, CustomStoreSQLite
from zoho_token_store._cli._run import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def address_of(dsn: str, schema: str) -> str:
    """Return the address of a schema."""
    return f"{dsn}{'&' if '?' in dsn else '?'}schema={schema}"


@pytest.fixture
def address(dsn: str, schema: str) -> str:
    """The address of a schema that does not exist."""
    return address_of(dsn, schema)


@pytest.fixture
def database(dsn: str, schema: str, address: str) -> str:
    """The address of a database with three rows. Eve's is unusable."""
    with CustomStorePostgreSQL(dsn, schema=schema) as store:
        store.save_token(login("ada@example.com", 1, expires_in=in_minutes(43)))
        store.save_token(login("bob@example.com", 2, expires_in=in_minutes(-200)))
        store.save_token(token("eve@example.com", access_token="planted-access-3", expires_in=in_minutes(-200)))
    return address


@pytest.fixture
def name(database: str, schema: str) -> str:
    """What messages call the tables."""
    host = re.search(r"host=([^&]+)", database)
    assert host is not None
    return f"PostgreSQL {host[1]}:5432/postgres, schema {schema}"


def run_on(
    db: object, *arguments: object, answer: str = "", status: int = 0, environment: dict[str, str] | None = None
) -> Result:
    """Run a command on a database in this process, and check its exit status."""
    arguments = ("--db", db, *arguments) if db else arguments
    result = CliRunner().invoke(
        cli, [*map(str, arguments)], prog_name="zoho-token-store", input=answer, env=environment or {}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, (result.stdout, result.stderr)
    return result


def users(db: object) -> list[str]:
    """Return the users of a database, the oldest row first."""
    return [row["user_name"] for row in json.loads(run_on(db, "list", "--json").stdout)]


EVERYONE = ["ada@example.com", "bob@example.com", "eve@example.com"]


def test_commands_that_only_look(database, name):
    """`list`, `show`, `check` and `status` show what they show of a file, and name the server without the address."""
    assert users(database) == EVERYONE
    assert "ada@example.com" in run_on(database, "show", "ada@example.com").stdout
    assert run_on(database, "show", "7", status=1).stderr.startswith(f"Error: {name} has no token with the id or user")
    checked = run_on(database, "check", status=1).stdout
    assert checked.startswith(f"{name}: 1 warning\n\nwarning  unusable (row 3)\n")
    status = json.loads(run_on(database, "status", "--json").stdout)
    assert (status["database"], status["schema_version"], len(status["rows"])) == (name, 1, 3)
    assert f'zoho_token_store_rows{{database="{name}"}} 3\n' in run_on(database, "status", "--prometheus").stdout
    assert f"{name}: 1 warning" in run_on(database, "status").stdout


def test_a_row_is_deleted_and_purged(database, name):
    """`delete` and `purge` change the database."""
    run_on(database, "delete", "bob@example.com", "--yes")
    assert json.loads(run_on(database, "purge", "--yes", "--json").stdout) == {"deleted": ["3"], "dry_run": False}
    assert users(database) == ["ada@example.com"]
    run_on(database, "purge", "--everything", "--yes")
    assert run_on(database, "list").stderr == f"{name} has no tokens.\n"


def test_the_address_can_be_in_the_environment(database):
    """`ZOHO_TOKEN_STORE_DB` can have an address. It may contain a password, because other users cannot see it."""
    with_password = database.replace("postgres@", f"postgres:{PASSWORD}@", 1)
    for value in (database, with_password):
        listed = run_on(None, "list", "--json", environment={"ZOHO_TOKEN_STORE_DB": value}).stdout
        assert [row["user_name"] for row in json.loads(listed)] == EVERYONE


@pytest.mark.parametrize("hidden", ["user:{}@", "?password={}", "?pass%77ord={}"])
def test_a_password_in_an_argument_is_refused(hidden, path):
    """Other users can see the arguments of a program. Nothing connects, and no message repeats the password."""
    hidden = hidden.format(PASSWORD)
    secret = f"postgresql://{hidden}db.invalid/tokens" if hidden.endswith("@") else f"postgresql://db.invalid/{hidden}"
    for command in (["--db", secret, "list"], ["--db", secret, "check"], ["--db", str(path), "import", secret]):
        status = 3 if command[-1] == "check" else 1
        shown = run_on(None, *command, status=status)
        assert shown.stderr.startswith("Error: The address of PostgreSQL db.invalid:5432/")
        assert "contains a password, and other users can see the arguments of a program (ps)" in shown.stderr
        assert "Fix: Set PGPASSWORD" in shown.stderr
        assert PASSWORD not in shown.output
        assert "--db" not in shown.stderr
    assert not path.exists()


def test_a_password_in_an_argument_is_refused_even_if_the_rest_of_the_address_comes_from_the_environment():
    """Without PGSSLKEY this would be no address."""
    secret = f"postgresql://user:{PASSWORD}@db.invalid/tokens?sslcert=made-up.pem"
    shown = run_on(None, "--db", secret, "list", status=1, environment={"PGSSLKEY": "made-up.key"})
    assert "contains a password" in shown.stderr
    assert PASSWORD not in shown.output


@pytest.mark.parametrize(
    "words",
    ["host=db.invalid dbname=tokens", "host=db.invalid password='{}'", "password={}"],
    ids=["host", "both", "one"],
)
def test_connection_parameters_are_no_name_of_a_file(words, tmp_path, monkeypatch):
    """Text for libpq would make a file whose name may hold a password. The message says what to write."""
    monkeypatch.chdir(tmp_path)
    for command in (["--db", words.format(PASSWORD), "init"], ["import", words.format(PASSWORD)]):
        shown = run_on(None, *command, status=1)
        assert "write them as an address (postgresql://USER@HOST/DATABASE)" in shown.stderr
        assert PASSWORD not in shown.output
    assert list(tmp_path.iterdir()) == []
    assert run_on("./user=ada", "init").stdout.endswith(" is ready. It has 0 rows.\n")


@pytest.mark.parametrize("command", ["export", "backup"])
def test_an_address_is_no_file_to_write(command, database, tmp_path, monkeypatch):
    """`export` and `backup` write files. The message does not repeat the address, which may contain a password."""
    monkeypatch.chdir(tmp_path)
    shown = run_on(database, command, f"postgresql://ada:{PASSWORD}@db.invalid/tokens", status=1)
    assert "the path is the address of a database on a server" in shown.stderr
    assert PASSWORD not in shown.output
    assert list(tmp_path.iterdir()) == []


def test_init_makes_the_tables(address, dsn, schema):
    """`init` makes the tables, and does no harm if they are there. Other commands make none."""
    assert [finding["code"] for finding in json.loads(run_on(address, "check", "--json", status=2).stdout)] == [
        "missing-tables"
    ]
    missing = run_on(address, "list", status=1).stderr
    assert f'cannot be used as a token store: the schema "{schema}" does not exist. Nothing was changed.' in missing
    # The command names the database, so that it can be pasted.
    assert missing.endswith(f"(\"zoho-token-store --db '{address}' init\").\n")
    found = run_on(address, "check", status=2).stdout
    assert f"Fix: Run zoho-token-store --db '{address}' init as a user" in found
    assert f"zoho-token-store --db '{address}' init --sql prints" in found
    in_environment = run_on(None, "list", status=1, environment={"ZOHO_TOKEN_STORE_DB": address}).stderr
    assert in_environment.endswith('("zoho-token-store init").\n')
    for _ in range(2):
        assert run_on(address, "init").stdout.endswith(" is ready. It has 0 rows.\n")
    assert json.loads(run_on(address, "init", "--json").stdout) == {"rows": 0}
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [schema])
        assert {"oauthtoken", "zoho_token_store", "zoho_token_lease"} <= {row[0] for row in found}


def test_init_makes_what_holds_nothing_lasting_again_and_names_what_else_is_missing(database, dsn, schema):
    """`init` says that tables are ready only if they are complete."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"DROP TABLE {schema}.zoho_token_lease, {schema}.zoho_token_failure")
        assert run_on(database, "init").stdout.endswith(" is ready. It has 3 rows.\n")
        run_on(database, "purge", "--yes")
        run_on(database, "delete", "2", "--yes")
        run_on(database, "check")
        admin.execute(f"DROP INDEX {schema}.zoho_token_user_name")
        incomplete = run_on(database, "init", status=1).stderr
        assert (
            "lacks parts of the tables, or they were changed: zoho_token_user_name. Nothing was changed." in incomplete
        )
        admin.execute(f"DROP TABLE {schema}.oauthtoken")
        lost = run_on(database, "init", status=1).stderr
    assert f'tables are missing (42P01): "{schema}".oauthtoken. Nothing was changed.' in lost
    assert f"drop the remaining tables and run zoho-token-store --db '{database}' init.\n" in lost


def test_the_statements_for_another_schema_quote_its_name():
    """A name is part of the statements, so it cannot end them."""
    sql = run_on("postgresql://db.invalid/?schema=a%22b%27%20c", "init", "--sql").stdout
    assert sql.startswith('BEGIN;\nSET LOCAL search_path TO "a""b\' c";\n')


def test_init_makes_a_file(path):
    """`init` makes a file, too, and keeps the rows of one that is there."""
    assert run_on(path, "init").stdout == f"{path} is ready. It has 0 rows.\n"
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    assert run_on(path, "init").stdout == f"{path} is ready. It has 1 row.\n"


def test_a_role_that_may_not_create_tables_uses_those_of_init_sql(dsn, schema, address):
    """`init --sql` prints the statements for an administrator. They need no database."""
    sql = run_on(None, "init", "--sql").stdout
    assert "search_path" not in sql
    assert json.loads(run_on(None, "init", "--sql", "--json").stdout) == {"sql": sql}
    role = f"{schema}_role"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN")
        try:
            admin.execute(f"CREATE SCHEMA {schema}")
            admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            plain = address.replace("postgres@", f"{role}@", 1)
            refused = run_on(plain, "init", status=1).stderr
            assert f'denied access: the user lacks rights (42501): CREATE ON SCHEMA "{schema}"' in refused
            # With the schema of the address, whatever the search path is.
            admin.execute(run_on(address, "init", "--sql").stdout)
            assert json.loads(run_on(address, "init", "--sql", "--json").stdout)["sql"].startswith("BEGIN;\nSET LOCAL ")
            admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
            admin.execute(f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
            assert run_on(plain, "init").stdout.endswith(" is ready. It has 0 rows.\n")
            with CustomStorePostgreSQL(dsn, schema=schema, user=role) as store:
                store.save_token(login())
            assert users(plain) == ["ada@example.com"]
        finally:
            admin.execute(f"DROP SCHEMA {schema} CASCADE")
            admin.execute(f"DROP ROLE {role}")


def test_rows_move_from_a_file_to_a_server_and_back(database, path, dsn, schema):
    """`import` reads a file or an address, into a file or an address. A second import changes nothing."""
    copy, other = path.with_name("copy.db"), f"{schema}_other"
    target = address_of(dsn, other)
    try:
        there = run_on(copy, "import", database)
        assert re.match(
            r"PostgreSQL \S+, schema \S+ \(PostgreSQL, 3 rows\): 3 new, 0 updated, 0 unchanged, 0 skipped\.$",
            there.stdout,
        )
        assert users(copy) == EVERYONE
        dry = run_on(target, "import", copy, "--dry-run").stdout
        assert dry.endswith("(SQLite, 3 rows): 3 new, 0 updated, 0 unchanged, 0 skipped.\n")
        report = {"kind": "SQLite", "rows": 3, "new": 3, "updated": 0, "unchanged": 0, "skipped": 0}
        assert json.loads(run_on(target, "import", copy, "--json").stdout) | report == {
            **report,
            "remarks": [],
            "dry_run": False,
        }
        assert "0 new, 0 updated, 3 unchanged" in run_on(target, "import", copy, "--dry-run").stdout
        assert "0 new, 0 updated, 3 unchanged" in run_on(target, "import", database).stdout
        assert users(target) == EVERYONE
        rows = [json.loads(run_on(db, "show", "1", "--reveal", "--yes", "--json").stdout) for db in (database, target)]
        assert rows[0] == rows[1]
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {other} CASCADE")


def test_rows_move_through_a_pipe(database, path):
    """`export -` and `import -` move rows between a server and a file."""
    exported = run_process([*SCRIPT, "--db", database, "export", "-"]).stdout
    assert len(exported.splitlines()) == 4
    run_process([*SCRIPT, "--db", str(path), "import", "-"], answer=exported)
    assert users(path) == EVERYONE
    written = path.with_name("tokens.jsonl")
    run_on(database, "export", written)
    assert written.read_text(encoding="utf-8") == exported


def test_a_backup_of_a_server_is_restored_into_a_server(database, name, path, dsn, schema):
    """`backup` writes a SQLite file, and `restore` replaces the rows of a server by those of such a file."""
    assert run_on(database, "backup", path).stdout == f"Backed up {name} to {path}.\n"
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as copy:
        assert copy.execute("SELECT count(*) FROM oauthtoken").fetchone() == (3,)
    with CustomStorePostgreSQL(dsn, schema=schema) as store:
        store.delete_token("1")
        store.save_token(login("new@example.com", 9))
    question = f"Replace all 3 rows of {name} with 3 rows from {path}? [y/N] "
    assert question in run_on(database, "restore", path, answer="n\n", status=1).stderr
    assert (
        run_on(database, "restore", path, "--dry-run").stdout
        == f"Would replace all 3 rows of {name} with 3 rows from {path}.\n"
    )
    assert users(database) == ["bob@example.com", "eve@example.com", "new@example.com"]
    run_on(database, "restore", path, "--yes")
    assert users(database) == EVERYONE
    with CustomStorePostgreSQL(dsn, schema=schema) as store:
        made = login("next@example.com", 10)
        store.save_token(made)
        assert made.get_id() == "5"  # 4 was used before the restore


def test_a_restore_into_a_server_without_tables(database, path, dsn, schema):
    """A missing database is created, as with a file. A dry run creates nothing."""
    run_on(database, "backup", path)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {schema} CASCADE")
    assert json.loads(run_on(database, "restore", path, "--dry-run", "--json").stdout)["before"] == 0
    run_on(database, "list", status=1)
    run_on(database, "restore", path)
    assert users(database) == EVERYONE


def test_an_address_is_no_backup(database, address):
    """`restore` takes the file that `backup` wrote. An address is imported instead."""
    assert "is not a backup, so it cannot be restored" in run_on(address, "restore", database, status=1).stderr


def test_a_server_that_is_not_there(path):
    """The error names the server and the cause, within the given time."""
    shown = run_on("postgresql://127.0.0.1:1/tokens", "--timeout", "1", "list", status=1).stderr
    assert shown.startswith("Error: PostgreSQL 127.0.0.1:1/tokens cannot be reached: ")
    assert "Fix: Check that the server runs" in shown
    run_on("postgresql://127.0.0.1:1/tokens", "--timeout", "1", "check", status=3)
    run_on(path, "--timeout", "1", "import", "postgresql://127.0.0.1:1/tokens", status=1)
    assert not path.exists()


def test_ids_are_completed(database, monkeypatch):
    """The Tab key completes the ids of a database on a server."""
    monkeypatch.setenv("ZOHO_TOKEN_STORE_DB", database)
    monkeypatch.setenv("_ZOHO_TOKEN_STORE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "zoho-token-store show ")
    monkeypatch.setenv("COMP_CWORD", "2")
    done = subprocess.run(
        [sys.executable, "-m", "zoho_token_store"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["plain,1", "plain,2", "plain,3"], done.stderr


@pytest.fixture
def strict(strict_dsn: str) -> str:
    """The address of a database whose server asks for a password."""
    address = address_of(strict_dsn, "cli")
    assert run_on(address, "init", environment={"PGPASSWORD": PASSWORD}).stdout.endswith("It has 0 rows.\n")
    return address


def password_file(folder: Path, mode: int = 0o600) -> Path:
    """Write a password file."""
    file = folder / "made-up-pgpass"
    file.write_text(f"*:*:*:ada:{PASSWORD}\n", encoding="utf-8")
    file.chmod(mode)
    return file


def test_the_password_comes_from_the_environment_or_a_file(strict, tmp_path):
    """PGPASSWORD, or a password file that only its owner can read."""
    for variables in ({"PGPASSWORD": PASSWORD}, {"PGPASSFILE": str(password_file(tmp_path))}):
        assert users_with(strict, variables) == []
    refused = run_on(strict, "list", status=1, environment={"PGPASSWORD": f"{PASSWORD} wrong"})
    assert "denied access: the user or the password is wrong (28P01)" in refused.stderr
    assert refused.stderr.endswith("Fix: Correct the user or the password.\n")
    assert PASSWORD not in refused.output


def test_the_scheme_of_an_address_may_be_in_any_case(database):
    """As in every other URL."""
    assert users(database.replace("postgresql://", "PostgreSQL://")) == users(database)


def users_with(address: str, variables: dict[str, str]) -> list[dict[str, str]]:
    """Return the rows that a command with these environment variables finds."""
    rows: list[dict[str, str]] = json.loads(run_on(address, "list", "--json", environment=variables).stdout)
    return rows


def test_without_a_terminal_a_missing_password_is_an_error(strict, tmp_path):
    """The error says that there is none. Without a terminal, nothing is asked and nothing waits."""
    exposed = password_file(tmp_path, 0o644)
    fixes = {
        None: "Fix: Set PGPASSWORD, or write the password into ~/.pgpass (chmod 600).",
        exposed: "Fix: Run chmod 600 on the password file.",
    }
    for file, fix in fixes.items():
        refused = run_on(strict, "list", status=1, environment={"PGPASSFILE": str(file)} if file else {}).stderr
        assert "denied access: no password was given" in refused
        assert (f"others may read the password file {file}, so it was ignored" in refused) is (file is not None)
        assert fix in refused


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
@pytest.mark.parametrize("command", [["list"], ["check"], ["status"], ["import", "ADDRESS"]], ids=" ".join)
def test_a_terminal_is_asked_for_the_password(strict, tmp_path, command):
    """Once in a command, without an echo."""
    db = str(tmp_path / "copy.db") if command[0] == "import" else strict
    command = [strict if part == "ADDRESS" else part for part in command]
    with Terminal([*SCRIPT, "--db", db, *command], PGPASSFILE=str(tmp_path / "missing")) as terminal:
        terminal.read_until("Password for PostgreSQL /tmp/")
        terminal.type(f"{PASSWORD}\n")
        status, shown = terminal.wait()
    assert shown.count("Password for") == 1
    assert PASSWORD not in shown
    assert "rror" not in shown
    assert status == 0
