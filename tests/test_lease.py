"""The refresh lease in one process: who is told what, what is logged and counted, and what trouble with it costs.

What takes several processes, and the other SDKs, is in `sdk/test_lease.py`.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from support import UNPRIVILEGED, run_program

# A program with the SDK and a stand-in for Zoho of its own. `expire()` makes the one row expire, `ask()` is what the
# SDK does before each call of the API.
PROGRAM = """
import json, logging
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

class Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []
    def emit(self, record):
        self.lines.append(f"{record.levelname} {record.getMessage()}".replace(sys.argv[1], "FILE"))

heard = Heard()
logging.getLogger("zoho_token_store").addHandler(heard)
logging.getLogger("zoho_token_store").setLevel(logging.DEBUG)
logging.getLogger("zoho_token_store.testing").propagate = False
logging.raiseExceptions = False  # the SDK's own log calls do not format

zoho = ZohoStandIn(latency=0.05).start()
credentials = dict(client_id=zoho.client_id, client_secret=zoho.client_secret,
                   refresh_token=zoho.refresh_token("ada@example.com"))
Initializer.initializer = Initializer()
Initializer.initializer.environment = zoho.environment()
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig
Initializer.initializer.sdk_config = SDKConfig()

def use(store):
    Initializer.initializer.store = store
    return store

def expire(store, **more):
    store.save_token(token("ada@example.com", **credentials, access_token="expired", expires_in="1", **more))
    heard.lines.clear()

def ask(by="id"):
    return OAuthToken(id="1").get_token() if by == "id" else OAuthToken(**credentials).get_token()

