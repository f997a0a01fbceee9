"""Contract 7 when programs fork: servers that load first, pools, forks in the middle of what other threads do."""

from __future__ import annotations

import json

import pytest
from support import JUDGE, judge_last, run_forked, run_program

# Whoever saves says what it was told is saved; at the end another SQLite has to find it.
PROGRAM = (
    JUDGE
    + """
import children, json, multiprocessing, sqlite3, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forking with threads: that is the point
path, count = sys.argv[1], int(sys.argv[2])

def save(store, who, number):
    user = f"{who}.{number}"
    store.save_token(login(user, abs(hash(user)), refresh_token=f"planted-{user}"))

def save_all(store, who):
    for number in range(count):
        save(store, who, number)
        assert store.find_token(token(f"{who}.{number}"))

def judge_all(*savers, once=()):
    judge([f"{who}.{number}" for who in savers for number in range(count)] + list(once))
"""
)


def test_a_server_that_loads_first_forks_workers_that_fork_and_are_replaced(path, extent):
    """Contract 7: gunicorn's preload; master, workers, their children and the workers' successors save."""
    code = """
store = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)
save(store, "before", 0)

def worker(name):
    grandchildren = [children.fork(lambda n=n: save_all(store, f"{name}-child{n}")) for n in range(2)]
    save_all(store, name)
    children.join(grandchildren)

workers = [children.fork(lambda n=n: worker(f"worker{n}")) for n in range(2)]
save_all(store, "master")
children.join(workers)
successors = [children.fork(lambda: worker("successor"))]
save(store, "after", 0)
children.join(successors)
assert store.find_token(token("successor-child1.0"))
store.close()
names = ["worker0", "worker1", "successor"]
judge_all("master", *names, *(f"{name}-child{n}" for name in names for n in range(2)), once=["before.0", "after.0"])
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(25, 100)))


def test_a_pool_forks_its_workers_from_a_thread_of_its_own(path, extent):
    """Contract 7: `multiprocessing` replaces workers in a thread while the program and the other workers save."""
    code = """
store = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)

def work(number):
    save(store, "pool", number)
    return store.find_token(token(f"pool.{number}")).get_user_signature().get_name()

with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=5) as pool:
    asked = pool.map_async(work, range(count), chunksize=1)
    save_all(store, "program")
    assert asked.get(children.PATIENCE) == [f"pool.{number}" for number in range(count)]
    pool.close()
    pool.join()
judge_all("pool", "program")
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(25, 100)))


def test_a_fork_in_the_middle_of_a_transaction_is_in_nobodys_way(path, extent):
    """Contract 7: another thread is in a long transaction: it is whole, and the child saves and finds."""
    code = """
store = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)
save(store, "before", 0)
rounds, size = 5, 40 * count
for turn in range(rounds):
    begun = threading.Event()

    def many():
        for number in range(size):
            yield login(f"import{turn}.{number}", turn * size + number)
        begun.set()  # the transaction comes next

    importing = threading.Thread(target=store.import_tokens, args=(many(),))
    importing.start()
    assert begun.wait(children.PATIENCE)
    time.sleep(0.01 * turn)  # somewhere in the middle: wherever that is, what follows holds

    def child():
        save(store, "child", turn)
        users = {values(made)["user"] for made in store.get_tokens()}
        assert (f"import{turn}.0" in users) == (f"import{turn}.{size - 1}" in users), "all of it or nothing"

    forked = children.fork(child)
    save(store, "parent", turn)
    children.join([forked])
    importing.join(children.PATIENCE)
    assert not importing.is_alive()
once = [f"{who}.{turn}" for who in ("child", "parent") for turn in range(rounds)]
once += [f"import{turn}.{number}" for turn in range(rounds) for number in range(size)]
judge_all(once=["before.0", *once])
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(25, 100)))


def test_a_fork_while_others_wait_for_the_file_leaves_all_to_go_on(path, extent):
    """Contract 7: another process holds the file: a thread waits, forks happen, children and theirs wait as well."""
    code = """
store = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)
save(store, "before", 0)

def hold():
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    held.set()
    assert forked.wait(children.PATIENCE)
    connection.execute("COMMIT")

