"""The program that faults happen to: it is started with `faults.so` in front of libc, and forks a child for each fault.

    python victim.py kill|power|fail ACT FOLDER

prints, as JSON, what a test has to judge. An *act* is one call of a store's. Each begins with the same three users,
saved and acknowledged, and each of its children with a copy of their file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))

from children import in_child
from support import DATA, login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS = ctypes.CDLL(None)
FAULTS.faults_deed.restype = ctypes.c_char_p
USERS = ("ada@example.com", "bob@example.com", "eve@example.com")


def update(store: CustomStoreSQLite, _: Path) -> None:
    """Save what a refresh brought."""
    store.save_token(token(USERS[0], client_id="1000.CLIENT", access_token="planted-new", expires_in="1795309999999"))


def replace(store: CustomStoreSQLite, _: Path) -> None:
    """Save a new login of a known user: the old secrets go."""
    store.save_token(login(USERS[0], 77))


def insert(store: CustomStoreSQLite, _: Path) -> None:
    """Save a new user, with values that take more than one page."""
    store.save_token(login("new@example.com", 4, redirect_url="https://example.com/" + "x" * 9000))


def delete(store: CustomStoreSQLite, _: Path) -> None:
    """Log one user out."""
    store.delete_token("2")


def delete_all(store: CustomStoreSQLite, _: Path) -> None:
    """Log everybody out."""
    store.delete_tokens()


def backup(store: CustomStoreSQLite, folder: Path) -> None:
    """Write a copy beside the file."""
    store.backup(folder / "copy.db")


def open_new(_: None, folder: Path) -> None:
    """Make a file."""
    CustomStoreSQLite(folder / "new.db").close()


def migrate(_: None, folder: Path) -> None:
    """Open a file that the vendor's sample wrote."""
    CustomStoreSQLite(folder / "sample.db").close()


def close(store: CustomStoreSQLite, _: Path) -> None:
    """Close the store: what stands in the log goes into the file."""
    store.close()


class ZohoIsAwayError(Exception):
    """What a Zoho that is not there answers."""


def lease(store: CustomStoreSQLite, _: Path) -> None:
    """Let the SDK ask for an expired token: the find takes the lease, and the refresh that fails gives it back."""
    found = []

    def refresh(_: OAuthToken, completed: OAuthToken, _url: str) -> None:
        found.append(values(completed)["refresh_token"])
        raise ZohoIsAwayError

    OAuthToken.refresh_access_token = refresh
    Initializer.initializer = Initializer()
    Initializer.initializer.store = store
    Initializer.initializer.environment = USDataCenter.PRODUCTION()
    with contextlib.suppress(ZohoIsAwayError):
        OAuthToken(id="1").get_token()
    # Whatever happens to the lease, the find works.
    if found != ["planted-refresh-1"]:
        raise AssertionError(found)


ACTS = {
    act.__name__: act for act in (update, replace, insert, delete, delete_all, lease, backup, open_new, migrate, close)
}
WITHOUT_A_STORE = ("open_new", "migrate")


def seed(act: str, folder: Path) -> None:
    """Make the file that every child gets a copy of."""
    if act == "migrate":
        shutil.copyfile(DATA / "sample-zohooauth.db", folder / "sample.db")
        (folder / "sample.db").chmod(0o600)
        return
    with CustomStoreSQLite(folder / "tokens.db") as store:
        for number, user in enumerate(USERS, 1):
            store.save_token(login(user, number, **({"expires_in": "1"} if act == "lease" else {})))
        if act == "close":
            update(store, folder)


def rows_of(path: Path) -> list[object]:
    """Return what a store finds in a file, the first to open it, and whether SQLite itself finds it sound then."""
    with CustomStoreSQLite(path) as store:
        rows = [values(made) for made in store.get_tokens()]
    connection = sqlite3.connect(path)
    sound = connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return [sound, rows]


def look(folder: Path) -> dict[str, object]:
    """Return what stands in each database of a folder, as a new process finds it; `None` if it does not work."""
    names = sorted(path.name for path in folder.glob("*.db"))
    status, told = in_child(lambda: {name: rows_of(folder / name) for name in names})
    return json.loads(told) if status == 0 else {"trouble": [False, told]}


def look_at_copy(folder: Path) -> dict[str, object]:
    """Return the same, and leave the folder as it is: a store that opens an older file migrates it."""
    copied = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(folder, copied, dirs_exist_ok=True)
    return look(copied)


def begin(act: str, seeded: Path) -> tuple[CustomStoreSQLite | None, Path]:
    """Give this child a folder of its own, a store on it, and faults that watch it."""
    folder = Path(tempfile.mkdtemp(prefix="child-", dir=seeded.parent))
    shutil.copytree(seeded, folder, dirs_exist_ok=True)
    store = None if act in WITHOUT_A_STORE else CustomStoreSQLite(folder / "tokens.db")
    if act == "close":
        update(store, folder)
    FAULTS.faults_watch(str(folder).encode())
    return store, folder


