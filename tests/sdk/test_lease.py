"""The tokens of many programs expire at the same time: one refreshes, and the others wait for it (`docs/lease.md`).

The programs use the real SDK, in their own processes and threads. The stand-in for Zoho takes 0.2 s for an answer, and
has Zoho's limits. SDK 5 to 7 run one of these tests, SDK 8 runs all (see `conftest.py`).
"""

import contextlib
import itertools
import re
import sqlite3
import sys
import time

import pytest
import zoho_token_store
from sdk.crowd import Crowd
from zoho_token_store.testing import ZohoStandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, process groups and signals")

LONGER_THAN_ANY_TEST = 300  # seconds; if a test waits until the lease expires, it fails
HANGS = 60  # seconds until Zoho answers one call; no test lasts so long
AFTER_FAILURE_MS = 2000  # how much longer a requester waits after the lease that it met first (rule 8)
IN_MEMORY = ["CustomStoreInMemory", "CustomStoreList"]
ON_EACH_SHARED_STORE = pytest.mark.parametrize("shared", ["CustomStoreSQLite", "CustomStorePostgreSQL"], indirect=True)
FAILURES = {
    "http-500": {"status": 500},
    "denied": {"status": 200, "body": {"error": "Access Denied"}},
    "dropped": {"drop": True},
}


@pytest.fixture
def zoho(request):
    with ZohoStandIn(latency=getattr(request, "param", 0.2)) as standin:
        yield standin


@pytest.fixture
def shared(request, tmp_path):
    """The class of the store that the programs share, and the arguments that say where it is."""
    kind = getattr(request, "param", "CustomStoreSQLite")
    if kind == "CustomStoreSQLite":
        return kind, {"path": str(tmp_path / "tokens.db")}
    return kind, {"dsn": request.getfixturevalue("dsn"), "schema": request.getfixturevalue("schema")}


@pytest.fixture
def open_shared(shared):
    """A function that opens the store that the programs share."""
    kind, place = shared
    return lambda: getattr(zoho_token_store, kind)(**place)


@pytest.fixture
def start(zoho, tmp_path, shared):
    """A function that starts a program. It runs one method of `Member`, with the shared store or one in memory."""
    crowds = []

    def start_one(method, store=None, options=(), refresh_lease=None, **arguments):
        options = {**dict(options), **({} if refresh_lease is None else {"refresh_lease": refresh_lease})}
        if store not in IN_MEMORY:
            options = shared[1] | options
        setting = {
            "kind": store or shared[0],
            "arguments": options,
            "environment": zoho.environment(),
            "folder": str(tmp_path),
        }
        crowd = Crowd(setting, method, arguments)
        crowds.append(crowd)
        return crowd

    yield start_one
    for crowd in crowds:
        crowd.kill()


@pytest.fixture(params=["refresh_token", "id"])
def by(request):
    """What the token of a program has: a refresh token (the SDK calls `find_token`) or an id (`find_token_by_id`)."""
    return request.param


@pytest.fixture
def expire(zoho, open_shared):
    """A function that saves a row with an expired access token for a user, and returns two tokens that name the row."""

    def expire_one(user):
        from sdk.member import expired_token

        token = expired_token(credentials(zoho, refresh_token=zoho.refresh_token(user)))
        with open_shared() as store:
            store.save_token(token)
        return names(zoho, token.get_id(), token.get_refresh_token())

    return expire_one


@pytest.fixture
def row(expire, ada):
    return expire(ada)


class Names(dict):
    """Tokens that name a row. A failed test shows this object, so the secrets are left out."""

    def __repr__(self):
        return f"<names by {', '.join(self)}>"


def credentials(zoho, **fields):
    return {"client_id": zoho.client_id, "client_secret": zoho.client_secret, **fields}


def names(zoho, row_id, refresh_token):
    return Names({"id": {"id": row_id}, "refresh_token": credentials(zoho, refresh_token=refresh_token)})


def until_asked(zoho, calls):
    """Wait until this many token calls have arrived at the stand-in."""
    assert poll(lambda: zoho.token_calls >= calls), zoho.calls


def poll(condition):
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def read(shared, query):
    """Return the one value of a query. No store is open in this process, so its SQLite may open a file, too."""
    kind, place = shared
    if kind == "CustomStorePostgreSQL":
        import psycopg

        with psycopg.connect(place["dsn"], options=f"-csearch_path={place['schema']}") as connection:
            [(value,)] = connection.execute(query).fetchall()
        return value
    with contextlib.closing(sqlite3.connect(place["path"], timeout=30)) as connection:
        [(value,)] = connection.execute(query).fetchall()
    return value


