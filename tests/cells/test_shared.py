"""What Python adds to a store over a cell: the object is called, and what it raises reaches the caller."""

from __future__ import annotations

import logging
import threading

import pytest
from support import in_threads, login, token, values
from zoho_token_store import CustomStoreList, CustomStoreShared, StoreError, new_key
from zoho_token_store.cells import DocumentTooLarge
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


class MemoryCell:
    """A cell in memory. A test replaces its methods."""

    def __init__(self):
        self.document, self.version, self.lock = None, 0, threading.Lock()
        self.loads = self.swaps = 0

    def load(self):
        with self.lock:
            self.loads += 1
            return self.document, self.version

    def swap(self, document, version):
        with self.lock:
            self.swaps += 1
            if self.version != version:
                return False
            self.document, self.version = document, version + 1
            return True


@pytest.fixture
def cell():
    return MemoryCell()


@pytest.fixture
def store(cell):
    with CustomStoreShared(cell) as made:
        yield made


def failure(call, *arguments):
    """Return the `StoreError` that the call raises."""
    with pytest.raises(SDKException) as raised:
        call(*arguments)
    assert raised.value.code == "TOKEN_STORE"
    assert raised.value.__cause__ is raised.value.cause
    assert isinstance(raised.value.cause, StoreError)
    return raised.value.cause


def test_the_document_is_one_text_and_a_find_loads_it_once(cell, store):
    """A find: one load. A save: one load and one swap. A constructor: nothing."""
    assert (cell.loads, cell.swaps) == (0, 0)
    store.save_token(login())
    assert (cell.loads, cell.swaps) == (1, 1)
    found = store.find_token(token("ada@example.com"))
    assert (cell.loads, cell.swaps) == (2, 1)
    assert values(found)["refresh_token"] == "planted-refresh-1"
    assert cell.document.isascii()
    assert cell.document.startswith(b'{"format":"zoho-token-store","version":1,')


def raises(error):
    def method(*_arguments):
        raise error

    return method


def caught(error):
    """Return an exception that was raised."""
    try:
        raises(error)()
    except type(error):
        assert error.__traceback__ is not None
    return error


@pytest.mark.parametrize(
    "case",
    [
        ("load", ConnectionError("planted-text"), "cell-failed", "load has raised ConnectionError"),
        ("swap", ConnectionError("planted-text"), "cell-failed", "swap has raised ConnectionError"),
        ("swap", DocumentTooLarge("planted-text"), "document-too-large", "bytes"),
    ],
    ids=["load", "swap", "too large"],
)
def test_what_a_cell_raises_is_the_cause_and_nothing_is_saved(cell, store, case):
    """The message has the name alone. The exception has no traceback, because its frames hold the document."""
    method, error, code, text = case
    before = cell.document
    setattr(cell, method, raises(error))
    cause = failure(store.save_token, login())
    assert cause.code == code
    assert text in str(cause)
    assert "planted" not in str(cause)
    assert cause.__cause__ is error
    assert error.__traceback__ is None
    assert cell.document is before


def test_the_tracebacks_of_earlier_exceptions_are_left_out_too(cell, store):
    """A client raises one exception from another."""

    def swap(document, _version):
        try:
            raises(OSError(document))()
        except OSError as inner:
            raise ConnectionError from inner

    cell.swap = swap
    error = failure(store.save_token, login()).__cause__
    assert (error.__traceback__, error.__cause__.__traceback__) == (None, None)

    def swap_beside_others(document, _version):
        group = [caught(OSError(document)), caught(ValueError(document))]
        try:
            raises(OSError(document))()
        except OSError:
            failed = ConnectionError("planted-text")
            failed.exceptions = tuple(group)  # like an `ExceptionGroup`, which Python 3.10 does not have
            raise failed from caught(KeyError(document))

    cell.swap = swap_beside_others
    error = failure(store.save_token, login()).__cause__
    others = [error.__cause__, error.__context__, *error.exceptions]
    assert [other.__traceback__ for other in (error, *others)] == [None] * 5


def test_a_lost_answer_is_resolved(cell, store):
    """The swap has been made. The store finds its mark, and the save succeeds."""
    swap = cell.swap

    def loses_answer(document, version):
        swap(document, version)
        raise TimeoutError

    cell.swap = loses_answer
    store.save_token(login())
    assert len(store) == 1


def test_an_outcome_that_stays_unknown_is_an_error_of_its_own(cell, store):
    """Neither `swap` nor the next `load` has answered."""

    def is_lost(_document, _version):
        cell.load = raises(ConnectionError())
        raise TimeoutError

    cell.swap = is_lost
    cause = failure(store.save_token, login())
    assert cause.code == "outcome-unknown"
    assert isinstance(cause.__cause__, TimeoutError)


