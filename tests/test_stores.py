"""What Python sees of a store: names, options, methods and the SDK's objects (contract 1, 2, 10).

What every backend does is tested in `tests/rust/contract.rs`.
"""

from __future__ import annotations

import gc
import importlib.metadata
import inspect
import subprocess
import sys
import time
import weakref
from datetime import timedelta

import pytest
import zoho_token_store
from errors import raises
from support import DATA, login, run_python, token, values
from zoho_token_store import (
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreShared,
    CustomStoreSQLite,
)
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.file_store import FileStore
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


@pytest.fixture
def store():
    """A store of one class, because all classes inherit the same methods. `make` makes stores of every class."""
    with CustomStoreList() as made:
        yield made


def test_the_package_has_the_names_of_the_contract():
    """Contract 1: the store in memory has a second name, the one of the sample's class. All classes have one base."""
    assert zoho_token_store.CustomStore is CustomStoreInMemory
    assert set(zoho_token_store.__all__) <= set(dir(zoho_token_store))
    kinds = (CustomStoreSQLite, CustomStorePostgreSQL, CustomStoreShared, CustomStoreInMemory, CustomStoreList)
    for kind in kinds:
        assert issubclass(kind, zoho_token_store.TokenStoreBase)
    assert zoho_token_store.__version__ == importlib.metadata.version("zoho-token-store")


def test_importing_the_package_does_not_import_the_sdk():
    """Contract 1: importing the SDK takes most of a second. Only the constructor of a store does it."""
    code = "import zoho_token_store as z, sys; print('zohocrmsdk' in sys.modules)"
    construct = "; z.CustomStoreList(); print('zohocrmsdk' in sys.modules)"
    assert run_python(code + construct).split() == ["False", "True"]


def test_without_an_sdk_the_error_names_the_packages_that_provide_it():
    """Contract 1: without an SDK, the constructor of a store raises `ImportError`."""
    code = "import sys; sys.modules['zohocrmsdk'] = None\nimport zoho_token_store\nzoho_token_store.CustomStoreList()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: a token store needs the Zoho CRM Python SDK" in done.stderr
    assert all(f"zohocrmsdk{version}_0" in done.stderr for version in (5, 6, 7, 8))


def test_a_store_is_a_token_store_of_the_sdk(make):
    """Contract 1: `isinstance(store, TokenStore)` holds, and no method of the interface is missing."""
    made = make()
    assert isinstance(made, TokenStore)
    assert TokenStore.__abstractmethods__ <= set(dir(type(made)))


