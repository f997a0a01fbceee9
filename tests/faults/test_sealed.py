"""Encryption at rest while processes are killed and keys are rotated: no secret is in a file, and no row is lost."""

from __future__ import annotations

import os
import signal
import time

import children
import pytest
from faults import injection
from faults.test_secrets import secrets, secrets_in, with_secrets
from own_process import run_in_fork
from support import token, values
from zoho_token_store import PLAINTEXT, CustomStoreSQLite, key_id, new_key
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

OLD, NEW = new_key(), new_key()


def use_each_method(folder):
    path = folder / "tokens.db"
    store = CustomStoreSQLite(path, keys=OLD)

    def step(work):
        work()
        assert secrets_in(folder) == set(), work

    step(lambda: store.import_tokens(with_secrets(number) for number in range(60)))
    step(lambda: store.save_token(with_secrets(7)))
    step(lambda: store.save_token(token("user7@example.com", **secrets(700, "access_token"))))
    step(lambda: store.find_token(token("user8@example.com")))
    step(lambda: store.refused(secrets(9, "access_token")["access_token"]))
    step(lambda: store.delete_token("10"))
    step(lambda: store.backup(folder / "backup.db"))
    step(store.check)
    with CustomStoreSQLite(path, keys=[NEW, OLD]) as rotated:
        step(rotated.rekey)
        step(lambda: rotated.save_token(with_secrets(61)))
    step(store.close)


def test_no_file_has_a_secret_after_any_step(tmp_path):
    """Neither the file nor its WAL nor a backup has a secret, while the store is open and after it was closed."""
    run_in_fork(use_each_method, tmp_path)


def kill_sealed_savers(folder, rounds):
    path = folder / "tokens.db"
    for turn in range(rounds):
        reading, writing = os.pipe()

        def work(turn=turn, reading=reading, writing=writing):
            os.close(reading)
            store = CustomStoreSQLite(path, keys=[NEW, OLD] if turn % 2 else [OLD, NEW])
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
        assert secrets_in(folder) == set()
        with CustomStoreSQLite(path, keys=[NEW, OLD]) as store:
            assert store.find_token(token("user0@example.com")) is not None
            assert secrets_in(folder) == set()


def test_a_killed_process_leaves_no_secret(tmp_path, extent):
    """A process that saves under one key or the other is killed. What it leaves has no secret, and can be read."""
    run_in_fork(kill_sealed_savers, tmp_path, extent.of(8, 200))


ROTATIONS = {"seal": ([PLAINTEXT], [OLD, PLAINTEXT]), "rotate": ([OLD], [NEW, OLD]), "open": ([OLD], [PLAINTEXT, OLD])}
ROWS = 120  # three batches


def kill_rekey(folder, rotation, step):
    before, after = ROTATIONS[rotation]
    path = folder / "tokens.db"
    with CustomStoreSQLite(path, keys=before) as store:
        store.import_tokens(with_secrets(number) for number in range(ROWS))
        expected = [values(made) for made in store.get_tokens()]
    original = path.read_bytes()

    def rekey_and_die(at):
        store = CustomStoreSQLite(path, keys=after)
        injection.watch(folder)
        injection.kill(at)
        store.rekey()

    at, mixed = 0, 0
    while True:
        at += step
        child = children.fork(lambda at=at: rekey_and_die(at))
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            break
        with CustomStoreSQLite(path, keys=after) as store:
            assert [values(made) for made in store.get_tokens()] == expected, at
            usage = store.key_usage()
            mixed += len(usage) > 1
            result = store.rekey()
            assert (result.rewritten < ROWS) == (len(usage) > 1 or set(usage) == {after_name(after)}), at
            assert result.left == 0
            assert [values(made) for made in store.get_tokens()] == expected, at
            assert store.key_usage() == {after_name(after): ROWS}
        if after[0] is not PLAINTEXT:
            assert secrets_in(folder) == set(), at
        path.write_bytes(original)
    assert at > step
    return mixed


def after_name(keys):
    return "plaintext" if keys[0] is PLAINTEXT else key_id(keys[0])


@pytest.mark.usefixtures("preload")
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotation_that_is_killed_at_any_operation_can_be_run_again(tmp_path, extent, rotation):
    """It is killed before each I/O operation. All rows can be read with the same keys, and a second run ends it."""
    assert run_in_fork(kill_rekey, tmp_path, rotation, extent.of(9, 1)) > 1


def kill_between_batches(folder):
    path = folder / "tokens.db"
    with CustomStoreSQLite(path, keys=OLD) as store:
        store.import_tokens(with_secrets(number) for number in range(ROWS))
    pauses = 0

    def rekey_and_die():
        def pause(_seconds):
            os.kill(os.getpid(), signal.SIGKILL)

        store = CustomStoreSQLite(path, keys=[NEW, OLD])
        time.sleep = pause  # a rotation calls it after each batch, like gevent's
        store.rekey()

    while os.waitpid(children.fork(rekey_and_die), 0)[1] == signal.SIGKILL:
        pauses += 1
        with CustomStoreSQLite(path, keys=[OLD, NEW]) as store:
            assert store.key_usage().get(key_id(NEW)) == min(50 * pauses, ROWS)
            assert len(store.get_tokens()) == ROWS
    assert pauses == 3
    with CustomStoreSQLite(path, keys=NEW) as store:
        assert len(store.get_tokens()) == ROWS


def test_a_rotation_that_is_killed_after_each_batch_goes_on_there(tmp_path):
    """A batch of 50 rows is one transaction: the next run continues after it, and ends."""
    run_in_fork(kill_between_batches, tmp_path)


def attempt(call, one, must_succeed):
    """Return what a call returns, or that a key is missing. A program that has both keys must succeed."""
    try:
        return call(one) if call.__name__ == "find_token" else call(one) is None
    except SDKException as error:
        if must_succeed or error.cause.code != "unknown-key":
            raise
    return "a key is missing" if call.__name__ == "find_token" else False


def four_programs(folder, users, rounds):
    path = folder / "tokens.db"
    rings = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]

    def work(child):
        has_both = len(rings[child]) == 2
        with CustomStoreSQLite(path, keys=rings[child], busy_timeout=60) as store:
            saved = set()
            for turn in range(rounds):
                user = turn % users
                made = with_secrets(user, access_token=f"planted-accesstoken-{1000 * child + turn};")
                by_token = token(None, refresh_token=made.get_refresh_token())
                for one in (made, by_token):
                    if attempt(store.save_token, one, has_both):
                        saved.add(user)
                # Once a user is there, a find never returns None: also with a key too few.
                for one in (token(f"user{user}@example.com"), by_token):
                    assert attempt(store.find_token, one, has_both) is not None or user not in saved
            assert not has_both or len(saved) == users

    children.at_once(len(rings), work)
    with CustomStoreSQLite(path, keys=[NEW, OLD]) as store:
        rows = store.get_tokens()
        assert len(rows) == users
        assert len({made.get_user_signature().get_name() for made in rows}) == users
        assert len({made.get_refresh_token() for made in rows}) == users
        store.rekey()
    with CustomStoreSQLite(path, keys=NEW) as store:
        assert len(store.get_tokens()) == users


def test_programs_with_each_list_of_keys_make_no_second_row(tmp_path, extent):
    """[old], [old, new], [new, old] and [new] at once: no duplicate row, and no `None` for a user who exists."""
    run_in_fork(four_programs, tmp_path, 6, extent.of(60, 2000))
