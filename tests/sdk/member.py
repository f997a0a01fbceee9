"""A program that uses the real SDK while other programs do the same. A test chooses the method of `Member` to run.

It runs in its own processes (`crowd.py` starts it, and it forks), or in threads of one process. It sends events to the
test: JSON objects without secrets.
"""

import atexit
import gc
import hashlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import children
import requests
import zoho_token_store
import zohocrmsdk
from sdk.worker import ErrorHandler, fresh_token, only_loopback
from zohocrmsdk.src.com.zoho.api.authenticator.token import Token
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.util.constants import Constants

STALE = "planted-stale-access-token"  # the beginning of each access token that a test has made expired
TIMEOUT = 30  # seconds: far more than any step needs
COUNTERS = ("taken", "waited", "gave_up", "longest_wait", "failed_refreshes", "backed_off", "taken_ahead")


# Reading this file takes 0.1 s. The SDK reads it at its initialization, if it is not there. Forked processes share it.
Initializer.json_details = Initializer.get_json(Path(zohocrmsdk.__path__[0], "src", Constants.JSON_DETAILS_FILE_PATH))


class NoToken(Token):
    """Initializes the SDK without a request for a token, because the tests count these requests."""

    def authenticate(self, url_connection):
        pass  # only the lookup of a new token's user calls this, and its request has a header already

    def remove(self):
        raise NotImplementedError

    def generate_token(self):
        pass


class Overriding(zoho_token_store.CustomStoreSQLite):
    """A subclass as users write it."""

    def find_token(self, token):
        return super().find_token(token)

    def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
        return super().find_token_by_id(id)

    def save_token(self, token):
        return super().save_token(token)


class WaitHandler(logging.Handler):
    """Calls a function when a find begins to wait."""

    def __init__(self, begins):
        super().__init__(logging.DEBUG)
        self.begins = begins

    def emit(self, record):
        if record.getMessage().endswith(": waiting"):
            self.begins()


