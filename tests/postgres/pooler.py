"""pgbouncer in transaction mode in front of a server: each transaction of a client can get another session.

As a program it runs a command with a pooler in front of the server in TEST_POSTGRES_DSN, which it changes for the
command:

    python tests/postgres_server.py -- python tests/postgres/pooler.py COMMAND…
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

UNPRIVILEGED_USER = "nobody"  # pgbouncer refuses to run as root
PORT = 6432  # a part of the name of the socket
TIMEOUT = 30.0  # seconds for its start and its end
SESSIONS = 3  # fewer than the clients of a test have connections


class PoolerUnavailableError(Exception):
    """pgbouncer is not installed."""


class Pooler:
    """pgbouncer on a Unix socket, in a `with` block. It ends with this process (PR_SET_PDEATHSIG)."""

    folder: Path

    def __init__(self, upstream: str) -> None:
        """Prepare a pooler for the server with this DSN."""
        self.upstream = conninfo_to_dict(upstream)
        self.process: subprocess.Popen[bytes] | None = None
        self._programs: dict[str, str] = {}
        for name in ("pgbouncer", "setpriv"):
            if not (program := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")):
                raise PoolerUnavailableError(f"{name} is not installed: apt-get install pgbouncer util-linux")
            self._programs[name] = program

    def __enter__(self) -> Pooler:  # noqa: PYI034 - Python 3.10 has no `Self`
        # A path of a socket has at most 107 bytes, so this is not the folder for temporary files of the user.
        self.folder = Path(tempfile.mkdtemp(prefix="zts-", dir="/tmp"))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def stop(self) -> None:
        """End at once, with all sessions."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @property
    def dsn(self) -> str:
        """The URL of the server through the pooler."""
        return f"postgresql://{self.upstream['user']}@/{self.upstream['dbname']}?host={self.folder}&port={PORT}"

    def log(self) -> str:
        """Return what the pooler has logged."""
        return (self.folder / "log").read_text()

    def start(self) -> None:
        """Start, and wait until connections are accepted."""
        server = " ".join(f"{name}={self.upstream[name]}" for name in ("host", "port", "user") if name in self.upstream)
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(f"""
[databases]
* = {server}
[pgbouncer]
listen_addr =
unix_socket_dir = {self.folder}
listen_port = {PORT}
auth_type = any
pool_mode = transaction
default_pool_size = {SESSIONS}
server_login_retry = 1
""")
        command = [self._programs["setpriv"], "--pdeathsig", "TERM"]
        if os.geteuid() == 0:
            shutil.chown(self.folder, UNPRIVILEGED_USER)
            # The server's socket is in a folder of root and of this user's group.
            group = Path(str(self.upstream["host"])).stat().st_gid
            command += ["--reuid", UNPRIVILEGED_USER, "--regid", str(group), "--clear-groups"]
        command += [self._programs["pgbouncer"], str(settings)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT
        while not self._accepts():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            psycopg.connect(self.dsn).close()
        except psycopg.OperationalError:
            return False
        return True


def main() -> int:
    """Run a command with a pooler."""
    try:
        with Pooler(os.environ["TEST_POSTGRES_DSN"]) as pooler:
            variables = {**os.environ, "TEST_POSTGRES_DSN": pooler.dsn}
            return subprocess.run(sys.argv[1:], env=variables, check=False).returncode
    except PoolerUnavailableError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
