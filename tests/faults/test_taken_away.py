"""Contract 7 when the path comes to name something else: nothing, another file, a link, a directory, a backup."""

from __future__ import annotations

import json

import pytest
from support import run_forked

TOOLS = """
import children, json, multiprocessing, shutil, sqlite3
from pathlib import Path

folder = Path(sys.argv[1])
path, other, moved, copy = (folder / name for name in ("tokens.db", "other.db", "moved.db", "copy.db"))

def users(path):
    '''What another SQLite finds in a file, which has to be sound.'''
    connection = sqlite3.connect(path)
    verdict = connection.execute("PRAGMA integrity_check").fetchall()
    made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'oauthtoken'").fetchone()
    # A file can go before anything is in it.
    found = sorted(name for (name,) in connection.execute("SELECT user_name FROM oauthtoken")) if made else []
    connection.close()
    assert verdict == [("ok",)], f"{path}: {verdict}"
    assert len(found) == len(set(found)), f"{path}: {found}"
    return found

def make(path, *names):
    with CustomStoreSQLite(path) as store:
        for number, name in enumerate(names):
            store.save_token(login(name, 900 + number))

def remove(path):
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
"""

# Three processes have the file open, each with a store of its own, and a fourth one has another file.
CASE = """
change, moment = sys.argv[2:]
credentials, refresh, store = {}, {}, None
if moment == "in between":
    from zoho_token_store.testing import ZohoStandIn
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
    from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
    from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

    zoho = ZohoStandIn(latency=0).start()
    credentials = {"client_id": zoho.client_id, "client_secret": zoho.client_secret}
    refresh = {f"later{number}": zoho.refresh_token(f"later{number}@example.com") for number in range(3)}
    found, go_on = multiprocessing.Semaphore(0), multiprocessing.Event()

class Pausing(CustomStoreSQLite):
    '''Stops the SDK's `get_token` between its find and its save.'''
    failed = None

    def save_token(self, token):
        found.release()
        go_on.wait(children.PATIENCE)
        try:
            super().save_token(token)
        except SDKException as error:
            self.failed = error  # the SDK only logs it
            raise

def work(act, user):
    global store
    if act == "open":
        store = CustomStoreSQLite(user, busy_timeout=30)
    elif act == "save":
        own = refresh.get(user, f"planted-{user}")
        store.save_token(login(user, abs(hash(user)), **credentials, refresh_token=own))
    elif act == "fork":
        children.join([children.fork(lambda: None)])
    elif act == "backup":
        store.backup(user)
    elif act == "find":
        return store.find_token(token(user)) is not None
    elif act == "refresh":
        Initializer.initializer = Initializer()
        Initializer.initializer.environment = zoho.environment()
        Initializer.initializer.sdk_config = SDKConfig()
        Initializer.initializer.store = pausing = Pausing(path, busy_timeout=30)
        asking = OAuthToken(refresh_token=refresh[user], **credentials)
        asking.set_access_token("")
        store.save_token(login(user, 1, **credentials, refresh_token=refresh[user], expires_in="1"))
        asking.get_token()
        if pausing.failed:
            raise pausing.failed

def done(helper, *request):
    well, result = helper.ask(*request)
    assert well, (request, result)
    return result

*helpers, neighbour = [children.Helper(work) for _ in range(4)]
done(neighbour, "open", other)
done(neighbour, "save", "other0")
for number, helper in enumerate(helpers):
    done(helper, "open", path)
    done(helper, "save", f"before{number}")
done(helpers[0], "backup", copy)
for number, helper in enumerate(helpers):
    done(helper, "save", f"later{number}")
done(helpers[1], "fork", None)
done(neighbour, "save", "other1")
# To look into what is written after it has lost its name. No store is open in this process.
old = [os.open(name, os.O_RDONLY) for name in (path, f"{path}-wal") if os.path.exists(name)]
if moment == "in between":
    for number, helper in enumerate(helpers):
        helper.begin("refresh", f"later{number}")
    for _ in helpers:
        assert found.acquire(timeout=children.PATIENCE)

trouble, more = None, []
if change == "deleted":
    path.unlink()
    brought = []
elif change == "renamed":
    path.rename(moved)
    brought = []
elif change == "replaced by another":
    make(folder / "another.db", "another0", "another1", "another2", "another3")
    os.replace(folder / "another.db", path)
    brought = ["another0", "another1", "another2", "another3"]
elif change == "replaced by a backup":
    os.replace(copy, path)
    brought = ["before0", "before1", "before2"]
elif change == "restored":
    remove(path)
    shutil.copy(copy, path)
    brought = ["before0", "before1", "before2"]
elif change == "back again":
    # Somebody works on what took its place meanwhile, and does not know yet.
    path.rename(moved)
    more = [children.Helper(work)]
    done(more[0], "open", path)
    done(more[0], "save", "meanwhile")
    path.rename(copy)
    moved.rename(path)
    brought = ["before0", "before1", "before2", "later0", "later1", "later2"]
elif change == "a link to another":
    path.unlink()
    path.symlink_to(other)
    brought = ["other0", "other1"]
elif change == "a link to nothing":
    path.unlink()
    path.symlink_to(folder / "nothing.db")
    trouble, brought = "is a symbolic link to a file that is not there", []
elif change == "a directory":
    path.rename(moved)
    path.mkdir()
    trouble, brought = "is a directory", []

if moment == "in between":
    go_on.set()
    answers = [helper.answer() for helper in helpers]
elif moment == "before a find":
    answers = [helper.ask("find", f"later{number}") for number, helper in enumerate(helpers)]
elif moment == "before a save":
    answers = [helper.ask("save", f"after{number}") for number, helper in enumerate(helpers)]
elif moment == "before a new one":
    more.append(children.Helper(work))
    answers = [more[-1].ask("open", path)]
if trouble:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    if moment == "before a new one":
        done(more[-1], "open", path)
helpers += more
stay = [done(helper, "find", name) for helper in helpers for name in brought]
for number, helper in enumerate(helpers):
    done(helper, "save", f"after{number}")
done(neighbour, "save", "other2")
written = b"".join(os.pread(file, 1 << 24, 0) for file in old)
print(json.dumps({
    "answers": answers,
    "trouble": trouble,
    "brought": brought,
    "finds": stay,
    "path": users(path),
    "other": users(other),
    "moved": users(moved) if moved.exists() else None,
    "copy": users(copy) if copy.exists() else None,
    "after": [f"after{number}" for number in range(len(helpers))],
    "into the old file": [f"after{number}" for number in range(len(helpers)) if f"after{number}".encode() in written],
}))
for helper in [*helpers, neighbour]:
    helper.let_go()
"""
CHANGES = (
    "deleted",
    "renamed",
    "replaced by another",
    "replaced by a backup",
    "restored",
    "back again",
    "a link to another",
    "a link to nothing",
    "a directory",
)
MOMENTS = ("before a find", "before a save", "in between", "before a new one")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_the_next_call_works_on_what_the_path_names(tmp_path, change, moment):
    """Contract 7: whatever the path comes to name, and whenever: the next call of every process works on that."""
    seen = json.loads(run_forked(TOOLS + CASE, tmp_path, change, moment))
    answers, trouble = seen["answers"], seen["trouble"]
    if trouble:
        for well, error in answers:
            assert not well
            assert error[0] == "SDKException"
            assert f"{tmp_path / 'tokens.db'} {trouble}" in error[1]
    else:
        # Of what was saved after a backup was made nobody finds anything in it.
        result = change == "back again" if moment == "before a find" else None
        assert answers == [[True, result]] * len(answers)
    assert all(seen["finds"])
    old = [f"{when}{number}" for when in ("before", "later") for number in range(3)]
    refreshed = old[3:] if moment == "in between" and not trouble else []
    expected = sorted({*seen["brought"], *refreshed, *seen["after"]})
    if change == "a link to another":
        expected = sorted([*expected, "other2"])
        assert seen["other"] == expected
    else:
        assert seen["other"] == ["other0", "other1", "other2"]
    assert seen["path"] == expected
    assert seen["moved"] == (old if change in ("renamed", "a directory") else None)
    if change == "back again":
        assert seen["copy"] == ["meanwhile"]
    else:
        assert seen["into the old file"] == []


