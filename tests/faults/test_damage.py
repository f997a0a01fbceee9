"""A damaged or foreign file is refused or can be used, before it is opened and under a running store (contract 9).

SQLite has no checksum over its content, so it cannot recognize all damage. A changed byte *within* a value is a changed
value, and a changed byte in an index can hide a row from a find. Also then there is no crash, no wait without an end,
and no row with parts of other rows. A find never returns another user's row, and a refused file is not written to.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3

import children
import pytest
from children import in_child
from own_process import run_in_fork
from support import DATA, login, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

PAGE = 4096
USERS = 30
LONG_VALUES = (20,)  # users whose values are longer than a page
REFUSED = ("not-a-database", "damaged", "unexpected-tables", "other-program", "newer-schema")


def damage_file(folder, name, kind, at, change):
    # The descriptor stays open: closing it would drop the POSIX locks of this process.
    handle = os.open(folder / name, os.O_RDWR)
    if kind == "cut":
        os.ftruncate(handle, at)
    elif kind == "flip":
        os.pwrite(handle, bytes([os.pread(handle, 1, at)[0] ^ change]), at)
    else:
        os.pwrite(handle, bytes.fromhex(change), at)


def differing_fields(row, other):
    return [
        [field, other.get(field), row.get(field)]
        for field in sorted(row.keys() | other.keys())
        if row.get(field) != other.get(field)
    ]


def differences(rows, snapshot):
    """Compare rows with a snapshot. Return the missing ids, and how each row differs from the most similar one."""
    changed, kept = [], set()
    for row in rows:
        closest = min(snapshot, key=lambda row_id: len(differing_fields(row, snapshot[row_id])))
        kept.add(closest)
        changed += differing_fields(row, snapshot[closest])
    return {"missing": sorted(snapshot.keys() - kept), "changed": changed}


class User:
    """A process that does everything with a store on a damaged file."""

    def __init__(self, folder, snapshots):
        self.path, self.folder, self.snapshots = folder / "tokens.db", folder, snapshots
        self.errors = []  # the codes
        self.seen = {}

    def call(self, function):
        """Return the result of a call, or `None` if it raises a store's error."""
        try:
            return function()
        except SDKException as error:
            if error.code != "TOKEN_STORE":
                raise
            self.errors.append(error.cause.code)
            return None

    def use(self, damage, when):
        store = self.call(lambda: CustomStoreSQLite(self.path, busy_timeout=2))
        if store is None:
            return {"refused": self.errors[0]}
        if when == "running":
            self.fill_wal(store, damage)
            damage_file(self.folder, *damage)
        self.read(store)
        self.find_each(store)
        self.write(store)
        store.close()
        return {**self.seen, "errors": self.errors}

    def fill_wal(self, store, damage):
        """Save the last snapshot again, until the file is long enough for the damage. Opening it emptied the WAL."""
        name, _, at, _ = damage
        for row in [*self.snapshots[-1].values()] * 20:
            if (self.folder / name).stat().st_size > at:
                break
            store.save_token(token(row["user"], access_token=row["access_token"], expires_in=row["expires_in"]))

    def read(self, store):
        rows = self.call(lambda: [values(made) for made in store.get_tokens()])
        by_id = rows and {row.get("id"): row for row in rows}
        self.seen["snapshots"] = [by_id == snapshot for snapshot in self.snapshots]
        self.seen["rows"] = None if rows is None else differences(rows, self.snapshots[-1])

    def find_each(self, store):
        """Collect the rows that differ in more than one field from every row that the user has had."""
        self.seen["wrong rows"] = []
        for row_id, row in self.snapshots[-1].items():
            found = self.call(lambda row=row: store.find_token(token(row["user"])))
            if found is not None:
                known = [differing_fields(values(found), old[row_id]) for old in self.snapshots if row_id in old]
                if min(map(len, known)) > 1:
                    self.seen["wrong rows"].append(known[-1])

    def write(self, store):
        new = login("new@example.com", 1000)
        self.call(lambda: store.save_token(new))
        errors_before = len(self.errors)
        found = new.get_id() and self.call(lambda: store.find_token(token("new@example.com")))
        self.seen["lost"] = bool(new.get_id()) and not found and len(self.errors) == errors_before
        changed = token("user3@example.com", client_id="1000.CLIENT", redirect_url="planted")
        self.call(lambda: store.save_token(changed))
        self.call(lambda: store.delete_token("2"))
        rows = self.call(lambda: [values(made) for made in store.get_tokens()])
        ours = {"2", "3", new.get_id(), "user2@example.com", "user3@example.com", "new@example.com"}
        self.seen["later"] = None
        if rows is not None:
            others = [row for row in rows if not ours & {row.get("id"), row.get("user")}]
            self.seen["later"] = differences(others, self.snapshots[-1])


