"""Secrets that are gone are gone from the disk, and the ones that are there are shown to nobody (contract 6 and 9)."""

from __future__ import annotations

import copy
import faulthandler
import json
import pickle
import re
import traceback

import pytest
from support import PLANTED, login, run_program
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

# What each program begins with. A secret is "planted-", its kind, its number and ";", looked for in the bytes of files.
LOOK = """
import children, ctypes, json, re
from pathlib import Path

def secrets(number, *names):
    return {name: f"planted-{name.replace('_', '')}-{number};" for name in names}

SECRETS = ("client_secret", "grant_token", "refresh_token", "access_token")

def old(number, user=None, **more):
    return login(f"user{number if user is None else user}@example.com", 1, **{**secrets(number, *SECRETS), **more})

def number_of(secret):
    return int(secret.rstrip(";").rpartition("-")[2])

def secrets_in(folder):
    found = {}
    for file in Path(folder).iterdir():
        for secret in re.findall(rb"planted-[a-z]+-[0-9]+;", file.read_bytes()):
            found.setdefault(secret.decode(), set()).add(file.name)
    return {secret: sorted(files) for secret, files in found.items()}

folder = Path(sys.argv[1])
path = folder / "tokens.db"
"""

GOES = """
LONG = "0123456789abcdef" * 1_000  # longer than a page, and so in pages of its own
if sys.argv[2] == "rollback":
    faults = ctypes.CDLL(None)
    faults.faults_watch(str(folder).encode())
    faults.faults_no_shared_memory(1)

def new_login(store):
    store.save_token(old(2, **secrets(22, "refresh_token", "access_token")))

def new_credentials(store):
    new = secrets(22, "client_secret", "grant_token", "access_token")
    store.save_token(token("user2@example.com", client_id="1000.CLIENT", **new))

def purge(store):
    assert store.purge(idle_for=0) == 3

acts = [lambda store: store.delete_token("2"), lambda store: store.delete_tokens(), purge, new_login, new_credentials]
taken = [SECRETS] * 3 + [("access_token", "refresh_token"), ("client_secret", "grant_token", "access_token")]
seen = []
for act, names in zip(acts, taken, strict=True):
    for long in ("", LONG):
        store = CustomStoreSQLite(path)
        gone = set(secrets(2, *names).values())
        more = {name: value + long for name, value in secrets(2, *names).items()}
        store.import_tokens([old(1), old(2, **more), old(3)])
        assert gone <= set(secrets_in(folder))
        act(store)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        left = secrets_in(folder)
        seen.append([
            sorted(gone & set(left)),
            sorted(name for name, data in files.items() if LONG[:200].encode() in data),
            "planted-refreshtoken-1;" in left,
            sorted(files),
        ])
        store.close()
        for file in folder.iterdir():
            file.unlink()
print(json.dumps(seen))
"""