@pytest.mark.parametrize("change", ["renamed", "replaced"])
def test_a_store_closed_after_the_change_leaves_what_it_saved_in_the_file_it_saved_to(tmp_path, change):
    """Contract 5, 7: the last that is done with a renamed file is to close it; its rows go with it all the same."""
    code = """
with CustomStoreSQLite(path) as store:
    store.save_token(login())
    if sys.argv[2] == "replaced":
        make(other, "other")
        os.link(path, moved)
        os.replace(other, path)
    else:
        path.rename(moved)
print(json.dumps([users(moved), users(path) if path.exists() else [], sorted(os.listdir(folder))]))
"""
    moved, named, left = json.loads(run_forked(TOOLS + code, tmp_path, change))
    assert moved == ["ada@example.com"]
    assert named == (["other"] if change == "replaced" else [])
    assert left == ["moved.db", *(["tokens.db"] if change == "replaced" else [])]


# Three processes save without pause while the path goes from file to file. Every file keeps another name, by which it
# is judged at the end.
WALK = """
import contextlib, random
seed, steps, pause = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
lots, clock = random.Random(seed), time.monotonic  # the same for all processes
opened, ended = multiprocessing.Semaphore(0), multiprocessing.Event()

def open_store():
    return CustomStoreSQLite(path, busy_timeout=children.PATIENCE)

def save(number):
    chance, told, store = random.Random(f"{seed} {number}"), [], open_store()
    opened.release()
    while not ended.is_set():
        user = f"user{number}.{len(told)}"
        begun, found, error = clock(), None, None
        try:
            # Now and then a store of the moment, which may be the first to see what came, or the last to close it.
            another = chance.random() < 0.1
            with open_store() if another else contextlib.nullcontext(store) as current:
                current.save_token(login(user, len(told), refresh_token=f"planted-{user}"))
                saved = clock()
                found = current.find_token(token(user)) is not None
        except SDKException as raised:
            saved, error = clock(), str(raised)
        told.append([user, begun, saved, clock(), found, error])
    # What it has written into a file that lost its name, the next call brings there.
    with contextlib.suppress(SDKException):
        len(store)
    store.close()
    return told

def back_up(target):
    with open_store() as store:
        store.backup(target)

def there():
    '''Wait until somebody has made the file anew.'''
    for _ in range(children.PATIENCE * 1000):
        if path.exists():
            return
        time.sleep(0.001)
    raise SystemExit("nobody makes the file")

kept, named = [], []  # all files; which one the path named, and from when on
def step(number):
    way = lots.choice(["delete", "replace", "backup", "link", "directory", "nothing"])
    there()
    new = folder / f"new{number}.db"
    if way in ("replace", "link"):
        make(folder / f"made{number}.db", f"base{number}")
    if way == "replace":
        (folder / f"made{number}.db").rename(new)
    elif way == "link":
        kept.append(folder / f"made{number}.db")
        new.symlink_to(kept[-1])
    elif way == "directory":
        new.symlink_to(folder)
    elif way == "nothing":
        new.symlink_to(folder / "nothing.db")
    elif way == "backup":
        # No store is ever opened on the path in this process.
        children.join([children.fork(lambda: back_up(new))])
    begun = clock()
    if not path.is_symlink() and not any(path.samefile(file) for file in kept):
        kept.append(folder / f"kept{number}.db")
        os.link(path, kept[-1])
    was = next(file.name for file in kept if path.samefile(file))
    if new.is_symlink() or new.exists():
        os.replace(new, path)
    else:
        path.unlink()
    if way in ("directory", "nothing"):
        time.sleep(lots.random() * pause)
        path.unlink()
    named.append([was, begun, clock(), way])

savers = [children.Helper(save) for _ in range(3)]
for number, saver in enumerate(savers):
    saver.begin(number)
for _ in savers:
    assert opened.acquire(timeout=children.PATIENCE)
for number in range(steps):
    time.sleep(lots.random() * pause)
    step(number)
there()
ended.set()
saved = []
for saver in savers:
    well, told = saver.answer()
    assert well, told
    saved += told
    saver.let_go()
if path.exists() and not any(path.samefile(file) for file in kept):
    kept.append(path)
named.append([next(file.name for file in kept if path.samefile(file)), clock(), clock(), "end"])
print(json.dumps({"saved": saved, "named": named, "users": {file.name: users(file) for file in kept}}))
"""


