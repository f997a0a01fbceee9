"""Compares each store class with the oracle: after random steps both return the same, and have the same rows.

`make test-model EXAMPLES=1500` tries more sequences of steps. A failure prints a decorator that repeats it. Put that
decorator above the class of the steps: `SQLite`, `PostgreSQL`, `Shared`,
`InMemory` or `List`.
"""

import contextlib
import logging
import os
import secrets
import sqlite3
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import values
from model.oracle import CREDENTIALS, FIELDS, KEYS, Oracle, absent, fields, handed_out, taken
from model.tokens import Watched, make_token, noting, read, refused, same, set_fields, short
from model.values import CHANGES, POPULATION, PROBES, TOKENS, written_out
from zoho_token_store import (
    PLAINTEXT,
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreShared,
    CustomStoreSQLite,
    new_key,
)
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

EXAMPLES = int(os.environ.get("ZOHO_TOKEN_STORE_EXAMPLES", "25"))
# A file system in memory, if there is one: the many saves of this test need no disk. Other tests use the disk.
MEMORY = Path("/dev/shm")
FOLDER = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) else None
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,  # the time of an fsync has no bound
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TAKE_A_TOKEN = st.sampled_from(["save_token", "find_token", "import_tokens"])


def now():
    return time.time() * 1000


