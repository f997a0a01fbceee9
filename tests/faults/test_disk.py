"""No room, no quota, no permission: a clear error, and the same store saves again once it may (contract 5, 6 and 9)."""

from __future__ import annotations

import contextlib
import json
import signal

import pytest
from support import UNPRIVILEGED, login, run_program, start
from zoho_token_store import CustomStoreSQLite

# What each program begins with: a store with two users, and what a save that cannot be made has to look like.
BEGIN = """
import ctypes, errno, json, sqlite3
path = sys.argv[1]

def users(store):
    return sorted(values(made)["user"][:-12] for made in store.get_tokens())

def is_clear(call, *words):
    try:
        call()
    except SDKException as error:
        message = error.args[1]
        assert error.code == "TOKEN_STORE" and path in message, message
        message = message.replace(path, "")
        assert "nothing stored is lost" in message and "uncategorized" not in message, message
        assert all(word in message for word in words), message
        return True
    return False

def refused(store, number, *words):
    assert is_clear(lambda: store.save_token(login("no@example.com", number)), *words), "the save was not refused"
    assert "no" not in users(store)

def sound():
    connection = sqlite3.connect(path)
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()
"""

LEASE = """
import ctypes, json
from lease_program import Program
faults = ctypes.CDLL(None)
faults.faults_deed.restype = ctypes.c_char_p

def syncs(work):
    faults.faults_watch(os.path.dirname(sys.argv[1]).encode())
    work()
    deeds = [faults.faults_deed(ctypes.c_long(at)) for at in range(1, faults.faults_count() + 1)]
    faults.faults_watch(b"")
    return [sum(b"sync" in deed for deed in deeds), len(deeds) > 0]

program = Program(sys.argv[1])
store = program.use(CustomStoreSQLite(sys.argv[1]))
program.save_expired_token()
failed = syncs(program.fail_to_refresh)
store.lease_info()  # logs what happened without a call
assert [line[:14] for line in program.log] == ["INFO FILE: acq", "INFO FILE: rel"], program.log
print(json.dumps([failed, syncs(program.get_token)]))
"""


@pytest.mark.usefixtures("preload")
def test_a_lease_waits_for_no_disk(path):
    """Rule 5: a lease that is taken and given back costs no sync; the save after it costs one, as ever."""
    assert json.loads(run_program(LEASE, path).splitlines()[-1]) == [[0, True], [1, True]]


QUOTA = """
faults = ctypes.CDLL(None)
store = CustomStoreSQLite(path, busy_timeout=1)
store.import_tokens([login("ada@example.com", 1), login("bob@example.com", 2)])

def save(number):
    brought = {"access_token": f"planted-access-{number}", "redirect_url": "x" * 9_000}
    store.save_token(token("ada@example.com", client_id="1000.CLIENT", **brought))

def watched(number, at, error):
    faults.faults_watch(os.path.dirname(path).encode())
    faults.faults_fail(ctypes.c_long(at), error, 0)
    return is_clear(lambda: save(number), "quota" if error == errno.EDQUOT else "")

watched(10, 0, 0)
deeds = faults.faults_count()
failed = 0
for at in range(1, deeds + 1):
    for error in (errno.EDQUOT, errno.EIO):
        number = 100 * at + error
        before = store.find_token_by_id("1").get_access_token()
        hit = watched(number, at, error)
        faults.faults_watch(b"")
        now = store.find_token_by_id("1").get_access_token()
        assert now == (before if hit else f"planted-access-{number}"), at
        failed += hit
        save(50 + at)  # the same store, and no restart
        assert store.find_token_by_id("1").get_access_token() == f"planted-access-{50 + at}"
sound()
print(deeds > 2, failed > 2, users(store))
"""


@pytest.mark.usefixtures("preload")
def test_a_quota_that_is_used_up_at_any_deed_of_a_save_is_said_so(path):
    """Contract 6: also where SQLite knows only of an error; what was saved is whole, and saving goes on afterwards."""
    assert run_program(BEGIN + QUOTA, path) == "True True ['ada', 'bob']\n"


FOLDER = """
faults = ctypes.CDLL(None)
store = CustomStoreSQLite(path)
folder = os.path.dirname(path)
faults.faults_watch(folder.encode())
store.backup(folder + "/copy.db")
deeds = faults.faults_count()
path = folder  # it is the backup that is spoken of
for error, word in ((errno.EIO, "os error 5"), (errno.EDQUOT, "quota")):
    told = 0
    for at in range(1, deeds + 1):
        faults.faults_watch(folder.encode())
        faults.faults_fail(ctypes.c_long(at), error, 1)
        try:
            store.backup(folder + "/copy.db")
        except SDKException as raised:
            assert "uncategorized" not in raised.args[1]
            told += word in raised.args[1]
    print(told > 0)
faults.faults_watch(b"")
store.backup(folder + "/copy.db")
print(sorted(name for name in os.listdir(folder) if "-" not in name))
"""


