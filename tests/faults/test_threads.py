"""Contract 7: threads, signals, garbage collection and the end of the interpreter, while a store is in use."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import itertools
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
import warnings
import weakref

import children
import pytest
from own_process import run_in_fork, run_in_new_interpreter
from support import in_threads, login, token, values
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStorePostgreSQL, CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

SHARED = [CustomStoreSQLite, CustomStorePostgreSQL]  # stores on the same rows
EACH_STORE = pytest.mark.parametrize(
    "kind", [*SHARED, CustomStoreInMemory, CustomStoreList], ids=lambda kind: kind.__name__
)


@pytest.fixture
def place(kind, path, request):
    """The arguments that say where the rows of a store are."""
    if kind is CustomStorePostgreSQL:
        return {"dsn": request.getfixturevalue("dsn"), "schema": request.getfixturevalue("schema")}
    return {"path": path} if kind is CustomStoreSQLite else {}


def open_store(kind, place, **options):
    return kind(**place, **options) if kind in SHARED else kind()


@EACH_STORE
def test_32_threads_use_one_store(kind, place, extent):
    """Contract 7: each thread finds what it has saved, and the store has exactly the acknowledged rows."""
    rounds = extent.of(2, 40)

    def work(thread):
        for number in range(rounds):
            user = f"user{thread}.{number}@example.com"
            mine = login(user, 1000 * thread + number)
            store.save_token(mine)
            assert store.find_token(token(user)).get_id() == mine.get_id()
            store.save_token(login("shared@example.com", 10**6 + 1000 * thread + number))
            if number % 2:
                store.delete_token(mine.get_id())
                assert store.find_token(token(user)) is None
            assert len(store.get_tokens()) >= 1

    with open_store(kind, place, busy_timeout=children.TIMEOUT) as store:
        in_threads(32, work)
        users = [values(made)["user"] for made in store.get_tokens()]
        kept = [f"user{thread}.{number}@example.com" for thread in range(32) for number in range(0, rounds, 2)]
        assert sorted(users) == sorted([*kept, "shared@example.com"])


class Token(type(login())):
    """A token that calls a function while the store reads it."""

    def __init__(self, when_read, user="reader@example.com"):
        self.when_read = None  # the constructor of the SDK reads the token, too
        super().__init__(id="x", refresh_token=f"planted-refresh-{user}", access_token=f"planted-access-{user}")
        self.set_id(None)
        self.when_read = when_read

    def get_access_token(self):
        if self.when_read is not None:
            self.when_read()
        return super().get_access_token()


@EACH_STORE
def test_a_garbage_collection_during_a_save_may_use_stores(kind, place):
    """Contract 7: a store holds no lock while Python code runs, so finalizers and callbacks can use stores."""
    row_counts = []

    class Cycle:
        def __init__(self, number):
            self.me = self
            # A store on the same file, which is a part of the reference cycle.
            self.store = open_store(kind, place)
            self.number = number

        def __del__(self):
            self.store.save_token(login(f"gone{self.number}@example.com", self.number))
            row_counts.append(len(self.store))
            kept.find_token(token("kept@example.com"))

    def collect():
        cycles = [Cycle(number) for number in range(3)]
        callbacks.extend(weakref.ref(cycle.store, lambda _: row_counts.append(len(kept))) for cycle in cycles)
        del cycles
        gc.collect()

    callbacks = []
    with open_store(kind, place) as kept:
        kept.save_token(login("kept@example.com", 100))
        made = Token(collect)
        for method in (kept.save_token, kept.find_token, lambda made: kept.import_tokens([made])):
            method(made)
        assert len(row_counts) >= 9
        assert len(kept) == 1 + 1 + (3 if kind in SHARED else 0)


@EACH_STORE
def test_a_getter_of_a_token_may_raise_close_or_save(kind, place):
    """Contract 6 and 7: a save is complete or an error, whatever a getter of the token does."""

    def fail():
        raise RuntimeError("planted-in-the-getter")

    with open_store(kind, place) as store:
        with pytest.raises(SDKException, match=r"save_token: the token's access_token cannot be read \(RuntimeError\)"):
            store.save_token(Token(fail))
        assert len(store) == 0
        store.save_token(Token(lambda: store.save_token(login("inner@example.com", 1))))
        assert len(store) == 2
        with pytest.raises(SDKException, match=r"import_tokens: the token's access_token cannot be read"):
            store.import_tokens([login("first@example.com", 2), Token(fail)])
        assert len(store) == 2
        with pytest.raises(SDKException) as raised:
            store.save_token(Token(store.close, "late@example.com"))
        assert raised.value.cause.code == "closed"
    if kind in SHARED:
        with open_store(kind, place) as store:
            assert len(store) == 2


class ForkingToken(type(login())):
    """A token that forks the process while the store reads it."""

    forks = False
    child = None

    def get_refresh_token(self):
        if self.forks:
            self.forks = False
            self.child = os.fork()
        return super().get_refresh_token()


def save_tokens_that_fork(path):
    warnings.simplefilter("ignore", DeprecationWarning)
    store = CustomStoreSQLite(path, busy_timeout=30)
    store.save_token(login("before@example.com", 1))
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            store.save_token(login("busy@example.com", 2))

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for number in range(10):
            made = ForkingToken("1000.CLIENT", "planted-secret", refresh_token=f"planted-forked-{number}")
            made.forks = True
            store.save_token(made)  # this call returns in the parent and in the child
            if made.child == 0:
                os._exit(0 if store.find_token(made) is made else 1)
            children.join([made.child])
    finally:
        stop.set()
        thread.join(30)
    return len(store)


def test_a_fork_during_a_save_completes_the_save_in_both_processes(path):
    """Contract 7: parent and child continue the call in which the fork happened. They save one row."""
    assert run_in_fork(save_tokens_that_fork, path) == 12


def save_in_signal_handlers(kind, place, count):
    store = open_store(kind, place, busy_timeout=20)
    store.save_token(login("before@example.com", 0))
    numbers, ids, is_running = itertools.count(), [], True

    def handle(*_):
        number = next(numbers)
        store.save_token(login(f"signal{number}@example.com", 10_000 + number))
        ids.append(store.find_token(token(f"signal{number}@example.com")).get_id())
        signal.setitimer(signal.ITIMER_REAL, 0.003 if is_running else 0)  # the next signal comes after this one

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.003)
    saved = 0
    deadline = time.monotonic() + 30
    while (len(ids) < count or saved < count) and time.monotonic() < deadline:
        store.save_token(login(f"user{saved}@example.com", 20_000 + saved))
        store.find_token(token("before@example.com"))
        saved += 1
    is_running = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(ids) >= count
    assert len(store) == len(ids) + saved + 1
    assert len(ids) == len(set(ids))


@EACH_STORE
def test_a_signal_handler_may_use_the_store_that_it_interrupts(kind, place, extent):
    """Contract 7: a store holds no lock while Python code runs. A signal handler is Python code, too."""
    run_in_fork(save_in_signal_handlers, kind, place, extent.of(15, 1000))


class Threads:
    """Starts threads that may still run when the interpreter ends."""

    def __init__(self):
        self.threads = []

    def begin(self, work):
        def run():
            try:
                work()
            except SDKException as error:
                if error.cause.code not in ("busy", "closed"):
                    raise

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()


def wait_for_the_file(path, store, begin):
    """Threads wait for the write lock of another connection, and one finds tokens."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    for number in range(3):
        begin(lambda number=number: store.save_token(login(f"waits{number}@example.com", number)))
    begin(lambda: [store.find_token(token("ada@example.com")) for _ in range(1000)])
    time.sleep(0.05)
    other.execute("rollback")


