"""`CustomStorePostgreSQL`: its arguments, passwords, threads, forks and clock. Other tests run it like every store."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

import children
import psycopg
import pytest
from errors import raises
from own_process import run_in_fork
from postgres.fault_proxy import Fault
from support import DATABASE_PASSWORD, PLANTED, login, token, values
from zoho_token_store import CustomStorePostgreSQL
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

TIMEOUT = 60


@pytest.fixture
def store(dsn, schema):
    """An empty store."""
    with CustomStorePostgreSQL(dsn, schema=schema, busy_timeout=TIMEOUT) as made:
        yield made


def finds(store, user="ada@example.com"):
    return store.find_token(token(user)) is not None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"hots": "db"}, "hots is not a connection parameter"),
        ({"busy_timout": 5}, "busy_timout is not a connection parameter"),
        ({"service": "tokens"}, "service is not supported"),
        ({"port": True}, "port is a str, not an object of type bool"),
        ({"port": 5432.0}, "port is a str, not an object of type float"),
        ({"port": 99999}, "port has to be a number from 1 to 65535"),
        ({"sslmode": "verify"}, "sslmode can only be"),
        ({"host": "\udc80"}, "host has no UTF-8 form"),
        ({"dsn": b"host=db"}, "dsn is a str, not an object of type bytes"),
        ({"dsn": "postgresql://ada:planted@@db"}, "dsn has an @ that does not end the password"),
        ({"dsn": "dbname='planted"}, "dsn "),
        ({"password": 7}, "password is a str, or a function that returns one, not an object of type int"),
        ({"schema": ""}, "schema must be a name"),
        ({"schema": "s" * 64}, "schema must be a name of at most 63 bytes"),
        ({"dbname": "postgresql://crm:planted@db/tokens"}, "dbname must be the name of a database"),
        ({"dbname": "host=db password=planted"}, "dbname must be the name of a database"),
        ({"schema": 7}, "schema is a str, not an object of type int"),
        ({"connections": 0}, "connections is an int, and at least 1"),
        ({"connections": True}, "connections is an int, and at least 1"),
        ({"connections": "4"}, "connections is an int, and at least 1"),
        ({"create": 1}, "create is True or False"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_a_bad_argument_is_refused(dsn, arguments, problem):
    """The message names the argument, and repeats no value of it. Nothing connects."""
    with raises("invalid-argument", "CustomStorePostgreSQL: ") as caught:
        CustomStorePostgreSQL(**{"dsn": dsn, **arguments})
    assert problem in str(caught.value.cause)
    assert PLANTED not in str(caught.value)


def test_arguments_override_the_address(dsn, schema):
    """`None` counts as not given. The schema can be a part of the address."""
    with CustomStorePostgreSQL(dsn, schema=schema, dbname="postgres", port=5432, password=None, user=None) as store:
        store.save_token(login())
    with CustomStorePostgreSQL(f"{dsn}&schema={schema}", connect_timeout=5) as store:
        assert finds(store)
    with CustomStorePostgreSQL(f"{dsn}&schema=no_such_schema", schema=schema, create=False) as store:
        assert finds(store)
    folder = dsn.rpartition("host=")[2]
    with CustomStorePostgreSQL(f"host={folder} user=postgres", schema=schema, dbname="postgres") as store:
        assert finds(store)
    with raises("wrong-database", "the database does not exist"):
        CustomStorePostgreSQL(dsn, dbname="no_such_database")


def test_missing_values_come_from_the_environment(dsn, schema, monkeypatch):
    """Without any argument, the variables of libpq say where the server is."""
    monkeypatch.setenv("PGHOST", dsn.rpartition("host=")[2])
    monkeypatch.setenv("PGUSER", "postgres")
    with CustomStorePostgreSQL(schema=schema) as store:
        assert len(store) == 0


def test_tables_that_are_missing_are_made_only_if_create_is_set(dsn, schema):
    """A role without the right to create tables sets `create=False`, and gets an error that says what to do."""
    with raises("wrong-database", "the schema .* does not exist") as caught:
        CustomStorePostgreSQL(dsn, schema=schema, create=False)
    assert "zoho-token-store init" in caught.value.cause.hint
    CustomStorePostgreSQL(dsn, schema=schema).close()
    CustomStorePostgreSQL(dsn, schema=schema, create=False).close()


def test_the_repr_names_the_server(dsn, schema):
    """It has the class, the host, the port, the database and the schema, and neither user nor password."""
    with CustomStorePostgreSQL(dsn, schema=schema, password=f"{PLANTED}-unused") as store:
        host = dsn.rpartition("host=")[2]
        assert repr(store) == str(store) == f"CustomStorePostgreSQL(PostgreSQL {host}:5432/postgres, schema {schema})"


def test_a_server_that_is_not_there(schema):
    """The constructor tries until `busy_timeout`, and then reports the last cause."""
    with raises("unreachable", f"PostgreSQL 127.0.0.1:1/tokens, schema {schema} cannot be reached: ") as caught:
        CustomStorePostgreSQL("postgresql://127.0.0.1:1/tokens", schema=schema, busy_timeout=0.5)
    assert "connection refused" in str(caught.value.cause)
    assert " Nothing was changed. " in str(caught.value.cause)


def test_a_password_is_a_text_or_a_function(strict_dsn):
    """The function is called for each new connection, because passwords such as IAM tokens expire."""
    calls = []

    def password():
        calls.append(threading.get_ident())
        return DATABASE_PASSWORD

    with CustomStorePostgreSQL(strict_dsn, schema="ada", password=DATABASE_PASSWORD) as store:
        assert len(store) == 0
    with CustomStorePostgreSQL(strict_dsn, schema="ada", password=password) as store:
        assert [finds(store) for _ in range(3)] == [False] * 3
    assert calls == [threading.get_ident()]


def test_a_function_for_the_password_may_use_another_store(strict_dsn, dsn, schema):
    """A program may keep the password of one server in another one."""

    def password():
        with CustomStorePostgreSQL(dsn, schema=schema) as other:
            other.get_tokens()
        return DATABASE_PASSWORD

    with CustomStorePostgreSQL(strict_dsn, schema="ada", password=password) as store:
        assert store.get_tokens() is not None


def test_a_wrong_password_is_reported_at_once(strict_dsn):
    """The error neither waits for `busy_timeout` nor shows the password."""
    for wrong in (f"{PLANTED}-wrong", lambda: f"{PLANTED}-wrong"):
        with raises("access-denied", r"the user or the password is wrong \(28P01\)") as caught:
            CustomStorePostgreSQL(strict_dsn, schema="ada", password=wrong, busy_timeout=3600)
        assert PLANTED not in str(caught.value)
    with raises("access-denied", "no password was given"):
        CustomStorePostgreSQL(strict_dsn, schema="ada", busy_timeout=3600)


def fail():
    raise LookupError(f"{PLANTED}-in-the-text")


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (fail, "has raised LookupError"),
        (lambda: None, "has returned an object of type NoneType"),
        (lambda: "\udc80", "has returned a text that has no UTF-8 form"),
        (lambda _argument: "", "has raised TypeError"),
    ],
)
def test_a_function_for_the_password_that_fails(dsn, schema, function, problem):
    """The message has the name of its exception, and not the text, which may hold the password."""
    with raises("access-denied", f"the function that returns the password {problem}") as caught:
        CustomStorePostgreSQL(dsn, schema=schema, password=function, busy_timeout=3600)
    assert PLANTED not in str(caught.value)
    assert caught.value.cause.hint.startswith("Correct the function that was passed as password")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_ends_a_program_passes_through_the_function(dsn, schema, ending):
    """Ctrl-C while the function waits for a network reaches the program, also from a method."""
    interrupts = True

    def password():
        if interrupts:
            raise ending
        return ""

    with pytest.raises(ending):
        CustomStorePostgreSQL(dsn, schema=schema, password=password)
    interrupts = False
    with CustomStorePostgreSQL(dsn, schema=schema, password=password) as store:
        store.save_token(login())
        interrupts = True
        end_connections(dsn)
        with pytest.raises(ending):
            finds(store)
        interrupts = False
        assert finds(store)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_exception_that_ends_a_program_is_raised_by_the_call_that_it_belongs_to(dsn, proxy, schema, ending):
    """`close` saves what could not be saved before, so it connects, too. No later call raises its exception."""
    interrupted = []
    interrupts = False

    def password():
        if interrupts:
            interrupted.append(None)
            raise ending
        return ""

    with CustomStorePostgreSQL(dsn, schema=schema) as other:
        store = CustomStorePostgreSQL(proxy.dsn, schema=schema, password=password, busy_timeout=1)
        made = [login(f"user{number}@example.com", number) for number in (1, 2, 3)]
        for one in made:
            store.save_token(one)
        for place in ("connect", "request"):
            proxy.inject(Fault("cut", at=place))
        for one in made:
            one.set_access_token("made-up-2")
            one.set_expires_in(str(int(time.time() * 1000) + 3_600_000))
            with raises("unreachable"):
                store.save_token(one)
        proxy.clear()
        interrupts = True
        with pytest.raises(ending):
            store.close()
        # It does not call the function again for each token that it could save.
        assert len(interrupted) == 1
        assert len(other) == len(made)


def test_a_slow_function_for_the_password_does_not_count(strict_dsn):
    """Its time is no part of `busy_timeout`. It is called once in a call, also if the server refuses a connection."""
    calls = []

    def password():
        calls.append(None)
        time.sleep(1.2)
        return DATABASE_PASSWORD

    with CustomStorePostgreSQL(strict_dsn, schema="ada", password=password, busy_timeout=1) as store:
        assert len(store) == 0
    assert len(calls) == 1
    calls.clear()
    with raises("unreachable", "connection refused"):
        CustomStorePostgreSQL("postgresql://127.0.0.1:1/tokens", password=password, busy_timeout=1)
    assert len(calls) == 1


def fork_in_the_function_for_the_password(dsn, schema):
    def password():
        children.join([children.fork(lambda: None)])
        return ""

    with CustomStorePostgreSQL(dsn, schema=schema, password=password) as store:
        store.save_token(login())
        return finds(store)


def test_the_function_for_the_password_may_fork(dsn, schema):
    """The fork does not wait for the call that waits for the function."""
    assert run_in_fork(fork_in_the_function_for_the_password, dsn, schema)


def test_a_timeout_of_0_allows_one_attempt(dsn, schema):
    """A call over a network takes some time, so 0 cannot mean that it may take none."""
    with CustomStorePostgreSQL(dsn, schema=schema, busy_timeout=0) as store:
        store.save_token(login())
        assert finds(store)
    with raises("unreachable", "connection refused"):
        CustomStorePostgreSQL("postgresql://127.0.0.1:1/tokens", schema=schema, busy_timeout=0)


def end_connections(dsn):
    """Let the server end all other connections of programs."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE application_name = 'zoho-token-store' AND pid <> pg_backend_pid()"
        )


