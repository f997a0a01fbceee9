"""Encryption at rest while processes are killed and keys are rotated: no secret is stored, and no row is lost.

With a file, and with tables on a PostgreSQL server.
"""

from __future__ import annotations

import os
import signal
import time

import children
import pytest
from faults import injection
from faults.test_secrets import secrets, secrets_among, with_secrets
from own_process import run_in_fork
from postgres.fault_proxy import Fault, FaultProxy, first
from sealed_places import File, Tables
from support import token, values
from zoho_token_store import PLAINTEXT, key_id, new_key
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

OLD, NEW = new_key(), new_key()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where the rows are."""
    if request.param == "sqlite":
        return File(tmp_path)
    return Tables(tmp_path, request.getfixturevalue("dsn"), request.getfixturevalue("schema"))


def secrets_in(place):
    """Return the secrets in all that is stored."""
    return secrets_among(place.contents())


def use_each_method(place):
    store = place.store(OLD)

    def step(work):
        work()
        assert secrets_in(place) == set(), work

    step(lambda: store.import_tokens(with_secrets(number) for number in range(60)))
    step(lambda: store.save_token(with_secrets(7)))
    step(lambda: store.save_token(token("user7@example.com", **secrets(700, "access_token"))))
    step(lambda: store.find_token(token("user8@example.com")))
    step(lambda: store.refused(secrets(9, "access_token")["access_token"]))
    step(lambda: store.delete_token("10"))
    step(lambda: store.backup(place.folder / "backup.db"))
    step(store.check)
    with place.store([NEW, OLD]) as rotated:
        step(rotated.rekey)
        step(lambda: rotated.save_token(with_secrets(61)))
    step(store.close)


def test_no_secret_is_stored_after_any_step(place):
    """No row has a secret, nor a file, its WAL or a backup, while the store is open and after it was closed."""
    run_in_fork(use_each_method, place)


def kill_sealed_savers(place, rounds):
    for turn in range(rounds):
        reading, writing = os.pipe()

        def work(turn=turn, reading=reading, writing=writing):
            os.close(reading)
            store = place.store([NEW, OLD] if turn % 2 else [OLD, NEW])
            for number in range(10_000 * turn, 10_000 * turn + 10**6):
                store.save_token(with_secrets(number, user=number % 5))
                os.write(writing, b".")

        child = children.fork(work)
        os.close(writing)
        for _ in range(1 + turn % 4):
            os.read(reading, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        assert secrets_in(place) == set()
        with place.store([NEW, OLD]) as store:
            assert store.find_token(token("user0@example.com")) is not None
            assert secrets_in(place) == set()


def test_a_killed_process_leaves_no_secret(place, extent):
    """A process that saves under one key or the other is killed. What it leaves has no secret, and can be read."""
    run_in_fork(kill_sealed_savers, place, extent.of(8, 200))


ROTATIONS = {"seal": ([PLAINTEXT], [OLD, PLAINTEXT]), "rotate": ([OLD], [NEW, OLD]), "open": ([OLD], [PLAINTEXT, OLD])}
ROWS = 120  # three batches
BATCH = 50


def fill(place, keys):
    """Save rows whose order is not that of their ids. Return their values, and their orders and times."""
    with place.store(keys) as store:
        store.import_tokens(with_secrets(number) for number in range(ROWS))
        for number in (70, 7):
            store.save_token(with_secrets(number, **secrets(1000 + number, "access_token")))
        rows = rows_of(store)
    positions = place.positions()
    assert [order for _, order, _ in positions] != sorted(order for _, order, _ in positions)
    return rows, positions


def rows_of(store):
    for number in (0, 49, 50, ROWS - 1):
        assert store.find_token(token(None, **secrets(number, "refresh_token"))) is not None, number
    return [values(made) for made in store.get_tokens()]


def name_of_first(keys):
    return "plaintext" if keys[0] is PLAINTEXT else key_id(keys[0])


def end_rotation(place, keys, rows, positions):
    """Check that a rotation that was killed has lost nothing, and run it again.

    Return how many rows there were under each key, and how many this run has rewritten.
    """
    with place.store(keys) as store:
        assert rows_of(store) == rows
        usage = store.key_usage()
        result = store.rekey()
        assert result.left == 0
        assert rows_of(store) == rows
        assert store.key_usage() == {name_of_first(keys): ROWS}
    if keys[0] is not PLAINTEXT:
        assert secrets_in(place) == set()
    assert place.positions() == positions
    return usage, result.rewritten


def kill_rekey(place, rotation, step):
    before, after = ROTATIONS[rotation]
    rows, positions = fill(place, before)
    original = place.path.read_bytes()

    def rekey_and_die(at):
        store = place.store(after)
        injection.watch(place.folder)
        injection.kill(at)
        store.rekey()

    at, mixed = 0, 0
    while True:
        at += step
        child = children.fork(lambda at=at: rekey_and_die(at))
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            break
        usage, rewritten = end_rotation(place, after, rows, positions)
        assert (rewritten < ROWS) == (len(usage) > 1 or set(usage) == {name_of_first(after)}), at
        mixed += len(usage) > 1
        place.path.write_bytes(original)
    assert at > step
    return mixed


@pytest.mark.usefixtures("preload")
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotation_that_is_killed_at_any_operation_can_be_run_again(tmp_path, extent, rotation):
    """It is killed before each I/O operation. All rows can be read with the same keys, and a second run ends it."""
    assert run_in_fork(kill_rekey, File(tmp_path), rotation, extent.of(9, 1)) > 1


def kill_before_commit(place, keys):
    """Kill a rotation when it has sent all of a transaction but the commit. The server rolls the transaction back.

    Return how many rows the transaction would have rewritten.
    """

    def rekey(dsn):
        place.store(keys, dsn=dsn).rekey()

    child = children.Helper(rekey)  # before the proxy starts its thread
    with FaultProxy(place.arguments["dsn"]) as proxy:
        fault = proxy.inject(Fault("stall", at="commit", matching="COMMIT", which=first(1)))
        child.begin(proxy.dsn)
        deadline = time.monotonic() + children.TIMEOUT
        while not fault.injected and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(child.process, signal.SIGKILL)
        assert os.waitpid(child.process, 0)[1] == signal.SIGKILL
        assert fault.injected
        return sum(sql.startswith("UPDATE") and ".oauthtoken " in sql for sql in proxy.requests)


def kill_after_commit(place, keys):
    """Kill a rotation after its first batch."""

    def pause(_seconds):
        os.kill(os.getpid(), signal.SIGKILL)

    def rekey():
        store = place.store(keys)
        time.sleep = pause  # a rotation calls it after each batch, like gevent's
        store.rekey()

    assert os.waitpid(children.fork(rekey), 0)[1] == signal.SIGKILL


def kill_at_each_batch(place, rotation):
    before, after = ROTATIONS[rotation]
    rows, positions = fill(place, before)
    has_server = isinstance(place, Tables)

    def check(rewritten):
        counts = {name_of_first(after): rewritten, name_of_first(before): ROWS - rewritten}
        with place.store(after) as store:
            assert store.key_usage() == {name: count for name, count in counts.items() if count}
            assert rows_of(store) == rows, rewritten
        assert place.positions() == positions, rewritten

    for rewritten in range(0, ROWS, BATCH):
        if has_server:
            assert kill_before_commit(place, after) == min(BATCH, ROWS - rewritten)
            check(rewritten)
        kill_after_commit(place, after)
        check(min(rewritten + BATCH, ROWS))
    if has_server:
        # The last transaction records which keys there are.
        assert kill_before_commit(place, after) == 0
        check(ROWS)
    assert end_rotation(place, after, rows, positions) == ({name_of_first(after): ROWS}, 0)
    with place.store(after[:1]) as store:
        assert rows_of(store) == rows


@pytest.mark.parametrize("rotation", ["seal", "rotate"])
def test_a_rotation_that_is_killed_at_each_batch_goes_on_there(place, rotation):
    """A batch of 50 rows is one transaction: all of it is done or nothing. The next run continues there, and ends."""
    run_in_fork(kill_at_each_batch, place, rotation)


def attempt(call, one, must_succeed):
    """Return what a call returns, or that a key is missing. A program that has both keys must succeed."""
    try:
        return call(one) if call.__name__ == "find_token" else call(one) is None
    except SDKException as error:
        if must_succeed or error.cause.code != "unknown-key":
            raise
    return "a key is missing" if call.__name__ == "find_token" else False


def four_programs(place, users, rounds):
    rings = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]

    def work(child):
        has_both = len(rings[child]) == 2
        with place.store(rings[child], busy_timeout=60) as store:
            saved = set()
            for turn in range(rounds):
                user = turn % users
                made = with_secrets(user, access_token=f"planted-accesstoken-{1000 * child + turn};")
                by_token = token(None, refresh_token=made.get_refresh_token())
                if attempt(store.save_token, made, has_both):
                    saved.add(user)
                # By the token alone only then: else it might insert a row that does not name the user yet.
                if user in saved:
                    attempt(store.save_token, by_token, has_both)
                # Once a user is there, a find never returns None: also with a key too few.
                for one in (token(f"user{user}@example.com"), by_token):
                    assert attempt(store.find_token, one, has_both) is not None or user not in saved, (child, turn)
            assert not has_both or len(saved) == users

    children.at_once(len(rings), work)
    with place.store([NEW, OLD]) as store:
        rows = store.get_tokens()
        assert len(rows) == users
        assert len({made.get_user_signature().get_name() for made in rows}) == users
        assert len({made.get_refresh_token() for made in rows}) == users
        store.rekey()
    with place.store(NEW) as store:
        assert len(store.get_tokens()) == users


def test_programs_with_each_list_of_keys_make_no_second_row(place, extent):
    """[old], [old, new], [new, old] and [new] at once: no duplicate row, and no `None` for a user who exists."""
    run_in_fork(four_programs, place, 6, extent.of(60, 2000))
