"""What the tests share: tokens, and programs that run in processes of their own."""

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

# In every secret of these tests. `make test` looks for it in all that a test run puts out.
PLANTED = "planted"


def token(user: str | None = None, **values: object) -> OAuthToken:
    """Make a token of the SDK's with these values, through its constructor and setters."""
    made = OAuthToken(id="x", user_signature=None if user is None else UserSignature(user))
    made.set_id(None)
    for field, value in values.items():
        getattr(made, f"set_{field}")(value)
    return made


def login(user: str | None = "ada@example.com", number: int = 1, **values: object) -> OAuthToken:
    """Make a token as it is after a login."""
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
    """Return the present values of a token."""
    signature = made.get_user_signature()
    found = {field: getattr(made, f"get_{field}")() for field in FIELDS}
    found["user"] = None if signature is None else signature.get_name()
    return {field: value for field, value in found.items() if value not in (None, "")}


def run_python(
    code: str, *arguments: object, timeout: float = 60, check: bool = True, preload: Path | None = None
) -> str:
    """Run a program in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parent,
        env=None if preload is None else {**os.environ, "LD_PRELOAD": str(preload)},
    )
    if check and done.returncode != 0:
        pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


# What these programs have imported: these helpers, the SDK and the package.
IMPORTS = """
import os, sys, threading, time
sys.path.insert(0, ".")
from support import login, token, values
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite
"""


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Let `count` threads do `work(number)` and raise what the first failure was."""
    failures = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - handed to the test, which shows it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)  # only what never ends takes as long
    assert not any(thread.is_alive() for thread in threads)
    assert failures == []


def run_program(code: str, *arguments: object, timeout: float = 90, preload: Path | None = None) -> str:
    """Run a program that has these helpers, the SDK and the package imported, and return what it printed."""
    return run_python(IMPORTS + code, *arguments, timeout=timeout, preload=preload)


HELPERS = IMPORTS + "from support import *\nfrom zoho_token_store import *\n"


def start(code: str, *arguments: object, imports: str = HELPERS) -> subprocess.Popen[str]:
    """Start a program and wait for its first line."""
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
        pytest.fail(f"the program did not begin: {line!r}")
    return process


@contextlib.contextmanager
def another_program_holding(path: Path, lock: str) -> Iterator[subprocess.Popen[str]]:
    """Have another program keep a transaction open: the locks of Python's SQLite mean nothing within one process.

    It lets go at the end, or when it is sent a line.
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
    """Return what another process sees: rows, ids, users, and the verdict of SQLite's own check."""
    return run_python(COUNT, path).split("\n")[:2]


def everything(count: int) -> list[str]:
    """Return what it sees where no row misses: one for each id, and for each user."""
    return [f"({count}, {count}, {count})", "ok"]


@functools.cache
def _server() -> socket.socket:
    """Start the process that `run_forked` has its programs forked from. It ends with this one."""
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


def run_forked(code: str, *arguments: object, timeout: float = 90) -> str:
    """As `run_program`, but forked from a process that has everything imported: that saves a second or two."""
    orders = _server()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complained:
        order = json.dumps([IMPORTS + code, [str(argument) for argument in arguments], timeout]).encode()
        socket.send_fds(orders, [order], [printed.fileno(), complained.fileno()])
        orders.settimeout(timeout + 30)
        outcome = orders.recv(1 << 16).decode()
        for file in (printed, complained):
            file.seek(0)
        output, errors = printed.read().decode(), complained.read().decode()
    if outcome != "well":
        pytest.fail(f"{outcome or 'the process that forks is gone'}\n{output}\n{errors}")
    return output


# What a program begins with to go on as a user that permissions apply to: they do not to root.
UNPRIVILEGED = """
if os.name == "posix" and os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""


# A program's last word on what its savers were to leave in the file, as Python's SQLite finds it.
JUDGE = """
import json, sqlite3

def judge(wanted):
    connection = sqlite3.connect(path)
    verdict = connection.execute("PRAGMA integrity_check").fetchall()
    users = [user for (user,) in connection.execute("SELECT user_name FROM oauthtoken")]
    connection.close()
    wanted = set(wanted)
    print(json.dumps([verdict, sorted(wanted - set(users)), len(users) - len(wanted)]))
"""


def judge(told: str) -> None:
    """Check such a line: the file is sound, and holds what it was to hold and nothing else."""
    verdict, lost, more = json.loads(told)
    assert verdict == [["ok"]]
    assert lost == []
    assert more == 0


def judge_last(printed: str) -> None:
    """Check the last line of what a program has printed."""
    judge(printed.splitlines()[-1])
