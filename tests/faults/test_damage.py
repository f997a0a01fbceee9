"""A damaged or foreign file, before it is opened and under a running store (contract 9): refused, or worked with.

What SQLite can notice is an error. It has no checksum over what it stores: a byte that changes *within* a value is a
changed value, and one in an index can hide a row from a find. What is promised all the same: no crash, no wait without
an end, no row made up of parts of others, nobody is given another's row, and what is refused is not written to.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3

import pytest
from support import DATA, login, run_program, start, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

PAGE = 4096
USERS = 30
NOT_OURS = "its tables are not the ones this library made"
ANOTHERS = "is the database of another program"
LONG_VALUES = (20,)  # of these users: longer than a page

# Lets one damage after the other happen to a copy of a folder with `tokens.db`, each in a child that then does all that
# a program does with a store. `moments.json` has the rows after each save that the file, or its log, holds.
PROGRAM = """
import json, logging, shutil
from pathlib import Path
from children import in_child

logging.getLogger("zoho_token_store").addHandler(logging.NullHandler())
sound, running, damages = Path(sys.argv[1]), sys.argv[2] == "running", json.loads(Path(sys.argv[3]).read_text())
moments = json.loads(Path(sys.argv[4]).read_text())

def spoil(folder, name, kind, at, what):
    # The handle stays open: closing it would drop the locks that SQLite has in this process.
    handle = os.open(folder / name, os.O_RDWR)
    if kind == "cut":
        os.ftruncate(handle, at)
    elif kind == "flip":
        os.pwrite(handle, bytes([os.pread(handle, 1, at)[0] ^ what]), at)
    else:
        os.pwrite(handle, bytes.fromhex(what), at)

def apart(row, other):
    return [[field, other.get(field), row.get(field)] for field in sorted(row.keys() | other.keys())
            if row.get(field) != other.get(field)]

def differences(rows, moment):
    "What the rows are not, of a moment's: those that miss, and what each differs in from the one it is closest to."
    changed, kept = [], set()
    for row in rows:
        closest = min(moment, key=lambda id: len(apart(row, moment[id])))
        kept.add(closest)
        changed += apart(row, moment[closest])
    return {"missing": sorted(moment.keys() - kept), "changed": changed}

def use(folder, damage):
    told = []

    def ask(call):
        try:
            return call()
        except SDKException as error:
            assert error.code == "TOKEN_STORE", f"{error.code}: {error.error_message}"
            told.append(error.error_message)

    store = ask(lambda: CustomStoreSQLite(folder / "tokens.db", busy_timeout=2))
    if store is None:
        return {"refused": told[0]}
    last = moments[-1]
    if running:
        # The log was emptied at the opening: the same saves once more fill it again.
        name, _, at, _ = damage
        for row in [*last.values()] * 20:
            if (folder / name).stat().st_size > at:
                break
            store.save_token(token(row["user"], access_token=row["access_token"], expires_in=row["expires_in"]))
        spoil(folder, *damage)
    rows = ask(lambda: [values(made) for made in store.get_tokens()])
    there = rows and {row.get("id"): row for row in rows}
    seen = {"moments": [there == moment for moment in moments], "rows": None}
    if rows is not None:
        seen["rows"] = differences(rows, last)
    seen["strangers"] = []
    for id, row in last.items():
        found = ask(lambda: store.find_token(token(row["user"])))
        if found is not None:
            known = [apart(values(found), moment[id]) for moment in moments if id in moment]
            if min(map(len, known)) > 1:
                seen["strangers"].append(known[-1])
    new = login("new@example.com", 1000)
    ask(lambda: store.save_token(new))
    told_before = len(told)
    again = new.get_id() and ask(lambda: store.find_token(token("new@example.com")))
    seen["lost"] = bool(new.get_id()) and not again and len(told) == told_before
    ask(lambda: store.save_token(token("user3@example.com", client_id="1000.CLIENT", redirect_url="planted")))
    ask(lambda: store.delete_token("2"))
    later = ask(lambda: [values(made) for made in store.get_tokens()])
    ours = {"2", "3", new.get_id(), "user2@example.com", "user3@example.com", "new@example.com"}
    seen["later"] = None
    if later is not None:
        seen["later"] = differences([row for row in later if not ours & {row.get("id"), row.get("user")}], last)
    store.close()
    return {**seen, "told": told}