class Stores(RuleBasedStateMachine):
    """The steps for every store class."""

    tokens = Bundle("tokens")  # token objects that the caller keeps, as programs do

    def __init__(self):
        super().__init__()
        self.oracle = Oracle()
        self.store = None
        self.users = 0

    def open(self, **options):
        raise NotImplementedError

    @initialize(
        target=tokens,
        raises=st.booleans(),
        # The caller is never the SDK's `get_token`. So the lease must have no effect.
        lease=st.sampled_from([0, 0.5, 10]),
        given=POPULATION,
    )
    def construct(self, raises, lease, given):
        self.raises = raises
        self.store = self.open(raise_on_missing_id=raises, refresh_lease=lease)
        # Most tokens have their own refresh token. Otherwise they would share a row.
        tokens = [self.save_made({"refresh_token": f"1000.own{n}"} | one) for n, one in enumerate(given)]
        self.look_for(PROBES if given else ())
        return multiple(*tokens)

    def teardown(self):
        if self.store is not None:
            self.store.close()
            self.store.close()
            with refused("get_tokens"):
                self.store.get_tokens()

    @invariant()
    def holds_the_oracles_rows(self):
        if self.store is not None:
            self.compare_contents(self.store)

    def compare_contents(self, store):
        tokens, rows = store.get_tokens(), self.oracle.contents()
        ids = [token.get_id() for token in tokens], [row["id"] for row in rows]
        assert ids[0] == ids[1], f"ids of the rows: {short(ids[0])}, must be {short(ids[1])}"
        for token, row in zip(tokens, rows, strict=True):
            self.made_token_is(token, row)
        assert len(store) == len(rows)

    @staticmethod
    def made_token_is(token, row):
        """A store makes tokens with the SDK's constructor. A token without a user has no signature."""
        assert type(token) is OAuthToken
        assert vars(token).keys() == vars(OAuthToken(id="any")).keys()
        same(read(token), {name: row[name] or None for name in FIELDS}, "a token that the store made")
        assert (token.get_user_signature() is None) == absent(row["user_name"])

    def new_user(self):
        self.users += 1
        return f"user {self.users}"

    # Saving

    def saved(self, token):
        watched = Watched(token)
        if self.oracle.refuses(watched.fields()):
            note("refused")
            with refused("save_token", token):
                self.store.save_token(token)
            return
        assert self.store.save_token(token) is None
        row_id = self.oracle.save(watched.fields(), now(), token.get_id())
        note(f"saved in row {short(row_id)}")
        watched.may_only_have_changed({"id": row_id})

    def save_made(self, given):
        self.saved(token := make_token(given))
        return token

    @rule(target=tokens, given=TOKENS)
    def save_token(self, given):
        return self.save_made(given)

    @rule(target=tokens, token=tokens, changes=CHANGES)
    def save_one_like(self, token, changes):
        return self.save_made(read(token) | changes)

    @rule(token=tokens, changes=CHANGES)
    def save_again(self, token, changes):
        self.saved(set_fields(token, changes))

    @rule(ids=st.lists(values.NEW_IDS, max_size=4, unique=True))
    def save_new_users(self, ids):
        for row_id in [*ids, None, None]:
            self.save_made({"id": row_id, "user_name": self.new_user(), "refresh_token": "1000.r1"})

    @rule(texts=st.lists(values.TEXTS, min_size=1, max_size=4))
    def save_and_find_texts(self, texts):
        for text in texts:
            self.save_made(dict.fromkeys(FIELDS, text))
            self.look_for({key: text} for key, _ in KEYS)
            for other in (text.swapcase(), f"{text} "):
                self.look_for({key: text, name: other} for key, names in KEYS for name in names)

    @rule(token=tokens, given=st.lists(TOKENS, max_size=4), lazily=st.booleans())
    def import_tokens(self, token, given, lazily):
        """An import is like a save of each token, in their order. Afterwards each token has the id of its row."""
        tokens = [token, *map(make_token, given)]
        for one in tokens:
            if all(absent(read(one)[name]) for name in CREDENTIALS):
                one.set_refresh_token("1000.r1")
        watched = [Watched(one) for one in tokens]
        assert self.store.import_tokens(iter(tokens) if lazily else tokens) == len(tokens)
        for one in watched:
            one.may_only_have_changed({"id": self.oracle.save(one.fields(), now(), one.token.get_id())})

    # Finding

    def found(self, token, report=note):
        watched = Watched(token)
        expected = self.oracle.find(watched.fields())
        answer = self.store.find_token(token)
        if expected is None:
            report("no row")
            assert answer is None
            watched.must_be_unchanged()
        else:
            report(f"found row {short(expected['id'])}")
            assert answer is token
            watched.may_only_have_changed(expected)

    def look_for(self, probes):
        for probe in probes:
            with noting(probe):
                self.found(make_token(probe), report=len)

    @rule(target=tokens, given=TOKENS)
    def find_token(self, given):
        self.found(token := make_token(given))
        return token

    @rule(token=tokens, changes=CHANGES)
    def find_one_like(self, token, changes):
        self.found(make_token(read(token) | changes))

    @rule(token=tokens, changes=CHANGES)
    def find_again(self, token, changes):
        self.found(set_fields(token, changes))

    @rule(token=tokens, keys=st.lists(st.sampled_from([key for key, _ in KEYS]), min_size=1, max_size=2))
    def find_by_keys_of(self, token, keys):
        self.found(make_token({key: read(token)[key] for key in keys}))

    @precondition(lambda self: len(self.oracle.rows) > 1)
    @rule(part=st.integers(0, 6))
    def find_in_many_ways(self, part):
        self.look_for(PROBES[part::7])

    @rule(token=tokens, expiry=values.EXPIRY)
    def compare_expiries_with_the_row_of(self, token, expiry):
        named = {"id": token.get_id()}
        for one in (None, expiry) if self.oracle.row(token.get_id()) else ():
            self.save_made(named | {"access_token": "1000.a1", "expiry_time": one})
            for access in (None, "1000.a2"):
                self.look_for(named | {"access_token": access, "expiry_time": other} for other in values.EVERY_EXPIRY)

    # By id

    def find_by(self, row_id):
        row = self.oracle.row(row_id)
        if row is not None:
            token = self.store.find_token_by_id(row_id)
            self.made_token_is(token, handed_out(row))
            return token
        if self.raises:
            with refused("find_token_by_id"):
                self.store.find_token_by_id(row_id)
        else:
            assert self.store.find_token_by_id(row_id) is None
        return multiple()

    def delete_by(self, row_id):
        assert self.store.delete_token(row_id) is None
        self.oracle.delete(row_id)

    @rule(target=tokens, token=tokens)
    def find_by_id_of(self, token):
        return self.find_by(token.get_id())

    @rule(target=tokens, row_id=values.BY_ID)
    def find_token_by_id(self, row_id):
        return self.find_by(written_out(row_id))

    @precondition(lambda self: len(self.oracle.rows) > 2)
    @rule(token=tokens)
    def delete_by_id_of(self, token):
        self.delete_by(token.get_id())

    @precondition(lambda self: len(self.oracle.rows) > 2)
    @rule(row_id=values.BY_ID)
    def delete_token(self, row_id):
        self.delete_by(written_out(row_id))

    @rule(part=st.integers(0, 3))
    def find_and_delete_what_is_not_there(self, part):
        ids = [None, "", *map(written_out, values.IDS + values.AWKWARD)]
        for row_id in ids[part::4]:
            if self.oracle.row(row_id) is None:
                with noting(row_id):
                    self.find_by(row_id)
                    self.delete_by(row_id)
                    self.compare_contents(self.store)

    # All rows

    @rule(target=tokens)
    def get_tokens(self):
        """The tokens that `get_tokens` returns are copies: a change of them does not change a row."""
        return multiple(*self.store.get_tokens()[-2:])

    @rule(expiry=values.EXPIRY, idle_for=values.IDLE_FOR)
    def purge(self, expiry, idle_for):
        for login in values.LOGINS:
            self.save_made(login | {"user_name": self.new_user(), "expiry_time": expiry})
        if idle_for in values.NO_TIME:
            with pytest.raises(SDKException):
                self.store.purge(idle_for=idle_for)
            return
        idle = None if idle_for is None else 10**17
        assert self.store.purge(idle_for=idle_for) == self.oracle.purge(now(), idle)

    @precondition(lambda self: len(self.oracle.rows) > 3)
    @rule()
    def delete_tokens(self):
        assert self.store.delete_tokens() is None
        self.oracle.delete_all()

    # Bad input raises an error, and nothing is changed

    def refuses(self, good, bad, method):
        """If a bad token follows a good one, neither is imported."""
        if method == "import_tokens":
            with refused(method, good, bad):
                self.store.import_tokens([good, bad])
        else:
            with refused(method, bad):
                getattr(self.store, method)(bad)

    @rule(good=tokens, given=TOKENS, method=TAKE_A_TOKEN, part=st.integers(0, 3))
    def bad_fields(self, good, given, method, part):
        for name, value in values.BAD_FIELDS[part::4]:
            with noting([name, value]):
                self.refuses(good, set_fields(make_token(given), {name: value}), method)

    @rule(good=tokens, method=TAKE_A_TOKEN)
    def no_token(self, good, method):
        for bad in values.NOT_A_TOKEN:
            with noting(bad):
                self.refuses(good, bad, method)

    @rule(good=tokens)
    def import_one_that_may_not_be_saved(self, good):
        self.refuses(good, make_token({"id": "no row's", "client_id": "1000.C1"}), "import_tokens")

    @rule()
    def bad_ids(self):
        for bad in values.BAD_IDS:
            with noting(bad):
                with refused("find_token_by_id"):
                    self.store.find_token_by_id(bad)
                with refused("delete_token"):
                    self.store.delete_token(bad)


