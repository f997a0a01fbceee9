"""Many processes and threads on one file (contract 5, 7, 10): nothing is lost, nothing torn, nobody left waiting."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from support import DATA, another_program_holding, everything, login, rows_seen_elsewhere, run_program, token
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


def test_sixteen_processes_save_new_users_at_once(path, extent):
    """Contract 5, 7: every row is there, and no id is given out twice."""
    code = """
import children

def work(child):
    with CustomStoreSQLite(sys.argv[1], busy_timeout=60) as store:
        ids = []
        for number in range(int(sys.argv[2])):
            store.save_token(saved := login(f"user{child}.{number}@example.com", 1000 * child + number))
            ids.append(int(saved.get_id()))
        assert ids == sorted(set(ids)), "ids rise"

children.at_once(16, work, seconds=100)
"""
    each = extent.of(15, 200)
    run_program(code, path, each, timeout=110)
    assert rows_seen_elsewhere(path) == everything(16 * each)


# Eight processes of four threads, and what each of them was told, judged by a model: each thread has users of its own,
# so it knows what must be there. `version` is in every field of a row, so that a row made of two saves shows.
MIXED = """
import children, json, random, datetime
from pathlib import Path

path, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]

def made(user, version, used_up=False):
    mine = f"{user}-{version}"
    return token(user, client_id="1000.CLIENT", client_secret=f"planted-secret-{mine}",
        refresh_token=None if used_up else f"planted-refresh-{mine}", access_token=f"planted-access-{mine}",
        expires_in="1" if used_up else str(4_000_000_000_000 + version), redirect_url=f"https://example.com/{mine}")

def is_whole(found):
    row = values(found)
    user = row.pop("user")
    row.pop("id")
    version = row["redirect_url"].rpartition("-")[2]
    expected = values(made(user, int(version), "refresh_token" not in row))
    expected.pop("user")
    assert row == expected, f"torn: {row}"
    return int(version)

def work(child):
    store = CustomStoreSQLite(path, busy_timeout=60)
    until = time.monotonic() + seconds
    failures, done = [], [0] * 4

    def act(thread):
        draw = random.Random(f"{seed} {child} {thread}")
        users = [f"user{child}.{thread}.{number}@example.com" for number in range(6)]
        there = {}  # user -> version, as acknowledged; what a purge may have taken is not in it
        ids = {}
        version = 0
        while time.monotonic() < until:
            user, what, version = draw.choice(users), draw.random(), version + 1
            if what < 0.40:
                store.save_token(saved := made(user, version))
                there[user], ids[user] = version, saved.get_id()
            elif what < 0.50:
                # It has no refresh token and has expired: a purge, by whomever, takes it.
                store.save_token(made(f"once{child}.{thread}.{version}@example.com", version, used_up=True))
            elif what < 0.60 and user in there:
                store.delete_token(ids[user])
                del there[user]
            elif what < 0.65:
                store.purge()
            elif what < 0.70:
                store.backup(path.with_name(f"backup{child}.{thread}.{done[thread]}.db"))
            elif what < 0.75:
                for found in store.get_tokens():
                    is_whole(found)
            else:
                found = store.find_token(token(user))
                assert (found is None) == (user not in there), f"{user}: {found and values(found)}"
                if found is not None:
                    assert is_whole(found) == there[user], f"{user}: not the last acknowledged save"
            done[thread] += 1
        for user in users:
            found = store.find_token(token(user))
            assert (is_whole(found) if found else None) == there.get(user), user
        path.with_name(f"told{child}.{thread}.json").write_text(json.dumps(there))

    def guarded(thread):
        try:
            act(thread)
        except BaseException as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded, args=(thread,), daemon=True) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures
    assert all(done), done
    store.close()

children.at_once(8, work, seconds=seconds + 70)
with CustomStoreSQLite(path) as store:
    assert all(is_whole(found) for found in store.get_tokens())
    store.purge()
    left = {values(found)["user"]: is_whole(found) for found in store.get_tokens()}
told = {}
for file in path.parent.glob("told*.json"):
    told.update(json.loads(file.read_text()))