def content(folder):
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir() if not path.name.endswith("-shm"))


def damage_and_use(sound, when):
    """Damage one copy of a folder after the other, and use each in its own child. Return what each child has seen."""
    logging.getLogger("zoho_token_store").addHandler(logging.NullHandler())
    snapshots, damages = (json.loads(sound.with_name(f"{name}.json").read_text()) for name in ("snapshots", "damages"))
    results = []
    for damage in damages:
        folder = sound.with_name("damaged")
        shutil.copytree(sound, folder)
        if when == "closed":
            damage_file(folder, *damage)
        before = content(folder)
        user = User(folder, snapshots)
        status, result = in_child(lambda user=user, damage=damage: user.use(damage, when))
        seen = json.loads(result or "null")
        results.append({"damage": damage, "status": status, "seen": seen, "untouched": content(folder) == before})
        shutil.rmtree(folder)
    return results


def numbered(number):
    """Make a token with the number of its user in every value."""
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
    """A folder with an intact file, without a WAL."""
    folder = tmp_path / "sound"
    folder.mkdir()
    with CustomStoreSQLite(folder / "tokens.db") as store:
        store.import_tokens(numbered(number) for number in range(1, USERS + 1))
        (tmp_path / "snapshots.json").write_text(json.dumps([rows_of(store)]))
    return folder


@pytest.fixture
def unfinished(tmp_path):
    """A folder as a killed program leaves it. The last saves are in the WAL: `lengths.json` has its lengths."""
    path = tmp_path / "running.db"
    folder = tmp_path / "sound"
    folder.mkdir()
    with CustomStoreSQLite(path) as store:
        store.import_tokens(numbered(number) for number in range(1, 20))
    wal = path.with_name("running.db-wal")
    lengths = []
    with CustomStoreSQLite(path) as store:
        snapshots = [rows_of(store)]
        for number in (*range(20, 24), 3, 4):
            store.save_token(numbered(number))
            snapshots.append(rows_of(store))
            lengths.append(wal.stat().st_size)
            # The answer to a refresh.
            store.save_token(token(f"user{number}@example.com", access_token=f"planted-new-{number}", expires_in="1"))
            snapshots.append(rows_of(store))
            lengths.append(wal.stat().st_size)
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", folder / f"tokens.db{ending}")
            (folder / f"tokens.db{ending}").chmod(0o600)
    (tmp_path / "snapshots.json").write_text(json.dumps(snapshots))
    (tmp_path / "lengths.json").write_text(json.dumps(lengths))
    return folder


def use_damaged(folder, damages, when="closed"):
    """Return what each damage has caused. Check what holds for every damage."""
    folder.with_name("damages.json").write_text(json.dumps(damages))
    results = run_in_fork(damage_and_use, folder, when)
    assert len(results) == len(damages)
    for result in results:
        assert result["status"] == 0, result
        seen = result["seen"]
        if "refused" in seen:
            assert result["untouched"], result
            assert seen["refused"] in REFUSED, result
            continue
        assert seen["wrong rows"] == [], result
        assert not seen["lost"], result
    return results