class InMemory(Stores):
    def open(self, **options):
        return CustomStoreInMemory(**options)


class List(Stores):
    def open(self, **options):
        return CustomStoreList(**options)


class Lasting(Stores):
    """More steps for stores that others can open, too: close and open one, open two, and copy the rows into a file."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        self.path = Path(self.folder.name) / "zohooauth.db"
        self.other = None

    def teardown(self):
        try:
            super().teardown()
            if self.other is not None:
                self.other[0].close()
        finally:
            self.folder.cleanup()

    @rule(raises=st.booleans())
    def close_and_open_again(self, raises):
        self.store.close()
        self.store, self.raises = self.open(raise_on_missing_id=raises), raises
        self.look_for(PROBES[::7])

    @rule(raises=st.booleans())
    def go_on_with_the_other_store_on_the_rows(self, raises):
        current = self.store, self.raises
        self.store, self.raises = self.other or (self.open(raise_on_missing_id=raises), raises)
        self.other = current

    @precondition(lambda self: len(self.oracle.rows) > 1)
    @rule()
    def back_up(self):
        copy = self.path.with_name("copy.db")
        copy.unlink(missing_ok=True)
        self.store.backup(copy)
        with contextlib.closing(CustomStoreSQLite(copy, **self.keys())) as store:
            self.compare_contents(store)

    def keys(self):
        """Return the argument `keys` of the next store, if the rows are sealed."""
        return {}


class PostgreSQL(Lasting):
    """Each sequence of steps has a schema of its own."""

    dsn = ""  # of the server; the test sets it

    def __init__(self):
        super().__init__()
        self.schema = f"test_{secrets.token_hex(6)}"

    def open(self, **options):
        return CustomStorePostgreSQL(self.dsn, schema=self.schema, **options)

    def teardown(self):
        try:
            super().teardown()
        finally:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


class LossyCell:
    """A cell in memory. Of each six answers to a swap it loses one, and another one says that a change came first."""

    def __init__(self):
        self.document, self.version, self.swaps = None, 0, 0

    def load(self):
        return self.document, self.version

    def swap(self, document, version):
        if version != self.version:
            return False
        self.document, self.version, self.swaps = document, version + 1, self.swaps + 1
        if self.swaps % 6 == 1:
            raise ConnectionError
        return self.swaps % 6 != 3


class Shared(Lasting):
    """The stores share a cell."""

    def __init__(self):
        super().__init__()
        self.cell = LossyCell()

    def open(self, **options):
        return CustomStoreShared(self.cell, **options)


class SQLite(Lasting):
    """More steps: another program writes to the file with Python's `sqlite3`."""

    def open(self, **options):
        return CustomStoreSQLite(self.path, **options)

    # Another program reads and writes the sample's table and columns with Python's sqlite3

    @contextlib.contextmanager
    def foreign(self):
        with contextlib.closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            yield connection

    def save_by_id(self, row_id):
        """Save the row that another program has written, so that it is the row saved last."""
        self.save_made({"id": row_id})

    @rule()
    def foreign_read(self):
        with self.foreign() as connection:
            rows = connection.execute(f"select {', '.join(FIELDS)} from oauthtoken").fetchall()
        for row in rows:
            found = {name: value or None for name, value in zip(FIELDS, row, strict=True)}
            expected = {name: self.oracle.row(row[0])[name] or None for name in FIELDS}
            same(found, expected, "a row in the file")
        assert len(rows) == len(self.oracle.rows)

    @rule(row_id=values.BY_ID, given=TOKENS)
    def foreign_insert(self, row_id, given):
        row = taken({name: written_out(value) for name, value in fields(**given | {"id": row_id}).items()})
        if absent(row["id"]) or self.oracle.row(row["id"]):
            return
        with self.foreign() as connection:
            connection.execute(
                f"insert into oauthtoken({', '.join(FIELDS)}) values ({', '.join('?' * len(FIELDS))})",
                [row[name] for name in FIELDS],
            )
        self.oracle.touch(self.oracle.insert(row), now())
        self.save_by_id(row["id"])

    @rule(token=Stores.tokens, given=TOKENS)
    def foreign_update(self, token, given):
        row = self.oracle.row(token.get_id())
        if row is None:
            return
        change = taken({name: written_out(value) for name, value in fields(**given).items()}) | {"id": row["id"]}
        with self.foreign() as connection:
            connection.execute(
                f"update oauthtoken set {', '.join(f'{name} = ?' for name in change)} where id = ?",
                [*change.values(), row["id"]],
            )
        row.update(change)
        self.save_by_id(row["id"])

    @precondition(lambda self: len(self.oracle.rows) > 2)
    @rule(token=Stores.tokens)
    def foreign_delete(self, token):
        with self.foreign() as connection:
            connection.execute("delete from oauthtoken where id = ?", [token.get_id()])
        self.oracle.delete(token.get_id())