def in_thread(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread

def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise SystemExit("waited in vain")
"""


def run(code: str, path: object) -> object:
    """Run such a program and return what it printed last."""
    return json.loads(run_program(PROGRAM + code, path, timeout=60).splitlines()[-1])


def leases(path: object) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT key FROM zoho_token_lease").fetchall()


def test_the_log_tells_who_took_waited_and_gave_back(path):
    """Each event is a line of the logger `zoho_token_store`, without a secret."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
first = in_thread(ask)
until(lambda: zoho.token_calls == 1)
ask("refresh token")
first.join(20)
lines = [line.replace(str(os.getpid()), "PID") for line in heard.lines]
secrets = [value for name, value in credentials.items() if name != "client_id"]
assert not any(secret in line for secret in secrets for line in lines)
print(json.dumps([lines, repr(store.lease_info())]))
"""
    lines, info = run(code, path)
    assert sorted(line for line in lines if "waited" not in line) == [
        'DEBUG FILE: gave back the lease to refresh the id "1" with the new token',
        'DEBUG FILE: process PID refreshes the id "1": waiting',
        'INFO FILE: took the lease to refresh the id "1", for 10 s',
    ]
    [waited] = [line for line in lines if "waited" in line]
    assert waited.startswith("INFO FILE: waited 0.")
    assert waited.endswith(" s for another's refresh")
    assert info.startswith("LeaseInfo(taken=1, waited=1, gave_up=0, longest_wait=0.")


@pytest.mark.parametrize("by", ["id", "refresh token"])
def test_a_failed_refresh_gives_the_lease_back_and_says_so(path, by):
    """Rule 11: when `get_token` has raised, the lease goes, though no method of the store was called."""
    code = f"""
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
zoho.fail_next(1)
try:
    ask({by!r})
except Exception as error:
    assert getattr(error, "code", None) != "TOKEN_STORE"
    during = list(heard.lines)
store.lease_info()
print(json.dumps([during[-1:], heard.lines[len(during):]]))
"""
    during, after = run(code, path)
    assert during == ['INFO FILE: took the lease to refresh the id "1", for 10 s']
    assert after == ['INFO FILE: gave back the lease to refresh the id "1": no new token was saved']
    assert leases(path) == []


def test_a_program_that_ends_by_a_failed_refresh_keeps_nobody_waiting(path):
    """Rule 11: what a program still holds when it ends it gives back, even if its traceback lives on."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
zoho.fail_next(1)
try:
    ask("refresh token")
except Exception as error:
    kept = error
import sqlite3
print(json.dumps(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM zoho_token_lease").fetchone()))
"""
    assert run(code, path) == [1]
    assert leases(path) == []


def test_closing_a_store_gives_its_leases_back(path):
    """Rule 11: a store that is closed holds no lease."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
zoho.fail_next(1)
try:
    ask()
except Exception as error:
    kept = error
store.close()
import sqlite3
print(json.dumps(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM zoho_token_lease").fetchone()))
"""
    assert run(code, path) == [0]


def test_a_new_decision_gives_back_what_an_earlier_one_left(path):
    """Rule 11: a thread whose refresh for one user failed, and who asks for another, keeps nobody from the first."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
credentials["refresh_token"] = zoho.refresh_token("bob@example.com")
store.save_token(token("bob@example.com", **credentials, access_token="expired too", expires_in="1"))
zoho.fail_next(1)
try:
    ask()
except Exception as error:
    kept = error
heard.lines.clear()
OAuthToken(id="2").get_token()
print(json.dumps(heard.lines))
"""
    assert run(code, path) == [
        'INFO FILE: gave back the lease to refresh the id "1": no new token was saved',
        'INFO FILE: took the lease to refresh the id "2", for 10 s',
        'DEBUG FILE: gave back the lease to refresh the id "2" with the new token',
    ]


BROKEN = {
    "another table": "CREATE TABLE zoho_token_lease (one)",
    "a view": "CREATE VIEW zoho_token_lease AS SELECT 1 AS one",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_trouble_with_the_lease_table_is_a_warning_and_no_more(path, broken):
    """Rule 1: no trouble of the lease's own reaches the SDK."""
    code = f"""
store = use(CustomStoreSQLite(sys.argv[1]))
expire(store)
import sqlite3
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute({BROKEN[broken]!r})
assert ask() == store.get_tokens()[0].get_access_token() != "expired"
print(json.dumps(heard.lines))
"""
    [line] = run(code, path)
    assert line.startswith("WARNING FILE: going on without a lease: FILE: ")


def test_a_read_only_file_is_read_without_a_lease(open_folder):
    """Rule 1: who may not write takes no lease, and goes on."""
    path = open_folder / "tokens.db"
    code = """
with CustomStoreSQLite(sys.argv[1]) as store:
    expire(store)
    store.backup(sys.argv[1] + ".copy")
os.chmod(sys.argv[1] + ".copy", 0o444)
store = use(CustomStoreSQLite(sys.argv[1] + ".copy"))
served = ask()
print(json.dumps([served != "expired", zoho.token_calls, heard.lines]))
"""

    served, calls, lines = run(code.replace("store = use", f"{UNPRIVILEGED}\nstore = use"), path)
    assert (served, calls) == (True, 1)
    assert any(
        line.startswith("WARNING FILE.copy: going on without a lease: FILE.copy: it may not be") for line in lines
    )


def test_a_dropped_lease_table_is_made_again(path):
    """Rule 13: the table may be dropped at will."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1]))
import sqlite3
for _ in range(3):
    expire(store)
    ask()
    with sqlite3.connect(sys.argv[1]) as connection:
        connection.execute("DROP TABLE zoho_token_lease")
print(json.dumps(store.lease_info().taken))
"""
    assert run(code, path) == 3


@pytest.mark.parametrize("kind", ["CustomStoreSQLite(sys.argv[1]", "CustomStoreInMemory(", "CustomStoreList("])
def test_only_the_sdks_decision_takes_a_lease(path, kind):
    """Rule 2: a script that looks a token up has the row at once, whatever its functions are called."""
    code = f"""
store = use({kind}))
expire(store)
def get_token():
    found = store.find_token(OAuthToken(**credentials))
    return [found.get_access_token(), store.find_token_by_id("1").get_access_token()]
assert get_token() == ["expired", "expired"]
assert store.lease_info().taken == 0
# Wrapped, as tracing libraries do, it is still the SDK's.
plain = OAuthToken.get_token
OAuthToken.get_token = lambda *arguments: (lambda: plain(*arguments))()
ask()
print(json.dumps(store.lease_info().taken))
"""
    assert run(code, path) == 1


def test_no_lease_without_one(path):
    """`refresh_lease=0` turns leases off."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1], refresh_lease=0))
expire(store)
ask()
import sqlite3
tables = sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM sqlite_schema WHERE name = 'zoho_token_lease'")
print(json.dumps([store.lease_info().taken, tables.fetchone()[0], heard.lines]))
"""
    assert run(code, path) == [0, 0, []]


def test_a_row_deleted_during_the_wait_ends_it(path):
    """Rule 9: who waits for a row that is deleted is told so at once, as in any find."""
    code = """
store = use(CustomStoreSQLite(sys.argv[1], refresh_lease=60))
expire(store)
zoho.fail_next(1, hang=30)
first = in_thread(ask)
until(lambda: zoho.token_calls == 1)
told = []
def second():
    try:
        ask()
    except SDKException as error:
        told.append(error.code)
waits = in_thread(second)
until(lambda: any("waiting" in line for line in heard.lines))
store.delete_token("1")
waits.join(20)
zoho.stop()
print(json.dumps(told))
"""
    assert run(code, path) == ["TOKEN_STORE"]


def test_the_counters_cannot_be_changed(store):
    """`lease_info()` is a snapshot."""
    info = store.lease_info()
    assert (info.taken, info.waited, info.gave_up, info.longest_wait) == (0, 0, 0, 0.0)
    with pytest.raises(AttributeError):
        info.taken = 1