def one_byte_apart(was, now):
    """Tell whether two values differ in one byte. The byte with their type is one of these bytes."""
    if was is None:
        return now in ("0", "1")  # SQLite stores 0 and 1 without a byte of content, as it does NULL
    if now is None:
        return False
    as_number = str(int.from_bytes(was.encode(), "big")) if len(was) <= 8 else None
    in_one = sum(one != other for one, other in zip(was, now, strict=False)) == 1
    return now == as_number or (len(was) == len(now) and in_one)


def every_page(length, extent):
    """Draw a byte of each page, several in the long form, and the bits to flip."""
    draw = extent.random
    return [
        (draw.randrange(page, min(page + PAGE, length)), draw.randrange(1, 256))
        for page in range(0, length, PAGE)
        for _ in range(extent.of(1, 12))
    ]


def cuts(length, extent):
    """Return each length at which a page ends, and one or more lengths within each page."""
    draw = extent.random
    within = [page + draw.randrange(1, PAGE) for page in range(0, length, PAGE) for _ in range(extent.of(1, 5))]
    return sorted({1, length - 1, *range(PAGE, length, PAGE), *(at for at in within if at < length)})


def test_a_file_cut_short_anywhere_is_refused(sound, extent):
    """Contract 9: also a file that misses only the end of its last page causes a clear error."""
    length = (sound / "tokens.db").stat().st_size
    seen = use_damaged(sound, [("tokens.db", "cut", at, None) for at in cuts(length, extent)])
    for one in seen:
        assert "refused" in one["seen"], one


def test_a_changed_byte_changes_at_most_one_value(sound, extent):
    """Contract 9: if SQLite does not recognize the damage, one value differs, or a find misses a row."""
    length = (sound / "tokens.db").stat().st_size
    seen = use_damaged(sound, [("tokens.db", "flip", at, by) for at, by in every_page(length, extent)])
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
def test_a_damaged_index_that_leads_to_another_users_row_is_an_error(sound, index, key, calls):
    """Contract 3, 9: that row is neither returned nor changed."""
    path = sound / "tokens.db"
    connection = sqlite3.connect(path)
    [page] = connection.execute("select rootpage from sqlite_schema where name = ?", (index,)).fetchone()
    connection.close()
    # An entry of an index is the key, followed by the number of the row (SQLite: "Database File Format", 2.5).
    whole = path.read_bytes()
    at = whole.rindex(key + bytes([12]), (page - 1) * PAGE, page * PAGE) + len(key)
    path.write_bytes(whole[:at] + bytes([13]) + whole[at + 1 :])
    with CustomStoreSQLite(path) as store:
        before = rows_of(store)
        does = {
            "find": lambda: store.find_token(token("user12@example.com")),
            "find by id": lambda: store.find_token_by_id("12"),
            "save": lambda: store.save_token(numbered(12)),
            "delete": lambda: store.delete_token("12"),
        }
        for call in calls:
            with pytest.raises(SDKException) as raised:
                does[call]()
            assert raised.value.cause.code == "damaged"
        assert rows_of(store) == before


def test_a_damaged_wal_leaves_a_snapshot(unfinished, extent):
    """Contract 9: SQLite uses the part of the WAL before the damage: complete saves, in their order."""
    lengths = json.loads((unfinished.with_name("lengths.json")).read_text())
    length = (unfinished / "tokens.db-wal").stat().st_size
    assert length == lengths[-1], "SQLite has started the WAL again"
    damages = [("tokens.db-wal", "flip", at, by) for at, by in every_page(length, extent)]
    damages += [("tokens.db-wal", "cut", at, None) for at in cuts(length, extent)]
    for one in use_damaged(unfinished, extent.random.sample(damages, extent.of(16, 250))):
        complete_saves = sum(end <= one["damage"][2] for end in lengths)
        assert one["seen"]["snapshots"][complete_saves], one