def state(folder):
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir() if not path.name.endswith("-shm"))

for damage in damages:
    folder = sound.with_name("damaged")
    shutil.copytree(sound, folder)
    if not running:
        spoil(folder, *damage)
    before = state(folder)
    status, told = in_child(lambda: use(folder, damage))
    print(json.dumps({"damage": damage, "status": status, "seen": json.loads(told or "null"),
                      "untouched": state(folder) == before}))
    shutil.rmtree(folder)
"""


def user(number):
    """Make a token whose every value says whose it is."""
    length = 2000 if number in LONG_VALUES else 3
    return login(
        f"user{number}@example.com",
        number,
        client_secret=f"planted-secret-{number}",
        redirect_url=f"https://example.com/{f'{number}.' * length}",
    )


def rows_of(store):
    return {made.get_id(): values(made) for made in store.get_tokens()}


@pytest.fixture
def sound(tmp_path):
    """A folder with a file that is whole, and no log beside it."""
    folder = tmp_path / "sound"
    folder.mkdir()
    with CustomStoreSQLite(folder / "tokens.db") as store:
        store.import_tokens(user(number) for number in range(1, USERS + 1))
        (tmp_path / "moments.json").write_text(json.dumps([rows_of(store)]))
    return folder


@pytest.fixture
def unfinished(tmp_path):
    """A folder as a killed program leaves it: the last saves stand in the log."""
    path = tmp_path / "running.db"
    folder = tmp_path / "sound"
    folder.mkdir()
    with CustomStoreSQLite(path) as store:
        store.import_tokens(user(number) for number in range(1, 20))
    log = path.with_name("running.db-wal")
    lengths = []
    with CustomStoreSQLite(path) as store:
        moments = [rows_of(store)]
        for number in (*range(20, 24), 3, 4):
            store.save_token(user(number))
            moments.append(rows_of(store))
            lengths.append(log.stat().st_size)
            # What a refresh brings.
            store.save_token(token(f"user{number}@example.com", access_token=f"planted-new-{number}", expires_in="1"))
            moments.append(rows_of(store))
            lengths.append(log.stat().st_size)
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", folder / f"tokens.db{ending}")
            (folder / f"tokens.db{ending}").chmod(0o600)
    (tmp_path / "moments.json").write_text(json.dumps(moments))
    (tmp_path / "lengths.json").write_text(json.dumps(lengths))
    return folder


def suffer(folder, damages, when="closed"):
    """Return what came of each damage, after what holds for all: no crash, nobody's row for another, none made up."""
    listed = folder.with_name("damages.json")
    listed.write_text(json.dumps(damages))
    printed = run_program(PROGRAM, folder, when, listed, folder.with_name("moments.json"), timeout=110)
    seen = [json.loads(line) for line in printed.splitlines()]
    assert len(seen) == len(damages)
    for one in seen:
        assert one["status"] == 0, one
        outcome = one["seen"]
        if "refused" in outcome:
            assert one["untouched"], one
            assert "is not a SQLite database" in outcome["refused"] or any(
                complaint in outcome["refused"]
                for complaint in ("is a damaged", NOT_OURS, ANOTHERS, "newer version", "without the column")
            ), one
            continue
        assert outcome["strangers"] == [], one
        assert not outcome["lost"], one
    return seen


def one_byte_apart(was, now):
    """Tell whether a value, or the byte that says of which type it is, differs in one byte."""
    if was is None:
        return now in ("0", "1")  # these two take no more room than nothing
    if now is None:
        return False
    as_number = str(int.from_bytes(was.encode(), "big")) if len(was) <= 8 else None
    in_one = sum(one != other for one, other in zip(was, now, strict=False)) == 1
    return now == as_number or (len(was) == len(now) and in_one)


