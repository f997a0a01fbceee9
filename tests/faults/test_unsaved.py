"""A refreshed pair that cannot be saved is kept in the process, served, and saved later (`docs/lease.md`, rule 16).

`tests/rust/unsaved.rs` shows on every backend when a pair is kept and discarded. `tests/sdk/test_unsaved.py` has the
SDKs 5 to 8. Here a disk is full: each write in the folder of the file fails.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import time

import children
import pytest
from faults import injection
from lease_program import Program, wait_until
from own_process import in_own_process, run_in_fork, run_in_new_interpreter
from support import another_program_holding, in_threads, run_python, token
from zoho_token_store import CustomStoreSQLite, StoreError
from zoho_token_store._native import Administration
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

KEPT = "kept in this process until it can be saved"

pytestmark = pytest.mark.usefixtures("preload")


def fill_disk(path):
    """Let each write in the folder of the file fail from now on."""
    injection.watch(path.parent)
    injection.fail(1, errno.ENOSPC)


STORED = """
import json, sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute("SELECT access_token FROM oauthtoken ORDER BY id")
print(json.dumps([access for (access,) in rows]))
"""


def stored(path):
    """Return the access tokens that another process reads. It is no fork: the disk is full for a fork, too."""
    return json.loads(run_python(STORED, path))


def program_on_a_full_disk(path, **options):
    """Return a program whose refreshed pair could not be saved, its store, and the pair's access token."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **options))
    program.save_expired_token()
    store.find_token_by_id("1")  # the file is open before its disk is full
    fill_disk(path)
    access = program.get_token()
    assert program.zoho.token_calls == 1
    return program, store, access


@in_own_process
def test_a_pair_that_cannot_be_saved_is_served_and_saved_later(path):
    """One refresh, no further token call while the disk is full, and a save within about a second of use after it."""
    program, store, access = program_on_a_full_disk(path)
    [line] = [line for line in program.log if line.startswith("ERROR")]
    assert line.startswith("ERROR save_token: FILE cannot be written: the disk or the quota is full.")
    assert KEPT in line
    in_threads(8, lambda number: [program.get_token("id" if number % 2 else "refresh token") for _ in range(20)])
    assert {program.get_token(), program.get_token("refresh token")} == {access}
    assert program.zoho.token_calls == 1
    assert stored(path) == ["expired"] == [row.get_access_token() for row in store.get_tokens()]
    info = store.lease_info()
    assert (info.failed_saves, info.failed_refreshes, info.gave_up) == (1, 0, 0)
    injection.stop()
    wait_until(lambda: program.get_token() == access and stored(path) == [access])
    assert program.log[-1] == 'INFO FILE: saved the access token that was kept for the id "1"'
    assert program.zoho.token_calls == 1
    secrets = [access, *(value for name, value in program.credentials.items() if name != "client_id")]
    assert not any(secret in line for secret in secrets for line in [*program.log, repr(store), repr(info)])


@in_own_process
def test_a_write_check_finds_a_full_disk(path):
    """`login` uses a grant code only if the tokens can be saved."""
    with CustomStoreSQLite(path) as store:
        store.save_token(token("ada@example.com", refresh_token="planted-refresh"))
    administration = Administration(path)
    administration.try_to_write()
    fill_disk(path)
    with pytest.raises(StoreError) as caught:
        administration.try_to_write()
    assert caught.value.code == "disk-full"


@in_own_process
def test_a_find_tries_to_save_at_most_once_a_second(path):
    """A find that serves a kept pair does no I/O, except for one attempt in each second."""
    program, _, access = program_on_a_full_disk(path)
    begun, before = time.monotonic(), injection.count()
    attempts = set()
    while time.monotonic() - begun < 1.5:
        assert program.get_token() == access
        attempts.add(injection.count())
    assert len(attempts - {before}) <= 3, attempts


def refresh_in_processes(path, count, threads):
    program = Program(path)
    program.zoho.tokens_per_window = program.zoho.live_tokens = count
    with CustomStoreSQLite(path) as store:
        program.use(store)
        program.save_expired_token()
        holder = children.Helper(lambda: store.find_token_by_id("1").get_id())  # keeps the -wal and the -shm
        assert holder.ask() == (True, "1")
    barrier = multiprocessing.Barrier(count)
    results, result = multiprocessing.Pipe(duplex=False)

    def work(_):
        program.use(CustomStoreSQLite(path)).find_token_by_id("1")  # the file is open before its disk is full
        fill_disk(path)
        barrier.wait(children.TIMEOUT)
        got = []
        in_threads(threads, lambda _: got.extend(program.get_token() for _ in range(10)))
        result.send_bytes(json.dumps([len(got), sorted(set(got))]).encode())

    children.at_once(count, work)
    answers = [json.loads(results.recv_bytes()) for _ in range(count)]
    holder.let_go()
    return program.zoho.token_calls, answers