def test_every_acknowledged_save_is_in_the_file_that_the_path_named(tmp_path, extent):
    """Contract 5, 7: processes save while the path goes from file to file; what is acknowledged is where it belongs."""
    steps, pause = extent.of(12, 120), 0.3
    code, seed = TOOLS + WALK, str(extent.random.random())
    seen = json.loads(run_forked(code, tmp_path, seed, steps, pause, timeout=110))
    named = seen["named"]
    lost, unseen, refused = [], [], []
    for user, begun, saved, looked, found, error in seen["saved"]:
        # What the path may have named meanwhile, and what happened to it.
        since = [0, *(begin for _, begin, _, _ in named)]
        files = {
            name for (name, _, end, _), begin in zip(named, since, strict=False) if begin <= saved and begun <= end
        }
        changes = [way for _, begin, end, way in named if begin <= looked and begun <= end]
        if error is not None:
            in_the_way = {"directory": "is a directory", "nothing": "is a symbolic link to a file that is not there"}
            said = [what for way, what in in_the_way.items() if f"{tmp_path / 'tokens.db'} {what}" in error]
            refused += [] if said and {"directory", "nothing"} & set(changes) else [(error, changes)]
        elif not any(user in seen["users"][name] for name in files):
            lost.append((user, begun, saved, files))
        elif not found and not changes:
            unseen.append(user)
    assert (lost[:9], unseen[:9], refused[:9]) == ([], [], []), named
    assert len(seen["saved"]) > steps
