# ruff: noqa: S603 - it starts nothing but itself
"""A program that uses Zoho's SDK logs in, restarts and refreshes, with its token kept in a SQLite file.

The SDK is the real one, version 8. Zoho is a stand-in on this machine. The program, `program()` below, runs
three times, each time in a new process and with the same settings, a grant code that is good for one login
among them:

1. It logs in.
2. It is restarted, and goes on with the stored access token.
3. An hour later it is started again, and refreshes the access token, once.

Run it with `make demo`. It fails if any of the three asks Zoho for tokens more or less often than it must.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

OWNER_ONLY = 0o600
HOUR = 3600.0
PROGRAM_WITHIN = 30.0  # seconds


def program(settings: dict[str, str]) -> dict[str, str]:
    """Use the SDK, as any program does; return what it saw, for the demonstration to judge."""
    Initializer.initialize(
        environment=DataCenter.Environment(settings["url"], settings["accounts_url"], settings["url"]),
        token=OAuthToken(
            client_id=settings["client_id"],
            client_secret=settings["client_secret"],
            grant_token=settings["grant_code"],
        ),
        store=CustomStoreSQLite(settings["database"]),
        resource_path=settings["folder"],
    )
    organisation = OrgOperations().get_organization().get_object().get_org()[0].get_zgid()

    [token] = Initializer.get_initializer().store.get_tokens()
    return {
        "process": str(os.getpid()),
        "organisation": organisation,
        "id": token.get_id(),
        "user": token.get_user_signature().get_name(),
        # Enough to tell two access tokens apart, and of no use to a reader.
        "fingerprint": hashlib.sha256(token.get_access_token().encode()).hexdigest()[:8],
    }


def run_program(settings: dict[str, str]) -> dict[str, str]:
    """Run `program` in a new process. The secrets go through its stdin: no process list shows them."""
    done = subprocess.run(
        [sys.executable, __file__, "program"],
        input=json.dumps(settings),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PROGRAM_WITHIN,
    )
    seen: dict[str, str] = json.loads(done.stdout)
    return seen


def expect(what: str, found: object, wanted: object) -> None:
    """End the demonstration, with exit status 1, if something is not as it must be."""
    if found != wanted:
        sys.exit(f"FAILED: {what}: {found!r} instead of {wanted!r}")


def let_an_hour_pass(zoho: ZohoStandIn, database: Path) -> None:
    """Turn the stand-in's clock and the stored expiry, the two places that time is kept in."""
    zoho.clock = lambda: time.monotonic() + HOUR
    with CustomStoreSQLite(database) as store:
        [token] = store.get_tokens()
        token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR * 1000)))
        store.save_token(token)


def demonstrate(zoho: ZohoStandIn, folder: Path) -> None:
    """Run the program three times, and say what happened."""
    database = folder / "tokens.db"
    user = zoho.add_user("ada@example.com", "1001")
    settings = {
        "url": zoho.url,
        "accounts_url": zoho.accounts_url,
        "client_id": zoho.client_id,
        "client_secret": zoho.client_secret,
        "grant_code": zoho.grant_code(user),
        "database": str(database),
        "folder": str(folder),
    }
    print(f"zoho     a stand-in on {zoho.url}")

    first = run_program(settings)
    expect("token calls of the login", (zoho.logins, zoho.refreshes), (1, 0))
    expect("user", first["user"], user.name)
    print(f"login    process {first['process']} as {first['user']}: 1 token call")

    about = database.stat()
    mode = stat.S_IMODE(about.st_mode)
    if os.name == "posix":
        expect("mode of the file", f"{mode:04o}", f"{OWNER_ONLY:04o}")
    print(f"file     {database}: mode {mode:04o}, {about.st_size} bytes, row {first['id']}")

    zoho.clear_calls()
    second = run_program(settings)
    expect("token calls after the restart", zoho.token_calls, 0)
    expect("what the restarted program saw", {**second, "process": first["process"]}, first)
    print(f"restart  process {second['process']}, the same row and access token: 0 token calls")

    let_an_hour_pass(zoho, database)
    print("expiry   an hour later")

    third = run_program(settings)
    expect("token calls after the expiry", (zoho.logins, zoho.refreshes), (0, 1))
    expect("row that was refreshed", (third["id"], third["user"]), (first["id"], first["user"]))
    expect("access token is another", third["fingerprint"] != first["fingerprint"], True)  # noqa: FBT003
    print(f"refresh  process {third['process']}, row {third['id']} with a new access token: 1 token call")


def main() -> None:
    """Play the program or the demonstration of it."""
    if sys.argv[1:] == ["program"]:
        print(json.dumps(program(json.load(sys.stdin))))
        return
    with tempfile.TemporaryDirectory() as folder, ZohoStandIn() as zoho:
        demonstrate(zoho, Path(folder))


if __name__ == "__main__":
    main()
