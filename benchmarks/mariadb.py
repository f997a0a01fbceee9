"""A MariaDB server for the SDK's `DBStore`, in a temporary folder. It waits for the disk at each commit."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "bench"
ACCOUNT = "mysql"  # of the system package: a server refuses to run as root
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 60.0, 30.0, 0.1
# The server ends when the input of this shell ends, also if the benchmark is killed.
UNTIL_THE_INPUT_ENDS = '"$@" & read -r _; kill $!; wait $!'


class Server(NamedTuple):
    """How to connect."""

    address: str
    user: str
    password: str


def program(name: str) -> str | None:
    """Return the path of a program. Those of servers are often not in the path of a user."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def is_answering(port: int) -> bool:
    """Return whether a server listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running() -> Iterator[Server | str]:
    """Run a server. Yield how to connect, or the reason why there is none."""
    server, install = program("mariadbd"), program("mariadb-install-db")
    if not (server and install):
        yield "MariaDB's server is not installed (apt-get install mariadb-server)"
        return
    with tempfile.TemporaryDirectory(prefix="zts-mariadb-", dir="/tmp") as name:
        folder, account = Path(name), []
        if os.geteuid() == 0:
            shutil.chown(folder, ACCOUNT)
            account = [f"--user={ACCOUNT}"]
        data = [*account, f"--datadir={folder / 'data'}"]
        done = subprocess.run(
            [install, "--no-defaults", "--skip-test-db", *data],
            capture_output=True, text=True, timeout=START_SECONDS, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            yield f"mariadb-install-db failed: {done.stderr.strip()[-160:]}"
            return
        password = secrets.token_hex(16)
        script = folder / "user.sql"
        script.touch(0o600)
        # One statement in each line, as the server reads them.
        script.write_text(f"CREATE USER {USER} IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO {USER};\n")
        if account:
            shutil.chown(script, ACCOUNT)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        command = [
            *(server, "--no-defaults", *data, f"--socket={folder / 'socket'}", f"--pid-file={folder / 'pid'}"),
            *("--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve", f"--init-file={script}"),
            *(f"--log-error={folder / 'log'}", "--innodb-flush-log-at-trx-commit=1"),
        ]
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", UNTIL_THE_INPUT_ENDS, "sh", *command],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (is_up := is_answering(port)) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            yield Server(f"127.0.0.1:{port}", USER, password) if is_up else "MariaDB's server has not started"
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()
            keeper.wait(STOP_SECONDS)