def test_no_lock_is_held_while_the_function_for_the_password_runs(dsn, schema):
    """Another thread uses the store meanwhile, and opens a connection of its own."""
    found = []

    def password():
        if threading.current_thread().name == "connects":
            other = threading.Thread(target=lambda: found.append(finds(store)))
            other.start()
            other.join(TIMEOUT)
            found.append(other.is_alive())
        return "unused"

    with CustomStorePostgreSQL(dsn, schema=schema, password=password, connections=3, busy_timeout=TIMEOUT) as store:
        store.save_token(login())
        with psycopg.connect(dsn) as blocker:
            # The first connection is busy with a save, so the next find opens another one.
            blocker.execute(f"LOCK TABLE {schema}.oauthtoken IN EXCLUSIVE MODE")
            save = threading.Thread(target=store.save_token, args=(login("bob@example.com", 2),))
            save.start()
            wait_until_blocked(dsn, schema)
            connects = threading.Thread(target=lambda: found.append(finds(store)), name="connects")
            connects.start()
            connects.join(TIMEOUT)
        save.join(TIMEOUT)
    assert found == [True, False, True]


def wait_until_blocked(dsn, schema):
    """Wait until a statement waits for a lock of the schema."""
    query = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{schema}.oauthtoken'::regclass"
    deadline = time.monotonic() + TIMEOUT
    with psycopg.connect(dsn, autocommit=True) as admin:
        while admin.execute(query).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_other_threads_run_while_a_save_waits(store, dsn, schema):
    """The GIL is released around every call, and a find does not wait for a save."""
    store.save_token(login())
    with psycopg.connect(dsn) as blocker:
        blocker.execute(f"LOCK TABLE {schema}.oauthtoken IN EXCLUSIVE MODE")
        waiting = threading.Thread(target=store.save_token, args=(login("bob@example.com", 2),))
        waiting.start()
        wait_until_blocked(dsn, schema)
        assert finds(store)
        assert not finds(store, "bob@example.com")
        assert waiting.is_alive()
    waiting.join(TIMEOUT)
    assert finds(store, "bob@example.com")


