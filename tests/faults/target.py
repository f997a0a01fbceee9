"""The processes that faults are injected into. `test_faults.py` runs them, with `faults.c` preloaded.

A *scenario* is one call of a store. An *operation* is one I/O operation of the scenario that `faults.c` counts. Each
fault has its own forked child. All children begin with copies of one file that has three users.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from children import in_child
from faults import injection
from support import DATA, login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

if TYPE_CHECKING:
    from collections.abc import Callable

USERS = ("ada@example.com", "bob@example.com", "eve@example.com")


def update(store: CustomStoreSQLite, _: Path) -> None:
    """Save the answer to a refresh."""
    store.save_token(token(USERS[0], client_id="1000.CLIENT", access_token="planted-new", expires_in="1795309999999"))


def replace(store: CustomStoreSQLite, _: Path) -> None:
    """Save a new login of a known user. It replaces the old secrets."""
    store.save_token(login(USERS[0], 77))


def insert(store: CustomStoreSQLite, _: Path) -> None:
    """Save a new user, with values that are longer than a page."""
    store.save_token(login("new@example.com", 4, redirect_url="https://example.com/" + "x" * 9000))


def delete(store: CustomStoreSQLite, _: Path) -> None:
    """Delete the row of one user."""
    store.delete_token("2")


def delete_all(store: CustomStoreSQLite, _: Path) -> None:
    """Delete all rows."""
    store.delete_tokens()


def backup(store: CustomStoreSQLite, folder: Path) -> None:
    """Write a backup into the folder of the file."""
    store.backup(folder / "copy.db")


def open_new(_: None, folder: Path) -> None:
    """Create a file."""
    CustomStoreSQLite(folder / "new.db").close()


def migrate(_: None, folder: Path) -> None:
    """Open a file that the vendor's sample has written."""
    CustomStoreSQLite(folder / "sample.db").close()


def close(store: CustomStoreSQLite, _: Path) -> None:
    """Close the store, which does a checkpoint of the WAL."""
    store.close()


class ZohoIsDownError(Exception):
    """Stands for the error of a request to Zoho."""


def lease(store: CustomStoreSQLite, _: Path) -> None:
    """Let the SDK refresh an expired token. The find acquires the lease, and the failed refresh releases it."""
    found = []

    def refresh(_: OAuthToken, completed: OAuthToken, _url: str) -> None:
        found.append(values(completed)["refresh_token"])
        raise ZohoIsDownError

    OAuthToken.refresh_access_token = refresh
    Initializer.initializer = Initializer()
    Initializer.initializer.store = store
    Initializer.initializer.environment = USDataCenter.PRODUCTION()
    with contextlib.suppress(ZohoIsDownError):
        OAuthToken(id="1").get_token()
    # A fault of the lease never changes the result of the find.
    if found != ["planted-refresh-1"]:
        raise AssertionError(found)


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (update, replace, insert, delete, delete_all, lease, backup, open_new, migrate, close)
}
WITHOUT_A_STORE = ("open_new", "migrate")


def seed(scenario: str, folder: Path) -> None:
    """Make the file that every child gets a copy of."""
    if scenario == "migrate":
        shutil.copyfile(DATA / "sample-zohooauth.db", folder / "sample.db")
        (folder / "sample.db").chmod(0o600)
        return
    with CustomStoreSQLite(folder / "tokens.db") as store:
        for number, user in enumerate(USERS, 1):
            store.save_token(login(user, number, **({"expires_in": "1"} if scenario == "lease" else {})))
        if scenario == "close":
            update(store, folder)


def rows_of(path: Path) -> list[object]:
    """Open a file with a store. Return whether SQLite finds it intact then, and its rows."""
    with CustomStoreSQLite(path) as store:
        rows = [values(made) for made in store.get_tokens()]
    connection = sqlite3.connect(path)
    intact = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return [intact, rows]


def read_all(folder: Path) -> dict[str, object]:
    """Return `rows_of` each database of a folder, read by a new process. An error comes under the key "error"."""
    names = sorted(path.name for path in folder.glob("*.db"))
    status, result = in_child(lambda: {name: rows_of(folder / name) for name in names})
    return json.loads(result) if status == 0 else {"error": [False, result]}


def read_copy(folder: Path) -> dict[str, object]:
    """Do the same with a copy, because a store that opens an older file migrates it."""
    copied = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    return read_all(copied)


def begin(scenario: str, seeded: Path) -> tuple[CustomStoreSQLite | None, Path]:
    """Make a copy of the folder for this child, open a store there, and start to count operations."""
    folder = Path(tempfile.mkdtemp(prefix="child-", dir=seeded.parent))
    shutil.copytree(seeded, folder, dirs_exist_ok=True)
    store = None if scenario in WITHOUT_A_STORE else CustomStoreSQLite(folder / "tokens.db")
    if scenario == "close":
        update(store, folder)
    injection.watch(folder)
    return store, folder


