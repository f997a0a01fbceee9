"""Errors as the caller sees them: class, code, message, log line (contract 6)."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import timedelta
from enum import IntEnum

import pytest
from errors import raises
from support import PLANTED, login, token
from zoho_token_store import CustomStoreList, CustomStoreSQLite, StoreError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

LONE_SURROGATE = f"{PLANTED}-\ud800"  # half of a UTF-16 pair, which has no UTF-8 form


@pytest.fixture
def store():
    """A store of one class: all classes convert arguments and raise errors in the same code."""
    with CustomStoreList() as made:
        yield made


class ForeignSignature:
    """A class that is not the SDK's `UserSignature`."""

    def get_name(self):
        return "ada@example.com"


class Raising(type(login())):
    """A token whose getter raises an error that contains a secret."""

    def get_client_secret(self):
        raise ValueError(f"{PLANTED}-in-a-foreign-exception")


def make_raising():
    made = Raising(id="1")
    made.set_refresh_token(f"{PLANTED}-refresh")
    return made


BAD_TOKENS = {
    "no token": "an OAuthToken of the Zoho CRM SDK is needed, not an object of type str",
    None: "an OAuthToken of the Zoho CRM SDK is needed, not an object of type NoneType",
    object(): "an OAuthToken of the Zoho CRM SDK is needed, not an object of type object",
    token("ada", client_id=7): "the token's client_id is of type int, not str",
    token("ada", refresh_token=b"planted"): "the token's refresh_token is of type bytes, not str",
    token("ada", access_token=["planted"]): "the token's access_token is of type list, not str",
    token("ada", expires_in=True): "the token's expiry_time is of type bool, not str",
    token("ada", expires_in=1.5): "the token's expiry_time is of type float, not str",
    token("ada", user_signature=ForeignSignature()): "the token's user_signature is of type ForeignSignature",
    token("ada", user_signature="ada"): "the token's user_signature is of type str",
    token(7, refresh_token="planted"): "the token's user_name is of type int, not str",
    token("ada", client_secret=LONE_SURROGATE): "the token's client_secret has no UTF-8 form",
    token("\udfff", refresh_token="planted"): "the token's user_name has no UTF-8 form",
    make_raising(): "the token's client_secret cannot be read (ValueError)",
}


@pytest.mark.parametrize(("bad", "expected"), BAD_TOKENS.items(), ids=range(len(BAD_TOKENS)))
def test_a_bad_token_is_refused_and_changes_nothing(store, bad, expected):
    """Contract 6: it is no token at all, or it has a field of a wrong type or a string without a UTF-8 form."""
    store.save_token(login())
    methods = (store.find_token, store.save_token, lambda bad: store.import_tokens([login("bob"), bad]))
    for name, method in zip(("find_token", "save_token", "import_tokens"), methods, strict=True):
        with raises("invalid-argument") as caught:
            method(bad)
        assert caught.value.args[1].startswith(f"{name}: {expected}")
    assert len(store) == 1


@pytest.mark.parametrize("bad", [7, b"1", ["1"], True, LONE_SURROGATE], ids=range(5))
def test_an_id_that_is_no_str_is_refused(store, bad):
    """Contract 2: a by-id method takes a `str` with a UTF-8 form, or an absent id. Anything else is bad input."""
    for method in (store.find_token_by_id, store.delete_token):
        with raises("invalid-argument"):
            method(bad)


@pytest.mark.parametrize("bad", [-1, "30d", float("nan"), float("inf"), True, [], 1e300])
def test_a_bad_idle_for_is_refused(store, bad):
    """Contract 10: `idle_for` is a `timedelta` or a number of seconds from 0 on."""
    store.save_token(login())
    with raises("invalid-argument", match="purge: idle_for is"):
        store.purge(bad)
    assert len(store) == 1


def test_an_import_of_no_iterable_is_refused(store):
    """Contract 10: `import_tokens` takes an iterable of tokens."""
    with raises("invalid-argument", match="import_tokens: an iterable of tokens is needed, not an object of type int"):
        store.import_tokens(7)