class Member:
    """One program. A test runs one of the public methods, except `say`."""

    def __init__(self, events, go_on, setting):
        self.events = events
        self.go_on = go_on
        self.setting = setting
        self.errors = ErrorHandler()
        sdk_log = logging.getLogger("SDKLogger")
        sdk_log.addHandler(self.errors)
        sdk_log.propagate = False
        store_log = logging.getLogger("zoho_token_store")
        store_log.setLevel(logging.DEBUG)
        store_log.propagate = False
        self._kind = None
        self.waits = threading.Event()
        store_log.addHandler(WaitHandler(self._wait_begins))

    def say(self, event, **values):
        # A write of at most PIPE_BUF bytes is atomic (pipe(7)), so processes and threads can share the pipe.
        self.events.send_bytes(json.dumps({"event": event, **values}).encode())

    def alone(self, token):
        """Request the token in this process."""
        self._ask(self._begin(), token)

    def processes(self, tokens, collect=False):  # noqa: FBT002 - the arguments come as a dict
        """Request each token in its own process, all at once. `collect`: run Python's garbage collection after that."""

        def work(number):
            self._ask(self._begin(), tokens[number])
            if collect:
                gc.collect()

        children.at_once(len(tokens), work, TIMEOUT)

    def threads(self, seed, tokens):
        """Save an expired token, if `seed` is given. Then request each token in its own thread, all at once."""
        store = self._begin()
        if seed:
            store.save_token(expired_token(seed))
        barrier = threading.Barrier(len(tokens))
        left = list(tokens)

        def work():
            token = left.pop()
            barrier.wait(TIMEOUT)
            self._answer(store, token)

        in_threads(len(tokens), work)
        self._say_lease(store)

    def ahead(self, token, processes, threads):
        """Do what `ahead_here` does in each process."""
        children.at_once(processes, lambda _number: self.ahead_here(token, threads), TIMEOUT)

    def ahead_here(self, token, threads):
        """Request the token in each thread, until the row has another access token."""
        store = self._begin()
        [first] = store.get_tokens()
        deadline = time.monotonic() + TIMEOUT

        def request():
            # So the last request is one after the refresh.
            is_refreshed = False
            while not is_refreshed:
                assert time.monotonic() < deadline
                is_refreshed = store.get_tokens()[0].get_access_token() != first.get_access_token()
                self._answer(store, token)
                time.sleep(0.05)

        in_threads(threads, request)
        self._say_lease(store)

    def keep_asking(self, token, threads, pause):
        """Request the token in each thread, every `pause` seconds, until there is an answer."""
        store = self._begin()
        deadline = time.monotonic() + TIMEOUT

        def work():
            while not self._answer(store, token):
                assert time.monotonic() < deadline
                time.sleep(pause)

        in_threads(threads, work)
        self._say_lease(store)

    def poll(self, by_id, by_token):
        """Look up the row again and again, as a script does, until it has a new access token."""
        store = self._open()
        deadline = time.monotonic() + TIMEOUT
        lookups = 0
        while time.monotonic() < deadline:
            seen = store.find_token_by_id(by_id["id"]), store.find_token(fresh_token(by_token))
            if not any(is_stale(token.get_access_token()) for token in seen):
                break
            lookups += 1
            if lookups == 1:
                self.say("looked up")
            time.sleep(0.001)
        self._say_lease(store)

    def be_interrupted(self, token):
        """Request the token, and get a SIGINT, as by Ctrl-C, during the wait for another program's refresh."""
        # A program in the background ignores the signal, and so do its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = []

        def interrupt():
            if self.waits.wait(TIMEOUT):
                interrupted.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        self._ask(self._begin(), token)
        self.say("interrupted", latency=time.monotonic() - interrupted[0])

    def hold(self, token, clock_off=0):
        """Request the token, with a clock that is wrong by `clock_off` seconds. Call Zoho after `Crowd.go_on`."""
        right = time.time
        time.time = lambda: right() + clock_off
        store = self._begin()
        self._before_the_call(lambda: None)
        self._ask(store, token)

    def fork_while_asking(self, token, child):
        """Request the token, fork between the find and the call to Zoho, and go on after `Crowd.go_on`.

        The child requests the token, too ("asks"), or it ends: as a program with its atexit functions ("closes"), or by
        an exception that passes the frames of the parent's find ("unwinds").
        """
        store = self._begin()
        asking = []

        def fork():
            if child == "asks":
                asking.append(children.fork(lambda: self._ask(store, token)))
            elif child == "closes":
                children.join([children.fork(lambda: end(store))], TIMEOUT)
            elif (forked := os.fork()) == 0:
                raise SystemExit(0)
            else:
                children.join([forked], TIMEOUT)

        self._before_the_call(fork)
        self._ask(store, token)
        children.join(asking, TIMEOUT)

    def fail_and_ask(self, token, other):
        """Request a token, and fail. Keep the exception, and request the token of another user."""
        store = self._begin()
        kept = []
        try:
            fresh_token(token).get_token()
        except SDKException as error:
            kept.append(error)  # this keeps all frames of the traceback
        assert kept
        self._ask(store, other)

    def at_once(self, token, count, at):
        """Request the token in `count` processes, all at the time `at` of the monotonic clock."""

        def work(_number):
            store = self._begin()
            assert at - time.monotonic() < TIMEOUT
            time.sleep(max(0, at - time.monotonic()))
            self._ask_and_measure(store, token)

        children.at_once(count, work, 2 * TIMEOUT)

    def hold_before_call(self, token):
        """Request the token. Call Zoho after `Crowd.go_on`."""
        store = self._begin()
        self._before_the_call(lambda: None)
        self._ask_and_measure(store, token)

    def hold_before_save(self, token):
        """Request the token. Save the answer of Zoho after `Crowd.go_on`."""
        base = type(self._open())

        def save_token(store, saved):
            self.say("holds")
            assert self.go_on.poll(TIMEOUT)
            begun = time.monotonic()
            try:
                base.save_token(store, saved)
            finally:
                self.say("saved", seconds=time.monotonic() - begun)

        self._kind = type("Holding", (base,), {"save_token": save_token})
        self._ask_and_measure(self._begin(), token)

    def _ask_and_measure(self, store, fields):
        """Call `get_token`. Send how long it took, and its error."""
        begun = time.monotonic()
        access = error = text = None
        try:
            access = fresh_token(fields).get_token()
        except SDKException as raised:
            error, text = raised.code, str(raised.cause or "")
        seconds = time.monotonic() - begun
        # A short hash tells two access tokens apart and does not reveal them.
        fingerprint = access and hashlib.sha256(access.encode()).hexdigest()[:8]
        self.say("answer", error=error, text=text, seconds=seconds, access=fingerprint, ended=time.monotonic())
        self._say_lease(store)

    def _before_the_call(self, work):
        """Run `work` before the next call to Zoho. Make the call after `Crowd.go_on`."""
        post = requests.post

        def work_and_post(*arguments, **options):
            requests.post = post
            work()
            self.say("holds")
            assert self.go_on.poll(TIMEOUT)
            return post(*arguments, **options)

        requests.post = work_and_post

    def _wait_begins(self):
        self.waits.set()
        self.say("waiting")

    def _open(self):
        kind = self.setting["kind"]
        if ":" in kind:  # a function that opens a store
            module, function = kind.split(":")
            return getattr(importlib.import_module(module), function)(**self.setting["arguments"])
        store_class = self._kind or (Overriding if kind == "Overriding" else getattr(zoho_token_store, kind))
        return store_class(**self.setting["arguments"])

    def _begin(self):
        store = self._open()
        setting = self.setting
        Initializer.initialize(setting["environment"], NoToken(), store=store, resource_path=setting["folder"])
        return store

    def _ask(self, store, fields):
        self._answer(store, fields)
        self._say_lease(store)

    def _answer(self, store, fields):
        """Call `get_token`, as each request of the SDK does. Send the result, and the row that has it."""
        access = error = code = text = None
        try:
            access = fresh_token(fields).get_token()
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - the test checks it
            error, code = type(raised).__name__, getattr(raised, "code", None)
            text = str(getattr(raised, "cause", None) or "") if code == "TOKEN_STORE" else None
        rows = [row.get_id() for row in store.get_tokens() if row.get_access_token() == access]
        row = rows[0] if rows and access and not is_stale(access) else None
        self.say("answer", error=error, code=code, row=row, logged=self.errors.logged, text=text)
        return access

    def _say_lease(self, store):
        info = store.lease_info()
        self.say("lease", **{counter: getattr(info, counter) for counter in COUNTERS})


def in_threads(count, work):
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)


def end(store):
    """Do what Python does at the end of a program. A forked process ends by `os._exit`, which does not do it."""
    store.close()
    atexit._run_exitfuncs()


def is_stale(access_token):
    return access_token.startswith(STALE)


def expired_token(fields):
    """Make a token whose access token has expired."""
    token = fresh_token({**fields, "access_token": f"{STALE}-of-{fields['refresh_token']}"})
    token.set_expires_in("1")
    return token


def serve(events, go_on, setting, method, arguments):
    """Run one method, and end."""
    os.setsid()  # `Crowd.kill` ends the whole process group
    if host := setting.get("host"):
        from postgres.hosts import enter

        enter(host)  # from there no other machine can be reached
    else:
        sys.addaudithook(only_loopback)
    getattr(Member(events, go_on, setting), method)(**arguments)
