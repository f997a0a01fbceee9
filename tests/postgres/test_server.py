"""The program that runs tests with a server: the server always ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from postgres_server import Server, ServerError

PROGRAM = Path(__file__).parents[1] / "postgres_server.py"
TIMEOUT = 60
# Says where its server is, and waits.
COMMAND = """
import json, os, sys
print(json.dumps([os.getpid(), os.environ["TEST_POSTGRES_DSN"]]), flush=True)
sys.exit(int(sys.stdin.readline()))
"""


@pytest.fixture
def start():
    """A function that starts the program. It returns the process, the pid of its command, and the server's folder."""
    processes = []

    def start_one(*options):
        environment = {name: value for name, value in os.environ.items() if name != "TEST_POSTGRES_DSN"}
        command = [sys.executable, PROGRAM, *options, "--", sys.executable, "-c", COMMAND]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        pid, dsn = json.loads(process.stdout.readline())
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
        return process, pid, Path(dsn.partition("host=")[2])

    yield start_one
    for process in processes:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def until_gone(folder):
    """Wait until the server has ended, and its folder is removed."""
    deadline = time.monotonic() + TIMEOUT
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_server_ends_with_the_command(start):
    process, _, folder = start()
    process.communicate("7\n", timeout=TIMEOUT)
    assert process.returncode == 7
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_command_and_server(start, number):
    process, pid, folder = start()
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 128 + number
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_server_ends_if_the_program_is_killed(start):
    process, _, folder = start()
    process.kill()
    until_gone(folder)


@pytest.mark.parametrize("which", ["wheel", "system"])
def test_each_kind_of_server(which):
    try:
        server = Server(which)
    except ServerError as error:
        pytest.skip(str(error))
    with server, psycopg.connect(server.dsn) as connection:
        [version] = connection.execute("SELECT current_setting('server_version_num')::int").fetchone()
        assert version >= 130000


def test_a_commit_survives_a_kill(start_server):
    """All processes are killed. The server does not wait for the disk, but the system keeps what it has written."""
    server = start_server()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS value")
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.dsn)
    server.start()
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT value FROM t").fetchone() == (1,)


def test_a_server_stops_pauses_and_starts_again(start_server):
    server = start_server()
    server.pause()
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(server.dsn, connect_timeout=2)
    server.resume()
    psycopg.connect(server.dsn).close()
    for how in ("fast", "immediate"):
        server.stop(how)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn)
        server.start()
        psycopg.connect(server.dsn).close()


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(ServerError, match="no_such_setting"):
        Server(settings={"no_such_setting": "1"}).__enter__()


def test_a_standby_is_promoted(start_server):
    primary = start_server()
    standby = start_server(primary=primary)
    with psycopg.connect(standby.dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE t (value int)")
        primary.kill()
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        connection.execute("CREATE TABLE t (value int)")