@pytest.mark.parametrize(("count", "threads"), [(1, 16), (16, 3)])
def test_each_process_refreshes_once_on_a_full_disk(path, count, threads):
    """Rules 1 and 16: neither lease nor pair can be stored. All threads of a process get the token of its refresh."""
    calls, answers = run_in_fork(refresh_in_processes, path, count, threads)
    assert calls == count
    assert [requests for requests, _ in answers] == [10 * threads] * count
    assert all(len(different) == 1 for _, different in answers)
    assert len({access for _, [access] in answers}) == count


@in_own_process
def test_closing_the_store_saves_the_pair(path):
    """`close` tries once. A pair that it cannot save is lost, and the next program refreshes."""
    program, store, access = program_on_a_full_disk(path)
    injection.stop()
    store.close()
    assert stored(path) == [access]
    store = program.use(CustomStoreSQLite(path))
    assert program.get_token() == access
    program.save_expired_token()
    fill_disk(path)
    program.get_token()
    store.close()
    injection.stop()
    assert stored(path) == ["expired"]
    program.use(CustomStoreSQLite(path))
    program.get_token()
    assert program.zoho.token_calls == 3


@in_own_process
def test_deleting_a_new_login_and_a_refusal_discard_the_pair(path):
    """What the user or Zoho has ended is not served from memory."""
    program, store, access = program_on_a_full_disk(path)
    assert store.refused(access) is True  # although nothing can be written
    injection.stop()
    assert store.refused(access) is False
    assert program.get_token() != access
    assert program.zoho.token_calls == 2
    # A new login of the same user, saved by another process.
    program.save_expired_token()
    fill_disk(path)
    kept = program.get_token()
    injection.stop()
    login = program.new_credentials("ada@example.com")

    def log_in():
        with CustomStoreSQLite(path) as other:
            other.save_token(token("ada@example.com", **login, access_token="of the new login", expires_in="1"))

    children.join([children.fork(log_in)])
    assert stored(path) == ["of the new login"]
    assert program.get_token() not in (kept, access)
    assert stored(path) == [program.get_token()]
    # A logout.
    program.save_expired_token()
    fill_disk(path)
    program.get_token()
    injection.stop()
    store.delete_token("1")
    with pytest.raises(SDKException, match="has no token with the id"):
        store.find_token_by_id("1")
    assert stored(path) == []


@in_own_process
def test_a_fork_keeps_the_pair_in_parent_and_child(path):
    """A child has a copy of the pair. Forks while other threads use the pair leave no lock behind."""
    program, _, access = program_on_a_full_disk(path)
    injection.stop()
    injection.watch(path.parent)
    ended = []

    def use(_):
        while not ended:
            assert program.get_token() == access

    def fork_often():
        for number in range(20):
            if number % 4 == 0:
                injection.fail(1, errno.ENOSPC)
            children.join([children.fork(lambda: check(program, access))], 20)
        ended.append(True)

    in_threads(5, lambda number: fork_often() if number == 0 else use(number))
    assert program.zoho.token_calls == 1


def check(program, access):
    assert program.get_token() == access


def end_with_a_kept_pair(path):
    _, _, access = program_on_a_full_disk(path)
    injection.stop()
    return access


def test_a_program_that_ends_without_close_loses_the_pair(path):
    """The end of the interpreter saves nothing and delays nothing. The next program refreshes once more."""
    begun = time.monotonic()
    run_in_new_interpreter(end_with_a_kept_pair, path)
    assert time.monotonic() - begun < 20
    assert stored(path) == ["expired"]


@in_own_process
def test_a_clock_that_jumps_forward_ends_the_pair(path):
    """A kept pair that has expired by the SDK's clock is refreshed, and the later pair takes its place."""
    program, _, access = program_on_a_full_disk(path)
    right = time.time
    time.time = lambda: right() + 7200
    later = program.get_token()
    assert later != access
    assert program.get_token() == later
    assert program.zoho.token_calls == 2
    injection.stop()
    wait_until(lambda: program.get_token() == later and stored(path) == [later], 5)


@in_own_process
def test_a_pair_is_kept_while_another_program_locks_the_file(path):
    """Not only a disk that is full: a save that has waited in vain is tried again later, too."""
    program = Program(path)
    program.use(CustomStoreSQLite(path, busy_timeout=0.2))
    program.save_expired_token()
    with another_program_holding(path, "begin immediate"):
        access = program.get_token()
        in_threads(4, lambda _: [program.get_token() for _ in range(20)])
        assert stored(path) == ["expired"]
    assert [line for line in program.log if KEPT in line and "was in use by another program" in line]
    wait_until(lambda: program.get_token() == access and stored(path) == [access], 5)
    assert program.zoho.token_calls == 1


@in_own_process
def test_a_pair_without_a_row_is_not_kept(path):
    """A login that cannot be inserted is an error that does not speak of a kept pair."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    store.get_tokens()
    fill_disk(path)
    made = OAuthToken(**program.credentials, access_token="planted-access", id="7")
    made.set_expires_in(str(int(time.time() * 1000) + 3_600_000))
    with pytest.raises(SDKException) as raised:
        store.save_token(made)
    assert raised.value.cause.code == "disk-full"
    assert KEPT not in str(raised.value.cause)
    assert store.get_tokens() == []