@pytest.mark.parametrize(
    "case",
    [
        ("load", None, "cell-failed", "load has returned an object of type NoneType instead of a pair"),
        ("load", (b"", 1, 2), "cell-failed", "load has returned an object of type tuple instead of a pair"),
        ("load", ("planted", 1), "cell-failed", "load has returned a document of type str instead of bytes"),
        ("swap", None, "outcome-unknown", "swap has returned an object of type NoneType instead of a bool"),
        ("swap", 1, "outcome-unknown", "swap has returned an object of type int instead of a bool"),
    ],
    ids=["nothing", "three", "a text", "nothing from swap", "a number"],
)
def test_a_wrong_return_value_is_a_clear_error(cell, store, case):
    """The author of the cell sees what is wrong with it."""
    method, returned, code, text = case
    setattr(cell, method, lambda *_arguments: returned)
    cause = failure(store.save_token, login())
    assert (cause.code, text in str(cause)) == (code, True), cause


@pytest.mark.parametrize("method", ["load", "swap"])
def test_an_exception_that_ends_a_program_passes_through(cell, store, method):
    """Ctrl-C while the client waits."""
    setattr(cell, method, raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        store.save_token(login())
    del cell.__dict__[method]
    store.save_token(login())
    assert len(store) == 1


@pytest.mark.parametrize("cell", [None, "tokens.db", object(), CustomStoreList], ids=lambda cell: type(cell).__name__)
def test_an_object_without_the_methods_is_refused(cell):
    """A path, a client, a store."""
    assert failure(CustomStoreShared, cell).code == "invalid-argument"


def test_arguments_are_checked():
    """Durations are not negative."""
    assert failure(lambda: CustomStoreShared(MemoryCell(), cache_for=-1)).code == "invalid-argument"
    assert failure(lambda: CustomStoreShared(MemoryCell(), busy_timeout="x")).code == "invalid-argument"


def test_no_lock_is_held_while_a_cell_works(cell, store):
    """The cell of one thread waits for another thread, which uses the same store."""
    store.save_token(login())
    load, entered = cell.load, []

    def load_after_another_thread():
        if not entered:
            entered.append(1)
            in_threads(1, lambda _number: store.save_token(login("bob@example.com", 2)))
            assert len(store) == 2  # the same thread, too
        return load()

    cell.load = load_after_another_thread
    assert store.find_token(token("bob@example.com")).get_id() == "2"


def test_a_cell_may_log_and_use_another_store(cell, store):
    """Its methods are plain Python code."""
    other, load = CustomStoreList(), cell.load

    def load_and_log():
        logging.getLogger("zoho_token_store").warning("loads")
        other.save_token(login())
        return load()

    cell.load = load_and_log
    store.save_token(login())
    assert (len(store), len(other)) == (1, 1)


def test_threads_that_save_at_the_same_time_lose_nothing(store):
    """Each change starts over until it is made."""
    in_threads(8, lambda number: [store.save_token(login(f"u{number}-{n}", 10 * number + n)) for n in range(5)])
    rows = store.get_tokens()
    assert (len(rows), len({row.get_id() for row in rows})) == (40, 40)


def test_a_fresh_token_is_found_in_the_cached_document(cell):
    """`cache_for`: other programs are seen later, the own changes at once."""
    other = CustomStoreShared(cell)
    with CustomStoreShared(cell, cache_for=60) as store:
        store.save_token(login(expires_in="4102444800000"))
        loads = cell.loads
        assert store.find_token(token("ada@example.com")).get_id() == "1"
        assert store.find_token_by_id("1").get_id() == "1"
        assert cell.loads == loads
        other.delete_tokens()
        assert store.find_token_by_id("1").get_id() == "1"
        assert len(store) == 0
        assert failure(store.find_token_by_id, "1").code == "missing-id"


def test_greenlets_that_switch_inside_a_cell():
    """Under gevent a client waits by running another greenlet of the thread, which may come back first."""
    pytest.importorskip("gevent")
    from support import run_program

    code = """
from gevent import monkey; monkey.patch_all()
import gevent, random
class Cell:
    document, version = None, 0
    def load(self):
        loaded = self.document, self.version
        gevent.sleep(random.random() / 200)
        return loaded
    def swap(self, document, version):
        gevent.sleep(random.random() / 200)
        if self.version != version:
            return False
        self.document, self.version = document, version + 1
        gevent.sleep(random.random() / 200)
        return True
from zoho_token_store import CustomStoreShared
store = CustomStoreShared(Cell(), busy_timeout=60)
def work(number):
    for n in range(3):
        store.save_token(login(f"u{number}-{n}", 10 * number + n))
        assert store.find_token(token(f"u{number}-{n}")) is not None
greenlets = [gevent.spawn(work, number) for number in range(8)]
gevent.joinall(greenlets, raise_error=True, timeout=60)
print(len(store), len({row.get_id() for row in store.get_tokens()}))
"""
    assert run_program(code) == "24 24\n"


def test_a_source_of_keys_that_fails_is_not_the_cause_of_another_failure(cell):
    """A save goes on with the keys that it has. If it fails then, the cause is that of the failure."""
    old, new = new_key(), new_key()
    answers = [[old, new], OSError("planted-text")]

    def ask():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with CustomStoreShared(cell, keys=ask) as store, CustomStoreShared(cell, keys=[new, old]) as other:
        other.save_token(login())
        cell.swap = raises(ConnectionError("planted-text"))
        cause = failure(store.save_token, login("bob@example.com", 2))
    assert (cause.code, answers) == ("cell-failed", [])
    assert isinstance(cause.__cause__, ConnectionError)