def test_an_expiry_that_is_an_int_is_stored_as_its_decimal_string(store):
    """Contract 6: the SDK's own expiry is a `str`. An `int` is accepted, too, in a save and in a find."""
    store.save_token(login(expires_in=1_795_300_000_001))
    assert store.find_token_by_id("1").get_expires_in() == "1795300000001"
    asked = token("ada@example.com", access_token="planted-other", expires_in=1_795_300_000_002)
    assert store.find_token(asked).get_expires_in() == "1795300000002"
    store.save_token(login(expires_in=IntEnum("Expiry", {"SOON": 17}).SOON))
    assert store.find_token_by_id("1").get_expires_in() == "17"


def test_an_error_is_an_sdk_exception_caused_by_a_store_error(store, caplog):
    """Contract 6: the cause has a code and a hint, and the message contains the hint. The store logs the message."""
    with caplog.at_level(logging.DEBUG), pytest.raises(SDKException) as caught:
        store.save_token(token("ada@example.com"))
    error = caught.value
    message = error.args[1]
    assert (error.code, type(error.cause), error.cause) == ("TOKEN_STORE", StoreError, error.__cause__)
    assert error.cause.code == "empty-token"
    assert message.startswith("save_token: the store in memory has no row for the token")
    assert message.endswith(error.cause.hint)
    assert repr(error) == f"SDKException('TOKEN_STORE', {message!r})"
    assert str(error) == f"Caused By: TOKEN_STORE - {message}"
    assert str(error.cause) == message
    assert [(line.name, line.levelname, line.getMessage()) for line in caplog.records] == [
        ("zoho_token_store", "ERROR", message)
    ]


def test_a_missing_id_is_logged_as_a_warning(store, caplog):
    """Contract 6: the store logs each error that it raises. A missing id is a warning: the user may have logged out."""
    with raises("missing-id"):
        store.find_token_by_id("7")
    assert [line.levelname for line in caplog.records] == ["WARNING"]


def test_a_logging_filter_that_fails_does_not_hide_the_error(store, monkeypatch):
    """Contract 6: the caller gets the store's error. Python reports the filter's error as unraisable."""

    class Broken(logging.Filter):
        def filter(self, _record):
            raise RuntimeError("made to fail")

    logger = logging.getLogger("zoho_token_store")
    broken, seen = Broken(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: seen.append(type(raised.exc_value)))
    logger.addFilter(broken)
    try:
        with raises("missing-id"):
            store.find_token_by_id("7")
    finally:
        logger.removeFilter(broken)
    assert seen == [RuntimeError]