def assert_all_served(outcome, count, rows=("1",)):
    """Each requester has the access token that is in its row now. There was no error, and no wait was in vain."""
    assert [(answer["error"], answer["code"]) for answer in outcome.answers] == [(None, None)] * count
    assert {answer["row"] for answer in outcome.answers} == set(rows)
    assert [answer["logged"] for answer in outcome.answers] == [[]] * count
    assert outcome.total("gave_up") == 0


def assert_failed_by_the_sdk(answers):
    """A failed refresh raises the SDK's own error, and no error of the store."""
    assert {answer["error"] for answer in answers} == {"SDKException"}
    assert "TOKEN_STORE" not in {answer["code"] for answer in answers}


@ON_EACH_SHARED_STORE
def test_32_processes_at_one_expiry(start, zoho, row, by):
    """32 processes make 1 token call at one expiry, and all are served with its token."""
    outcome = start("processes", tokens=[row[by]] * 32).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 32)
    assert outcome.total("taken") == 1


@pytest.mark.parametrize("store", [None, *IN_MEMORY])
def test_32_threads_at_one_expiry(start, zoho, ada, by, store):
    """32 threads make 1 token call at one expiry, with each of the stores."""
    token = zoho.refresh_token(ada)
    tokens = [names(zoho, "1", token)[by]] * 32
    outcome = start("threads", store, seed=credentials(zoho, refresh_token=token), tokens=tokens).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 32)
    assert outcome.total("taken") == 1


@ON_EACH_SHARED_STORE
@pytest.mark.parametrize("names_row", ["refresh_token", "grant_token"])
def test_16_processes_start_without_a_row(start, zoho, ada, open_shared, names_row):
    """16 processes start with the same refresh token, or the same grant code: 1 token call, no error, one row.

    There is no file and there are no tables either.
    """
    secret = zoho.refresh_token(ada) if names_row == "refresh_token" else zoho.grant_code(ada)
    outcome = start("processes", tokens=[credentials(zoho, **{names_row: secret})] * 16).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 16)
    with open_shared() as store:
        assert len(store) == 1


@pytest.mark.parametrize("zoho", [3], indirect=True, ids="{} s".format)
def test_a_store_that_is_busy_when_all_processes_ask(start, zoho, row, tmp_path):
    """Rule 8: a requester that could not acquire the lease waits for the one that could, also for a slow Zoho."""
    with contextlib.closing(sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        crowd = start("processes", tokens=[row["id"]] * 8)
        crowd.until("waiting", 8)
    outcome = crowd.ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)


@pytest.mark.parametrize("shared", ["CustomStorePostgreSQL"], indirect=True)
def test_a_server_that_answers_no_process_for_a_second(start, zoho, row, shared):
    """Rule 8: a requester that gets no answer for the lease tries again, and does not refresh by itself."""
    from postgres.fault_proxy import Fault, FaultProxy, first

    with FaultProxy(shared[1]["dsn"]) as proxy:
        fault = proxy.inject(Fault("stall", matching="INSERT INTO .*zoho_token_lease", which=first(4)))
        crowd = start("processes", tokens=[row["id"]] * 8, options={"dsn": proxy.dsn})
        outcome = crowd.ends()
    assert fault.injected == 4
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)


@ON_EACH_SHARED_STORE
@pytest.mark.parametrize("holder", ["is killed", "hangs", "keeps its frames"])
def test_a_lease_that_is_never_released_costs_one_more_call(start, zoho, row, shared, holder):
    """Rules 7, 8, 11: when the lease has expired, 1 more call serves all. After 2 s without its answer, all ask."""
    # After a dropped connection urllib3 leaves a reference cycle, and in it the frames of all its callers.
    zoho.fail_next(**({"drop": True} if holder == "keeps its frames" else {"hang": HANGS}))
    first = start("alone", refresh_lease=3, token=row["refresh_token"])
    until_asked(zoho, 1)
    lease_expires = read(shared, "SELECT until FROM zoho_token_lease")
    others = start("processes", refresh_lease=3, tokens=[row["id"]] * 8)
    others.until("waiting")
    if holder == "is killed":
        first.kill()
    assert poll(lambda: not read(shared, "SELECT access_token FROM oauthtoken").startswith("planted-stale"))
    refreshed = time.time() * 1000
    outcome = others.ends()
    # The second lease begins after the first one has expired, and the others wait for it for 2 s. A machine that stands
    # still for so long makes the answer come too late. Then each requester that gives up makes its own call.
    if refreshed < lease_expires + AFTER_FAILURE_MS:
        assert zoho.token_calls == 2
        assert_all_served(outcome, 8)
        assert outcome.total("taken") == 1
    else:
        assert {answer["error"] for answer in outcome.answers} == {None}
        assert zoho.token_calls == 1 + outcome.total("taken") + outcome.total("gave_up")