@pytest.mark.usefixtures("preload")
@pytest.mark.parametrize("mode", ["wal", "rollback"])
def test_what_is_deleted_or_replaced_stands_in_no_file_any_more(tmp_path, mode):
    """Contract 9: deleted and replaced secrets do not stay readable, of whatever size, with a log or without."""
    seen = json.loads(run_program(LOOK + GOES, tmp_path, mode))
    assert len(seen) == 10
    for number, (gone, pieces, others, files) in enumerate(seen):
        assert (gone, pieces) == ([], []), number
        assert others == (number // 2 not in (1, 2)), "what was not deleted is there"
        assert files == (["tokens.db"] if mode == "rollback" else ["tokens.db", "tokens.db-shm", "tokens.db-wal"])


MANY = """
import random
lots = random.Random(sys.argv[2])
live, number = {}, 0
with CustomStoreSQLite(path) as store:
    for _ in range(int(sys.argv[3])):
        # Of sizes that keep SQLite busy with moving rows, and the entries of its indexes, from page to page.
        made = []
        for _ in range(lots.randrange(1, 12)):
            number += 1
            size = lots.choice([0, 0, 40, 300, 900])
            made.append(old(number, **{name: f"{lots.random()}-{value}" + "x" * size
                                       for name, value in secrets(number, *SECRETS).items()}))
        store.import_tokens(made)
        live.update((int(one.get_client_secret().partition(";")[0].rpartition("-")[2]), one.get_id()) for one in made)
        for _ in range(lots.randrange(1, 10)):
            store.delete_token(live.pop(lots.choice(list(live)))) if live else None
    store.delete_token(live.popitem()[1])
    print(sorted({secret for secret in secrets_in(folder) if number_of(secret) not in live}))
"""


def test_rows_that_move_from_page_to_page_leave_no_copies_behind(tmp_path, extent):
    """Contract 9: `secure_delete` overwrites what is deleted, but not copies that SQLite has made and forgotten."""
    # The first lots are ones that are known to leave copies.
    for lots in [0.5, *(extent.random.random() for _ in range(extent.of(0, 10)))]:
        folder = tmp_path / str(lots)
        folder.mkdir()
        assert run_program(LOOK + MANY, folder, lots, 60) == "[]\n"


BESIDE = """
CustomStoreSQLite(path).close()
kept = CustomStoreSQLite(path, busy_timeout=30)

def work(child):
    with CustomStoreSQLite(path, busy_timeout=30) as store:
        if child == 0:
            for _ in range(20 * int(sys.argv[2])):
                store.get_tokens()
            return
        for number in range(int(sys.argv[2])):
            number = 1000 * child + number
            made = old(number)
            store.save_token(made)
            if number % 2:
                store.delete_token(made.get_id())
            else:
                store.save_token(old(number, **secrets(500_000 + number, "refresh_token", "access_token")))

children.at_once(5, work)
replaced = {secret for secret in secrets_in(folder) if number_of(secret) < 500_000}
live = {getattr(made, f"get_{name}")() for made in kept.get_tokens() for name in ("client_secret", "grant_token")}
print(len(kept), sorted(replaced - live), live <= replaced)
"""


def test_secrets_go_while_other_processes_read_and_save(tmp_path, extent):
    """Contract 9, with 4 processes that save and delete and one that reads: once they have ended, nothing is left."""
    rounds = extent.of(10, 60)
    assert run_program(LOOK + BESIDE, tmp_path, rounds) == f"{4 * rounds // 2} [] True\n"


KILLED = """
import random, signal
lots = random.Random(sys.argv[2])
CustomStoreSQLite(path).close()
for round in range(int(sys.argv[3])):
    told, tell = os.pipe()

    def work():
        os.close(told)
        store = CustomStoreSQLite(path)
        for number in range(10**6):
            number += 10_000 * round
            store.save_token(old(number, user=number % 5))
            if number % 3 == 0:
                store.delete_token(store.find_token(token(f"user{number % 5}@example.com")).get_id())
            os.write(tell, b".")

    child = children.fork(work)
    os.close(tell)
    for _ in range(lots.randrange(5)):
        os.read(told, 1)
    time.sleep(lots.random() / 100)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(told)
    store = CustomStoreSQLite(path)
    live = {value for made in store.get_tokens() for value in values(made).values() if value.startswith("planted")}
    left = secrets_in(folder)
    assert set(left) == live, (round, {secret: files for secret, files in left.items() if secret not in live})
    assert not [file for file in folder.iterdir() if file.name.endswith("-journal")]
    store.close()
    assert os.listdir(folder) == ["tokens.db"]
"""


def test_a_killed_processs_old_secrets_go_when_the_next_store_opens(tmp_path, extent):
    """Contract 9: killed at any moment, also between a change and the wiping of its traces."""
    run_program(LOOK + KILLED, tmp_path, extent.random.random(), extent.of(12, 300))


LOG = """
store = CustomStoreSQLite(path)
store.import_tokens(old(number) for number in range(3))
first, last, longest = 1000, 1000 + int(sys.argv[2]), 0
for number in range(first, last):
    store.save_token(token("user1@example.com", client_id="1000.CLIENT", **secrets(number, "access_token")))
    if number % 8 == 0:
        left = {number_of(secret) for secret in secrets_in(folder)}
        assert number in left
        longest = max(longest, number - min(other for other in left if other >= first))
print(10 < longest < 100, longest)
other = CustomStoreSQLite(path)
store.close()
other.close()
print(sorted(number_of(secret) - last for secret in secrets_in(folder) if number_of(secret) >= first))
"""


def test_a_replaced_access_token_goes_after_a_hundred_saves_or_with_the_last_to_close(tmp_path, extent):
    """Contract 9: it is good for an hour, and its traces are wiped many at a time; not with each, which takes long."""
    printed = run_program(LOOK + LOG, tmp_path, extent.of(140, 1000)).splitlines()
    assert printed[0].startswith("True"), printed[0]
    assert printed[1] == "[-1]"


DRAFT = """
import signal
os.umask(0)
faults = ctypes.CDLL(None)
faults.faults_deed.restype = ctypes.c_char_p
store = CustomStoreSQLite(path)
store.import_tokens(old(number) for number in range(5))
expected = sorted([*os.listdir(folder), "backup.db"])
backup = folder / "backup.db"

def killed(at):
    faults.faults_watch(str(folder).encode())
    faults.faults_kill(ctypes.c_long(at), 0)
    store.backup(backup)

store.backup(backup)
at, left = 0, 0
while True:
    at += int(sys.argv[2])
    child = children.fork(lambda: killed(at))
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
    drafts = [file for file in folder.iterdir() if file.name.startswith(".zoho-token-store-")]
    if any(b"planted-refreshtoken" in file.read_bytes() for file in drafts):
        left += 1
        assert {file.stat().st_mode & 0o777 for file in drafts} == {0o600}
    # Whichever comes next: a store that is opened, or another backup.
    if at % 2:
        CustomStoreSQLite(path).close()
    else:
        store.backup(backup)
    assert sorted(os.listdir(folder)) == expected, at
print(at > 8, left > 1)
"""


@pytest.mark.usefixtures("preload")
def test_what_a_killed_backup_leaves_is_removed_by_the_next_store_or_backup(tmp_path, extent):
    """Contract 9: half a backup holds tokens; it is its owner's alone, and goes with the next one on that folder."""
    assert run_program(LOOK + DRAFT, tmp_path, extent.of(3, 1)) == "True True\n"


CROWD = """
CustomStoreSQLite(path).close()

def work(child):
    with CustomStoreSQLite(path, busy_timeout=30) as store:
        store.save_token(old(child))
        for number in range(int(sys.argv[2])):
            store.backup(folder / f"backup{child}.db")
            CustomStoreSQLite(folder / f"new{child}.{number}.db", busy_timeout=30).close()

children.at_once(4, work)
print(sorted(name for name in os.listdir(folder) if name.startswith(".")))
"""


def test_backups_that_are_being_made_are_left_alone_by_each_other(tmp_path, extent):
    """Contract 10: any number of processes may write backups and make files in one folder at once."""
    assert run_program(LOOK + CROWD, tmp_path, extent.of(8, 80)) == "[]\n"


def test_no_copy_or_picture_of_a_store_or_an_error_holds_a_secret(store, tmp_path, caplog):
    """Contract 6: no secret in a `repr`, a copy, a pickle, a log line, or a traceback with the values of its frames."""
    made = login()
    store.save_token(made)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled: open another store on the same file"):
            way(store)
    store.find_token(made)
    bad = login(refresh_token=7)
    with pytest.raises(SDKException) as caught:
        store.save_token(bad)
    ours = caught.value.__cause__
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert "bad = <" in text
    assert all(PLANTED not in seen for seen in (text, repr(store), str(store), f"{store!a}", repr(vars(type(store)))))
    for another in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert (type(another), str(another)) == (type(ours), str(ours))
    assert PLANTED.encode() not in pickle.dumps(ours)
    with (tmp_path / "dump").open("w+") as dump:
        faulthandler.dump_traceback(dump, all_threads=True)
        dump.seek(0)
        assert PLANTED not in dump.read()
    assert PLANTED not in caplog.text
    assert not re.search(PLANTED, repr(ours.__dict__))
    if isinstance(store, CustomStoreSQLite):
        assert repr(store).startswith("CustomStoreSQLite('")
