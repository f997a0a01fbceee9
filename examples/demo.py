# ruff: noqa: S603 - it starts only itself
"""A demonstration: a program logs in, restarts and refreshes with Zoho's SDK, and keeps its token in a SQLite file.

It uses the real SDK, version 8, and a local stand-in for Zoho. The program is the function `program` below. It runs
three times, each time in a new process and with the same settings. They include a grant code, which is valid for one
login.

1. The first run logs in.
2. The second run uses the stored access token.
3. The third run is an hour later. It refreshes the access token once.

Run it with `make demo`. It fails if a run makes more or fewer token calls than expected.
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

PRIVATE_MODE = 0o600
HOUR_SECONDS = 3600.0
PROGRAM_TIMEOUT_SECONDS = 30.0


def program(settings: dict[str, str]) -> dict[str, str]:
    """Use the SDK as any program does. Return what the demonstration checks."""
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
        # A short hash tells two access tokens apart and does not reveal them.
        "fingerprint": hashlib.sha256(token.get_access_token().encode()).hexdigest()[:8],
    }


def run_program(settings: dict[str, str]) -> dict[str, str]:
    """Run `program` in a new process. The settings go through stdin: a process list would show arguments."""
    done = subprocess.run(
        [sys.executable, __file__, "program"],
        input=json.dumps(settings),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PROGRAM_TIMEOUT_SECONDS,
    )
    result: dict[str, str] = json.loads(done.stdout)
    return result


def expect(what: str, found: object, expected: object) -> None:
    """Exit with status 1 if a value is not the expected one."""
    if found != expected:
        sys.exit(f"FAILED: {what}: {found!r} instead of {expected!r}")


def let_an_hour_pass(zoho: ZohoStandIn, database: Path) -> None:
    """Move the stand-in's clock forward, and the stored expiry back by the same time."""
    zoho.clock = lambda: time.monotonic() + HOUR_SECONDS
    with CustomStoreSQLite(database) as store:
        [token] = store.get_tokens()
        token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR_SECONDS * 1000)))
        store.save_token(token)


def demonstrate(zoho: ZohoStandIn, folder: Path) -> None:
    """Run the program three times and print what happened."""
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

    status = database.stat()
    mode = stat.S_IMODE(status.st_mode)
    if os.name == "posix":
        expect("mode of the file", f"{mode:04o}", f"{PRIVATE_MODE:04o}")
    print(f"file     {database}: mode {mode:04o}, {status.st_size} bytes, row {first['id']}")

    zoho.clear_calls()
    second = run_program(settings)
    expect("token calls after the restart", zoho.token_calls, 0)
    expect("result of the restarted program", {**second, "process": first["process"]}, first)
    print(f"restart  process {second['process']}, the same row and access token: 0 token calls")

    let_an_hour_pass(zoho, database)
    print("expiry   an hour later")

    third = run_program(settings)
    expect("token calls after the expiry", (zoho.logins, zoho.refreshes), (0, 1))
    expect("refreshed row", (third["id"], third["user"]), (first["id"], first["user"]))
    expect("access token is new", third["fingerprint"] != first["fingerprint"], True)  # noqa: FBT003
    print(f"refresh  process {third['process']}, row {third['id']} with a new access token: 1 token call")


def main() -> None:
    """Run the program or the demonstration."""
    if sys.argv[1:] == ["program"]:
        print(json.dumps(program(json.load(sys.stdin))))
        return
    with tempfile.TemporaryDirectory() as folder, ZohoStandIn() as zoho:
        demonstrate(zoho, Path(folder))


if __name__ == "__main__":
    main()