@ON_EACH_SHARED_STORE
@pytest.mark.parametrize("failure", FAILURES)
def test_a_refresh_that_fails_once(start, zoho, row, by, failure):
    """Rule 11: a failed refresh releases the lease. One requester gets the SDK's error, and 1 more call serves all."""
    zoho.fail_next(**FAILURES[failure])
    # After a dropped connection the frames exist until Python collects its garbage (see above).
    outcome = start(
        "processes", refresh_lease=LONGER_THAN_ANY_TEST, tokens=[row[by]] * 8, collect=failure == "dropped"
    ).ends()
    assert zoho.token_calls == 2
    failed = [answer for answer in outcome.answers if answer["error"]]
    assert len(failed) == 1
    assert_failed_by_the_sdk(failed)
    outcome.answers.remove(failed[0])
    assert_all_served(outcome, 7)


@ON_EACH_SHARED_STORE
def test_a_refresh_that_always_fails(start, zoho, row, by):
    """Rule 15: two requesters get the SDK's error. The others get an error of the store at once, without a call."""
    zoho.fail_next(100)
    outcome = start("processes", refresh_lease=LONGER_THAN_ANY_TEST, tokens=[row[by]] * 8).ends()
    assert len(outcome.answers) == 8
    asked = [answer for answer in outcome.answers if answer["code"] != "TOKEN_STORE"]
    assert_failed_by_the_sdk(asked)
    # After the second failure the next attempt may begin a second later. Slow processes may ask as late as that.
    assert len(asked) == zoho.token_calls == outcome.total("failed_refreshes") >= 2
    assert outcome.total("backed_off") == 8 - len(asked)


def test_many_requests_while_zoho_denies(start, zoho, row, by):
    """Rule 15: one attempt per interval. Each error says when the next one is, and the first that succeeds ends it."""
    zoho.fail_next(4, **FAILURES["denied"])
    outcome = start("keep_asking", options={"refresh_backoff": 1}, token=row[by], threads=8, pause=0.2).ends()
    assert zoho.token_calls == 5
    assert outcome.total("failed_refreshes") == 4
    first, *later = (call.at for call in zoho.calls if call.kind == "refresh")
    intervals = [after - before for before, after in itertools.pairwise(later)]
    assert later[0] - first < 1 <= min(intervals)
    backed_off = [answer for answer in outcome.answers if answer["code"] == "TOKEN_STORE"]
    assert all(re.search(r"have failed, .* the next one may begin in \d\.\d s", one["text"]) for one in backed_off)
    assert outcome.total("backed_off") == len(backed_off) > 8
    served = [answer for answer in outcome.answers if not answer["error"]]
    assert {answer["row"] for answer in served} == {"1"}
    assert len(served) == 8


@ON_EACH_SHARED_STORE
@pytest.mark.parametrize("zoho", [1], indirect=True, ids="{} s".format)
def test_refresh_ahead_in_3_processes_of_16_threads(start, zoho, row, open_shared):
    """Rule 17: 1 token call for all. No request waits, none fails, and none gets another token than the valid one."""
    with open_shared() as store:
        token = store.find_token_by_id(row["id"]["id"])
        token.set_access_token("planted-valid-access-token")
        token.set_expires_in(str(int((time.time() + 240) * 1000)))
        store.save_token(token)
    outcome = start("ahead", options={"refresh_ahead": 300}, token=row["id"], processes=3, threads=16).ends()
    assert zoho.token_calls == 1
    assert {answer["error"] for answer in outcome.answers} == {None}
    # The row can be refreshed between a request and the look at it. After the last request it has its new token.
    assert {answer["row"] for answer in outcome.answers} <= {"1", None}
    assert outcome.answers[-1]["row"] == "1"
    assert [outcome.total(counter) for counter in ("taken", "taken_ahead", "waited")] == [1, 1, 0]