def test_an_id_has_at_most_1000_bytes(store):
    """A longer one is refused. Every other value may have a megabyte."""
    longest, long = "é" * 500, "x" * 1_000_000
    made = login(id=longest, refresh_token=long)
    store.save_token(made)
    assert made.get_id() == longest
    assert values(store.find_token(token(refresh_token=long)))["id"] == longest
    with raises("value-too-large", "save_token: "):
        store.save_token(login("bob@example.com", 2, id=f"{longest}x"))
    with raises("missing-id"):
        store.find_token_by_id(f"{longest}x")
    store.delete_token(f"{longest}x")
    assert len(store) == 1


def test_a_backup_is_a_sqlite_file(store, tmp_path):
    """The rows are copied over the network into a file that only its owner can read."""
    store.import_tokens(login(f"user{number}@example.com", number) for number in range(10))
    copy = tmp_path / "copy.db"
    store.backup(copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as file:
        assert file.execute("SELECT count(*), count(DISTINCT refresh_token) FROM oauthtoken").fetchone() == (10, 10)
    with raises("invalid-argument", "the path is the address of a database on a server"):
        store.backup("postgresql://localhost/tokens")


def fork_after_a_find(dsn, schema):
    store = CustomStorePostgreSQL(dsn, schema=schema, busy_timeout=20)
    store.save_token(login())

    def work():
        assert finds(store)
        store.save_token(login("child@example.com", 2))

    for _ in range(3):
        children.join([children.fork(work)])
        assert finds(store)
        assert finds(store, "child@example.com")
    store.close()
    return len(CustomStorePostgreSQL(dsn, schema=schema))


def test_a_store_works_in_parent_and_child_after_a_fork(dsn, schema):
    """The child opens its own connection, and never ends the parent's session."""
    assert run_in_fork(fork_after_a_find, dsn, schema) == 2


def with_another_clock(dsn, schema, ahead):
    """Make a function that hides the server's clock, and return the search path with which it does."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        admin.execute(
            f"CREATE OR REPLACE FUNCTION {schema}.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
            f"$$ SELECT pg_catalog.clock_timestamp() + interval '{ahead} seconds' $$"
        )
    return f"-csearch_path={schema},pg_catalog"


def open_twice(dsn, schema, options):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")
    logging.getLogger("zoho_token_store").addHandler(handler)
    for _ in range(2):
        with CustomStorePostgreSQL(dsn, schema=schema, options=options) as store:
            findings = [(finding.code, finding.severity, finding.message, finding.hint) for finding in store.check()]
    return lines, findings


@pytest.mark.parametrize(("ahead", "direction"), [(60, "behind"), (-60, "ahead of")])
def test_a_clock_that_is_off_draws_one_warning(dsn, schema, ahead, direction):
    """The warning comes once per process, when the store is opened. `check` finds the same."""
    options = with_another_clock(dsn, schema, ahead)
    lines, [(code, severity, message, hint)] = run_in_fork(open_twice, dsn, schema, options)
    assert (code, severity) == ("clock-off", "warning")
    assert direction in message
    assert hint == (
        "Synchronize both clocks (NTP). The SDK decides by the clock of this machine whether a token has expired."
    )
    [line] = lines
    assert line.startswith("WARNING the clock of this machine is ")
    assert f" s {direction} that of PostgreSQL {dsn.rpartition('host=')[2]}:5432/" in line
    assert line.endswith(hint)


def test_a_clock_that_is_right_draws_none(dsn, schema):
    """A second is within what a network and a busy machine cause."""
    assert run_in_fork(open_twice, dsn, schema, with_another_clock(dsn, schema, 1)) == [[], []]


def test_the_sdks_exception_is_raised_and_logged(store, caplog):
    """Contract 6: as with every store."""
    store.close()
    with pytest.raises(SDKException, match=r"find_token: PostgreSQL .* was closed"):
        finds(store)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_functions_of_other_roles_are_never_called(empty_database, dsn):
    """Another role may create a function or an operator in a schema of the search path (CVE-2018-1058)."""
    traps = """
        CREATE FUNCTION public.trap() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'called'; END $$;
        CREATE FUNCTION public.nextval(text) RETURNS bigint LANGUAGE sql AS 'SELECT public.trap()';
        CREATE FUNCTION public.setval(text, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT public.trap()';
        CREATE FUNCTION public.times(numeric, integer) RETURNS numeric LANGUAGE sql AS 'SELECT public.trap()::numeric';
        CREATE OPERATOR public.* (FUNCTION = public.times, LEFTARG = numeric, RIGHTARG = integer);
    """
    place = {**psycopg.conninfo.conninfo_to_dict(dsn), "dbname": empty_database["PGDATABASE"]}
    with psycopg.connect(**place, autocommit=True) as admin:
        admin.execute(traps)
        with pytest.raises(psycopg.errors.RaiseException):  # the traps work
            admin.execute("SELECT nextval('zoho_token_order')")
    for schema in ("public", "zoho"):
        with CustomStorePostgreSQL(**place, schema=schema) as store:
            for number in (1, 2):
                store.save_token(login("ada@example.com", number))
                store.save_token(login("bob@example.com", number))
            assert len(store) == len(store.get_tokens()) == 2
            store.delete_tokens()
            assert [finding for finding in store.check() if finding.severity == "error"] == []
