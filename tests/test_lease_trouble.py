"""The refresh lease in difficult programs: exceptions that stay alive, busy files, forks, signals (`docs/lease.md`).

Most tests use a lease that is longer than any test. So a test fails if a call waits for a refresh that never comes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import children
import pytest
import requests
from lease_program import LOG, LONGER_THAN_ANY_TEST, Program, lease_keys, start_thread, wait_until
from own_process import in_own_process, run_in_fork, run_in_new_interpreter
from support import another_program_holding, in_threads, token
from zoho_token_store import CustomStoreShared, CustomStoreSQLite
from zoho_token_store.cells import FileCell
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer


def program_with_an_expired_token(path, kind=CustomStoreSQLite, refresh_lease=LONGER_THAN_ANY_TEST):
    program = Program(path)
    store = program.use(kind(path, refresh_lease=refresh_lease))
    program.save_expired_token()
    return program, store


def end_while_threads_wait(path):
    program, _ = program_with_an_expired_token(path)
    program.zoho.fail_next(1, hang=60)
    program.begin_refresh()
    for _ in range(4):
        start_thread(program.get_token)
    wait_until(lambda: program.waiting() == 4)
    return "ends"


def test_a_program_ends_while_daemon_threads_wait(path):
    """Threads that wait for another's refresh do not keep the interpreter from ending with status 0."""
    assert run_in_new_interpreter(end_while_threads_wait, path) == "ends"


class Interrupted(BaseException):
    """Like `KeyboardInterrupt`, it is no `Exception`. So the logging module does not catch it."""


@in_own_process
def test_a_signal_handler_that_raises_ends_a_wait(path):
    """Rule 8: a signal is handled at each step of a wait, even while other threads compete for the GIL."""
    program, _ = program_with_an_expired_token(path)

    def interrupt(*_):
        raise Interrupted

    def compete():
        while True:
            pass

    signal.signal(signal.SIGALRM, interrupt)
    program.zoho.fail_next(1, hang=60)
    program.begin_refresh()
    for _ in range(2):
        start_thread(compete)
    for _ in range(6):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupted):
            program.get_token()


@in_own_process
def test_a_token_that_is_about_to_expire_is_refreshed_once(path):
    """Rule 3: the SDK reads the clock later than the store. If the token expires in between, it is refreshed once."""
    program, store = program_with_an_expired_token(path)
    [found] = store.get_tokens()
    found.set_expires_in(str(int(time.time() * 1000) + 5150))  # due in 150 ms: the SDK refreshes 5 s before the expiry
    store.save_token(found)

    def work(_):
        while program.get_token() == "expired":
            pass

    in_threads(8, work)
    assert program.zoho.token_calls == 1


@pytest.mark.parametrize("by", ["id", "refresh token"])
@in_own_process
def test_a_clock_that_was_moved_forward_makes_one_refresh(path, by):
    """Rule 3: the clock is the SDK's from the first check on. A test lets two hours pass by replacing `time.time`."""
    program, store = program_with_an_expired_token(path)
    program.get_token()
    right = time.time
    time.time = lambda: right() + 7200
    in_threads(6, lambda _: program.get_token(by))
    assert program.zoho.token_calls == 2
    assert store.lease_info().taken == 2


@pytest.mark.parametrize("by", ["id", "refresh token"])
@in_own_process
def test_a_token_that_expires_during_a_find_is_refreshed_once(path, by):
    """Rule 3: if other threads delay a find until the token has expired, the find does not return it as fresh."""
    program, store = program_with_an_expired_token(path)
    [found] = store.get_tokens()
    due = time.time() + 1
    found.set_expires_in(str(int(due * 1000) + 5000))
    store.save_token(found)
    set_expires_in = OAuthToken.set_expires_in

    def set_and_wait_until_due(self, value):
        set_expires_in(self, value)
        wait_until(lambda: time.time() > due)

    OAuthToken.set_expires_in = set_and_wait_until_due
    in_threads(8, lambda _: program.get_token(by))
    assert program.zoho.token_calls == 1


@in_own_process
def test_a_logging_handler_may_find_a_row(path):
    """Rule 2: during a refresh, the store logs. A find by the logging handler acquires no lease and does not wait."""
    program, store = program_with_an_expired_token(path)

    class Finding(logging.Handler):
        def emit(self, _record):
            store.find_token_by_id("1")

    LOG.addHandler(Finding())
    in_threads(4, lambda _: program.get_token())
    assert program.zoho.token_calls == 1