@ON_EACH_SHARED_STORE
def test_a_script_that_looks_the_row_up(start, zoho, row, by):
    """Rule 2: a script that looks up the row gets it at once, and delays no refresh."""
    script = start("poll", by_id=row["id"], by_token=row["refresh_token"])
    script.until("looked up")
    worker = start("alone", token=row[by]).ends()
    lookups = script.ends()
    assert zoho.token_calls == 1
    assert_all_served(worker, 1)
    assert (worker.total("taken"), worker.total("waited")) == (1, 0)
    assert (lookups.total("taken"), lookups.total("waited")) == (0, 0)


def test_without_leases(start, zoho, row, by):
    """With `refresh_lease=0`, 6 workers make 6 calls. None acquires a lease, and none waits."""
    zoho.latency = 1  # all have read the row before the first one saves
    outcome = start("processes", refresh_lease=0, tokens=[row[by]] * 6).ends()
    assert zoho.token_calls == 6
    assert {answer["error"] for answer in outcome.answers} == {None}
    assert [outcome.total(counter) for counter in ("taken", "waited", "gave_up")] == [0, 0, 0]


@ON_EACH_SHARED_STORE
def test_ctrl_c_ends_a_wait(start, zoho, row, by):
    """Rule 8: signals are handled at each step of a wait."""
    zoho.fail_next(hang=HANGS)
    start("alone", refresh_lease=LONGER_THAN_ANY_TEST, token=row["id"])
    until_asked(zoho, 1)
    [answer] = start("be_interrupted", refresh_lease=LONGER_THAN_ANY_TEST, token=row[by]).ends().answers
    assert answer["error"] == "KeyboardInterrupt"
    assert zoho.token_calls == 1


@pytest.mark.parametrize("seconds", [600, -600], ids=["ahead", "behind"])
def test_a_holder_whose_clock_is_wrong(start, zoho, row, by, seconds):
    """Rule 7: a lease of a clock that is ten minutes wrong is expired or invalid. It costs one more call, no error."""
    holder = start("hold", token=row[by], clock_off=seconds)
    holder.until("holds")
    assert_all_served(start("processes", tokens=[row[by]] * 8).ends(), 8)
    assert zoho.token_calls == 1
    holder.go_on()
    outcome = holder.ends()
    assert zoho.token_calls == 2
    assert_all_served(outcome, 1)
    assert outcome.total("taken") == 1


@ON_EACH_SHARED_STORE
@pytest.mark.parametrize("child", ["asks", "closes", "unwinds"])
def test_a_fork_between_find_and_save(start, zoho, row, by, child):
    """Rule 6: a child forked during a refresh is another owner: it waits, and does not release the lease."""
    parent = start("fork_while_asking", refresh_lease=LONGER_THAN_ANY_TEST, token=row[by], child=child)
    parent.until("holds")
    others = start("processes", refresh_lease=LONGER_THAN_ANY_TEST, tokens=[row[by]] * 2)
    others.until("waiting", 2)
    if child == "asks":
        parent.until("waiting")
    assert zoho.token_calls == 0
    parent.go_on()
    outcome = parent.ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 2 if child == "asks" else 1)
    assert_all_served(others.ends(), 2)


def test_a_subclass_that_overrides_the_methods(start, zoho, row, by):
    """Rule 2: frames of a subclass may lie between the SDK's `get_token` and the store."""
    outcome = start("processes", "Overriding", tokens=[row[by]] * 8).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)


@ON_EACH_SHARED_STORE
def test_two_users_at_once(start, zoho, expire, users, by):
    """Rule 4: each row has its own lease: two users whose tokens expire at once cost 1 token call each."""
    both = [expire(user) for user in users]
    outcome = start("processes", tokens=[row[by] for row in both] * 8).ends()
    assert sorted(call.user for call in zoho.calls if call.kind == "refresh") == sorted(user.name for user in users)
    assert_all_served(outcome, 16, rows=("1", "2"))
    assert outcome.total("taken") == 2


def test_a_new_request_on_a_thread_releases_its_abandoned_lease(start, zoho, expire, users, by):
    """Rule 11: this is true even if the program keeps the exception of the failed refresh, which keeps its frames."""
    adas, bobs = (expire(user) for user in users)
    zoho.fail_next()
    zoho.fail_next(hang=HANGS)
    start("fail_and_ask", refresh_lease=LONGER_THAN_ANY_TEST, token=adas[by], other=bobs[by])
    until_asked(zoho, 2)
    outcome = start("alone", refresh_lease=LONGER_THAN_ANY_TEST, token=adas[by]).ends()
    assert_all_served(outcome, 1)
    assert (outcome.total("taken"), outcome.total("waited")) == (1, 0)
    assert zoho.token_calls == 3
