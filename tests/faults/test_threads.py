"""Threads, the interpreter's end, the garbage collector and signals in the middle of a store's work (contract 7)."""

from __future__ import annotations

import gc
import weakref

import pytest
from support import in_threads, login, run_program, token, values
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

WITHIN = 60  # seconds: only what never ends takes as long


def test_32_threads_on_one_store_see_what_each_was_told(make, extent):
    """Contract 7: one store serves any number of threads; what was acknowledged is there, for all, and no more."""
    rounds = extent.of(2, 40)

    def work(thread):
        for number in range(rounds):
            user = f"user{thread}.{number}@example.com"
            mine = login(user, 1000 * thread + number)
            store.save_token(mine)
            assert store.find_token(token(user)).get_id() == mine.get_id()
            shared.save_token(login("shared@example.com", 10**6 + 1000 * thread + number))
            if number % 2:
                shared.delete_token(mine.get_id())
                assert store.find_token(token(user)) is None
            assert len(store.get_tokens()) >= 1

    with make(**({"busy_timeout": WITHIN} if store_is_a_file(make) else {})) as store:
        shared = store
        in_threads(32, work)
        users = [values(made)["user"] for made in store.get_tokens()]
        kept = [f"user{thread}.{number}@example.com" for thread in range(32) for number in range(0, rounds, 2)]
        assert sorted(users) == sorted([*kept, "shared@example.com"])


def store_is_a_file(make):
    """Tell whether it takes the options of one."""
    with make() as made:
        return isinstance(made, CustomStoreSQLite)


class Token(type(login())):
    """A token that does something while it is read."""

    def __init__(self, act, user="reader@example.com"):
        self.act = None
        super().__init__(id="x", refresh_token=f"planted-refresh-{user}", access_token=f"planted-access-{user}")
        self.set_id(None)
        self.act = act

    def get_access_token(self):
        if self.act is not None:
            self.act()
        return super().get_access_token()


def make_another(kind, path):
    return kind(path) if kind is CustomStoreSQLite else kind()


@pytest.mark.parametrize("kind", [CustomStoreSQLite, CustomStoreInMemory, CustomStoreList])
def test_a_store_that_is_collected_in_the_middle_of_a_save(kind, path):
    """Contract 7: no lock of the store's is held while Python code runs: finalizers and callbacks may use stores."""
    seen = []

    class Cycle:
        def __init__(self, number):
            self.me = self
            # On the same file, and a part of the cycle.
            self.store = make_another(kind, path)
            self.number = number

        def __del__(self):
            self.store.save_token(login(f"gone{self.number}@example.com", self.number))
            seen.append(len(self.store))
            kept.find_token(token("kept@example.com"))

    def collect():
        cycles = [Cycle(number) for number in range(3)]
        callbacks.extend(weakref.ref(cycle.store, lambda _: seen.append(len(kept))) for cycle in cycles)
        del cycles
        gc.collect()

    callbacks = []
    with make_another(kind, path) as kept:
        kept.save_token(login("kept@example.com", 100))
        made = Token(collect)
        for method in (kept.save_token, kept.find_token, lambda made: kept.import_tokens([made])):
            method(made)
        assert len(seen) >= 9
        rows = 1 + 1 + (3 if kind is CustomStoreSQLite else 0)
        assert len(kept) == rows


def test_a_token_that_raises_closes_or_saves_while_it_is_read(make, path):
    """Contract 6 and 7: whatever a getter does, nothing is saved by halves, and the store says what it can."""

    def stop():
        raise RuntimeError("planted-in-the-getter")

    with make() as store:
        with pytest.raises(SDKException, match=r"save_token: the token's access_token cannot be read \(RuntimeError\)"):
            store.save_token(Token(stop))
        assert len(store) == 0
        store.save_token(Token(lambda: store.save_token(login("inner@example.com", 1))))
        assert len(store) == 2
        with pytest.raises(SDKException, match=r"import_tokens: the token's access_token cannot be read"):
            store.import_tokens([login("first@example.com", 2), Token(stop)])
        assert len(store) == 2
        with pytest.raises(SDKException, match=r"save_token: this store on .* is closed"):
            store.save_token(Token(store.close, "late@example.com"))
    if path.exists():
        with CustomStoreSQLite(path) as store:
            assert len(store) == 2


FORKING = """
import children, warnings
warnings.simplefilter("ignore", DeprecationWarning)
store = CustomStoreSQLite(sys.argv[1], busy_timeout=30)
store.save_token(login("before@example.com", 1))
main = os.getpid()

class Forking(type(login())):
    def get_refresh_token(self):
        self.child = None
        if self.forks and os.getpid() == main:
            self.child = os.fork()
        return super().get_refresh_token()

def busy():
    while not stop.is_set():
        store.save_token(login("busy@example.com", 2))

stop = threading.Event()
thread = threading.Thread(target=busy)
thread.start()
try:
    for number in range(10):
        made = Forking("1000.CLIENT", "planted-secret", refresh_token=f"planted-forked-{number}")
        made.forks = True
        store.save_token(made)  # in the parent and in the child, each to its end
        if made.child == 0:
            os._exit(0 if store.find_token(made) is made else 1)
        made.forks = False
        children.join([made.child])
finally:
    stop.set()
    thread.join(30)
print(len(store))
"""