def wait_for_a_lease(_path, store, begin):
    """Threads wait for a refresh that never comes."""
    store.save_token(login(expires_in="1"))
    for _ in range(4):
        begin(lambda: store.find_token(token(client_id="1000.CLIENT", refresh_token="planted-refresh-1")))
    time.sleep(0.05)


class SavesInItsFinalizer:
    """Uses a store when the interpreter clears the modules."""

    def __init__(self, store):
        self.me, self.store = self, store

    def __del__(self):
        self.store.save_token(login("last@example.com", 7))
        self.store.find_token(token("ada@example.com"))
        len(self.store)


def use_at_the_end(_path, store, begin):
    """`atexit` functions and finalizers use the store, and a thread saves."""
    globals()["last"] = SavesInItsFinalizer(store)
    sys.modules["kept_until_the_end"] = SavesInItsFinalizer(store)
    atexit.register(lambda: store.save_token(login("exit@example.com", 8)))
    atexit.register(lambda: begin(lambda: None) if sys.version_info < (3, 12) else None)
    begin(lambda: [store.save_token(login("busy@example.com", 9)) for _ in range(20)])
    time.sleep(0.02)


ENDINGS = {ending.__name__: ending for ending in (wait_for_the_file, wait_for_a_lease, use_at_the_end)}


def end_with_stores_in_use(path, ending):
    faulthandler.enable()
    store = CustomStoreSQLite(path, busy_timeout=0.5, refresh_lease=0.5)
    for other in [store, CustomStoreInMemory(), CustomStoreList(), CustomStoreSQLite(path)]:
        other.save_token(login())
    ENDINGS[ending](path, store, Threads().begin)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interpreter_ends_while_stores_are_in_use(path, extent, ending):
    """Contract 7: it ends by itself and with status 0: no crash, no abort, no deadlock."""
    for _ in range(extent.of(1, 15)):
        run_in_new_interpreter(end_with_stores_in_use, path, ending)
        with CustomStoreSQLite(path, busy_timeout=children.TIMEOUT) as store:
            users = {values(made)["user"] for made in store.get_tokens()}
            assert "ada@example.com" in users
            if ending == "use_at_the_end":
                assert "exit@example.com" in users


class SlowToken(type(token("ada@example.com"))):
    """A token whose getter gives the GIL to other threads, as a breakpoint or a busy program does."""

    def get_redirect_url(self):
        time.sleep(0.001)
        return super().get_redirect_url()


def end_while_daemon_threads_call(kind, place):
    """Call a store in daemon threads until the interpreter ends: with Python code inside, and with lines in the log."""
    store = open_store(kind, place)
    store.save_token(login())
    logging.basicConfig(level=logging.DEBUG, handlers=[logging.FileHandler(os.devnull)])

    def call(_):
        while True:
            store.find_token(SlowToken(user_signature=login().get_user_signature()))
            with contextlib.suppress(SDKException):
                store.find_token_by_id("no row")
            store.save_token(login())

    started = threading.Barrier(9)
    for number in range(8):
        threading.Thread(target=lambda number=number: (started.wait(), call(number)), daemon=True).start()
    started.wait()
    time.sleep(0.1)
    return "ends"


@EACH_STORE
def test_a_program_ends_while_daemon_threads_call(kind, place):
    """Before Python 3.14 a daemon thread is terminated when the interpreter ends. That must not abort the process."""
    assert run_in_new_interpreter(end_while_daemon_threads_call, kind, place) == "ends"