@in_own_process
def test_an_exception_that_stays_alive_blocks_no_thread_of_its_process(path):
    """Rule 11: a future keeps its exception alive, and so the frames. Waiting threads see that the call has ended."""
    program, store = program_with_an_expired_token(path)
    program.zoho.fail_next(1)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(program.get_token) for _ in range(8)]
    assert sum(future.exception() is not None for future in futures) == 1
    assert program.zoho.token_calls == 2
    assert store.lease_info().gave_up == 0


@in_own_process
def test_a_thread_that_was_stopped_reads_the_row_once_more_before_it_gives_up(path):
    """Rule 8: if a new token is saved while the waiting thread is stopped, the thread uses it."""
    program, store = program_with_an_expired_token(path, refresh_lease=1)
    program.zoho.latency = 0.3
    refresh = program.begin_refresh()
    current_frames, calls = sys._current_frames, []

    def stop_at_the_second_call():
        frames = current_frames()
        calls.append(time.monotonic())
        if len(calls) == 2:
            refresh.join(20)
            wait_until(lambda: time.monotonic() > calls[0] + 1.5)  # longer than the lease
        return frames

    sys._current_frames = stop_at_the_second_call
    assert program.get_token() != "expired"
    assert len(calls) == 2
    assert program.zoho.token_calls == 1
    assert store.lease_info().gave_up == 0


@in_own_process
def test_without_the_gil_other_threads_frames_are_not_read(path):
    """Without the GIL, a running thread's frames are not safe to read. So a call waits until the lease expires."""
    program, _ = program_with_an_expired_token(path, refresh_lease=1)
    sys._is_gil_enabled, sys._current_frames = lambda: False, lambda: os._exit(7)
    program.zoho.fail_next(1)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(program.get_token) for _ in range(4)]
    assert sum(future.exception() is not None for future in futures) == 1
    assert program.zoho.token_calls == 2


def drop_the_store_during_a_failed_refresh(path):
    program, store = program_with_an_expired_token(path)
    program.zoho.fail_next(1)
    try:
        program.get_token()
    except Exception:  # noqa: BLE001 - each version of the SDK raises another class
        del store
        Initializer.initializer.store = None
    return "dropped"


def test_a_failed_refresh_releases_its_lease_after_the_store_was_dropped(path):
    """Rule 11: the lease is released even if only the call's frame still refers to the store."""
    assert run_in_fork(drop_the_store_during_a_failed_refresh, path) == "dropped"
    assert lease_keys(path) == []


@in_own_process
def test_an_interrupt_between_lease_and_refresh_releases_the_lease(path):
    """Rule 11: if an exception ends the call after it has acquired the lease, the lease is released."""
    program, _ = program_with_an_expired_token(path)

    class Interrupting(logging.Handler):
        def emit(self, record):
            if "waited" in record.getMessage():
                raise KeyboardInterrupt

    LOG.addHandler(Interrupting())
    program.zoho.latency = 0.3
    program.zoho.fail_next(1)

    def fail():
        with contextlib.suppress(Exception):
            program.get_token()

    refresh = start_thread(fail)
    wait_until(lambda: program.zoho.token_calls == 1)
    with pytest.raises(KeyboardInterrupt):
        program.get_token()
    refresh.join(20)
    assert lease_keys(path) == []


@in_own_process
def test_an_interrupt_while_a_cell_acquires_the_lease_ends_the_call(path):
    """Rule 8: no second attempt follows, because the exception ends the program."""
    calls = []

    class Interrupted(FileCell):
        def swap(self, document, version):
            if armed:
                calls.append(1)
                raise KeyboardInterrupt
            return super().swap(document, version)

    armed = []
    program, _ = program_with_an_expired_token(
        path, lambda path, **options: CustomStoreShared(Interrupted(path), **options)
    )
    armed.append(1)
    with pytest.raises(KeyboardInterrupt):
        program.get_token()
    assert calls == [1]
    assert program.zoho.token_calls == 0


