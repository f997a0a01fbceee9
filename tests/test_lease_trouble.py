"""The refresh lease where programs are unkind: exceptions that are kept, handlers that call back, busy files, forks.

Most use a lease that no test could sit out, so that whoever waits for what will not come is noticed.
"""

from __future__ import annotations

import pytest
from test_lease import leases, run

# Another program that keeps the file for itself, until it is told to end.
BUSY = """
import sqlite3, subprocess
def keep():
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); " \\
        "c.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], **pipes)
    other.stdout.readline()
    return other
"""
FOREVER = "store = use(CustomStoreSQLite(sys.argv[1], refresh_lease=300))\nexpire(store)\n"


def test_who_waits_when_the_interpreter_ends_ends_with_it(path):
    """A daemon thread that waits for another's refresh keeps no program from ending well."""
    code = """
zoho.fail_next(1, hang=60)
in_thread(ask)
until(lambda: zoho.token_calls == 1)
for _ in range(4):
    in_thread(ask)
until(lambda: sum("waiting" in line for line in heard.lines) == 4)
print(json.dumps("ends"))
"""
    assert run(FOREVER + code, path) == "ends"


def test_signals_end_a_wait_whenever_they_come(path):
    """Rule 8: a signal's handler that raises ends the wait, though other threads keep Python busy."""
    code = """
import signal
class Enough(BaseException):  # as KeyboardInterrupt: no logging handler takes it for a failure of its own
    pass
def enough(*_):
    raise Enough
signal.signal(signal.SIGALRM, enough)
zoho.fail_next(1, hang=60)
in_thread(ask)
until(lambda: zoho.token_calls == 1)
def spin():
    while True:
        pass
for _ in range(2):
    in_thread(spin)
ended = 0
for _ in range(6):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        ask()
    except Enough:
        ended += 1
print(json.dumps(ended))
"""
    assert run(FOREVER + code, path) == 6


def test_who_asks_just_before_the_expiry_asks_once_too(path):
    """Rule 3: the SDK looks at the clock after the store; what is fresh here and not there would have no lease."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
found = store.get_tokens()[0]
found.set_expires_in(str(int(time.time() * 1000) + 5150))
store.save_token(found)
def work():
    while ask() == "expired":
        pass
threads = [in_thread(work) for _ in range(8)]
for thread in threads:
    thread.join(20)
print(json.dumps([zoho.token_calls, any(thread.is_alive() for thread in threads)]))
"""
    assert run(code, path) == [1, False]


@pytest.mark.parametrize("by", ["id", "refresh token"])
def test_what_becomes_due_while_it_is_found_is_asked_for_once_too(path, by):
    """Rule 3: a find that other threads keep from the GIL hands out nothing as fresh that is so no longer."""
    code = f"""
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
found = store.get_tokens()[0]
due = time.time() + 1
found.set_expires_in(str(int(due * 1000) + 5000))
store.save_token(found)
set_expires_in = OAuthToken.set_expires_in
def held_up(self, value):  # until the token is due
    set_expires_in(self, value)
    until(lambda: time.time() > due)
OAuthToken.set_expires_in = held_up
threads = [in_thread(lambda: ask({by!r})) for _ in range(8)]
for thread in threads:
    thread.join(20)
print(json.dumps([zoho.token_calls, any(thread.is_alive() for thread in threads)]))
"""
    assert run(code, path) == [1, False]


def test_a_logging_handler_may_look_a_row_up(path):
    """Rule 2: a find within a decision, as a handler of the store's own log may make one, is no decision itself."""
    code = """
class Curious(logging.Handler):
    def emit(self, record):
        store.find_token_by_id("1")
logging.getLogger("zoho_token_store").addHandler(Curious())
threads = [in_thread(ask) for _ in range(4)]
for thread in threads:
    thread.join(20)
print(json.dumps([zoho.token_calls, any(thread.is_alive() for thread in threads)]))
"""
    assert run(FOREVER + code, path) == [1, False]