def every_page(length, extent):
    """Draw a byte of each page, several in the long form, and what to change it by."""
    draw = extent.random
    return [
        (draw.randrange(page, min(page + PAGE, length)), draw.randrange(1, 256))
        for page in range(0, length, PAGE)
        for _ in range(extent.of(1, 12))
    ]


def cuts(length, extent):
    """Every length at which a page ends, and one or more within each page."""
    draw = extent.random
    within = [page + draw.randrange(1, PAGE) for page in range(0, length, PAGE) for _ in range(extent.of(1, 5))]
    return sorted({1, length - 1, *range(PAGE, length, PAGE), *(at for at in within if at < length)})


def test_a_file_cut_short_anywhere_is_refused(sound, extent):
    """Contract 9: a damaged file gets a clear error: also one that misses no more than the end of its last page."""
    length = (sound / "tokens.db").stat().st_size
    seen = suffer(sound, [("tokens.db", "cut", at, None) for at in cuts(length, extent)])
    for one in seen:
        assert "refused" in one["seen"], one


def test_a_changed_byte_costs_no_more_than_its_value(sound, extent):
    """Contract 9: where SQLite does not notice (it has no checksum) one value differs in it, or a find misses a row."""
    length = (sound / "tokens.db").stat().st_size
    seen = suffer(sound, [("tokens.db", "flip", at, by) for at, by in every_page(length, extent)])
    for one in seen:
        if "refused" in one["seen"]:
            continue
        for rows in (one["seen"]["rows"], one["seen"]["later"]):
            if rows is None:
                continue
            assert len(rows["changed"]) <= 1, one
            assert all(one_byte_apart(was, now) for _, was, now in rows["changed"]), one


@pytest.mark.parametrize(
    ("index", "key", "calls"),
    [
        ("zoho_token_store_user_name", b"user12@example.com", ("find", "save")),
        ("sqlite_autoindex_oauthtoken_1", b"12", ("find by id", "save", "delete")),
    ],
)
def test_an_index_that_leads_to_another_row_gives_nobody_anothers_tokens(sound, index, key, calls):
    """Contract 3, 9: the row that a damaged index leads to is neither given out nor changed."""
    path = sound / "tokens.db"
    connection = sqlite3.connect(path)
    [page] = connection.execute("select rootpage from sqlite_schema where name = ?", (index,)).fetchone()
    connection.close()
    # An entry of an index is the key and, behind it, the number of the row.
    whole = path.read_bytes()
    at = whole.rindex(key + bytes([12]), (page - 1) * PAGE, page * PAGE) + len(key)
    path.write_bytes(whole[:at] + bytes([13]) + whole[at + 1 :])
    with CustomStoreSQLite(path) as store:
        before = rows_of(store)
        does = {
            "find": lambda: store.find_token(token("user12@example.com")),
            "find by id": lambda: store.find_token_by_id("12"),
            "save": lambda: store.save_token(user(12)),
            "delete": lambda: store.delete_token("12"),
        }
        for call in calls:
            with pytest.raises(SDKException, match="is a damaged SQLite database"):
                does[call]()
        assert rows_of(store) == before


def test_a_damaged_log_leaves_the_rows_of_one_moment(unfinished, extent):
    """Contract 9: of a log that is damaged SQLite takes what stands before the damage: whole saves, in their order."""
    lengths = json.loads((unfinished.with_name("lengths.json")).read_text())
    length = (unfinished / "tokens.db-wal").stat().st_size
    assert length == lengths[-1], "the log was begun anew"
    damages = [("tokens.db-wal", "flip", at, by) for at, by in every_page(length, extent)]
    damages += [("tokens.db-wal", "cut", at, None) for at in cuts(length, extent)]
    for one in suffer(unfinished, extent.random.sample(damages, extent.of(16, 250))):
        whole_saves = sum(end <= one["damage"][2] for end in lengths)
        assert one["seen"]["moments"][whole_saves], one