@pytest.mark.usefixtures("preload")
def test_what_the_system_says_outside_of_sqlite_is_repeated(path):
    """Contract 6: a message says what is wrong; a disk that fails while a file is moved or its folder synced, too."""
    assert run_program(BEGIN + FOLDER, path).splitlines() == ["True", "True", "['copy.db', 'zohooauth.db']"]


LIMITS = """
import resource, signal
way, step = sys.argv[2], int(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def work():
    # Python ignores the signal: then a write fails. Left to its default it ends the process.
    if way == "killed":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    store = CustomStoreSQLite(path)
    kept = ["ada"]
    store.save_token(login("ada@example.com", 1))
    refusals = 0
    for size in range(0, 150_000, step):
        limit(size)
        user = f"user{size}"
        made = login(f"{user}@example.com", size + 2, redirect_url="x" * 5_000)
        if is_clear(lambda: store.save_token(made)):
            refusals += 1
            limit(hard)
            store.save_token(made)
        limit(hard)
        kept.append(user)
        assert users(store) == sorted(kept), size
    assert refusals > 3
    store.close()

import children
child = children.fork(work)
status = os.waitpid(child, 0)[1]
sound()
with CustomStoreSQLite(path) as store:
    assert "ada" in users(store)
    store.save_token(login("afterwards@example.com", 9))
print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


@pytest.mark.parametrize(("way", "status"), [("refused", 0), ("killed", signal.SIGXFSZ)])
def test_files_that_may_not_grow_cost_nothing_that_is_saved(path, extent, way, status):
    """Contract 5: a limit to the size of files, met anywhere in a save; the process may be ended by it, too."""
    assert run_program(BEGIN + LIMITS, path, way, extent.of(5_003, 499)) == f"{int(status)}\n"


@contextlib.contextmanager
def program(code, path):
    """Run a program that answers each line with a line."""
    running = start(code, path)

    def say(line):
        running.stdin.write(f"{line}\n")
        running.stdin.flush()
        return running.stdout.readline().rstrip()

    try:
        yield say
    finally:
        running.communicate(timeout=60)
        assert running.returncode == 0


TAKEN_AWAY = """
folder = os.path.dirname(path)
store = CustomStoreSQLite(path, busy_timeout=20)
other = CustomStoreSQLite(path, busy_timeout=20)
store.save_token(login("ada@example.com", 1))
print("ready", flush=True)
for line in sys.stdin:
    if line == "refused\\n":
        # What is open stays open, and a store may go on with it: a save either is there afterwards or is an error.
        before = users(store)
        made = {"open": lambda: store, "new": lambda: CustomStoreSQLite(path, busy_timeout=20)}
        for number, kind in enumerate(made, 2):
            if not is_clear(lambda: made[kind]().save_token(login(f"{kind}@example.com", number)), "permission"):
                before.append(kind)
        print(sorted(set(before)) == users(store), flush=True)
    else:
        store.save_token(login("eve@example.com", 5))
        other.save_token(login("bob@example.com", 6))
        with CustomStoreSQLite(path) as new:
            print("bob" in users(new) and "eve" in users(other), flush=True)
sound()
"""


@pytest.mark.parametrize("what", ["file", "folder", "both", "log"])
def test_permission_taken_away_under_a_running_store_and_given_back(open_folder, what):
    """Contract 6 and 9: made read-only under a store, a clear error at most; given back, no restart."""
    folder = open_folder / "mine"
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "tokens.db"
    paths = {"file": [path], "folder": [folder], "both": [path, folder], "log": [path.with_name("tokens.db-wal")]}[what]
    with program(BEGIN + UNPRIVILEGED + TAKEN_AWAY, path) as say:
        modes = {one: one.stat().st_mode for one in paths}
        for one in paths:
            one.chmod(0o555 if one == folder else 0o444)
        assert say("refused") == "True"
        for one, mode in modes.items():
            one.chmod(mode)
        assert say("go on") == "True"


READ_ONLY = """
path = sys.argv[1]
with CustomStoreSQLite(path) as store:
    refused(store, 2, "it may not be written", "give this user write permission")
    assert is_clear(lambda: store.delete_token("1"), "may not be written")
    assert is_clear(lambda: store.delete_tokens(), "may not be written")
    assert store.find_token(token("ada@example.com")).get_id() == "1"
    print("ready", flush=True)
    sys.stdin.readline()
    store.save_token(login("bob@example.com", 2))
    print(users(store), flush=True)
"""


def test_a_read_only_file_is_read_and_written_once_it_may_be(open_folder):
    """Contract 9: a file that another user owns can be read; a store that is open saves as soon as it may."""
    folder = open_folder / "mine"
    folder.mkdir()
    path = folder / "tokens.db"
    with CustomStoreSQLite(open_folder / "source.db") as store:
        store.save_token(login())
        store.backup(path)
    path.chmod(0o444)
    folder.chmod(0o777)
    with program(BEGIN + UNPRIVILEGED + READ_ONLY, path) as say:
        path.chmod(0o666)
        assert say("go on") == "['ada', 'bob']"
