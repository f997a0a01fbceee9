"""A program that meets others at one expiry, seen from inside: what a test lets it do with the real SDK.

It runs in processes of its own (`crowd.py` starts it, and it forks), or in threads of one. What it tells the test are
JSON objects without a secret.
"""

import atexit
import gc
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
from sdk.worker import Ears, fresh_token, only_loopback
from zohocrmsdk.src.com.zoho.api.authenticator.token import Token
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.util.constants import Constants

STALE = "planted-stale-access-token"  # how those begin that a test has let expire
IN_TIME = 30  # seconds: far more than anything here needs
COUNTERS = ("taken", "waited", "gave_up", "longest_wait")


# The SDK reads it, for 0.1 s, when it is initialized without it: here once for all processes that are forked.
Initializer.json_details = Initializer.get_json(Path(zohocrmsdk.__path__[0], "src", Constants.JSON_DETAILS_FILE_PATH))


class Nobody(Token):
    """Lets the SDK be initialized without asking for a token: a test counts each time that one is asked for."""

    def authenticate(self, url_connection):
        pass  # only the look-up of a new token's user comes here, and has its header already

    def remove(self):
        raise NotImplementedError

    def generate_token(self):
        pass


class Overriding(zoho_token_store.CustomStoreSQLite):
    """A store as programs make it of ours, to add what they need."""

    def find_token(self, token):
        return super().find_token(token)

    def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
        return super().find_token_by_id(id)

    def save_token(self, token):
        return super().save_token(token)


class Waits(logging.Handler):
    """Notices that a find has begun to wait."""

    def __init__(self, notice):
        super().__init__(logging.DEBUG)
        self.notice = notice

    def emit(self, record):
        if record.getMessage().endswith(": waiting"):
            self.notice()


class Member:
    """One program. The public methods but `say` are what it can do."""

    def __init__(self, events, go_on, setting):
        self.events = events
        self.go_on = go_on
        self.setting = setting
        self.ears = Ears()
        sdk_log = logging.getLogger("SDKLogger")
        sdk_log.addHandler(self.ears)
        sdk_log.propagate = False
        store_log = logging.getLogger("zoho_token_store")
        store_log.setLevel(logging.DEBUG)
        store_log.propagate = False
        self.waits = threading.Event()
        store_log.addHandler(Waits(self._waits))

    def say(self, event, **values):
        # One write of less than PIPE_BUF: forked processes and threads do not get into each other's.
        self.events.send_bytes(json.dumps({"event": event, **values}).encode())

    def alone(self, token):
        """Ask in this very process."""
        self._ask(self._begin(), token)

    def processes(self, tokens, collect=False):  # noqa: FBT002 - by name, from afar
        """Ask in as many processes at once, and perhaps let Python collect its garbage after that."""

        def work(number):
            self._ask(self._begin(), tokens[number])
            if collect:
                gc.collect()

        children.at_once(len(tokens), work, IN_TIME)

    def threads(self, seed, tokens):
        """Save an expired token, if one is given, and ask in as many threads at once."""
        store = self._begin()
        if seed:
            store.save_token(expired_token(seed))
        together = threading.Barrier(len(tokens))

        def work(token):
            together.wait(IN_TIME)
            self._answer(store, token)

        threads = [threading.Thread(target=work, args=(token,), daemon=True) for token in tokens]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(IN_TIME)
        self._say_lease(store)

    def poll(self, by_id, by_token):
        """Look the row up again and again, as a script does that shows it, until its token is a new one."""
        store = self._open()
        until = time.monotonic() + IN_TIME
        looks = 0
        while time.monotonic() < until:
            seen = store.find_token_by_id(by_id["id"]), store.find_token(fresh_token(by_token))
            if not any(is_stale(token.get_access_token()) for token in seen):
                break
            looks += 1
            if looks == 1:
                self.say("looked")
            time.sleep(0.001)
        self._say_lease(store)

    def be_interrupted(self, token):
        """Ask, and be interrupted as by Ctrl-C while another's refresh is waited for."""
        # A program that was started in the background ignores it, and so do its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = []

        def interrupt():
            if self.waits.wait(IN_TIME):
                interrupted.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        self._ask(self._begin(), token)
        self.say("interrupted", latency=time.monotonic() - interrupted[0])

    def hold(self, token, clock_off=0):
        """Ask, by a clock that may be wrong by some seconds, and let Zoho hear of it when told to."""
        right = time.time
        time.time = lambda: right() + clock_off
        store = self._begin()
        self._before_the_call(lambda: None)
        self._ask(store, token)

    def fork_while_asking(self, token, child):
        """Ask, fork between the find and the call, and go on when told to.

        The child asks, too; or it ends, as a program does with all its hooks, or by an exception through the frames of
        the parent's find.
        """
        store = self._begin()
        asking = []

        def fork():
            if child == "asks":
                asking.append(children.fork(lambda: self._ask(store, token)))
            elif child == "closes":
                children.join([children.fork(lambda: end(store))], IN_TIME)
            elif (forked := os.fork()) == 0:
                raise SystemExit(0)
            else:
                children.join([forked], IN_TIME)

        self._before_the_call(fork)
        self._ask(store, token)
        children.join(asking, IN_TIME)

    def fail_and_ask(self, token, other):
        """Ask in vain, and with the error at hand for another user."""
        store = self._begin()
        kept = []
        try:
            fresh_token(token).get_token()
        except SDKException as error:
            kept.append(error)  # and with it all the frames it passed
        assert kept
        self._ask(store, other)

    def _before_the_call(self, work):
        """Do something before the next call to Zoho, and wait to be told to go on with it."""
        post = requests.post

        def work_and_post(*arguments, **options):
            requests.post = post
            work()
            self.say("holds")
            assert self.go_on.poll(IN_TIME)
            return post(*arguments, **options)

        requests.post = work_and_post

    def _waits(self):
        self.waits.set()
        self.say("waiting")

    def _open(self):
        kind = self.setting["kind"]
        return (Overriding if kind == "Overriding" else getattr(zoho_token_store, kind))(**self.setting["arguments"])

    def _begin(self):
        store = self._open()
        setting = self.setting
        Initializer.initialize(setting["environment"], Nobody(), store=store, resource_path=setting["folder"])
        return store

    def _ask(self, store, fields):
        self._answer(store, fields)
        self._say_lease(store)

    def _answer(self, store, fields):
        """Do what every call through the SDK begins with, and say what came of it: for which row, if for any."""
        access = error = code = None
        try:
            access = fresh_token(fields).get_token()
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - the test judges it
            error, code = type(raised).__name__, getattr(raised, "code", None)
        rows = [row.get_id() for row in store.get_tokens() if row.get_access_token() == access]
        row = rows[0] if rows and access and not is_stale(access) else None
        self.say("answer", error=error, code=code, row=row, logged=self.ears.heard)

    def _say_lease(self, store):
        info = store.lease_info()
        self.say("lease", **{counter: getattr(info, counter) for counter in COUNTERS})


def end(store):
    """What the end of a program does, and `os._exit` does not."""
    store.close()
    atexit._run_exitfuncs()


def is_stale(access_token):
    return access_token.startswith(STALE)


def expired_token(fields):
    """Make a token whose access token has expired by every clock."""
    token = fresh_token({**fields, "access_token": f"{STALE}-of-{fields['refresh_token']}"})
    token.set_expires_in("1")
    return token


def serve(events, go_on, setting, verb, arguments):
    """Do one thing, and end."""
    os.setsid()  # a group of its own, which a test can end as a whole
    sys.addaudithook(only_loopback)
    getattr(Member(events, go_on, setting), verb)(**arguments)