def test_a_token_that_forks_while_it_is_read_is_saved_by_both(path):
    """Contract 7: parent and child go on with the call that the fork was made in; they save one row."""
    assert run_program(FORKING, path) == "12\n"


SIGNALS = """
import itertools, signal
store = STORE
numbers, going_on = itertools.count(), True
store.save_token(login("before@example.com", 0))
seen = []

def handler(*_):
    number = next(numbers)
    store.save_token(login(f"signal{number}@example.com", 10_000 + number))
    seen.append(store.find_token(token(f"signal{number}@example.com")).get_id())
    signal.setitimer(signal.ITIMER_REAL, 0.003 if going_on else 0)  # one at a time, however slow the disk

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.003)
saved = 0
until = time.monotonic() + 30
while (len(seen) < int(sys.argv[2]) or saved < int(sys.argv[2])) and time.monotonic() < until:
    store.save_token(login(f"user{saved}@example.com", 20_000 + saved))
    store.find_token(token("before@example.com"))
    saved += 1
going_on = False
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(store) == len(seen) + saved + 1 == len(set(seen)) + saved + 1, len(seen) >= int(sys.argv[2]))
"""
STORES = {
    "CustomStoreSQLite": "CustomStoreSQLite(sys.argv[1], busy_timeout=20)",
    "CustomStoreInMemory": "CustomStoreInMemory()",
    "CustomStoreList": "CustomStoreList()",
}


@pytest.mark.parametrize("made", STORES)
def test_a_signal_handler_that_uses_the_store_whose_save_it_interrupts(path, extent, made):
    """Contract 7: no lock of the store's is held while Python code runs, a handler's included."""
    code = SIGNALS.replace("STORE", STORES[made], 1)
    assert run_program(code, path, extent.of(15, 1000)) == "True True\n"


# Each leaves something running or waiting when the main thread comes to its end.
ENDINGS = {
    # Threads that wait for a file that another connection holds, and one that goes on saving.
    "waiting for the file": """
import sqlite3
holder = sqlite3.connect(sys.argv[1], isolation_level=None)
holder.execute("begin immediate")
for number in range(3):
    begin(lambda number=number: store.save_token(login(f"waits{number}@example.com", number)))
begin(lambda: [store.find_token(token("ada@example.com")) for _ in range(1000)])
time.sleep(0.05)
holder.execute("rollback")
""",
    # Threads that wait for a refresh that never comes.
    "waiting for a lease": """
store.save_token(login(expires_in="1"))

def ask():
    store.find_token(token(client_id="1000.CLIENT", refresh_token="planted-refresh-1"))

for _ in range(4):
    begin(ask)
time.sleep(0.05)
""",
    # Stores used by hooks at exit, and by finalizers that run when the modules are taken down.
    "used at the end": """
import atexit

class Last:
    def __init__(self):
        self.me, self.store = self, store

    def __del__(self):
        self.store.save_token(login("last@example.com", 7))
        self.store.find_token(token("ada@example.com"))
        len(self.store)

last = Last()
sys.modules["kept_to_the_end"] = Last()
atexit.register(lambda: store.save_token(login("exit@example.com", 8)))
atexit.register(lambda: begin(lambda: None) if sys.version_info < (3, 12) else None)
begin(lambda: [store.save_token(login("busy@example.com", 9)) for _ in range(20)])
time.sleep(0.02)
""",
}
END = """
import faulthandler
faulthandler.enable()
threads = []

def begin(work):
    def run():
        try:
            work()
        except SDKException as error:
            assert "in use" in error.args[1] or "closed" in error.args[1], error
    thread = threading.Thread(target=run)
    threads.append(thread)
    thread.start()

store = CustomStoreSQLite(sys.argv[1], busy_timeout=0.5, refresh_lease=0.5)
others = [CustomStoreInMemory(), CustomStoreList(), CustomStoreSQLite(sys.argv[1])]
for other in [store, *others]:
    other.save_token(login())
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interpreter_that_ends_with_stores_in_use(path, extent, ending):
    """Contract 7: with threads at work or waiting, hooks and finalizers, it ends by itself and with status 0."""
    for _ in range(extent.of(1, 15)):
        # Fails unless the status is 0: a crash and an abort have others, and a hang reaches the time limit.
        run_program(END + ENDINGS[ending], path, timeout=WITHIN)
        with CustomStoreSQLite(path, busy_timeout=WITHIN) as store:
            users = {values(made)["user"] for made in store.get_tokens()}
            assert "ada@example.com" in users
            if ending == "used at the end":
                assert "exit@example.com" in users