def test_a_keyboard_interrupt_is_not_translated(store):
    """Contract 6 is about errors. A `KeyboardInterrupt` in a getter passes through the store unchanged."""

    class Interrupted(type(login())):
        def get_client_id(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.find_token(Interrupted(id="1"))


BAD_PATHS = {
    ":memory:": ("invalid-argument", "use CustomStoreInMemory()"),
    "": ("invalid-argument", "the path is empty"),
    "a\0b": ("invalid-argument", "NUL"),
    "no/such/folder/x.db": ("missing-folder", "no/such/folder/x.db"),
    ".": ("is-a-folder", "is a folder"),
    7: ("invalid-argument", "a path is a str or an os.PathLike, not an object of type int"),
    None: ("invalid-argument", "a path is a str or an os.PathLike, not an object of type NoneType"),
    b"x.db": ("invalid-argument", "a path is a str or an os.PathLike, not an object of type bytes"),
    "x" * 300: ("path-too-long", "its name has 300 bytes, 53 too many for the -journal beside it"),
    "~/tokens.db": ("invalid-argument", "use os.path.expanduser(path)"),
    "file:tokens.db?mode=memory": ("invalid-argument", "the path is a URI or URL"),
    "postgresql+psycopg://localhost/tokens": ("invalid-argument", "the path is a URI or URL"),
    "postgresql://ada:made-up@localhost/tokens": ("invalid-argument", "open the address with CustomStorePostgreSQL"),
    r"C:\tokens.db": ("invalid-argument", "the path is one of Windows"),
}


@pytest.mark.parametrize(("bad", "code", "detail"), [(bad, *rest) for bad, rest in BAD_PATHS.items()], ids=repr)
def test_a_bad_path_is_refused_by_the_constructor(tmp_path, monkeypatch, bad, code, detail):
    """Contract 6: the message of a constructor begins with the class's name. Contract 1: `":memory:"` is refused."""
    monkeypatch.chdir(tmp_path)
    with raises(code) as caught:
        CustomStoreSQLite(bad)
    assert caught.value.args[1].startswith("CustomStoreSQLite: ")
    assert detail in caught.value.args[1]
    assert "planted" not in caught.value.args[1]
    assert list(tmp_path.iterdir()) == []


BAD_DURATIONS = [-1, timedelta(seconds=-1), "5", float("nan"), None, True]


@pytest.mark.parametrize("bad", BAD_DURATIONS, ids=repr)
def test_a_bad_refresh_lease_is_refused(make, path, bad):
    """Contract 6: a bad option is refused, and no file is created."""
    with raises("invalid-argument", match="refresh_lease is"):
        make(refresh_lease=bad)
    assert not path.exists()


@pytest.mark.parametrize("bad", BAD_DURATIONS, ids=repr)
def test_a_bad_busy_timeout_is_refused(path, bad):
    """Contract 6: a bad option is refused, and no file is created."""
    with raises("invalid-argument", match="busy_timeout is"):
        CustomStoreSQLite(path, busy_timeout=bad)
    assert not path.exists()


@pytest.mark.parametrize("seconds", [30, 30.5, timedelta(seconds=30)], ids=repr)
def test_a_duration_is_a_timedelta_or_a_number_of_seconds(path, seconds):
    """Contract 1: this holds for `refresh_lease` and `busy_timeout`. `purge` has its own test."""
    with CustomStoreSQLite(path, refresh_lease=seconds, busy_timeout=seconds) as store:
        store.save_token(login())


def test_a_busy_timeout_of_0_works_without_contention(path):
    """With `busy_timeout=0` a store does not wait for locks, and it works if no other program holds one."""
    with CustomStoreSQLite(path, busy_timeout=0) as store:
        store.save_token(login())
        assert len(store) == 1


def test_a_second_init_is_refused(path):
    """A second call of `__init__` opens no second file, and the store stays open on its first one."""
    with CustomStoreSQLite(path) as store:
        with raises("invalid-argument", match="open already"):
            store.__init__(path.with_name("second.db"))
        assert not path.with_name("second.db").exists()
        store.save_token(login())


@pytest.mark.parametrize("bad", ["yes", None, 1])
def test_raise_on_missing_id_is_a_bool(make, bad):
    """Contract 6: a bad option is refused."""
    with raises("invalid-argument", match="raise_on_missing_id is"):
        make(raise_on_missing_id=bad)


def test_a_setter_that_fails_is_an_error_after_the_row_was_saved(store):
    """Contract 6: the error says that the row is right, and does not repeat the text of the setter's own error."""

    class WithAFailingSetter(OAuthToken):
        def set_id(self, id):  # noqa: A002 - the SDK's name
            raise ValueError(f"{PLANTED}-in-a-foreign-exception {id}")

    made = WithAFailingSetter("1000.CLIENT", f"{PLANTED}-client-secret", refresh_token=f"{PLANTED}-refresh")
    for method in (store.save_token, store.find_token):
        with raises("token-not-updated", match=r"the token's id cannot be set \(ValueError\)") as caught:
            method(made)
        assert PLANTED not in "".join(traceback.format_exception(caught.value))
    assert len(store) == 1


def test_no_error_shows_a_secret(store, tmp_path, caplog):
    """Contract 6: no secret is in a message, a `repr`, a log line or the values of a traceback."""
    store.save_token(login())
    assert PLANTED not in repr(store) + str(store)
    calls = [
        *((store.save_token, bad) for bad in BAD_TOKENS),
        *((store.find_token, bad) for bad in BAD_TOKENS),
        (store.find_token_by_id, f"{PLANTED}-1000.an.access.token.where.an.id.belongs"),
        (store.delete_token, LONE_SURROGATE),
        (store.backup, tmp_path),
    ]
    for method, argument in calls:
        with pytest.raises(SDKException) as caught:
            method(argument)
        error = caught.value
        shown = "".join(traceback.TracebackException.from_exception(error).format())
        assert "TOKEN_STORE" in shown
        assert PLANTED not in shown + repr(error) + repr(error.__cause__) + str(error.cause)
    assert PLANTED not in caplog.text