@pytest.mark.parametrize("name", ["tokens.db", "tokens.db-wal"])
def test_damage_under_a_running_store_is_an_error_or_has_no_effect(unfinished, extent, name):
    """Contract 9: a file that is damaged later causes a clear error, or its rows are complete."""
    length = (unfinished / name).stat().st_size
    draw = extent.random
    flips, within = every_page(length, extent), cuts(length, extent)
    damages = [(name, "flip", at, by) for at, by in draw.sample(flips, extent.of(5, min(80, len(flips))))]
    damages += [(name, "cut", at, None) for at in (0, *draw.sample(within, extent.of(4, min(40, len(within)))))]
    fills = [(name, "fill", at, what * (length - at)) for at in (0, 512, PAGE) for what in ("00", "ff", "5a")]
    damages += draw.sample(fills, extent.of(3, len(fills)))
    for one in use_damaged(unfinished, damages, "running"):
        assert "refused" not in one["seen"], one
        for rows in (one["seen"]["rows"], one["seen"]["later"]):
            if rows is not None:
                assert len(rows["changed"]) <= 1, one
                assert all(one_byte_apart(was, now) for _, was, now in rows["changed"]), one


@pytest.fixture
def sample(path):
    """A copy of a file that the vendor's sample has written."""
    shutil.copyfile(DATA / "sample-zohooauth.db", path)
    path.chmod(0o600)
    return path


