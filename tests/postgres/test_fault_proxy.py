"""The proxy that injects faults, tried with psycopg: each fault does to a program what it says."""

from __future__ import annotations

import select
import time

import psycopg
import pytest
from postgres.fault_proxy import Fault, FaultProxy, first, only
from psycopg import errors


@pytest.fixture
def connect(proxy):
    """A function that connects through the proxy, with autocommit."""
    connections = []

    def connect_once(**options):
        connection = psycopg.connect(proxy.dsn, autocommit=True, **options)
        connections.append(connection)
        return connection

    yield connect_once
    for connection in connections:
        connection.close()


@pytest.fixture
def table(dsn, schema):
    """The name of an empty table with one column."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE TABLE {schema}.t (value int)")
    return f"{schema}.t"


@pytest.fixture
def rows(dsn, table):
    """A function that counts the rows, past the proxy."""

    def count():
        with psycopg.connect(dsn) as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    return count


def insert(connection, table):
    connection.execute(f"INSERT INTO {table} VALUES (%s)", [1])


def test_without_a_fault(connect, proxy, table, rows):
    """All messages pass: simple and extended queries, errors, transactions, much data."""
    connection = connect()
    insert(connection, table)
    with pytest.raises(errors.UndefinedTable):
        connection.execute("SELECT * FROM missing")
    with connection.transaction():
        insert(connection, table)
    with pytest.raises(errors.DivisionByZero), connection.transaction():
        connection.execute("SELECT 1/0")
    [text] = connection.execute("SELECT repeat('x', 3000000)").fetchone()
    assert len(text) == 3_000_000
    assert rows() == 2
    assert proxy.requests[:2] == [f"INSERT INTO {table} VALUES ($1)", "SELECT * FROM missing"]
    assert proxy.connections == 1


def test_a_lost_answer_to_a_statement(connect, proxy, table, rows):
    """The server has committed, and the program does not know it."""
    fault = proxy.inject(Fault("lose", at="commit", which=only(1)))
    connection = connect()
    insert(connection, table)
    with pytest.raises(psycopg.OperationalError):
        insert(connection, table)
    assert connection.closed
    insert(connect(), table)
    assert rows() == 3
    assert (fault.matches, fault.injected) == (3, 1)


def test_a_lost_answer_to_a_commit(connect, proxy, table, rows):
    fault = proxy.inject(Fault("lose", at="commit"))
    connection = connect()
    connection.execute("BEGIN")
    insert(connection, table)
    connection.execute(f"SELECT * FROM {table} FOR UPDATE")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("COMMIT")
    assert rows() == 1
    assert fault.matches == 1


@pytest.mark.parametrize(
    ("code", "kind"), [("40001", errors.SerializationFailure), ("25006", errors.ReadOnlySqlTransaction)]
)
def test_an_error_instead_of_a_statement(proxy, table, rows, code, kind):
    proxy.inject(Fault("error", matching="INSERT", code=code, which=first(2)))
    connection = psycopg.connect(proxy.dsn, autocommit=True)
    for _ in range(2):
        with pytest.raises(kind):
            insert(connection, table)
    assert rows() == 0
    insert(connection, table)
    assert rows() == 1
    connection.close()


def test_an_error_in_a_transaction(connect, proxy, table, rows):
    """The transaction has failed, so its next statement fails, too. After a rollback the connection works."""
    proxy.inject(Fault("error", matching="VALUES", code="40001", which=only(1)))
    connection = connect()
    connection.execute("BEGIN")
    insert(connection, table)
    with pytest.raises(errors.SerializationFailure):
        insert(connection, table)
    with pytest.raises(errors.InFailedSqlTransaction):
        insert(connection, table)
    connection.execute("COMMIT")
    assert rows() == 0
    with connection.transaction():
        insert(connection, table)
    assert rows() == 1


def test_an_error_instead_of_a_commit(connect, proxy, table, rows):
    proxy.inject(Fault("error", at="commit", code="40001", which=first(1)))
    connection = connect()
    with pytest.raises(errors.SerializationFailure), connection.transaction():
        insert(connection, table)
    assert rows() == 0
    insert(connection, table)
    assert rows() == 1


def test_an_error_that_ends_the_session(connect, proxy, table, rows):
    proxy.inject(Fault("error", matching="INSERT", code="57P01", which=first(1)))
    connection = connect()
    with pytest.raises(errors.AdminShutdown):
        insert(connection, table)
    assert connection.closed
    insert(connect(), table)
    assert rows() == 1


def test_too_many_connections(connect, proxy):
    fault = proxy.inject(Fault("error", at="connect", code="53300", which=first(2)))
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="an injected fault"):
            connect()
    connect()
    assert (fault.injected, proxy.connections) == (2, 3)


def test_a_cut_before_a_statement(connect, proxy, table, rows):
    proxy.inject(Fault("cut", matching="INSERT"))
    with pytest.raises(psycopg.OperationalError):
        insert(connect(), table)
    assert rows() == 0


def test_a_cut_of_all_connections(connect, proxy):
    connection = connect()
    proxy.cut_all()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connect().execute("SELECT 1")


def test_a_stall(connect, proxy, table, rows):
    """The request has no answer. The proxy carries nothing out after the program has given up."""
    fault = proxy.inject(Fault("stall", matching="INSERT"))
    connection = connect()
    connection.pgconn.send_query(f"INSERT INTO {table} VALUES (1)".encode())
    connection.pgconn.flush()
    assert select.select([connection.fileno()], [], [], 0.5)[0] == []
    assert fault.injected == 1
    connection.close()
    assert rows() == 0


def test_a_delay(connect, proxy):
    proxy.inject(Fault("delay", matching="SELECT", seconds=0.5))
    connection = connect()
    begun = time.monotonic()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert time.monotonic() - begun >= 0.5


def test_a_server_that_ends_a_session(connect, dsn):
    """The message of the server reaches an idle program."""
    connection = connect()
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    # A statement that is sent while the session ends may be answered by the end of the connection alone.
    assert select.select([connection], [], [], 10)[0], "no message of the server"
    with pytest.raises(errors.AdminShutdown):
        connection.execute("SELECT 1")


def test_a_password(start_server):
    """The messages of a login with SCRAM pass."""
    server = start_server()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE ada LOGIN PASSWORD 'made-up'")
    hba = server.folder / "data" / "pg_hba.conf"
    hba.write_text("local all ada scram-sha-256\nlocal all postgres trust\n")
    with psycopg.connect(server.dsn) as connection:
        connection.execute("SELECT pg_reload_conf()")
    with FaultProxy(server.dsn) as proxy:
        address = proxy.dsn.replace("postgres@", "ada@")
        with psycopg.connect(address, password="made-up") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("ada",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(address, password="wrong")