held, forked = multiprocessing.Event(), multiprocessing.Event()
holder = children.fork(hold)
assert held.wait(children.PATIENCE)
waiting = [threading.Thread(target=save_all, args=(store, f"thread{n}")) for n in range(2)]
for thread in waiting:
    thread.start()

def child():
    grandchild = children.fork(lambda: save_all(store, "grandchild"))
    save_all(store, "child")
    children.join([grandchild])

first = children.fork(child)
second = children.fork(lambda: None)
# A find waits for nobody, before and after a fork.
assert store.find_token(token("before.0"))
forked.set()
for thread in waiting:
    thread.join(children.PATIENCE)
    assert not thread.is_alive()
children.join([holder, first, second])
judge_all("thread0", "thread1", "child", "grandchild", once=["before.0"])
"""
    judge_last(run_forked(PROGRAM + code, path, extent.of(25, 100)))


@pytest.mark.parametrize("holder", ["thread", "process"])
def test_a_fork_while_a_refresh_is_under_way_asks_zoho_once(path, holder):
    """Contract 7, 8: a thread or process refreshes, another thread waits for it, and so do those forked meanwhile."""
    code = """
import logging
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

class Heard(logging.Handler):
    def emit(self, record):
        if "took the lease" in record.getMessage():
            held.set()
        elif "waiting" in record.getMessage():
            waits.set()

held, waits, got = multiprocessing.Event(), threading.Event(), multiprocessing.SimpleQueue()
logging.getLogger("zoho_token_store").addHandler(Heard())
logging.getLogger("zoho_token_store").setLevel(logging.DEBUG)
zoho = ZohoStandIn(latency=0.7).start()
Initializer.initializer = Initializer()
Initializer.initializer.environment = zoho.environment()
Initializer.initializer.sdk_config = SDKConfig()
# A lease that nobody here could sit out.
Initializer.initializer.store = store = CustomStoreSQLite(path, refresh_lease=300, busy_timeout=children.PATIENCE)
store.save_token(login("ada@example.com", client_id=zoho.client_id, client_secret=zoho.client_secret, expires_in="1",
                       refresh_token=zoho.refresh_token("ada@example.com"), access_token="expired"))

def ask():
    got.put(OAuthToken(id="1").get_token())

def ask_in_thread():
    threads.append(threading.Thread(target=ask, daemon=True))
    threads[-1].start()

def child():
    grandchild = children.fork(ask)
    ask()
    children.join([grandchild])

threads, forked = [], []
if sys.argv[3] == "thread":
    ask_in_thread()
else:
    forked.append(children.fork(ask))
assert held.wait(children.PATIENCE)
ask_in_thread()
waits.wait(5)  # unless the answer was here before
forked += [children.fork(child) for _ in range(2)]
for thread in threads:
    thread.join(children.PATIENCE)
    assert not thread.is_alive()
children.join(forked)
tokens = [got.get() for _ in range(6)]
print(json.dumps([zoho.token_calls, len(set(tokens)), "expired" in tokens]))
"""
    assert json.loads(run_forked(PROGRAM + code, path, 0, holder).splitlines()[-1]) == [1, 1, False]


def test_children_that_end_at_once_take_nothing_with_them(path, extent):
    """Contract 7: a child ends by `os._exit` or as a program does, having used the store or not; nobody is hurt."""
    code = """
store = CustomStoreSQLite(path, busy_timeout=children.PATIENCE)
save(store, "before", 0)
rounds = count
for number in range(rounds):
    for end in ("at once", "as a program", "closed", "used"):
        child = os.fork()
        if child == 0:
            if end == "at once":
                os._exit(0)
            if end == "closed":
                store.close()
            if end == "used":
                save(store, "child", number)
            sys.exit(0)
        save(store, end, number)  # while the child ends
        children.join([child])
        assert store.find_token(token("before.0"))
once = [f"{end}.{number}" for end in ("at once", "as a program", "closed", "used", "child") for number in range(rounds)]
judge_all(once=["before.0", *once])
"""
    # In a process of its own: a child of a child of the tests' would not end as a program does.
    judge_last(run_program(PROGRAM + code, path, extent.of(1, 15)))
