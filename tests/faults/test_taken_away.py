"""Contract 7: while stores use a file, its path comes to name nothing, another file, a link, a folder or a backup."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import children
import pytest
from faults.checks import users_in
from own_process import run_in_fork
from support import login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

BEFORE = ["before0", "before1", "before2"]  # the users that are saved before the backup
LATER = ["later0", "later1", "later2"]  # the users that are saved after it


def make(path, *users):
    with CustomStoreSQLite(path) as store:
        for number, user in enumerate(users):
            store.save_token(login(user, 900 + number))


class PausingStore(CustomStoreSQLite):
    """Pauses the SDK's `get_token` between its find and its save."""

    def pause_with(self, found, go_on):
        self.found, self.go_on, self.error = found, go_on, None

    def save_token(self, token):
        self.found.release()
        self.go_on.wait(children.TIMEOUT)
        try:
            super().save_token(token)
        except SDKException as error:
            self.error = error  # the SDK only logs it
            raise


class Member:
    """A process that has a store. `children.Helper` calls it with the name of a method and its argument."""

    def __init__(self, path, zoho, refresh_tokens, found, go_on):
        self.path, self.zoho, self.refresh_tokens, self.found, self.go_on = path, zoho, refresh_tokens, found, go_on
        self.credentials = {"client_id": zoho.client_id, "client_secret": zoho.client_secret}
        self.store = None

    def __call__(self, method, argument):
        return getattr(self, method)(argument)

    def open(self, path):
        self.store = CustomStoreSQLite(path, busy_timeout=30)

    def save(self, user):
        refresh_token = self.refresh_tokens.get(user, f"planted-{user}")
        self.store.save_token(login(user, abs(hash(user)), **self.credentials, refresh_token=refresh_token))

    def find(self, user):
        return self.store.find_token(token(user)) is not None

    def backup(self, path):
        self.store.backup(path)

    def fork(self, _):
        children.join([children.fork(lambda: None)])

    def refresh(self, user):
        """Let the SDK refresh an expired token. The store pauses before the save."""
        Initializer.initializer = Initializer()
        Initializer.initializer.environment = self.zoho.environment()
        Initializer.initializer.sdk_config = SDKConfig()
        Initializer.initializer.store = pausing = PausingStore(self.path, busy_timeout=30)
        pausing.pause_with(self.found, self.go_on)
        named = {"refresh_token": self.refresh_tokens[user], **self.credentials}
        self.store.save_token(login(user, 1, **named, expires_in="1"))
        requested = OAuthToken(**named)
        requested.set_access_token("")
        requested.get_token()
        if pausing.error:
            raise pausing.error


def call(helper, method, argument):
    succeeded, result = helper.ask(method, argument)
    assert succeeded, (method, argument, result)
    return result


class Change:
    """A change of what the path names. `apply` returns the users that a find must find afterwards."""

    def __init__(self, folder, member):
        self.folder, self.member = folder, member
        self.path, self.other = folder / "tokens.db", folder / "other.db"
        self.moved, self.copy = folder / "moved.db", folder / "copy.db"
        self.error = None  # what the next call reports
        self.more = []  # another process that has joined

    def apply(self, name):
        return getattr(self, name.replace(" ", "_"))()

    def deleted(self):
        self.path.unlink()
        return []

    def renamed(self):
        self.path.rename(self.moved)
        return []

    def replaced_by_another(self):
        users = ["another0", "another1", "another2", "another3"]
        make(self.folder / "another.db", *users)
        (self.folder / "another.db").replace(self.path)
        return users

    def replaced_by_a_backup(self):
        self.copy.replace(self.path)
        return BEFORE

    def restored(self):
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        shutil.copy(self.copy, self.path)
        return BEFORE

    def back_again(self):
        """A process uses the file that had the path meanwhile, and has not noticed the second change yet."""
        self.path.rename(self.moved)
        self.more = [children.Helper(self.member)]
        call(self.more[0], "open", self.path)
        call(self.more[0], "save", "meanwhile")
        self.path.rename(self.copy)
        self.moved.rename(self.path)
        return [*BEFORE, *LATER]

    def a_link_to_another(self):
        self.path.unlink()
        self.path.symlink_to(self.other)
        return ["other0", "other1"]

    def a_link_to_nothing(self):
        self.path.unlink()
        self.path.symlink_to(self.folder / "nothing.db")
        self.error = "is a symbolic link to a file that does not exist"
        return []

    def a_folder(self):
        self.path.rename(self.moved)
        self.path.mkdir()
        self.error = "is a folder"
        return []

    def remove_obstacle(self):
        if self.path.is_dir():
            self.path.rmdir()
        else:
            self.path.unlink()


