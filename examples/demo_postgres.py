# ruff: noqa: S603 - it starts only itself
"""A demonstration: three programs with Zoho's SDK on a PostgreSQL server log in once, and refresh once.

It uses the real SDK, version 8, and a local stand-in for Zoho. The program is the function `program` below. It runs
three times at once, as on three machines, and goes on when the demonstration says so.

1. The first program logs in. Its settings include a grant code, which is valid for one login.
2. The others have no code. They find the login of the first one.
3. An hour later, all three make a request at the same moment. One refreshes the access token, the others wait for it.

Run it with `make demo-postgres`, which starts a server for it. With a server of your own, give its address in
`TEST_POSTGRES_DSN`; a schema is made there, and dropped at the end. The demonstration fails if the programs make more
or fewer token calls than expected.
"""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from zoho_token_store import CustomStorePostgreSQL
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

PROGRAMS = 3
HOUR_SECONDS = 3600.0
TIMEOUT_SECONDS = 60.0  # for all that one program does


def program() -> None:
    """Use the SDK as any program does. Make a request for each line on stdin, and print what it saw."""
    # The settings go through stdin: a process list would show arguments.
    settings = json.loads(sys.stdin.readline())
    grant_code = settings["grant_code"]
    token = OAuthToken(
        client_id=settings["client_id"],
        client_secret=settings["client_secret"],
        **({"grant_token": grant_code} if grant_code else {"id": settings["id"]}),
    )
    Initializer.initialize(
        environment=DataCenter.Environment(settings["url"], settings["accounts_url"], settings["url"]),
        token=token,
        store=CustomStorePostgreSQL(settings["dsn"], schema=settings["schema"]),
        resource_path=settings["folder"],
    )
    for _ in sys.stdin:
        organisation = OrgOperations().get_organization().get_object().get_org()[0].get_zgid()
        [row] = Initializer.get_initializer().store.get_tokens()
        seen = {
            "organisation": organisation,
            "id": row.get_id(),
            "user": row.get_user_signature().get_name(),
            # A short hash tells two access tokens apart and does not reveal them.
            "fingerprint": hashlib.sha256(row.get_access_token().encode()).hexdigest()[:8],
        }
        print(json.dumps(seen), flush=True)


class Running:
    """A program in a process of its own. It ends when its stdin is closed."""

    def __init__(self, settings: dict[str, str]) -> None:
        """Start the program."""
        command = [sys.executable, __file__, "program"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # A program that hangs would let the demonstration wait without an end.
        self.timer = threading.Timer(TIMEOUT_SECONDS, self.process.kill)
        self.timer.start()
        self.send(json.dumps(settings))

    def send(self, line: str) -> None:
        """Send a line: the settings, and then a request each."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, str]:
        """Return what the program saw with its request."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit("FAILED: a program has ended")
        result: dict[str, str] = json.loads(line)
        return result

    def close(self) -> None:
        """End the program."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.timer.cancel()


def expect(what: str, found: object, expected: object) -> None:
    """Exit with status 1 if a value is not the expected one."""
    if found != expected:
        sys.exit(f"FAILED: {what}: {found!r} instead of {expected!r}")


def let_an_hour_pass(zoho: ZohoStandIn, store: CustomStorePostgreSQL) -> None:
    """Move the stand-in's clock forward, and the stored expiry back by the same time."""
    zoho.clock = lambda: time.monotonic() + HOUR_SECONDS
    [token] = store.get_tokens()
    token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR_SECONDS * 1000)))
    store.save_token(token)


def demonstrate(zoho: ZohoStandIn, dsn: str, schema: str, folder: Path) -> None:
    """Run the programs and print what happened."""
    user = zoho.add_user("ada@example.com", "1001")
    settings: dict[str, Any] = {
        "url": zoho.url,
        "accounts_url": zoho.accounts_url,
        "client_id": zoho.client_id,
        "client_secret": zoho.client_secret,
        "dsn": dsn,
        "schema": schema,
        "folder": str(folder),
    }
    with ExitStack() as stack:
        store = stack.enter_context(CustomStorePostgreSQL(dsn, schema=schema))
        print(f"zoho     a stand-in on {zoho.url}")
        print(f"store    {store}")

        def start(**more: str) -> Running:
            running = Running({**settings, **more})
            stack.callback(running.close)
            return running

        programs = [start(grant_code=zoho.grant_code(user))]
        programs[0].send("request")
        first = programs[0].answer()
        expect("token calls of the login", (zoho.logins, zoho.refreshes), (1, 0))
        expect("user", first["user"], user.name)
        print(f"login    process {programs[0].process.pid} as {first['user']}: 1 token call, row {first['id']}")

        zoho.clear_calls()
        for _ in range(PROGRAMS - 1):
            programs.append(start(grant_code="", id=first["id"]))
            programs[-1].send("request")
            expect("what another program finds", programs[-1].answer(), first)
            print(f"find     process {programs[-1].process.pid}, the same row and access token: 0 token calls")
        expect("token calls of the others", zoho.token_calls, 0)

        let_an_hour_pass(zoho, store)
        print("expiry   an hour later, all programs make a request")
        for one in programs:
            one.send("request")
        answers = [one.answer() for one in programs]
        expect("token calls after the expiry", (zoho.logins, zoho.refreshes), (0, 1))
        expect("access token is new", answers[0]["fingerprint"] != first["fingerprint"], True)  # noqa: FBT003
        for one, answer in zip(programs, answers, strict=True):
            expect("what each program has", answer, answers[0])
            print(f"served   process {one.process.pid}, row {answer['id']} with a new access token")
        print("refresh  1 token call for all")


def main() -> None:
    """Run the program or the demonstration."""
    if sys.argv[1:] == ["program"]:
        program()
        return
    dsn = os.environ.get("TEST_POSTGRES_DSN")
    if not dsn:
        sys.exit("Run it with `make demo-postgres`, or give the address of a server in TEST_POSTGRES_DSN.")
    schema = f"demo_{secrets.token_hex(6)}"
    try:
        with tempfile.TemporaryDirectory() as folder, ZohoStandIn() as zoho:
            zoho.latency = 0.2
            demonstrate(zoho, dsn, schema, Path(folder))
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


if __name__ == "__main__":
    main()