@pytest.mark.parametrize("name", ["tokens.db", "tokens.db-wal"])
def test_damage_under_a_running_store_is_an_error_or_no_matter(unfinished, extent, name):
    """Contract 9: also a file that is damaged later: a clear error, or whole rows, from memory or from the file."""
    length = (unfinished / name).stat().st_size
    draw = extent.random
    flips, within = every_page(length, extent), cuts(length, extent)
    damages = [(name, "flip", at, by) for at, by in draw.sample(flips, extent.of(5, min(80, len(flips))))]
    damages += [(name, "cut", at, None) for at in (0, *draw.sample(within, extent.of(4, min(40, len(within)))))]
    fills = [(name, "fill", at, what * (length - at)) for at in (0, 512, PAGE) for what in ("00", "ff", "5a")]
    damages += draw.sample(fills, extent.of(3, len(fills)))
    for one in suffer(unfinished, damages, "running"):
        assert "refused" not in one["seen"], one
        for rows in (one["seen"]["rows"], one["seen"]["later"]):
            if rows is not None:
                assert len(rows["changed"]) <= 1, one
                assert all(one_byte_apart(was, now) for _, was, now in rows["changed"]), one


@pytest.fixture
def sample(path):
    """A copy of a file that the vendor's sample wrote."""
    shutil.copyfile(DATA / "sample-zohooauth.db", path)
    path.chmod(0o600)
    return path