def first_calls(moment, helpers, change):
    """Make the first call after the change in each process. Return the answers."""
    if moment == "between find and save":
        change.member.go_on.set()
        return [helper.answer() for helper in helpers]
    if moment == "before a find":
        return [helper.ask("find", user) for helper, user in zip(helpers, LATER, strict=True)]
    if moment == "before a save":
        return [helper.ask("save", f"after{number}") for number, helper in enumerate(helpers)]
    change.more.append(children.Helper(change.member))
    return [change.more[-1].ask("open", change.path)]


def change_under_stores(folder, name, moment):
    """Let three processes use one file and a fourth process use another one. Change what the path names. Go on."""
    zoho = ZohoStandIn(latency=0).start()
    refresh_tokens = {user: zoho.refresh_token(f"{user}@example.com") for user in LATER}
    found, go_on = multiprocessing.Semaphore(0), multiprocessing.Event()
    path = folder / "tokens.db"
    member = Member(path, zoho, refresh_tokens, found, go_on)
    change = Change(folder, member)

    *helpers, neighbour = [children.Helper(member) for _ in range(4)]
    call(neighbour, "open", change.other)
    call(neighbour, "save", "other0")
    for helper, user in zip(helpers, BEFORE, strict=True):
        call(helper, "open", path)
        call(helper, "save", user)
    call(helpers[0], "backup", change.copy)
    for helper, user in zip(helpers, LATER, strict=True):
        call(helper, "save", user)
    call(helpers[1], "fork", None)
    call(neighbour, "save", "other1")
    # These descriptors show what is written to the files after they have lost their names. No store is open here.
    old = [os.open(file, os.O_RDONLY) for file in (path, Path(f"{path}-wal")) if file.exists()]
    if moment == "between find and save":
        for helper, user in zip(helpers, LATER, strict=True):
            helper.begin("refresh", user)
        for _ in helpers:
            assert found.acquire(timeout=children.TIMEOUT)

    brought = change.apply(name)

    answers = first_calls(moment, helpers, change)
    if change.error:
        change.remove_obstacle()
        if moment == "before a new store":
            call(change.more[-1], "open", path)
    helpers += change.more
    finds = [call(helper, "find", user) for helper in helpers for user in brought]
    after = [f"after{number}" for number in range(len(helpers))]
    for helper, user in zip(helpers, after, strict=True):
        call(helper, "save", user)
    call(neighbour, "save", "other2")
    written = b"".join(os.pread(file, 1 << 24, 0) for file in old)
    seen = {
        "answers": answers,
        "error": change.error,
        "brought": brought,
        "finds": finds,
        "path": users_in(path),
        "other": users_in(change.other),
        "moved": users_in(change.moved) if change.moved.exists() else None,
        "copy": users_in(change.copy) if change.copy.exists() else None,
        "after": after,
        "written to the old file": [user for user in after if user.encode() in written],
    }
    for helper in [*helpers, neighbour]:
        helper.let_go()
    return seen


