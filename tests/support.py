"""Tokens and processes for all tests."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from children import SUCCEEDED
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = Path(__file__).parent / "data"

FIELDS = (
    "id",
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expires_in",
    "redirect_url",
    "api_domain",
)

# The time limit of a program, in seconds. `conftest.py` sets a longer one for `--long`.
PROGRAM_TIMEOUT = 90

# Every secret of these tests contains this text. `make test` searches all output of the tests for it.
PLANTED = "planted"
DATABASE_PASSWORD = f"{PLANTED}-password"


def token(user: str | None = None, **values: object) -> OAuthToken:
    """Make a token with these values, with the constructor and the setters of the SDK."""
    made = OAuthToken(id="x", user_signature=None if user is None else UserSignature(user))
    made.set_id(None)
    for field, value in values.items():
        getattr(made, f"set_{field}")(value)
    return made


def login(user: str | None = "ada@example.com", number: int = 1, **values: object) -> OAuthToken:
    """Make a token with all fields that a login sets."""
    return token(
        user,
        **{
            "client_id": "1000.CLIENT",
            "client_secret": f"{PLANTED}-client-secret",
            "refresh_token": f"{PLANTED}-refresh-{number}",
            "access_token": f"{PLANTED}-access-{number}",
            "expires_in": str(1_795_300_000_000 + number),
            **values,
        },
    )


def values(made: OAuthToken) -> dict[str, object]:
    """Return the values of a token that are not absent."""
    signature = made.get_user_signature()
    found = {field: getattr(made, f"get_{field}")() for field in FIELDS}
    found["user"] = None if signature is None else signature.get_name()
    return {field: value for field, value in found.items() if value not in (None, "")}


def run_python(code: str, *arguments: object, timeout: float = 60) -> str:
    """Run a program in a new interpreter, and return its output."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parent,
    )
    if done.returncode != 0:
        pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


# The first lines of a program. They import these helpers, the SDK and the package.
IMPORTS = """
import os, sys, threading, time
sys.path.insert(0, ".")
from support import login, token, values
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite
"""


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call `work(number)` in `count` threads. Fail if one of them fails."""
    failures = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)  # only a thread that never ends takes so long
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def run_program(code: str, *arguments: object, timeout: float | None = None) -> str:
    """Run a program that begins with `IMPORTS` in a new interpreter, and return its output."""
    return run_python(IMPORTS + code, *arguments, timeout=timeout or PROGRAM_TIMEOUT)


HELPERS = IMPORTS + "from support import *\nfrom zoho_token_store import *\n"


def start(code: str, *arguments: object, imports: str = HELPERS) -> subprocess.Popen[str]:
    """Start a program in a new interpreter, and wait until it prints "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", imports + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert process.stdout is not None
    if (line := process.stdout.readline()) != "ready\n":
        process.kill()
        process.communicate()
        pytest.fail(f"the program did not start: {line!r}")
    return process


@contextlib.contextmanager
def another_program_holding(path: Path, lock: str) -> Iterator[subprocess.Popen[str]]:
    """Let another program keep a transaction open, until the end of the block or until it reads a line.

    It is another program because POSIX locks have no effect within one process (fcntl(2)).
    """
    code = """
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2].split(";"):
    connection.execute(statement).fetchall()
print("ready", flush=True)
sys.stdin.readline()
connection.execute("commit")
"""
    program = start(code, path, lock, imports="import sqlite3, sys\n")
    try:
        yield program
    finally:
        program.communicate("\n", timeout=30)


COUNT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("select count(*), count(distinct id), count(distinct user_name) from oauthtoken").fetchone())
print(connection.execute("pragma integrity_check").fetchone()[0])
"""


def rows_seen_elsewhere(path: Path) -> list[str]:
    """Return what another process reads: the numbers of rows, ids and users, and the result of `integrity_check`."""
    return run_python(COUNT, path).split("\n")[:2]


def everything(count: int) -> list[str]:
    """Return what `rows_seen_elsewhere` returns if there are `count` rows, each with its own id and user."""
    return [f"({count}, {count}, {count})", "ok"]


@functools.cache
def _server(_preload: str | None) -> socket.socket:
    """Start the process that the programs of `run_forked` are forked from. It ends with this process.

    There is one for each value of LD_PRELOAD, which it inherits.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = "import socket, children; children.serve(socket.socket(fileno=int(sys.argv[1])))"
    command = [sys.executable, "-c", IMPORTS + code, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parent)
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(30)

    atexit.register(end)
    return ours


def run_forked(code: str, *arguments: object, timeout: float | None = None) -> str:
    """Run a program like `run_program`, but fork it from a process with all imports. That saves a second."""
    timeout = timeout or PROGRAM_TIMEOUT
    orders = _server(os.environ.get("LD_PRELOAD"))
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        order = json.dumps([IMPORTS + code, [str(argument) for argument in arguments], timeout]).encode()
        socket.send_fds(orders, [order], [stdout.fileno(), stderr.fileno()])
        orders.settimeout(timeout + 30)
        outcome = orders.recv(1 << 16).decode()
        for file in (stdout, stderr):
            file.seek(0)
        output, errors = stdout.read().decode(), stderr.read().decode()
    if outcome != SUCCEEDED:
        pytest.fail(f"{outcome or 'the process that forks has ended'}\n{output}\n{errors}")
    return output