@in_own_process
def test_close_releases_a_lease_whose_release_a_busy_file_prevented(path):
    """Rule 11: if another program holds the write lock when a refresh fails, the lease is released later."""
    program, store = program_with_an_expired_token(path)
    program.zoho.fail_next(1)
    post = requests.post
    with contextlib.ExitStack() as busy:

        def post_while_the_file_is_busy(*arguments, **options):
            busy.enter_context(another_program_holding(path, "begin immediate"))
            return post(*arguments, **options)

        requests.post = post_while_the_file_is_busy
        with contextlib.suppress(Exception):
            program.get_token()
        assert len(lease_keys(path)) == 1
    store.close()
    assert lease_keys(path) == []


@in_own_process
def test_a_busy_file_means_no_lease(path):
    """Rule 1: if another program holds the write lock for too long, the refresh continues without a lease."""
    program, store = program_with_an_expired_token(path)
    with another_program_holding(path, "begin immediate"):
        refresh = program.begin_refresh()
    refresh.join(20)
    assert store.get_tokens()[0].get_access_token() != "expired"
    assert (store.lease_info().taken, store.lease_info().gave_up) == (0, 1)


class SavingWhatItFinds(CustomStoreSQLite):
    def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
        found = super().find_token_by_id(id)
        self.save_token(found)
        return found


@in_own_process
def test_saving_the_old_access_token_does_not_release_a_lease(path):
    """Rule 10: only a save with a new access token releases the lease."""
    program, _ = program_with_an_expired_token(path, SavingWhatItFinds)
    in_threads(8, lambda _: program.get_token())
    assert program.zoho.token_calls == 1


@in_own_process
def test_a_refresh_within_a_refresh_keeps_the_outer_lease(path):
    """Rule 11: a nested refresh for another user does not release the lease of the outer one."""
    waiters = []

    class Nesting(CustomStoreSQLite):
        def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
            found = super().find_token_by_id(id)
            if id == "1" and threading.current_thread() is threading.main_thread():
                OAuthToken(id="2").get_token()
                waiters.append(start_thread(program.get_token))
                wait_until(lambda: program.waiting() == 1)
            return found

    program, store = program_with_an_expired_token(path, Nesting)
    bob = program.new_credentials("bob@example.com")
    store.save_token(token("bob@example.com", **bob, access_token="expired too", expires_in="1"))
    program.get_token()
    waiters[0].join(20)
    assert program.zoho.token_calls == 2
    assert store.lease_info().taken == 2


@pytest.mark.parametrize("missing", ["sys._getframe", "time.time"])
@in_own_process
def test_an_unavailable_python_function_means_no_lease(path, missing):
    """Rule 1: if a lease cannot be acquired because of an error, the find itself succeeds."""
    module_name, name = missing.split(".")
    module = sys.modules[module_name]
    original = getattr(module, name)

    def fail(*_):
        raise RuntimeError("made to fail")

    class WithoutTheFunction(CustomStoreSQLite):
        def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
            setattr(module, name, fail)
            try:
                return super().find_token_by_id(id)
            finally:
                setattr(module, name, original)

    program, store = program_with_an_expired_token(path, WithoutTheFunction)
    LOG.setLevel(logging.CRITICAL)  # a log record needs the same functions
    assert program.get_token() != "expired"
    assert store.lease_info().taken == 0


class Deep(CustomStoreSQLite):
    def find_token_by_id(self, id, depth=12):  # noqa: A002 - the SDK's name
        return self.find_token_by_id(id, depth - 1) if depth else super().find_token_by_id(id)


@in_own_process
def test_only_the_nearest_frames_are_searched_for_get_token(path):
    """Rule 2: a find acquires no lease if `get_token` is more than eight frames away."""
    program, store = program_with_an_expired_token(path, Deep)
    program.get_token()
    assert store.lease_info().taken == 0


@in_own_process
def test_forks_do_not_disturb_leases(path):
    """Rule 6: while one thread forks, the leases of other threads are acquired and released as usual."""
    program, store = program_with_an_expired_token(path)
    done = threading.Event()

    def fork_again_and_again():
        while not done.is_set():
            children.join([children.fork(lambda: None)])
            time.sleep(0.03)

    forking = start_thread(fork_again_and_again)
    for _ in range(8):
        program.save_expired_token()
        in_threads(3, lambda _: program.get_token())
    done.set()
    forking.join(20)
    info = store.lease_info()
    assert (program.zoho.token_calls, info.taken, info.gave_up) == (8, 8, 0)