def assert_refused(path, *codes):
    """Check that the constructor refuses the file, does not change it, and leaves no file beside it."""
    before = (path.read_bytes(), sorted(path.parent.iterdir()))
    with pytest.raises(SDKException) as raised:
        CustomStoreSQLite(path)
    assert raised.value.args[1].startswith(f"CustomStoreSQLite: {path}")
    assert raised.value.cause.code in codes
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_a_file_that_is_not_a_token_database_is_refused(tmp_path, path, sample):
    """Contract 9: a text, a damaged, a foreign or a newer database causes a clear error and is not written to."""
    text = tmp_path / "notes.txt"
    text.write_text("made-up notes\n" * 100)
    assert_refused(text, "not-a-database")
    short = tmp_path / "short.txt"
    short.write_text("x")
    assert_refused(short, "not-a-database")
    whole = sample.read_bytes()
    for length in (1, 99, 512, 4096, 8000, len(whole) - 1):
        damaged = tmp_path / f"damaged{length}.db"
        damaged.write_bytes(whole[:length])
        assert_refused(damaged, "not-a-database", "damaged")
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(whole[:100] + os.urandom(len(whole) - 100))
    assert_refused(garbage, "not-a-database", "damaged")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table photos (name)")
    connection.close()
    assert_refused(other, "other-program")
    path.unlink()
    CustomStoreSQLite(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("pragma user_version = 99")
    connection.close()
    assert_refused(path, "newer-schema")


def test_a_file_damaged_under_a_running_store_is_not_overwritten(path):
    """Contract 9: a damaged file causes a clear error, also if it is damaged later."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user{number}@example.com", number) for number in range(200))
        store.delete_token("1")
        damaged = path.read_bytes()
        damaged = damaged[:4096] + b"\xff" * (len(damaged) - 4096)
        with path.open("r+b") as file:
            file.write(damaged)
        with pytest.raises(SDKException, match="get_tokens: ") as raised:
            store.get_tokens()
        assert raised.value.cause.code == "damaged"
        assert path.read_bytes() == damaged


NOT_OURS, OTHER_PROGRAM = "unexpected-tables", "other-program"
COLUMNS = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, redirect_url, "
    "api_domain"
)
FOREIGN = {
    "another application": (None, f"pragma application_id = 42; create table oauthtoken ({COLUMNS})", OTHER_PROGRAM),
    "another version": (None, f"pragma user_version = 42; create table oauthtoken ({COLUMNS})", OTHER_PROGRAM),
    "other columns": (None, "create table oauthtoken (id, name)", OTHER_PROGRAM),
    "a view": (None, f"create table t ({COLUMNS}); create view oauthtoken as select * from t", "unusual-table"),
    "without rowid": (None, f"create table oauthtoken ({COLUMNS}, primary key (id)) without rowid", "unusual-table"),
    "a search table": (None, f"create virtual table oauthtoken using fts5 ({COLUMNS})", NOT_OURS),
    "an index of our name": ("sample", "create index zoho_token_store_user_name on oauthtoken (id)", NOT_OURS),
    "a table of our name": ("sample", "create table zoho_token_store (a)", NOT_OURS),
    "a view of our name": ("sample", "create view zoho_token_store as select 1", NOT_OURS),
    "a column of our name": ("sample", "alter table oauthtoken add column saved_at", "unusual-table"),
    "no numbers": ("ours", "drop table zoho_token_store", NOT_OURS),
    "no rows": ("ours", "drop table oauthtoken", "damaged"),
    "version 0": ("ours", "pragma user_version = 0", NOT_OURS),
    "version -1": ("ours", "pragma user_version = -1", NOT_OURS),
    "the next version": ("ours", "pragma user_version = 3", "newer-schema"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_database_is_refused(path, request, kind):
    """Contract 9: a file that is neither the sample's nor ours, or only similar, is not written to."""
    begin, statements, code = FOREIGN[kind]
    if begin == "sample":
        request.getfixturevalue("sample")
    elif begin == "ours":
        CustomStoreSQLite(path).close()
    connection = sqlite3.connect(path)
    connection.executescript(statements)
    connection.close()
    path.chmod(0o600)
    assert_refused(path, code)


def test_a_newer_version_in_the_wal_is_refused_and_the_wal_stays(path, tmp_path):
    """Contract 9: the newer version is only in the WAL. Neither the file nor the WAL is written to."""
    newer = tmp_path / "newer.db"
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        connection = sqlite3.connect(path)
        connection.execute("pragma user_version = 3")
        for ending in ("", "-wal"):
            shutil.copyfile(f"{path}{ending}", f"{newer}{ending}")
        connection.close()
    before = [newer.with_name(f"newer.db{ending}").read_bytes() for ending in ("", "-wal")]
    assert before[1], "the version is only in the WAL"
    with pytest.raises(SDKException) as raised:
        CustomStoreSQLite(newer)
    assert raised.value.cause.code == "newer-schema"
    assert [newer.with_name(f"newer.db{ending}").read_bytes() for ending in ("", "-wal")] == before


def test_other_tables_in_a_samples_file_stay(sample):
    """Contract 9: a sample's file may have tables, views, indexes and triggers of its program."""
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


class OtherProcess:
    """A process that has a store on the file."""

    store = None

    def __call__(self, path, user, number):
        if user is None:
            self.store.close()
            return
        self.store = self.store or CustomStoreSQLite(path)
        self.store.save_token(login(user, number))


def use_a_second_name(path):
    link = path.with_name("link.db")
    other = children.Helper(OtherProcess())
    assert other.ask(path, "other@example.com", 1) == (True, None)
    link.hardlink_to(path)
    before = content(path.parent)
    with pytest.raises(SDKException) as raised:
        CustomStoreSQLite(link)
    assert raised.value.cause.code == "second-name"
    assert content(path.parent) == before
    with CustomStoreSQLite(path) as store:
        store.save_token(login("same@example.com", 3))
    assert other.ask(path, "later@example.com", 2) == (True, None)
    assert other.ask(path, None, 0) == (True, None)
    other.let_go()
    with CustomStoreSQLite(link) as store:
        assert len(store) == 3


def test_a_hard_link_to_a_file_that_another_process_uses_is_refused(path):
    """Contract 7, 9: with two names one file has two WALs, and each process would damage the other's saves."""
    run_in_fork(use_a_second_name, path)