CHANGES = (
    "deleted",
    "renamed",
    "replaced by another",
    "replaced by a backup",
    "restored",
    "back again",
    "a link to another",
    "a link to nothing",
    "a folder",
)
MOMENTS = ("before a find", "before a save", "between find and save", "before a new store")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_next_call_works_on_the_file_that_the_path_names(tmp_path, change, moment):
    """Contract 7: the next call of each process works on that file. Nothing is written to the old one."""
    seen = run_in_fork(change_under_stores, tmp_path, change, moment)
    answers, error = seen["answers"], seen["error"]
    if error:
        for succeeded, raised in answers:
            assert not succeeded
            assert raised[0] == "SDKException"
            assert f"{tmp_path / 'tokens.db'} {error}" in raised[1]
    else:
        # A find of a user that was saved after the backup finds nothing in it.
        result = change == "back again" if moment == "before a find" else None
        assert answers == [[True, result]] * len(answers)
    assert all(seen["finds"])
    refreshed = LATER if moment == "between find and save" and not error else []
    expected = sorted({*seen["brought"], *refreshed, *seen["after"]})
    if change == "a link to another":
        expected = sorted([*expected, "other2"])
        assert seen["other"] == expected
    else:
        assert seen["other"] == ["other0", "other1", "other2"]
    assert seen["path"] == expected
    assert seen["moved"] == ([*BEFORE, *LATER] if change in ("renamed", "a folder") else None)
    if change == "back again":
        assert seen["copy"] == ["meanwhile"]
    else:
        assert seen["written to the old file"] == []


def close_after_a_change(folder, change):
    path, moved = folder / "tokens.db", folder / "moved.db"
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        if change == "replaced":
            make(folder / "other.db", "other")
            moved.hardlink_to(path)
            (folder / "other.db").replace(path)
        else:
            path.rename(moved)
    return users_in(moved), users_in(path) if path.exists() else [], sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("change", ["renamed", "replaced"])
def test_a_store_that_is_closed_after_the_change_keeps_its_saves_in_the_old_file(tmp_path, change):
    """Contract 5, 7: the saves were acknowledged before the change. The close completes the renamed file."""
    moved, named, left = run_in_fork(close_after_a_change, tmp_path, change)
    assert moved == ["ada@example.com"]
    assert named == (["other"] if change == "replaced" else [])
    assert left == ["moved.db", *(["tokens.db"] if change == "replaced" else [])]


class Saver:
    """Saves without pause until the event `ended`. Records each save with its times."""

    def __init__(self, path, seed, opened, ended):
        self.path, self.seed, self.opened, self.ended = path, seed, opened, ended

    def open_store(self):
        return CustomStoreSQLite(self.path, busy_timeout=children.TIMEOUT)

    def __call__(self, number):
        draw, saves, store = random.Random(f"{self.seed} {number}"), [], self.open_store()
        self.opened.release()
        while not self.ended.is_set():
            user = f"user{number}.{len(saves)}"
            begun, found, error = time.monotonic(), None, None
            try:
                # A new store may be the first to see a change, or the last to close a file.
                use_new_store = draw.random() < 0.1
                with self.open_store() if use_new_store else contextlib.nullcontext(store) as current:
                    current.save_token(login(user, len(saves), refresh_token=f"planted-{user}"))
                    saved = time.monotonic()
                    found = current.find_token(token(user)) is not None
            except SDKException as raised:
                saved, error = time.monotonic(), str(raised)
            saves.append([user, begun, saved, time.monotonic(), found, error])
        # If the last save went into a file that has lost its name since, this call moves it to the path.
        with contextlib.suppress(SDKException):
            len(store)
        store.close()
        return saves