def undisturbed(act: str, seeded: Path) -> dict[str, object]:
    """Do the act with no fault: what it does to the disk, and what is there before and after."""

    def work() -> list[str]:
        store, folder = begin(act, seeded)
        ACTS[act](store, folder)
        deeds = [FAULTS.faults_deed(at).decode() for at in range(1, FAULTS.faults_count() + 1)]
        FAULTS.faults_watch(b"")
        return [str(folder), *deeds]

    status, told = in_child(work)
    if status:
        raise SystemExit(told)
    folder, *deeds = json.loads(told)
    after = look(Path(folder))
    shutil.rmtree(folder)
    return {"deeds": deeds, "before": look_at_copy(seeded), "after": after}


def matters(deed: str) -> bool:
    """Leave out what is done to SQLite's shared memory, which is made anew by whoever opens the file first."""
    return not deed.endswith("-shm")


def kill(act: str, seeded: Path) -> dict[str, object]:
    """End the process at each deed, before it and (a write) in the middle of it."""
    normal = undisturbed(act, seeded)
    faults = [(at, deed, 0) for at, deed in enumerate(normal["deeds"], 1) if matters(deed)]
    faults += [(at, deed, 1) for at, deed, _ in faults if deed.startswith("write")]
    seen = []
    for at, deed, half in faults:

        def work(at: int = at, half: int = half) -> None:
            store, folder = begin(act, seeded)
            FAULTS.faults_kill(ctypes.c_long(at), half)
            ACTS[act](store, folder)

        status, told, found = suffer(work, seeded.parent)
        seen.append({"at": f"{at} {deed}", "status": status, "told": told, "found": found})
    return {**normal, "seen": seen}


def fail(act: str, seeded: Path) -> dict[str, object]:
    """Let each deed fail, alone and with all after it; then let the disk work again."""
    normal = undisturbed(act, seeded)
    deeds = [(at, deed) for at, deed in enumerate(normal["deeds"], 1) if matters(deed)]
    seen = []
    # In short a disk that is full for good, and one that fails once.
    ways = [(errno.ENOSPC, 0), (errno.EIO, 1), *([(errno.ENOSPC, 1), (errno.EIO, 0)] if "LONG" in os.environ else [])]
    faults = [(error, only, at, deed) for (error, only), (at, deed) in itertools.product(ways, deeds)]
    # A journal that somebody else removes, who works on a file that had the same name before.
    faults += [(errno.ENOENT, 1, at, deed) for at, deed in deeds if deed.startswith("unlink") and "-journal" in deed]
    for error, only, at, deed in faults:

        def work(at: int = at, error: int = error, only: int = only) -> list[object]:
            store, folder = begin(act, seeded)
            FAULTS.faults_fail(ctypes.c_long(at), error, only)
            try:
                ACTS[act](store, folder)
                told = None
            except SDKException as raised:
                told = [raised.code, raised.error_message]
            FAULTS.faults_watch(b"")
            # The disk works again, and so does the store: the same object, if there was one.
            if store is None or act == "close":
                return [told, None]
            store.save_token(login("afterwards@example.com", 9))
            return [told, [values(made) for made in store.get_tokens()]]

        status, told, found = suffer(work, seeded.parent)
        at_fault = {"at": f"{at} {deed}", "error": errno.errorcode[error], "only": only}
        seen.append({**at_fault, "status": status, "told": json.loads(told), "found": found})
    return {**normal, "seen": seen}


def suffer(work: Callable[[], object], home: Path) -> tuple[int, str, dict[str, object]]:
    """Let it happen to a child; return how that ended, what it told, and what it left."""
    status, told = in_child(work)
    [folder] = home.glob("child-*")
    found = look(folder)
    shutil.rmtree(folder)
    return status, told, found


def power(_: str, seeded: Path) -> dict[str, object]:
    """Do everything once, in a row; return what a power cut after each sync would have left."""
    shots = seeded.parent / "shots"
    shots.mkdir()

    def work() -> list[object]:
        folder = Path(tempfile.mkdtemp(dir=seeded.parent))
        FAULTS.faults_watch(str(folder).encode())
        FAULTS.faults_power(str(shots).encode())
        store = CustomStoreSQLite(folder / "tokens.db")
        steps = [{"did": "open", "syncs": FAULTS.faults_syncs(), "rows": []}]
        for did in (insert, update, insert, replace, delete, update, delete_all, update, replace, close, None, insert):
            if did is None:
                store = CustomStoreSQLite(folder / "tokens.db")
                continue
            did(store, folder)
            syncs = FAULTS.faults_syncs()
            seen = steps[-1]["rows"] if did is close else [values(made) for made in store.get_tokens()]
            steps.append({"did": did.__name__, "syncs": syncs, "rows": seen})
        FAULTS.faults_watch(b"")
        return steps

    status, told = in_child(work)
    if status:
        raise SystemExit(told)
    steps = json.loads(told)
    found = {shot: look(shots / str(shot)) for shot in range(1, steps[-1]["syncs"] + 1)}
    return {"steps": steps, "found": found}


if __name__ == "__main__":
    way, act, where = sys.argv[1:]
    home = Path(tempfile.mkdtemp(dir=where))
    (home / "seed").mkdir()
    seed(act, home / "seed")
    sys.stdout.write(json.dumps({"kill": kill, "fail": fail, "power": power}[way](act, home / "seed")))