def test_kept_exceptions_keep_nobody_of_the_process_waiting(path):
    """Rule 11: a future keeps its exception, and that the frame; whoever waits in the same process notices."""
    code = """
from concurrent.futures import ThreadPoolExecutor
zoho.fail_next(1)
with ThreadPoolExecutor(8) as pool:
    asked = [pool.submit(ask) for _ in range(8)]
failed = [future for future in asked if future.exception()]
print(json.dumps([zoho.token_calls, len(failed), store.lease_info().gave_up]))
"""
    assert run(FOREVER + code, path) == [2, 1, 0]


def test_who_is_held_up_after_a_look_looks_once_more(path):
    """Rule 8: what came while a process was stopped, after its last look, is not asked for again."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1], refresh_lease=1))
expire(store)
zoho.latency = 0.3
first = in_thread(ask)
until(lambda: zoho.token_calls == 1)
frames, looks = sys._current_frames, []
def stopped():  # at the second look, until the answer is there and the wait is over
    running = frames()
    looks.append(time.monotonic())
    if len(looks) == 2:
        first.join(20)
        until(lambda: time.monotonic() > looks[0] + 1.5)
    return running
sys._current_frames = stopped
assert ask() != "expired"
print(json.dumps([len(looks), zoho.token_calls, store.lease_info().gave_up]))
"""
    assert run(code, path) == [2, 1, 0]


def test_without_the_gil_nobody_looks_at_what_other_threads_run(path):
    """Frames that others run are not safe to look at then: whoever waits waits until the lease is over."""
    code = """
from concurrent.futures import ThreadPoolExecutor
store = use(CustomStoreSQLite(sys.argv[1], refresh_lease=1))
expire(store)
sys._is_gil_enabled, sys._current_frames = lambda: False, lambda: os._exit(7)
zoho.fail_next(1)
with ThreadPoolExecutor(4) as pool:
    asked = [pool.submit(ask) for _ in range(4)]
failed = [future for future in asked if future.exception()]
print(json.dumps([zoho.token_calls, len(failed)]))
"""
    assert run(code, path) == [2, 1]


def test_a_store_that_goes_with_its_frame_gives_its_lease_back(path):
    """Rule 11: a failed refresh gives the lease back, though nobody else holds the store any more."""
    code = """
zoho.fail_next(1)
try:
    ask()
except Exception:
    del store
    Initializer.initializer.store = None
print(json.dumps("gone"))
os._exit(0)
"""
    assert run(
        FOREVER.replace("store = use", "store = use") + code.replace("os._exit", "sys.stdout.flush(); os._exit"), path
    )
    assert leases(path) == []


def test_an_interrupt_between_lease_and_refresh_gives_it_back(path):
    """Rule 11: whatever ends the decision after the lease was taken, the lease ends with it."""
    code = """
class Interrupts(logging.Handler):
    def emit(self, record):
        if "waited" in record.getMessage():
            raise KeyboardInterrupt
logging.getLogger("zoho_token_store").addHandler(Interrupts())
zoho.latency = 0.3
zoho.fail_next(1)
def fails():
    try:
        ask()
    except Exception:
        pass
first = in_thread(fails)
until(lambda: zoho.token_calls == 1)
try:
    ask()
except KeyboardInterrupt:
    ended = True
first.join(20)
import sqlite3
print(json.dumps([ended, sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM zoho_token_lease").fetchone()[0]]))
"""
    assert run(FOREVER + code, path) == [True, 0]


def test_what_a_busy_file_kept_from_being_given_back_is_given_back_later(path):
    """Rule 11: a lease that could not be given back at once is not forgotten."""
    code = """
import requests
zoho.fail_next(1)
post, kept = requests.post, []
def busy(*arguments, **options):
    kept.append(keep())
    return post(*arguments, **options)
requests.post = busy
try:
    ask()
except Exception:
    pass
count = lambda: sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM zoho_token_lease").fetchone()[0]
before = count()
kept[0].communicate(timeout=20)
store.close()
print(json.dumps([before, count()]))
"""
    assert run(FOREVER + BUSY + code, path) == [1, 0]