class Walk:
    """Changes what the path names, step by step. Every file keeps another name, so that it can be read at the end."""

    def __init__(self, folder, seed, pause):
        self.folder, self.path, self.pause = folder, folder / "tokens.db", pause
        self.random = random.Random(seed)
        self.files = []  # the other names of all files
        self.named = []  # [file that the path named, begin of the change, end of the change, kind of the change]

    def wait_for_the_file(self):
        """Wait until some store has created the file again."""
        for _ in range(children.TIMEOUT * 1000):
            if self.path.exists():
                return
            time.sleep(0.001)
        raise SystemExit("no store creates the file")

    def is_kept(self):
        return any(self.path.samefile(file) for file in self.files)

    def current_file(self):
        return next(file.name for file in self.files if self.path.samefile(file))

    def step(self, number):
        time.sleep(self.random.random() * self.pause)
        kind = self.random.choice(["delete", "replace", "backup", "link", "folder", "nothing"])
        self.wait_for_the_file()
        new = self.folder / f"new{number}.db"
        if kind in ("replace", "link"):
            make(self.folder / f"made{number}.db", f"base{number}")
        if kind == "replace":
            (self.folder / f"made{number}.db").rename(new)
        elif kind == "link":
            self.files.append(self.folder / f"made{number}.db")
            new.symlink_to(self.files[-1])
        elif kind == "folder":
            new.symlink_to(self.folder)
        elif kind == "nothing":
            new.symlink_to(self.folder / "nothing.db")
        elif kind == "backup":
            # In a child, because no store on the path may be open in this process.
            children.join([children.fork(lambda: self.back_up(new))])
        begun = time.monotonic()
        if not self.path.is_symlink() and not self.is_kept():
            self.files.append(self.folder / f"kept{number}.db")
            self.files[-1].hardlink_to(self.path)
        was = self.current_file()
        if new.is_symlink() or new.exists():
            new.replace(self.path)
        else:
            self.path.unlink()
        if kind in ("folder", "nothing"):
            time.sleep(self.random.random() * self.pause)
            self.path.unlink()
        self.named.append([was, begun, time.monotonic(), kind])

    def back_up(self, target):
        with CustomStoreSQLite(self.path, busy_timeout=children.TIMEOUT) as store:
            store.backup(target)

    def end(self):
        if self.path.exists() and not self.is_kept():
            self.files.append(self.path)
        self.named.append([self.current_file(), time.monotonic(), time.monotonic(), "end"])


def save_during_a_walk(folder, seed, steps, pause):
    """Let three processes save, and change what the path names. Return the saves, the changes, and all users."""
    opened, ended = multiprocessing.Semaphore(0), multiprocessing.Event()
    saver = Saver(folder / "tokens.db", seed, opened, ended)
    walk = Walk(folder, seed, pause)
    helpers = [children.Helper(saver) for _ in range(3)]
    for number, helper in enumerate(helpers):
        helper.begin(number)
    for _ in helpers:
        assert opened.acquire(timeout=children.TIMEOUT)
    for number in range(steps):
        walk.step(number)
    walk.wait_for_the_file()
    ended.set()
    saves = []
    for helper in helpers:
        succeeded, result = helper.answer()
        assert succeeded, result
        saves += result
        helper.let_go()
    walk.end()
    return {"saves": saves, "named": walk.named, "users": {file.name: users_in(file) for file in walk.files}}


def test_every_acknowledged_save_is_in_the_file_that_the_path_named(tmp_path, extent):
    """Contract 5, 7: processes save while the path names one file after the other. No acknowledged save is lost."""
    steps = extent.of(12, 120)
    seen = run_in_fork(save_during_a_walk, tmp_path, extent.random.random(), steps, 0.3)
    named = seen["named"]
    lost, not_found, wrong_errors = [], [], []
    for user, begun, saved, ended, found, error in seen["saves"]:
        # The files that the path may have named during the save, and the changes during the save and the find.
        since = [0, *(begin for _, begin, _, _ in named)]
        files = {
            name for (name, _, end, _), begin in zip(named, since, strict=False) if begin <= saved and begun <= end
        }
        changes = [kind for _, begin, end, kind in named if begin <= ended and begun <= end]
        if error is not None:
            expected = {"folder": "is a folder", "nothing": "is a symbolic link to a file that does not exist"}
            known = any(f"{tmp_path / 'tokens.db'} {text}" in error for text in expected.values())
            wrong_errors += [] if known and set(expected) & set(changes) else [(error, changes)]
        elif not any(user in seen["users"][name] for name in files):
            lost.append((user, begun, saved, files))
        elif not found and not changes:
            not_found.append(user)
    assert (lost[:9], not_found[:9], wrong_errors[:9]) == ([], [], []), named
    assert len(seen["saves"]) > steps