ONE, TWO = new_key(), new_key()


class SealedInMemory(Stores):
    """Rows are sealed under one key."""

    def open(self, **options):
        return CustomStoreInMemory(keys=ONE, **options)


class SealedList(Stores):
    """Rows are sealed under the first of two keys, or were in clear text before."""

    def open(self, **options):
        return CustomStoreList(keys=[TWO, ONE, PLAINTEXT], **options)


class SealedSQLite(Lasting):
    """Rows are sealed under one key."""

    rings = ([ONE],)

    def __init__(self):
        super().__init__()
        self.opened = 0

    def keys(self):
        self.opened += 1
        return {"keys": self.rings[self.opened % len(self.rings)]}

    def open(self, **options):
        return CustomStoreSQLite(self.path, **self.keys(), **options)

    @rule()
    def rekey(self):
        """A rotation changes neither values nor ids nor the order of the rows."""
        result = self.store.rekey()
        assert result.left == 0
        assert sum(self.store.key_usage().values()) == len(self.oracle.rows)
        assert len(self.store.key_usage()) <= 1


class SealedSQLiteTwoKeys(SealedSQLite):
    """Programs write under one key and the other in turn, as in the middle of a rotation."""

    rings = ([ONE, TWO], [TWO, ONE])


class SealedSQLiteMixed(SealedSQLite):
    """Programs write under two keys and in clear text in turn."""

    rings = ([ONE, TWO, PLAINTEXT], [PLAINTEXT, ONE, TWO], [TWO, PLAINTEXT, ONE])


class SealedPostgreSQL(SealedSQLiteMixed, PostgreSQL):
    """The same on a server."""

    def open(self, **options):
        return CustomStorePostgreSQL(self.dsn, schema=self.schema, **self.keys(), **options)


SEALED = [SealedSQLite, SealedSQLiteTwoKeys, SealedSQLiteMixed, SealedInMemory, SealedList, SealedPostgreSQL]


@pytest.mark.timeout(400 + 2 * EXAMPLES)  # Hypothesis shrinks a failure for up to five minutes
@pytest.mark.parametrize("stores", [SQLite, PostgreSQL, Shared, InMemory, List, *SEALED])
def test_a_store_and_the_oracle_agree_after_random_steps(stores, monkeypatch, request):
    """After every step the return value, the passed token, the error and the rows are as the contract says."""
    if issubclass(stores, PostgreSQL):
        monkeypatch.setattr(PostgreSQL, "dsn", request.getfixturevalue("dsn"))
    if stores in SEALED:
        # Without optimization, a seal of a megabyte takes half a second, and each of the many finds opens some.
        monkeypatch.setitem(values.LONG, "<a megabyte>", "m" * 2**13)
    monkeypatch.setattr(logging.getLogger("zoho_token_store"), "disabled", True)  # the steps cause thousands of errors
    # Finds open rows, and steps on a server take longer. Each kind of store has the same steps.
    part = 4 if stores in SEALED else 2 if stores is PostgreSQL else 1
    run_state_machine_as_test(stores, settings=settings(SETTINGS, max_examples=-(-EXAMPLES // part)))