def test_a_busy_file_means_no_lease(path):
    """Rule 1: where a lease cannot be taken, because another program keeps the file, it goes on without."""
    code = """
other = keep()
asking = in_thread(ask)
until(lambda: zoho.token_calls == 1)
other.communicate(timeout=20)
asking.join(20)
info = store.lease_info()
print(json.dumps([info.taken, info.gave_up, store.get_tokens()[0].get_access_token() != "expired"]))
"""
    assert run(FOREVER + BUSY + code, path) == [0, 1, True]


def test_saving_what_was_found_is_no_refresh(path):
    """Rule 10: only a new access token gives the lease back; a subclass may save what it finds."""
    code = """
class Touching(CustomStoreSQLite):
    def find_token_by_id(self, id):
        found = super().find_token_by_id(id)
        self.save_token(found)
        return found
store = use(Touching(sys.argv[1], refresh_lease=300))
expire(store)
threads = [in_thread(ask) for _ in range(8)]
for thread in threads:
    thread.join(20)
print(json.dumps(zoho.token_calls))
"""
    assert run(code, path) == 1


def test_a_decision_within_a_decision_keeps_the_outer_lease(path):
    """Rule 11: a nested call for another user is no sign that the outer one has ended."""
    code = """
class Nesting(CustomStoreSQLite):
    def find_token_by_id(self, id):
        found = super().find_token_by_id(id)
        if id == "1" and threading.current_thread() is threading.main_thread():
            OAuthToken(id="2").get_token()
            others.append(in_thread(ask))
            until(lambda: any("waiting" in line for line in heard.lines))
        return found
others = []
store = use(Nesting(sys.argv[1], refresh_lease=300))
expire(store)
credentials["refresh_token"] = zoho.refresh_token("bob@example.com")
store.save_token(token("bob@example.com", **credentials, access_token="expired too", expires_in="1"))
ask()
others[0].join(20)
print(json.dumps([zoho.token_calls, store.lease_info().taken]))
"""
    assert run(code, path) == [2, 2]


@pytest.mark.parametrize("broken", ["sys._getframe", "time.time"])
def test_a_python_that_lacks_something_has_no_lease(path, broken):
    """Rule 1: whatever fails on the way to a lease, the find does not."""
    code = f"""
module, name = {broken!r}.split(".")
real = getattr(sys.modules[module], name)
class Broken(CustomStoreSQLite):
    def find_token_by_id(self, id):
        def no(*_):
            raise RuntimeError("not here")
        setattr(sys.modules[module], name, no)
        try:
            return super().find_token_by_id(id)
        finally:
            setattr(sys.modules[module], name, real)
store = use(Broken(sys.argv[1]))
expire(store)
# The log looks at frames and clock, too.
logging.getLogger("zoho_token_store").setLevel(logging.CRITICAL)
new = ask()
print(json.dumps([new != "expired", store.lease_info().taken]))
"""
    assert run(code, path) == [True, 0]


def test_only_the_nearest_frames_are_looked_at(path):
    """Rule 2: a find from deep within something else that `get_token` has called is no decision of the SDK's."""
    code = """
class Deep(CustomStoreSQLite):
    def find_token_by_id(self, id, depth=12):
        return self.find_token_by_id(id, depth - 1) if depth else super().find_token_by_id(id)
store = use(Deep(sys.argv[1]))
expire(store)
ask()
print(json.dumps(store.lease_info().taken))
"""
    assert run(code, path) == 0


@pytest.mark.skipif("not hasattr(__import__('os'), 'fork')")
def test_forks_do_not_disturb_leases(path):
    """Rule 6: while another thread forks, leases are taken and given back as ever."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
import children
going = True
def forks():
    while going:
        children.join([children.fork(lambda: None)])
        time.sleep(0.03)
forking = in_thread(forks)
for _ in range(8):
    expire(store)
    threads = [in_thread(ask) for _ in range(3)]
    for thread in threads:
        thread.join(20)
going = False
forking.join(20)
info = store.lease_info()
print(json.dumps([zoho.token_calls, info.taken, info.gave_up]))
"""
    assert run(code, path) == [8, 8, 0]