def test_a_relative_path_is_made_absolute_by_the_constructor(tmp_path, monkeypatch):
    """Contract 1: a later change of the working directory does not move the file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with CustomStoreSQLite() as store:
        monkeypatch.chdir("elsewhere")
        store.save_token(login())
        assert repr(store) == f"CustomStoreSQLite({str(tmp_path / 'zohooauth.db')!r})"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["zohooauth.db"]


def test_a_path_may_be_a_str_or_path_like_with_any_name(tmp_path):
    """Contract 1: `path` is a `str` or an `os.PathLike`, and never a URI."""
    for name in (
        "plain.db",
        "with space ünïcode🦀.db",
        "file:x?mode=memory",
        "#%?.db",
        "surrogate-\udcff.db",
    ):
        for path in (tmp_path / name, str(tmp_path / name)):
            with CustomStoreSQLite(path) as store:
                store.save_token(login())
                assert len(store) == 1
        assert (tmp_path / name).is_file()


def test_find_token_completes_its_argument_and_returns_it(store):
    """Contract 2: without a row it returns `None` and does not change the token."""
    store.save_token(login())
    asked = token("ada@example.com")
    assert store.find_token(asked) is asked
    assert values(asked) == values(login(id="1"))
    unknown = token("bob@example.com", client_id="", access_token=None)
    before = dict(unknown.__dict__)
    assert store.find_token(unknown) is None
    assert unknown.__dict__ == before


def test_save_token_sets_the_id_of_the_row_in_the_token(store):
    """Contract 2: an insert and an update both set it."""
    first, again = login(), login(id="77")
    assert store.save_token(first) is None
    store.save_token(again)
    assert (first.get_id(), again.get_id(), len(store)) == ("1", "1", 1)


def test_a_store_makes_tokens_with_the_sdks_constructor(store):
    """Contract 2: the tokens have all attributes that the constructor sets. Each call makes a new token."""
    store.save_token(login())
    made = store.find_token_by_id("1")
    assert type(made) is OAuthToken
    assert set(made.__dict__) == set(OAuthToken(id="1").__dict__)
    assert values(made) == values(login(id="1"))
    assert store.find_token_by_id("1") is not made
    assert made.get_grant_token() is None


def test_get_tokens_returns_a_list_with_the_oldest_row_first(store):
    """Contract 2: an update does not change the order."""
    for number in range(1, 13):
        store.save_token(login(f"user{number}@example.com", number))
    store.save_token(login("user1@example.com", 1, access_token="planted-renewed"))
    assert [made.get_id() for made in store.get_tokens()] == [str(number) for number in range(1, 13)]
    assert type(store.get_tokens()) is list


def test_a_missing_id_raises_or_returns_none(make):
    """Contract 2: an id without a row raises `SDKException`. With `raise_on_missing_id=False` it returns `None`."""
    with make() as store:
        for missing in ("7", "", None):
            with raises("missing-id"):
                store.find_token_by_id(missing)
    with make(raise_on_missing_id=False) as store:
        assert [store.find_token_by_id(missing) for missing in ("7", "", None)] == [None] * 3


def test_a_delete_without_a_row_is_no_error(store):
    """Contract 2: neither `delete_token` nor `delete_tokens` raises."""
    store.save_token(login())
    for missing in ("7", "", None):
        assert store.delete_token(missing) is None
    assert len(store) == 1
    for number in (2, 3):
        store.save_token(login(f"user{number}@example.com", number))
    store.delete_token("1")
    assert len(store) == 2
    for _ in range(2):
        assert store.delete_tokens() is None
        assert len(store) == 0


def test_a_store_can_be_subclassed_with_an_init_of_its_own(make):
    """Contract 1: each class can be subclassed in Python, and an overridden method may call `super()`."""
    kind = type(make())

    class Notifying(kind):
        def __init__(self, notify, **place):
            super().__init__(**place)
            self.notify = notify

        def save_token(self, token):
            super().save_token(token)
            self.notify(token.get_id())

    saved = []
    with Notifying(saved.append, **make.place) as store:
        store.save_token(login())
        assert isinstance(store, TokenStore)
        assert repr(store).startswith("Notifying(")
    assert saved == ["1"]


def test_a_store_whose_init_never_ran_raises_a_type_error(make):
    """The error says what a subclass has to do. `close()` and `repr()` work."""

    class Forgetful(type(make())):
        def __init__(self):
            pass

    store = Forgetful()
    with pytest.raises(TypeError, match=r"super\(\).__init__\(\)"):
        store.get_tokens()
    store.close()
    assert repr(store) == "<Forgetful, not opened>"


def test_the_signature_of_each_class_names_its_options():
    """`help()` and editors show the options."""
    assert list(inspect.signature(CustomStoreSQLite).parameters) == [
        "path",
        "keys",
        "refresh_lease",
        "refresh_ahead",
        "refresh_backoff",
        "busy_timeout",
        "raise_on_missing_id",
    ]
    for kind in (CustomStoreInMemory, CustomStoreList):
        assert list(inspect.signature(kind).parameters) == [
            "keys",
            "refresh_lease",
            "refresh_ahead",
            "refresh_backoff",
            "raise_on_missing_id",
        ]


def test_purge_takes_a_timedelta_or_seconds(store):
    """Contract 10: `purge` deletes used-up rows. With `idle_for` it also deletes rows not saved for that long."""
    store.save_token(login("spent@example.com", 1, refresh_token=None, expires_in="1"))
    store.save_token(login("good@example.com", 2))
    assert (store.purge(), len(store)) == (1, 1)
    assert store.purge(idle_for=timedelta(days=30)) == 0
    assert store.purge(3600.5) == 0
    time.sleep(0.002)
    assert store.purge(idle_for=0.001) == 1


@pytest.mark.parametrize("idle_for", [0, 0.0009, timedelta(0), timedelta(microseconds=999)])
def test_a_purge_never_means_every_row(store, idle_for):
    """Contract 10: `idle_for` of less than a millisecond would match every row, so it is refused."""
    store.save_token(login("good@example.com", 1))
    with pytest.raises(SDKException) as caught:
        store.purge(idle_for=idle_for)
    assert caught.value.__cause__.code == "invalid-argument"
    assert "delete_tokens()" in str(caught.value.__cause__)
    assert len(store) == 1


def test_import_tokens_copies_all_tokens_of_another_store(store, tmp_path):
    """Contract 10: the copies have all values, including the ids. A second import adds no row."""
    file = tmp_path / "sdk_tokens.txt"
    file.write_bytes((DATA / "filestore-sdk_tokens.txt").read_bytes())
    tokens = FileStore(str(file)).get_tokens()
    assert store.import_tokens(iter(tokens)) == len(tokens) > 10
    assert [values(made) for made in store.get_tokens()] == [values(made) for made in tokens]
    assert store.import_tokens(FileStore(str(file)).get_tokens()) == len(tokens)
    assert len(store) == len(tokens)


def test_import_tokens_is_all_or_nothing(store):
    """Contract 10: the tokens are saved in one transaction. A token that is not saved gets no id."""
    store.save_token(login("before@example.com", 0))
    good = login("ada@example.com", 1)
    for bad in (token("bob@example.com"), "no token"):
        with pytest.raises(SDKException, match="import_tokens: "):
            store.import_tokens([good, bad])
        assert (len(store), good.get_id()) == (1, None)
    with pytest.raises(ZeroDivisionError):
        store.import_tokens(login(number=1 // number) for number in (1, 0))
    assert len(store) == 1


def test_a_backup_can_be_opened_as_a_store(store, tmp_path):
    """Contract 10: `backup` writes a consistent copy with the mode 0600."""
    store.save_token(login())
    backup = tmp_path / "backup.db"
    assert store.backup(backup) is None
    store.delete_tokens()
    with CustomStoreSQLite(str(backup)) as copied:
        assert [values(made) for made in copied.get_tokens()] == [values(login(id="1"))]
    assert backup.stat().st_mode & 0o777 == 0o600


def test_each_method_of_a_closed_store_raises(store, tmp_path):
    """Contract 10: any call after `close()` raises, except for another `close()`."""
    store.close()
    store.close()
    calls = [
        lambda: store.find_token(login()),
        lambda: store.save_token(login()),
        lambda: store.find_token_by_id("1"),
        store.get_tokens,
        lambda: store.delete_token("1"),
        store.delete_tokens,
        store.purge,
        lambda: store.import_tokens([login()]),
        lambda: store.backup(tmp_path / "backup.db"),
        store.check,
        lambda: len(store),
    ]
    for call in calls:
        with raises("closed"):
            call()
    assert not (tmp_path / "backup.db").exists()


def test_with_closes_the_store(make):
    """Contract 10: a store is a context manager."""
    with make() as store:
        assert len(store) == 0
    with raises("closed"):
        len(store)


def test_an_empty_store_is_true(store):
    """Contract 10: `len(store)` is the number of rows, but `store or default` is always the store."""
    assert (len(store), bool(store)) == (0, True)
    store.save_token(login())
    assert len(store) == 1


def test_a_store_without_references_is_freed(make):
    """The library itself keeps no reference to a store."""
    made = make()
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_python_code_that_runs_inside_a_method_may_use_the_store(store):
    """Contract 7: no lock is held while a getter, a setter or a generator runs."""

    class Saving(OAuthToken):
        def get_client_id(self):
            store.save_token(login("getter@example.com", 7))
            return super().get_client_id()

        def set_id(self, id):  # noqa: A002 - the SDK's name
            store.save_token(login("setter@example.com", 8))
            super().set_id(id)

    saving = Saving("1000.CLIENT", "planted-client-secret", refresh_token="planted-saving")
    store.save_token(saving)
    assert store.find_token(saving) is saving

    def tokens():
        for number in (1, 2):
            store.save_token(login("generator@example.com", 10))
            yield login(f"user{number}@example.com", number)

    assert store.import_tokens(tokens()) == 2
    assert {values(made).get("user") for made in store.get_tokens()} == {
        None,
        "getter@example.com",
        "setter@example.com",
        "generator@example.com",
        "user1@example.com",
        "user2@example.com",
    }


def test_each_store_in_memory_has_its_own_rows():
    """Contract 1: two stores in memory share no rows."""
    for kind in (CustomStoreInMemory, CustomStoreList):
        one, other = kind(), kind()
        one.save_token(login())
        assert (len(one), len(other)) == (1, 0)
