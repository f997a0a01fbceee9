"""Many processes and threads use one file (contract 5, 7, 10): no save is lost, and no call starves."""

from __future__ import annotations

import functools
import json
import random
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import children
import pytest
from own_process import run_in_fork
from support import DATA, another_program_holding, everything, in_threads, login, rows_seen_elsewhere, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

COLUMNS = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, redirect_url, "
    "api_domain"
)


def save_new_users(path, each):
    def work(child):
        with CustomStoreSQLite(path, busy_timeout=children.TIMEOUT) as store:
            ids = []
            for number in range(each):
                store.save_token(saved := login(f"user{child}.{number}@example.com", 1000 * child + number))
                ids.append(int(saved.get_id()))
            assert ids == sorted(set(ids)), "ids rise"

    children.at_once(16, work)


def test_sixteen_processes_save_new_users_at_once(path, extent):
    """Contract 5, 7: every row is there, and no id is used twice."""
    each = extent.of(15, 200)
    run_in_fork(save_new_users, path, each)
    assert rows_seen_elsewhere(path) == everything(16 * each)


def versioned(user, version, can_be_purged=False):  # noqa: FBT002 - as in `is_whole`
    """Make a token with `version` in each field, so that a row that is mixed from two saves can be recognized."""
    mine = f"{user}-{version}"
    return token(
        user,
        client_id="1000.CLIENT",
        client_secret=f"planted-secret-{mine}",
        refresh_token=None if can_be_purged else f"planted-refresh-{mine}",
        access_token=f"planted-access-{mine}",
        expires_in="1" if can_be_purged else str(4_000_000_000_000 + version),
        redirect_url=f"https://example.com/{mine}",
    )


def version_of(found):
    """Check that all fields of a row are from one save. Return its version."""
    row = values(found)
    user = row.pop("user")
    row.pop("id")
    version = int(row["redirect_url"].rpartition("-")[2])
    expected = values(versioned(user, version, "refresh_token" not in row))
    expected.pop("user")
    assert row == expected, f"mixed: {row}"
    return version


class MixedCalls:
    """One thread that makes all kinds of calls. It has its own users, so it knows which rows they must have."""

    def __init__(self, path, store, name, seed):
        self.path, self.store, self.name = path, store, name
        self.random = random.Random(f"{seed} {name}")
        self.users = [f"user{name}.{number}@example.com" for number in range(6)]
        self.versions, self.ids = {}, {}  # of each user with an acknowledged save
        self.calls = 0

    def run(self, deadline):
        while time.monotonic() < deadline:
            self.calls += 1
            self.call(self.random.choice(self.users), self.random.random())
        for user in self.users:
            found = self.store.find_token(token(user))
            assert (version_of(found) if found else None) == self.versions.get(user), user
        self.path.with_name(f"expected{self.name}.json").write_text(json.dumps(self.versions))

    def call(self, user, draw):
        if draw < 0.40:
            self.store.save_token(saved := versioned(user, self.calls))
            self.versions[user], self.ids[user] = self.calls, saved.get_id()
        elif draw < 0.50:
            # A purge of any thread deletes this row: it has no refresh token, and it has expired.
            self.store.save_token(versioned(f"once{self.name}.{self.calls}@example.com", self.calls, True))  # noqa: FBT003
        elif draw < 0.60 and user in self.versions:
            self.store.delete_token(self.ids[user])
            del self.versions[user]
        elif draw < 0.65:
            self.store.purge()
        elif draw < 0.70:
            self.store.backup(self.path.with_name(f"backup{self.name}.{self.calls}.db"))
        elif draw < 0.75:
            for found in self.store.get_tokens():
                version_of(found)
        else:
            found = self.store.find_token(token(user))
            assert (found is None) == (user not in self.versions), f"{user}: {found and values(found)}"
            if found is not None:
                assert version_of(found) == self.versions[user], f"{user}: not the last acknowledged save"