def without_fault(scenario: str, seeded: Path) -> dict[str, object]:
    """Run the scenario without a fault. Return its operations, and the rows before and after it."""

    def work() -> list[str]:
        store, folder = begin(scenario, seeded)
        SCENARIOS[scenario](store, folder)
        operations = injection.operations()
        injection.stop()
        return [str(folder), *operations]

    status, result = in_child(work)
    if status:
        raise SystemExit(result)
    folder, *operations = json.loads(result)
    after = read_all(Path(folder))
    shutil.rmtree(folder)
    return {"operations": operations, "before": read_copy(seeded), "after": after}


def injectable(operations: list[str]) -> list[tuple[int, str]]:
    """Number the operations. Leave out those on SQLite's shared memory: the next process makes it again."""
    return [(at, operation) for at, operation in enumerate(operations, 1) if not operation.endswith("-shm")]


def kill(scenario: str, folder: Path) -> dict[str, object]:
    """Kill a process at each operation: before it, and in the middle of it if it is a write."""
    seeded = new_seed(scenario, folder)
    normal = without_fault(scenario, seeded)
    faults = [(at, operation, False) for at, operation in injectable(normal["operations"])]
    faults += [(at, operation, True) for at, operation, _ in faults if operation.startswith("write")]
    seen = []
    for at, operation, halfway in faults:

        def work(at: int = at, halfway: bool = halfway) -> None:  # noqa: FBT001 - bound here
            store, folder = begin(scenario, seeded)
            injection.kill(at, halfway=halfway)
            SCENARIOS[scenario](store, folder)

        status, result, found = run_and_read(work, seeded.parent)
        seen.append({"at": f"{at} {operation}", "status": status, "result": result, "found": found})
    return {**normal, "seen": seen}


def fail(scenario: str, folder: Path, long: bool) -> dict[str, object]:  # noqa: FBT001 - `run_in_fork` passes it
    """Let each operation fail, alone or with all after it. Then let the disk work again."""
    seeded = new_seed(scenario, folder)
    normal = without_fault(scenario, seeded)
    operations = injectable(normal["operations"])
    seen = []
    # The short form has a disk that stays full, and one that fails once.
    kinds = [(errno.ENOSPC, False), (errno.EIO, True), *([(errno.ENOSPC, True), (errno.EIO, False)] if long else [])]
    faults = [(error, once, at, operation) for (error, once), (at, operation) in itertools.product(kinds, operations)]
    # Another program may delete a journal: it works on a file that had the same name before.
    faults += [
        (errno.ENOENT, True, at, operation)
        for at, operation in operations
        if operation.startswith("unlink") and "-journal" in operation
    ]
    for error, once, at, operation in faults:

        def work(at: int = at, error: int = error, once: bool = once) -> list[object]:  # noqa: FBT001 - bound here
            store, folder = begin(scenario, seeded)
            injection.fail(at, error, once=once)
            try:
                SCENARIOS[scenario](store, folder)
                raised = None
            except SDKException as exception:
                raised = [exception.code, exception.cause.code, exception.error_message]
            injection.stop()
            # The disk works again, and so does the same store object, if there is one.
            if store is None or scenario == "close":
                return [raised, None]
            store.save_token(login("afterwards@example.com", 9))
            return [raised, [values(made) for made in store.get_tokens()]]

        status, result, found = run_and_read(work, seeded.parent)
        fault = {"at": f"{at} {operation}", "error": errno.errorcode[error], "once": once}
        seen.append({**fault, "status": status, "result": json.loads(result), "found": found})
    return {**normal, "seen": seen}


def run_and_read(work: Callable[[], object], home: Path) -> tuple[int, str, dict[str, object]]:
    """Run a child. Return its status, its result, and the rows that it leaves."""
    status, result = in_child(work)
    [folder] = home.glob("child-*")
    found = read_all(folder)
    shutil.rmtree(folder)
    return status, result, found


def cut_power(folder: Path) -> dict[str, object]:
    """Run all scenarios one after the other. Return what a power cut after each sync would leave."""
    seeded = new_seed("all", folder)
    cuts = seeded.parent / "cuts"
    cuts.mkdir()

    def work() -> list[object]:
        folder = Path(tempfile.mkdtemp(dir=seeded.parent))
        injection.watch(folder)
        injection.record_power_cuts(cuts)
        store = CustomStoreSQLite(folder / "tokens.db")
        steps = [{"scenario": "open", "syncs": injection.syncs(), "rows": []}]
        # `None` opens the file again.
        for step in (insert, update, insert, replace, delete, update, delete_all, update, replace, close, None, insert):
            if step is None:
                store = CustomStoreSQLite(folder / "tokens.db")
                continue
            step(store, folder)
            syncs = injection.syncs()
            rows = steps[-1]["rows"] if step is close else [values(made) for made in store.get_tokens()]
            steps.append({"scenario": step.__name__, "syncs": syncs, "rows": rows})
        injection.stop()
        return steps

    status, result = in_child(work)
    if status:
        raise SystemExit(result)
    steps = json.loads(result)
    found = {cut: read_all(cuts / str(cut)) for cut in range(1, steps[-1]["syncs"] + 1)}
    return {"steps": steps, "found": found}


def new_seed(scenario: str, folder: Path) -> Path:
    """Make a folder with the file that every child gets a copy of."""
    seeded = Path(tempfile.mkdtemp(dir=folder)) / "seed"
    seeded.mkdir()
    seed(scenario, seeded)
    return seeded
