"""Real services for tests: Redis and MariaDB of this system, and Amazon's services as `moto` plays them.

Each server works in a temporary folder. It ends with the fixture that started it, and after `LIFE` seconds even if the
tests were killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIFE = 900  # seconds
START = 60  # seconds; a server needs some


def program(*names: str) -> str:
    """Return the first program that is installed, or skip the test."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed")


def free_port() -> int:
    """Return the number of a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], answers: Callable[[], object], log: Path) -> Iterator[None]:
    """Run a server, and wait until it answers."""
    with log.open("wb") as out:
        server = subprocess.Popen(["timeout", str(LIFE), *command], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + START
        while True:
            try:
                answers()
                break
            except Exception:  # noqa: BLE001 - any error of a client means that the server is not ready
                assert server.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.02)
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextlib.contextmanager
def redis_server(folder: Path, prefix: Sequence[str] = (), host: str = "127.0.0.1") -> Iterator[dict[str, object]]:
    """Run Redis, which writes nothing to the disk."""
    executable = program("redis-server", "valkey-server")
    import redis

    port = free_port()
    options = ["--port", str(port), "--bind", host, "--save", "", "--dir", str(folder), "--protected-mode", "no"]
    place = {"kind": "redis", "host": host, "port": port}

    def ping() -> None:
        if prefix:  # another network
            subprocess.run(
                [*prefix, program("redis-cli", "valkey-cli"), "-h", host, "-p", str(port), "ping"],
                check=True,
                capture_output=True,
                timeout=START,
            )
        else:
            redis.Redis(host=host, port=port, socket_timeout=5).ping()

    with running([*prefix, executable, *options], ping, folder / "redis.log"):
        yield place


@contextlib.contextmanager
def mariadb_server(folder: Path) -> Iterator[dict[str, object]]:
    """Run MariaDB on a Unix socket, with an empty database `app`."""
    executable, install = program("mariadbd", "mysqld"), program("mariadb-install-db")
    import pymysql

    data, unix_socket = folder / "data", str(folder / "socket")
    # A server that starts deletes the temporary tables in its folder, also those of another server.
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [install, "--no-defaults", f"--datadir={data}", "--user=root", "--auth-root-authentication-method=normal"]
    with (folder / "install.log").open("w") as log:
        installed = subprocess.run(command, check=False, stdout=log, stderr=log, timeout=START, env=environment)
    assert installed.returncode == 0, (folder / "install.log").read_text(errors="replace")
    options = ["--no-defaults", f"--datadir={data}", f"--socket={unix_socket}", "--skip-networking", "--user=root"]
    options += [
        "--innodb-buffer-pool-size=16M",
        "--innodb-flush-log-at-trx-commit=0",
        f"--pid-file={folder / 'pid'}",
        f"--tmpdir={temporary}",
    ]

    def connect() -> None:
        assert Path(unix_socket).exists()
        with contextlib.closing(pymysql.connect(unix_socket=unix_socket, user="root")) as connection:
            connection.cursor().execute("CREATE DATABASE IF NOT EXISTS app CHARACTER SET latin1")

    with running([executable, *options], connect, folder / "mariadb.log"):
        yield {"kind": "mariadb", "unix_socket": unix_socket}


@contextlib.contextmanager
def amazon() -> Iterator[dict[str, object]]:
    """Run the stand-in for Amazon's services in a thread of this process."""
    moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason="moto is not installed")
    from werkzeug.serving import make_server

    application = moto.DomainDispatcherApplication(moto.create_backend_app)
    lock = threading.Lock()

    def serve(environ, start_response):
        # Amazon compares and writes in one step. `moto` does not, so it gets one request at a time.
        with lock:
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=moto.MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {"endpoint": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