assert left == told
backups = list(path.parent.glob("backup*.db"))
for backup in backups[:: max(1, len(backups) // 6)]:
    with CustomStoreSQLite(backup) as store:
        assert all(is_whole(found) for found in store.get_tokens()), backup
print(len(backups))
"""


def test_all_kinds_of_calls_in_many_threads_and_processes(path, extent):
    """Contract 5, 7, 10: what was acknowledged is there, what was deleted is gone, no row and no backup is torn."""
    seconds = extent.of(3, 20)
    backups = int(run_program(MIXED, path, seconds, extent.random.random(), timeout=seconds + 85))
    assert backups > 0
    assert rows_seen_elsewhere(path)[1] == "ok"
    for backup in path.parent.glob("backup*.db"):
        with closing(sqlite3.connect(backup)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_sixteen_processes_construct_a_store_at_once(path, extent):
    """Contract 7: on a missing, empty or older file. (The sample's is the older one: of ours there is one version.)"""
    code = """
import children

def work(child):
    with CustomStoreSQLite(file, busy_timeout=60) as store:
        assert len(store) >= (10 if "older" in file else 0)
        store.save_token(login(f"new{child}@example.com", 100 + child))

for file in sys.argv[1:]:
    children.at_once(16, work, seconds=50)
"""
    sample = DATA / "sample-zohooauth.db"
    files = []
    for number in range(extent.of(1, 10)):
        missing, empty, older = (path.with_name(f"{begin}{number}.db") for begin in ("missing", "empty", "older"))
        empty.touch(mode=0o600)
        shutil.copyfile(sample, older)
        older.chmod(0o600)
        files += [missing, empty, older]
    run_program(code, *files, timeout=110)
    with closing(sqlite3.connect(sample)) as connection:
        before = connection.execute("select * from oauthtoken order by id").fetchall()
    for file in files:
        rows = [] if "older" not in file.name else before
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert connection.execute("pragma user_version").fetchone() == (1,)
            columns = [name for _, name, *_ in connection.execute("pragma table_info(oauthtoken)")]
            assert (len(columns), len(set(columns))) == (12, 12)
            there = connection.execute("select * from oauthtoken order by id").fetchall()
            assert [row[:10] for row in there if not (row[1] or "").startswith("new")] == rows
            assert len({row[0] for row in there}) == len(rows) + 16


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_file_held_exclusively_is_waited_for_and_too_long_is_a_clear_error(path, mode):
    """Contract 6, 7: in WAL mode and with a rollback journal, at construction, too; afterwards everything works."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
    if mode == "delete":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode = delete")
    busy = rf"CustomStoreSQLite: {path} was in use by another program or thread for 0.2 s; nothing was changed"
    with another_program_holding(path, "begin exclusive"):
        if mode == "delete":
            with pytest.raises(SDKException, match=busy):
                CustomStoreSQLite(path, busy_timeout=0.2)
        else:
            with CustomStoreSQLite(path, busy_timeout=0.2) as store:
                assert len(store) == 1
                with pytest.raises(SDKException, match=r"save_token: .* in use by another program or thread for 0.2 s"):
                    store.save_token(login("bob@example.com", 2))

    # Shorter than the busy_timeout: the program lets go while the constructor, or the save, waits.
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


# Prints how long each save of four processes took that save without pause. By hand, beside a plain `sqlite3` store:
#     python -c "from test_crowds import *; print(run_program(FAIRNESS, '/tmp/ours.db', 'ours', 4))"
#     python -c "from test_crowds import *; print(run_program(FAIRNESS, '/tmp/plain.db', 'plain', 4))"
FAIRNESS = """
import children, json, sqlite3
path, kind, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])

class Plain:
    def __init__(self):
        self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.connection.execute("pragma journal_mode = wal").fetchall()
        self.connection.execute("pragma synchronous = full")
        self.connection.execute("create table if not exists oauthtoken (user primary key, access_token)")
    def save_token(self, made):
        self.connection.execute("begin immediate")
        self.connection.execute("insert or replace into oauthtoken values (?, ?)",
                                (made.get_user_signature().get_name(), made.get_access_token()))
        self.connection.execute("commit")

def make():
    return CustomStoreSQLite(path, busy_timeout=30) if kind == "ours" else Plain()

def work(child):
    store, took = make(), []
    end = time.monotonic() + seconds
    while (before := time.monotonic()) < end:
        store.save_token(login(f"user{child}@example.com", child, access_token=f"planted-{len(took)}"))
        took.append(time.monotonic() - before)
    with open(f"{path}.{child}", "w") as file:
        json.dump(took, file)

make()
children.at_once(4, work, seconds=seconds + 60)
each = [json.load(open(f"{path}.{child}")) for child in range(4)]
every = sorted(sum(each, []))
print(json.dumps({"saves": [len(took) for took in each], "p50": every[len(every) // 2],
                  "p99": every[len(every) * 99 // 100], "max": every[-1]}))
"""


def test_of_processes_that_save_without_pause_none_starves(path, extent):
    """Contract 7: each gets its turn within the `busy_timeout`; SQLite's own waiting is not fair."""
    seconds = extent.of(2, 10)
    begun = time.monotonic()
    seen = json.loads(run_program(FAIRNESS, path, "ours", seconds, timeout=seconds + 80))
    assert all(count > 1 for count in seen["saves"]), seen
    assert seen["max"] < 30, seen
    assert time.monotonic() - begun < seconds + 80
