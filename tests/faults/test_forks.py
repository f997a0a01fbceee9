"""Contract 7 when programs fork: servers that load first, pools, forks in the middle of other threads' work."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import sys
import threading
import time
import warnings

import children
import pytest
from faults.checks import assert_users
from own_process import run_in_fork, run_in_new_interpreter
from support import login, token, values
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

LONGER_THAN_ANY_TEST = 300  # seconds, for `refresh_lease`


def open_store(path, **options):
    # Python warns about a fork with threads. Such forks are the subject of these tests.
    warnings.simplefilter("ignore", DeprecationWarning)
    return CustomStoreSQLite(path, busy_timeout=children.TIMEOUT, **options)


def save(store, name, number):
    user = f"{name}.{number}"
    store.save_token(login(user, abs(hash(user)), refresh_token=f"planted-{user}"))


def save_all(store, name, count):
    for number in range(count):
        save(store, name, number)
        assert store.find_token(token(f"{name}.{number}"))


def saved(count, *names):
    return [f"{name}.{number}" for name in names for number in range(count)]


def serve_with_workers(path, count):
    store = open_store(path)
    save(store, "before", 0)

    def worker(name):
        grandchildren = [children.fork(lambda n=n: save_all(store, f"{name}-child{n}", count)) for n in range(2)]
        save_all(store, name, count)
        children.join(grandchildren)

    workers = [children.fork(lambda n=n: worker(f"worker{n}")) for n in range(2)]
    save_all(store, "master", count)
    children.join(workers)
    successor = children.fork(lambda: worker("successor"))
    save(store, "after", 0)
    children.join([successor])
    assert store.find_token(token("successor-child1.0"))
    store.close()
    workers = ["worker0", "worker1", "successor"]
    grandchildren = [f"{name}-child{n}" for name in workers for n in range(2)]
    assert_users(path, ["before.0", "after.0", *saved(count, "master", *workers, *grandchildren)])


def test_a_server_that_loads_first_forks_workers_that_fork_and_are_replaced(path, extent):
    """Contract 7: with gunicorn's preload the master, its workers, their children and later workers save."""
    run_in_fork(serve_with_workers, path, extent.of(25, 100))


def save_in_pool(number):
    """Save a token. A pool can only run a function of a module, so the store is an attribute of this one."""
    save(save_in_pool.store, "pool", number)
    return save_in_pool.store.find_token(token(f"pool.{number}")).get_user_signature().get_name()


def use_a_pool(path, count):
    store = save_in_pool.store = open_store(path)
    with multiprocessing.get_context("fork").Pool(3, maxtasksperchild=5) as pool:
        result = pool.map_async(save_in_pool, range(count), chunksize=1)
        save_all(store, "program", count)
        assert result.get(children.TIMEOUT) == saved(count, "pool")
        pool.close()
        pool.join()
    assert_users(path, saved(count, "pool", "program"))


def test_a_pool_that_forks_new_workers_from_its_own_thread(path, extent):
    """Contract 7: `multiprocessing` replaces workers in a thread, while the program and other workers save."""
    run_in_fork(use_a_pool, path, extent.of(25, 100))


def fork_during_imports(path, count):
    store = open_store(path)
    save(store, "before", 0)
    rounds, size = 5, 40 * count

    def logins(turn, begun):
        for number in range(size):
            yield login(f"import{turn}.{number}", turn * size + number)
        begun.set()  # the transaction begins after the last token

    for turn in range(rounds):
        begun = threading.Event()
        importing = threading.Thread(target=store.import_tokens, args=(logins(turn, begun),))
        importing.start()
        assert begun.wait(children.TIMEOUT)
        time.sleep(0.01 * turn)  # a different moment of the transaction in each round; the test is right at any moment

        def child(turn=turn):
            save(store, "child", turn)
            users = {values(made)["user"] for made in store.get_tokens()}
            assert (f"import{turn}.0" in users) == (f"import{turn}.{size - 1}" in users), "all of it or nothing"

        forked = children.fork(child)
        save(store, "parent", turn)
        children.join([forked])
        importing.join(children.TIMEOUT)
        assert not importing.is_alive()
    imported = saved(size, *(f"import{turn}" for turn in range(rounds)))
    assert_users(path, ["before.0", *saved(rounds, "child", "parent"), *imported])


def test_a_fork_in_the_middle_of_a_transaction(path, extent):
    """Contract 7: the transaction of the other thread is complete, and the child saves and finds."""
    run_in_fork(fork_during_imports, path, extent.of(25, 100))


