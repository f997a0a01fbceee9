"""Servers, connections and networks that fail while programs save and find: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from postgres.fault_proxy import Fault, FaultProxy, first
from postgres.load import Load
from support import login, token, values
from zoho_token_store import CustomStorePostgreSQL, CustomStoreSQLite, StoreError
from zoho_token_store._cli._transfer import _import_in_batches
from zoho_token_store._native import Administration, read_source
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

PATIENT = 60.0  # seconds: a `busy_timeout` that no call needs
SHORT = 2.0  # seconds: a `busy_timeout` that a test waits for
# How much later than in theory something may happen: these machines stand still for seconds at times.
SLACK = 8.0


def assert_no_error(load):
    """Check that all calls succeeded, and verify the rows."""
    assert load.end().errors == []
    with CustomStorePostgreSQL(load.dsn, schema=load.options.get("schema"), busy_timeout=PATIENT) as store:
        load.verify(store)


@contextlib.contextmanager
def raises(code):
    """Expect an error of the store, at once or within `SHORT`."""
    begun = time.monotonic()
    with pytest.raises((SDKException, StoreError)) as raised:
        yield
    error = getattr(raised.value, "cause", None) or raised.value
    assert error.code == code, error
    assert time.monotonic() - begun < SHORT + SLACK


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
def test_a_server_that_restarts(start_server, how):
    """It ends in good order, it crashes, or all its processes are killed: no call fails."""
    server = start_server()
    with Load(server.dsn, busy_timeout=PATIENT) as load:
        load.until_saved()
        server.kill() if how == "kill" else server.stop(how)
        server.start()
        load.until_saved()
        assert_no_error(load)


def test_a_server_that_restarts_behind_a_pooler(start_server, start_pooler):
    """The pooler keeps the connections of the programs, and reports the lost ones of its own in its own words."""
    server = start_server()
    pooler = start_pooler(server.dsn)
    with Load(pooler.dsn, busy_timeout=PATIENT) as load:
        load.until_saved()
        server.kill()
        server.start()
        load.until_saved()
        assert_no_error(load)


def test_a_pooler_that_restarts(dsn, schema, start_pooler):
    pooler = start_pooler(dsn)
    with Load(pooler.dsn, schema=schema, busy_timeout=PATIENT) as load:
        load.until_saved()
        pooler.stop()
        pooler.start()
        load.until_saved()
        assert_no_error(load)


def test_commits_that_the_server_would_not_wait_for(start_server):
    """With `synchronous_commit=off` a crash would lose acknowledged saves. The store demands more of its commits."""
    server = start_server(settings={"synchronous_commit": "off", "wal_writer_delay": "10s"})
    with Load(server.dsn, busy_timeout=PATIENT) as load:
        load.until_saved()
        server.kill()
        server.start()
        load.until_saved()
        assert_no_error(load)


def test_connections_that_the_server_ends(start_server):
    server = start_server()
    with Load(server.dsn, busy_timeout=PATIENT) as load, psycopg.connect(server.dsn, autocommit=True) as connection:
        for _ in range(10):
            load.until_saved(3)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        load.until_saved()
        assert_no_error(load)


def test_a_server_process_that_crashes(start_server):
    """The server ends all sessions and recovers (57P02, 57P03)."""
    server = start_server()
    with Load(server.dsn, busy_timeout=PATIENT) as load:
        load.until_saved()
        with psycopg.connect(server.dsn) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            load.until_saved()
        assert_no_error(load)


def test_a_server_that_stands_still(start_server):
    """All its processes are stopped: each call fails in time, and works again when they go on."""
    server = start_server()
    with Load(server.dsn, busy_timeout=SHORT) as load:
        load.until_saved()
        server.pause()
        load.until_failed(2)
        server.resume()
        load.until_saved()
        load.end()
    assert {code for _, code, _, _ in load.errors} == {"unreachable"}
    assert load.longest < SHORT + SLACK
    with CustomStorePostgreSQL(server.dsn, busy_timeout=PATIENT) as store:
        load.verify(store)


def test_a_server_that_is_down_at_construction(start_server):
    server = start_server()
    server.stop()
    with raises("unreachable"):
        CustomStorePostgreSQL(server.dsn, busy_timeout=SHORT)
    with Load(server.dsn, busy_timeout=PATIENT) as load:
        server.start()
        load.until_saved()
        assert_no_error(load)


def test_a_standby(start_server):
    """Finds go on. Saves fail after `busy_timeout`. With both hosts in the address the primary is found."""
    primary = start_server()
    with CustomStorePostgreSQL(primary.dsn) as store:
        store.save_token(login())
    standby = start_server(primary=primary)
    with CustomStorePostgreSQL(standby.dsn, busy_timeout=SHORT) as store:
        assert values(store.find_token(token("ada@example.com")))["user"] == "ada@example.com"
        begun = time.monotonic()
        with raises("read-only"):
            store.save_token(login("bob@example.com", 2))
        assert time.monotonic() - begun > SHORT / 2
        assert store.find_token(token("ada@example.com")) is not None
    with CustomStorePostgreSQL(address_of(standby, primary), busy_timeout=PATIENT) as store:
        store.save_token(login("bob@example.com", 2))


def address_of(*servers):
    """Return the address of several servers. The store connects with the first one that accepts writes."""
    hosts = ",".join(str(server.folder) for server in servers)
    return f"host={hosts} user=postgres dbname=postgres target_session_attrs=read-write"


def test_a_failover(start_server):
    """The primary is killed, and its standby is promoted. It has all commits, because the primary waits for it."""
    primary = start_server(settings={"synchronous_standby_names": "*"})
    standby = start_server(primary=primary, settings={"synchronous_standby_names": ""})
    with Load(address_of(primary, standby), busy_timeout=PATIENT) as load:
        load.until_saved()
        primary.kill()
        with psycopg.connect(standby.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        load.until_saved()
        assert_no_error(load)


def test_a_save_on_a_server_that_has_become_a_standby(start_server):
    """The kept connection still leads to the old primary, which is read-only now: the store finds the new one."""
    primary = start_server()
    standby = start_server(primary=primary)
    with CustomStorePostgreSQL(address_of(primary, standby), busy_timeout=PATIENT) as store:
        store.save_token(login())
        with psycopg.connect(primary.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
        with psycopg.connect(standby.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        store.save_token(login("bob@example.com", 2))
        assert len(store) == 2


def test_too_many_connections(start_server):
    """Others have all connections for some time: the calls wait for one."""
    server = start_server(settings={"max_connections": "8"})
    with CustomStorePostgreSQL(server.dsn, busy_timeout=PATIENT) as store:
        store.save_token(login("first@example.com", 9))
    others = [psycopg.connect(server.dsn) for _ in range(8)]
    with raises("unreachable"):
        CustomStorePostgreSQL(server.dsn, busy_timeout=SHORT)
    with Load(server.dsn, count=2, busy_timeout=PATIENT, connections=2) as load:
        time.sleep(1.7)
        for other in others:
            other.close()
        load.until_saved()
        assert load.end().errors == []


def test_a_wrong_password_and_missing_rights(start_server):
    """They are reported at once, also with a long `busy_timeout`."""
    server = start_server()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE ada LOGIN PASSWORD 'made-up'")
        connection.execute("CREATE ROLE bob LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM public")
        (server.folder / "data" / "pg_hba.conf").write_text("local all ada scram-sha-256\nlocal all all trust\n")
        connection.execute("SELECT pg_reload_conf()")
    options = {"host": str(server.folder), "dbname": "postgres", "busy_timeout": PATIENT}
    with raises("access-denied"):
        CustomStorePostgreSQL(user="ada", password="wrong", **options)
    with raises("access-denied"):  # there are no tables, and this user may not make any
        CustomStorePostgreSQL(user="bob", **options)
    with CustomStorePostgreSQL(server.dsn) as store:
        store.save_token(login())
    with raises("access-denied"), CustomStorePostgreSQL(user="bob", create=False, **options) as store:
        store.find_token(token("ada@example.com"))


def test_tables_that_are_dropped(dsn, schema):
    with CustomStorePostgreSQL(dsn, schema=schema, busy_timeout=PATIENT) as store:
        store.save_token(login())
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
        with raises("wrong-database"):
            store.find_token(token("ada@example.com"))
        with raises("wrong-database"):
            store.save_token(login())


@contextlib.contextmanager
def small_disk(server):
    """A folder of the server on a file system of 4 MB."""
    folder = server.folder / "disk"
    folder.mkdir()
    owner = (server.folder / "data").stat()
    options = f"size=4m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file):
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_a_full_disk(start_server):
    """A save fails at once. Finds go on, and saves work again when there is space."""
    server = start_server()
    with small_disk(server) as disk, CustomStorePostgreSQL(server.dsn, busy_timeout=PATIENT) as store:
        store.save_token(login())
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
            connection.execute("ALTER TABLE oauthtoken SET TABLESPACE small")
        fill(disk / "filler")
        with raises("disk-full"):
            for number in range(100):
                store.save_token(login(f"user{number}@example.com", 100 + number, api_domain="x" * 5000))
        assert store.find_token(token("ada@example.com")) is not None
        (disk / "filler").unlink()
        store.save_token(login("bob@example.com", 2, api_domain="x" * 5000))
        assert store.find_token(token("bob@example.com")) is not None


def test_sessions_that_the_server_ends_when_idle(start_server):
    """PostgreSQL 14 can end idle sessions (57P05): the store opens a new one."""
    server = start_server()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        try:
            connection.execute("ALTER SYSTEM SET idle_session_timeout = '100ms'")
        except psycopg.errors.UndefinedObject:
            pytest.skip("PostgreSQL 13 has no idle_session_timeout")
        connection.execute("SELECT pg_reload_conf()")
    with CustomStorePostgreSQL(server.dsn, busy_timeout=PATIENT) as store:
        for number in range(3):
            store.save_token(login(f"user{number}@example.com", number))
            time.sleep(0.3)
            assert store.find_token(token(f"user{number}@example.com")) is not None
            time.sleep(0.3)
        assert len(store) == 3


def test_a_program_that_stops_while_it_holds_the_lock(dsn, schema):
    """The server ends its transaction (25P03), so that the others can go on. Its own call is repeated."""
    with FaultProxy(dsn) as proxy, CustomStorePostgreSQL(dsn, schema=schema, busy_timeout=PATIENT) as other:
        other.save_token(token("old@example.com", access_token="made-up", expires_in="1"))
        other.save_token(login())
        holder = CustomStorePostgreSQL(proxy.dsn, schema=schema, busy_timeout=PATIENT / 4)
        fault = proxy.inject(Fault("stall", at="commit", matching="COMMIT", which=first(1)))
        purged = []
        thread = threading.Thread(target=lambda: purged.append(holder.purge()))
        thread.start()
        deadline = time.monotonic() + PATIENT
        while not fault.injected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun = time.monotonic()
        other.save_token(login("bob@example.com", 2))
        assert time.monotonic() - begun < SHORT + SLACK
        thread.join(PATIENT * 2)
        holder.close()
        assert purged == [1]
        assert len(other) == 2


def test_199_of_200_lost_answers_to_commits(proxy, schema):
    """The save is repeated, finds what it has written, and writes nothing twice."""
    with CustomStorePostgreSQL(proxy.dsn, schema=schema, busy_timeout=PATIENT) as store:
        fault = proxy.inject(Fault("lose", at="commit"))
        ids = []
        lost = 0
        for number in range(200):
            fault.which = first(fault.matches + 1) if number else (lambda _: False)
            before = fault.injected
            store.save_token(saved := login(f"user{number}@example.com", number))
            lost += fault.injected > before
            ids.append(int(saved.get_id()))
        proxy.clear()
        found = store.get_tokens()
    assert lost == 199
    assert ids == sorted(set(ids))
    assert [int(row.get_id()) for row in found] == ids
    assert len({row.get_user_signature().get_name() for row in found}) == 200


@pytest.mark.parametrize(
    ("fault", "one_of"),
    [
        ({"action": "lose", "at": "commit"}, 3),
        ({"action": "lose"}, 5),
        ({"action": "cut"}, 5),
        ({"action": "error", "code": "40001"}, 3),
        ({"action": "error", "code": "40P01", "at": "commit"}, 3),
        ({"action": "error", "code": "25006", "matching": "INSERT|UPDATE|DELETE"}, 3),
        ({"action": "error", "code": "57P01"}, 7),
        ({"action": "error", "code": "53300", "at": "connect"}, 2),
        ({"action": "error", "code": "57P03", "at": "connect"}, 2),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_fault_again_and_again_under_load(dsn, schema, fault, one_of):
    """No call fails, and nothing is lost or doubled."""
    # At random: each third request could be the same part of each attempt.
    draw = random.Random(0)
    fault = Fault(**fault, which=lambda _: draw.random() < 1 / one_of)
    with FaultProxy(dsn) as proxy, Load(proxy.dsn, schema=schema, busy_timeout=PATIENT) as load:
        load.until_saved(5)
        proxy.inject(fault)
        if fault.at == "connect":
            proxy.cut_all()
        load.until_saved(20)
        load.end()
        proxy.clear()
    assert load.errors == []
    assert fault.injected > 0
    with CustomStorePostgreSQL(dsn, schema=schema) as store:
        load.verify(store)


def test_a_connection_that_is_dead_without_notice(dsn, schema):
    """Nothing answers any more: the call fails in time, and the next one has a new connection."""
    with FaultProxy(dsn) as proxy, CustomStorePostgreSQL(proxy.dsn, schema=schema, busy_timeout=SHORT) as store:
        store.save_token(login())
        fault = proxy.inject(Fault("stall"))
        with raises("unreachable"):
            store.find_token(token("ada@example.com"))
        with raises("unreachable"):
            store.save_token(login())
        assert fault.injected >= 2
        proxy.clear()
        assert store.find_token(token("ada@example.com")) is not None


def test_an_error_that_does_not_end_is_reported(dsn, schema):
    """The last real error is in the message, not only that the time was over."""
    with FaultProxy(dsn) as proxy, CustomStorePostgreSQL(proxy.dsn, schema=schema, busy_timeout=SHORT) as store:
        store.save_token(login())
        proxy.inject(Fault("error", code="25006", matching="INSERT|UPDATE|DELETE"))
        with raises("read-only"):
            store.save_token(login("bob@example.com", 2))
        assert store.find_token(token("ada@example.com")) is not None
        proxy.clear()
        proxy.inject(Fault("error", code="53300", at="connect"))
        proxy.cut_all()
        with raises("unreachable"):
            store.find_token(token("ada@example.com"))


def test_an_import_over_a_slow_network(dsn, proxy, schema, tmp_path):
    """An import makes some round trips for each row. With the default timeout it ends, and so do saves of others."""
    with CustomStoreSQLite(tmp_path / "source.db") as source:
        source.import_tokens(login(f"user{number}@example.com", number) for number in range(12))
    CustomStorePostgreSQL(dsn, schema=schema).close()
    proxy.inject(Fault("delay", seconds=0.15))
    with ThreadPoolExecutor() as pool:
        imported = pool.submit(import_all, f"{proxy.dsn}?schema={schema}", tmp_path / "source.db")
        with CustomStorePostgreSQL(dsn, schema=schema) as store:
            saved = 0
            while not imported.done():
                # A new user needs the lock that the import holds.
                store.save_token(login(f"other{saved}@example.com", 100 + saved))
                saved += 1
            assert imported.result() == (12, 0, 0, 0)
            assert len(store) == 12 + saved
    commits = [sql for sql in proxy.requests if sql.endswith("COMMIT")]
    assert len(commits) > 1, "the lock was held for the whole import"


def import_all(address, file):
    """Import a file, as the command line does."""
    opened = Administration(address)
    try:
        counts, _remarks = _import_in_batches(opened, read_source(str(file)))
        return counts
    finally:
        opened.close()


def test_an_import_of_tokens_over_a_slow_network(proxy, schema):
    """`import_tokens` is one transaction, and may take longer than the timeout."""
    with CustomStorePostgreSQL(proxy.dsn, schema=schema) as store:
        proxy.inject(Fault("delay", seconds=0.15))
        assert store.import_tokens(login(f"user{number}@example.com", number) for number in range(12)) == 12