def refused(path, complaint):
    """A file refused is a file untouched, and nothing is left beside it."""
    before = (path.read_bytes(), sorted(path.parent.iterdir()))
    with pytest.raises(SDKException) as caught:
        CustomStoreSQLite(path)
    message = caught.value.args[1]
    assert message.startswith(f"CustomStoreSQLite: {path}")
    assert complaint in message
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_what_is_no_token_database_is_refused_and_left_untouched(tmp_path, path, sample):
    """Contract 9: no SQLite database, a damaged one, a newer one: a clear error, never overwritten."""
    text = tmp_path / "notes.txt"
    text.write_text("made-up notes\n" * 100)
    refused(text, "is not a SQLite database; the file was left untouched; give the path of")
    short = tmp_path / "short.txt"
    short.write_text("x")
    refused(short, "is not a SQLite database")
    whole = sample.read_bytes()
    for length in (1, 99, 512, 4096, 8000, len(whole) - 1):
        damaged = tmp_path / f"damaged{length}.db"
        damaged.write_bytes(whole[:length])
        refused(damaged, "SQLite database")
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(whole[:100] + os.urandom(len(whole) - 100))
    refused(garbage, "SQLite database")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table photos (name)")
    connection.close()
    refused(other, "is the database of another program")
    path.unlink()
    CustomStoreSQLite(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    refused(path, "was written by a newer version of zoho-token-store (schema 99, this one knows 1)")


def test_a_file_damaged_under_a_running_store_is_an_error_and_not_overwritten(path):
    """Contract 9: a damaged file gets a clear error, also when it is damaged later."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user{number}@example.com", number) for number in range(200))
        store.delete_token("1")
        damaged = path.read_bytes()
        damaged = damaged[:4096] + b"\xff" * (len(damaged) - 4096)
        with path.open("r+b") as file:
            file.write(damaged)
        with pytest.raises(SDKException, match=r"get_tokens: .* is a damaged SQLite database"):
            store.get_tokens()
        assert path.read_bytes() == damaged


TEN = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, redirect_url, "
    "api_domain"
)
FOREIGN = {
    "another application": (None, f"pragma application_id = 42; create table oauthtoken ({TEN})", ANOTHERS),
    "another version": (None, f"pragma user_version = 42; create table oauthtoken ({TEN})", ANOTHERS),
    "other columns": (
        None,
        "create table oauthtoken (id, name)",
        "has a table oauthtoken without the column(s) user_name",
    ),
    "a view": (None, f"create table t ({TEN}); create view oauthtoken as select * from t", NOT_OURS),
    "without rowid": (None, f"create table oauthtoken ({TEN}, primary key (id)) without rowid", NOT_OURS),
    "a search table": (None, f"create virtual table oauthtoken using fts5 ({TEN})", NOT_OURS),
    "an index of our name": ("sample", "create index zoho_token_store_user_name on oauthtoken (id)", NOT_OURS),
    "a table of our name": ("sample", "create table zoho_token_store (a)", NOT_OURS),
    "a view of our name": ("sample", "create view zoho_token_store as select 1", NOT_OURS),
    "a column of our name": ("sample", "alter table oauthtoken add column saved_at", NOT_OURS),
    "no numbers": ("ours", "drop table zoho_token_store", NOT_OURS),
    "no rows": ("ours", "drop table oauthtoken", NOT_OURS),
    "version 0": ("ours", "pragma user_version = 0", NOT_OURS),
    "version -1": ("ours", "pragma user_version = -1", "its tables cannot be brought up to date"),
    "the next version": ("ours", "pragma user_version = 2", "was written by a newer version of zoho-token-store"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_of_a_foreign_kind_is_refused_and_left_untouched(path, request, kind):
    """Contract 9: what is not the sample's file and not ours, or only looks like it, is not written to."""
    begin, statements, complaint = FOREIGN[kind]
    if begin == "sample":
        request.getfixturevalue("sample")
    elif begin == "ours":
        CustomStoreSQLite(path).close()
    connection = sqlite3.connect(path)
    connection.executescript(statements)
    connection.close()
    path.chmod(0o600)
    refused(path, complaint)


def test_a_newer_version_in_the_log_is_refused_and_the_log_stays(path, tmp_path):
    """Contract 9: a newer version that stands in a log yet is refused, and neither file nor log is written to."""
    newer = tmp_path / "newer.db"
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        connection = sqlite3.connect(path)
        connection.execute("pragma user_version = 2")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", f"{newer}{ending}")
        connection.close()
    before = [newer.with_name(f"newer.db{ending}").read_bytes() for ending in ("", "-wal")]
    assert before[1], "the version is not in the file yet"
    with pytest.raises(SDKException, match="was written by a newer version"):
        CustomStoreSQLite(newer)
    assert [newer.with_name(f"newer.db{ending}").read_bytes() for ending in ("", "-wal")] == before


def test_what_others_keep_in_the_file_beside_the_tokens_stays(sample):
    """Contract 9: a sample's file with tables, views and triggers of the program that it is part of is worked with."""
    connection = sqlite3.connect(sample)
    connection.executescript(
        "create table photos (name); insert into photos values ('one');"
        "create view names as select user_name from oauthtoken;"
        "create index photo_names on photos (name);"
        "create trigger seen after insert on oauthtoken begin insert into photos values (new.user_name); end;"
    )
    connection.close()
    with CustomStoreSQLite(sample) as store:
        store.save_token(login("new@example.com", 1))
        assert len(store) == 11
    connection = sqlite3.connect(sample)
    assert connection.execute("select name from photos").fetchall() == [("one",), ("new@example.com",)]
    assert connection.execute("select count(*) from names").fetchone() == (11,)
    connection.close()


def test_a_hard_link_to_a_file_that_another_process_uses_is_refused(path):
    """Contract 7, 9: by two names one file has two logs, and each side's saves would be the other's damage."""
    code = """
store = CustomStoreSQLite(sys.argv[1])
store.save_token(login("other@example.com", 1))
print("ready", flush=True)
sys.stdin.readline()
store.save_token(login("later@example.com", 2))
"""
    link = path.with_name("link.db")
    program = start(code, path)
    try:
        link.hardlink_to(path)
        before = sorted((file.name, file.read_bytes()) for file in path.parent.iterdir() if file.suffix != ".db-shm")
        with pytest.raises(SDKException, match="is a hard link to a file that is in use under another name"):
            CustomStoreSQLite(link)
        assert before == sorted(
            (file.name, file.read_bytes()) for file in path.parent.iterdir() if file.suffix != ".db-shm"
        )
        with CustomStoreSQLite(path) as store:
            store.save_token(login("same@example.com", 3))
    finally:
        program.communicate("\n", timeout=60)
    assert program.returncode == 0
    with CustomStoreSQLite(link) as store:
        assert len(store) == 3