def make_mixed_calls(path, seconds, seed):
    """Let eight processes with four threads each make all kinds of calls. Check the rows and the backups."""

    def work(child):
        with CustomStoreSQLite(path, busy_timeout=children.TIMEOUT) as store:
            deadline = time.monotonic() + seconds
            threads = [MixedCalls(path, store, f"{child}.{thread}", seed) for thread in range(4)]
            in_threads(4, lambda number: threads[number].run(deadline))
            assert all(thread.calls for thread in threads)

    children.at_once(8, work, seconds=seconds + 70)
    with CustomStoreSQLite(path) as store:
        assert all(version_of(found) for found in store.get_tokens())
        store.purge()
        left = {values(found)["user"]: version_of(found) for found in store.get_tokens()}
    expected = {}
    for file in path.parent.glob("expected*.json"):
        expected.update(json.loads(file.read_text()))
    assert left == expected
    backups = sorted(path.parent.glob("backup*.db"))
    for backup in backups[:: max(1, len(backups) // 6)]:
        with CustomStoreSQLite(backup) as store:
            assert all(version_of(found) for found in store.get_tokens()), backup
    return len(backups)


def test_all_kinds_of_calls_in_many_threads_and_processes(path, extent):
    """Contract 5, 7, 10: acknowledged saves are there, deleted rows are gone, and no row or backup is mixed."""
    assert run_in_fork(make_mixed_calls, path, extent.of(3, 20), extent.random.random()) > 0
    assert rows_seen_elsewhere(path)[1] == "ok"
    for backup in path.parent.glob("backup*.db"):
        with closing(sqlite3.connect(backup)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


def construct_at_once(files):
    def work(child, file):
        with CustomStoreSQLite(file, busy_timeout=children.TIMEOUT) as store:
            assert len(store) >= (10 if "older" in file.name else 0)
            store.save_token(login(f"new{child}@example.com", 100 + child))

    for file in files:
        children.at_once(16, functools.partial(work, file=file))


def test_sixteen_processes_construct_a_store_at_once(path, extent):
    """Contract 7: on a missing, an empty or an older file. The older one is the sample's."""
    sample = DATA / "sample-zohooauth.db"
    files = []
    for number in range(extent.of(1, 10)):
        missing, empty, older = (path.with_name(f"{kind}{number}.db") for kind in ("missing", "empty", "older"))
        empty.touch(mode=0o600)
        shutil.copyfile(sample, older)
        older.chmod(0o600)
        files += [missing, empty, older]
    run_in_fork(construct_at_once, files)
    with closing(sqlite3.connect(sample)) as connection:
        before = connection.execute(f"select {COLUMNS} from oauthtoken order by id").fetchall()
    for file in files:
        kept = [] if "older" not in file.name else before
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert connection.execute("pragma user_version").fetchone() == (1,)
            columns = [name for _, name, *_ in connection.execute("pragma table_info(oauthtoken)")]
            assert (len(columns), len(set(columns))) == (12, 12)
            rows = connection.execute(f"select {COLUMNS} from oauthtoken order by id").fetchall()
            assert [row for row in rows if not (row[1] or "").startswith("new")] == kept
            assert len({row[0] for row in rows}) == len(kept) + 16


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_file_with_an_exclusive_lock_is_waited_for(path, mode):
    """Contract 6, 7: after the `busy_timeout` a clear error is raised, also by the constructor."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    if mode == "delete":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode = delete")
    with another_program_holding(path, "begin exclusive"):
        if mode == "delete":
            with pytest.raises(SDKException, match=f"CustomStoreSQLite: {path} was in use .* for 0.2 s") as raised:
                CustomStoreSQLite(path, busy_timeout=0.2)
        else:
            with CustomStoreSQLite(path, busy_timeout=0.2) as store:
                assert len(store) == 1
                with pytest.raises(SDKException, match=r"save_token: .* was in use .* for 0.2 s") as raised:
                    store.save_token(login("bob@example.com", 2))
        assert raised.value.cause.code == "busy"

    # The lock is released before the `busy_timeout`, while the constructor or the save waits.
    def save():
        with CustomStoreSQLite(path, busy_timeout=60) as store:
            store.save_token(login("bob@example.com", 2))

    waiting = threading.Thread(target=save)
    with another_program_holding(path, "begin exclusive"):
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    waiting.join(90)
    with CustomStoreSQLite(path) as store:
        assert (len(store), store.find_token(token("bob@example.com")).get_id()) == (2, "2")


def save_without_pause(path, seconds):
    """Let four processes save without pause. Return the durations of the saves of each."""

    def work(child):
        store, durations = CustomStoreSQLite(path, busy_timeout=30), []
        end = time.monotonic() + seconds
        while (before := time.monotonic()) < end:
            store.save_token(login(f"user{child}@example.com", child, access_token=f"planted-{len(durations)}"))
            durations.append(time.monotonic() - before)
        path.with_name(f"durations{child}.json").write_text(json.dumps(durations))

    CustomStoreSQLite(path).close()
    children.at_once(4, work, seconds=seconds + 60)
    return [json.loads(path.with_name(f"durations{child}.json").read_text()) for child in range(4)]


def test_no_process_starves_while_others_save_without_pause(path, extent):
    """Contract 7: each process gets the write lock within the `busy_timeout`. SQLite's own waiting is not fair."""
    durations = run_in_fork(save_without_pause, path, extent.of(2, 10))
    assert all(len(each) > 1 for each in durations), [len(each) for each in durations]
    assert max(max(each) for each in durations) < 30