def fork_while_the_file_is_locked(path, count):
    store = open_store(path)
    save(store, "before", 0)
    locked, forked = multiprocessing.Event(), multiprocessing.Event()

    def keep_locked():
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        locked.set()
        assert forked.wait(children.TIMEOUT)
        connection.execute("COMMIT")

    def child():
        grandchild = children.fork(lambda: save_all(store, "grandchild", count))
        save_all(store, "child", count)
        children.join([grandchild])

    other = children.fork(keep_locked)
    assert locked.wait(children.TIMEOUT)
    threads = [threading.Thread(target=save_all, args=(store, f"thread{n}", count)) for n in range(2)]
    for thread in threads:
        thread.start()
    first = children.fork(child)
    second = children.fork(lambda: None)
    # A find does not wait for the lock, neither before nor after a fork.
    assert store.find_token(token("before.0"))
    forked.set()
    for thread in threads:
        thread.join(children.TIMEOUT)
        assert not thread.is_alive()
    children.join([other, first, second])
    assert_users(path, ["before.0", *saved(count, "thread0", "thread1", "child", "grandchild")])


def test_forks_while_another_process_has_the_write_lock(path, extent):
    """Contract 7: a thread, the forked children and their children all wait for the lock, and then save."""
    run_in_fork(fork_while_the_file_is_locked, path, extent.of(25, 100))


class LeaseEvents(logging.Handler):
    """Tells when any process acquires the lease, and when a thread of this process waits for it."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.acquired, self.waiting = multiprocessing.Event(), threading.Event()

    def emit(self, record):
        if "acquired the lease" in record.getMessage():
            self.acquired.set()
        elif "waiting" in record.getMessage():
            self.waiting.set()


def fork_during_a_refresh(path, holder):
    events, received = LeaseEvents(), multiprocessing.SimpleQueue()
    logging.getLogger("zoho_token_store").addHandler(events)
    logging.getLogger("zoho_token_store").setLevel(logging.DEBUG)
    zoho = ZohoStandIn(latency=0.7).start()
    Initializer.initializer = Initializer()
    Initializer.initializer.environment = zoho.environment()
    Initializer.initializer.sdk_config = SDKConfig()
    Initializer.initializer.store = store = open_store(path, refresh_lease=LONGER_THAN_ANY_TEST)
    credentials = {"client_id": zoho.client_id, "client_secret": zoho.client_secret}
    refresh_token = zoho.refresh_token("ada@example.com")
    expired = {"expires_in": "1", "access_token": "expired", "refresh_token": refresh_token}
    store.save_token(login("ada@example.com", **credentials, **expired))
    threads, forked = [], []

    def get_token():
        received.put(OAuthToken(id="1").get_token())

    def get_token_in_thread():
        threads.append(threading.Thread(target=get_token, daemon=True))
        threads[-1].start()

    def child():
        grandchild = children.fork(get_token)
        get_token()
        children.join([grandchild])

    if holder == "thread":
        get_token_in_thread()
    else:
        forked.append(children.fork(get_token))
    assert events.acquired.wait(children.TIMEOUT)
    get_token_in_thread()
    events.waiting.wait(5)  # on a slow machine the answer may be there already
    forked += [children.fork(child) for _ in range(2)]
    for thread in threads:
        thread.join(children.TIMEOUT)
        assert not thread.is_alive()
    children.join(forked)
    tokens = [received.get() for _ in range(6)]
    return zoho.token_calls, len(set(tokens)), "expired" in tokens


@pytest.mark.parametrize("holder", ["thread", "process"])
def test_forks_during_a_refresh_cost_no_second_call(path, holder):
    """Contract 7, 8: a thread or a process refreshes. Another thread waits for it, and so do forked processes."""
    calls, different_tokens, has_expired = run_in_fork(fork_during_a_refresh, path, holder)
    assert (calls, different_tokens, has_expired) == (1, 1, False)


def fork_children_that_end(path, rounds):
    store = open_store(path)
    save(store, "before", 0)
    endings = ("at once", "as a program", "closed", "used")
    for number in range(rounds):
        for ending in endings:
            child = os.fork()
            if child == 0:
                if ending == "at once":
                    os._exit(0)
                if ending == "closed":
                    store.close()
                if ending == "used":
                    save(store, "child", number)
                sys.exit(0)
            save(store, ending, number)  # while the child ends
            children.join([child])
            assert store.find_token(token("before.0"))
    assert_users(path, ["before.0", *saved(rounds, "child", *endings)])


def test_a_child_that_ends_does_not_disturb_its_parent(path, extent):
    """Contract 7: the child has used the store or not, and ends by `os._exit` or as a program does."""
    # In a new interpreter, because a forked process of the tests ends by `os._exit`, and so would its children.
    run_in_new_interpreter(fork_children_that_end, path, extent.of(1, 15))
