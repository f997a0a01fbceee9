"""Many programs meet at one expiry: one of them asks Zoho, and the others wait for what it saves (`docs/lease.md`).

Each is the real SDK, whichever of the four is installed, in processes and threads of its own. Zoho's part is the
stand-in's, which takes 0.2 s for an answer and has Zoho's limits.
"""

import contextlib
import sqlite3
import sys
import time

import pytest
from sdk.crowd import Crowd
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, process groups and signals")

FOREVER = 300  # seconds of a lease that no test could sit out
HANGS = 60  # seconds that Zoho lets one call wait: until the test is over
STORES = ["CustomStoreSQLite", "CustomStoreInMemory", "CustomStoreList"]
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
def start(zoho, tmp_path):
    """Start a program that does one thing over the file, or over a store in memory."""
    crowds = []

    def start_one(verb, store="CustomStoreSQLite", refresh_lease=None, **arguments):
        options = {} if refresh_lease is None else {"refresh_lease": refresh_lease}
        if store not in STORES[1:]:
            options["path"] = str(tmp_path / "tokens.db")
        setting = {
            "kind": store,
            "arguments": options,
            "environment": zoho.environment(),
            "folder": str(tmp_path),
        }
        crowd = Crowd(setting, verb, arguments)
        crowds.append(crowd)
        return crowd

    yield start_one
    for crowd in crowds:
        crowd.kill()


@pytest.fixture(params=["refresh_token", "id"])
def by(request):
    """How a program names its row: the SDK calls `find_token` for the one and `find_token_by_id` for the other."""
    return request.param


@pytest.fixture
def expire(zoho, tmp_path):
    """Give a user a row whose access token has expired, and tell how programs name it."""

    def expire_one(user):
        from sdk.member import expired_token

        token = expired_token(credentials(zoho, refresh_token=zoho.refresh_token(user)))
        with CustomStoreSQLite(tmp_path / "tokens.db") as store:
            store.save_token(token)
        return names(zoho, token.get_id(), token.get_refresh_token())

    return expire_one


@pytest.fixture
def row(expire, ada):
    return expire(ada)


class Names(dict):
    """How programs name a row. A test that fails shows it, and not what is in it."""

    def __repr__(self):
        return f"<names by {', '.join(self)}>"


def credentials(zoho, **fields):
    return {"client_id": zoho.client_id, "client_secret": zoho.client_secret, **fields}


def names(zoho, row_id, refresh_token):
    return Names({"id": {"id": row_id}, "refresh_token": credentials(zoho, refresh_token=refresh_token)})


def until_asked(zoho, calls):
    """Wait until so many token calls have come in: the stand-in counts them when they arrive."""
    assert poll(lambda: zoho.token_calls >= calls), zoho.calls


def poll(is_so):
    until = time.monotonic() + 30
    while not is_so() and time.monotonic() < until:
        time.sleep(0.005)
    return is_so()


def assert_all_served(outcome, count, rows=("1",)):
    """Everybody has the token that is in their row now, without an error anywhere, and nobody gave up waiting."""
    assert [(answer["error"], answer["code"]) for answer in outcome.answers] == [(None, None)] * count
    assert {answer["row"] for answer in outcome.answers} == set(rows)
    assert [answer["logged"] for answer in outcome.answers] == [[]] * count
    assert outcome.total("gave_up") == 0


def assert_failed_by_the_sdk(answers):
    """What a program gets of a refresh that failed is what the SDK makes of it, and never a store's error."""
    assert {answer["error"] for answer in answers} == {"SDKException"}
    assert "TOKEN_STORE" not in {answer["code"] for answer in answers}


def test_32_processes_at_one_expiry(start, zoho, row, by):
    """The table's "32 processes at one expiry": 1 token call, and all are served with its token."""
    outcome = start("processes", tokens=[row[by]] * 32).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 32)
    assert outcome.total("taken") == 1


@pytest.mark.parametrize("store", STORES)
def test_32_threads_at_one_expiry(start, zoho, ada, by, store):
    """The table's "32 threads at one expiry": 1 token call, over each of the stores."""
    token = zoho.refresh_token(ada)
    tokens = [names(zoho, "1", token)[by]] * 32
    outcome = start("threads", store, seed=credentials(zoho, refresh_token=token), tokens=tokens).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 32)
    assert outcome.total("taken") == 1


@pytest.mark.parametrize("names_row", ["refresh_token", "grant_token"])
def test_16_processes_start_without_a_file(start, zoho, ada, tmp_path, names_row):
    """The table's starts with one refresh token, and with one grant code: 1 token call, nobody fails, one row."""
    secret = zoho.refresh_token(ada) if names_row == "refresh_token" else zoho.grant_code(ada)
    outcome = start("processes", tokens=[credentials(zoho, **{names_row: secret})] * 16).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 16)
    with CustomStoreSQLite(tmp_path / "tokens.db") as store:
        assert len(store) == 1


@pytest.mark.parametrize("zoho", [3], indirect=True, ids="{} s".format)
def test_others_keep_the_store_busy_when_all_ask(start, zoho, row, tmp_path):
    """Who was kept from taking the lease waits for the one that took it, however slow Zoho is: 1 token call."""
    with contextlib.closing(sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        crowd = start("processes", tokens=[row["id"]] * 8)
        crowd.until("waiting", 8)
    outcome = crowd.ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)


@pytest.mark.parametrize("ending", ["is killed", "hangs", "keeps its frames"])
def test_a_holder_that_gives_nothing_back(start, zoho, row, ending):
    """The table's "holder killed with SIGKILL", rules 7 and 11: 1 more call when the lease is over serves all."""
    # Of a connection that is dropped urllib3 leaves a reference cycle, and in it the frames of all its callers.
    zoho.fail_next(**({"drop": True} if ending == "keeps its frames" else {"hang": HANGS}))
    holder = start("alone", refresh_lease=3, token=row["refresh_token"])
    until_asked(zoho, 1)
    others = start("processes", refresh_lease=3, tokens=[row["id"]] * 8)
    others.until("waiting")
    if ending == "is killed":
        holder.kill()
    outcome = others.ends()
    assert zoho.token_calls == 2
    assert_all_served(outcome, 8)
    assert outcome.total("taken") == 1


@pytest.mark.parametrize("failure", FAILURES)
def test_a_refresh_that_fails_once(start, zoho, row, by, failure):
    """Rule 11: the lease is given back after a failed refresh; one gets the SDK's error, and 1 more call serves all."""
    zoho.fail_next(**FAILURES[failure])
    # The frames of a dropped connection end when Python collects them (see above), those of other failures at once.
    outcome = start("processes", refresh_lease=FOREVER, tokens=[row[by]] * 8, collect=failure == "dropped").ends()
    assert zoho.token_calls == 2
    failed = [answer for answer in outcome.answers if answer["error"]]
    assert len(failed) == 1
    assert_failed_by_the_sdk(failed)
    outcome.answers.remove(failed[0])
    assert_all_served(outcome, 7)


def test_a_refresh_that_always_fails(start, zoho, row, by):
    """The table's "Zoho answers with an error": each may try, each gets the SDK's error, and it ends soon."""
    zoho.fail_next(100)
    outcome = start("processes", refresh_lease=FOREVER, tokens=[row[by]] * 8).ends()
    assert zoho.token_calls == 8
    assert len(outcome.answers) == 8
    assert_failed_by_the_sdk(outcome.answers)


def test_a_script_that_looks_the_row_up(start, zoho, row, by):
    """Rule 2 and the table's "a script polls": it gets the row at once, and the worker refreshes as if alone."""
    script = start("poll", by_id=row["id"], by_token=row["refresh_token"])
    script.until("looked")
    worker = start("alone", token=row[by]).ends()
    looked = script.ends()
    assert zoho.token_calls == 1
    assert_all_served(worker, 1)
    assert (worker.total("taken"), worker.total("waited")) == (1, 0)
    assert (looked.total("taken"), looked.total("waited")) == (0, 0)


def test_without_leases(start, zoho, row, by):
    """The table's `refresh_lease=0`: 6 workers make 6 calls, and nobody takes a lease or waits."""
    zoho.latency = 1  # so that all have looked before the first has saved
    outcome = start("processes", refresh_lease=0, tokens=[row[by]] * 6).ends()
    assert zoho.token_calls == 6
    assert {answer["error"] for answer in outcome.answers} == {None}
    assert [outcome.total(counter) for counter in ("taken", "waited", "gave_up")] == [0, 0, 0]


def test_ctrl_c_ends_a_wait(start, zoho, row, by):
    """Rule 8: signals are honoured at each step of a wait."""
    zoho.fail_next(hang=HANGS)
    start("alone", refresh_lease=FOREVER, token=row["id"])
    until_asked(zoho, 1)
    [answer] = start("be_interrupted", refresh_lease=FOREVER, token=row[by]).ends().answers
    assert answer["error"] == "KeyboardInterrupt"
    assert zoho.token_calls == 1


@pytest.mark.parametrize("seconds", [600, -600], ids=["ahead", "behind"])
def test_a_holder_whose_clock_is_wrong(start, zoho, row, by, seconds):
    """Rule 7: a lease by a clock ten minutes off is void: others make one call more, nobody fails or gives up."""
    holder = start("hold", token=row[by], clock_off=seconds)
    holder.until("holds")
    assert_all_served(start("processes", tokens=[row[by]] * 8).ends(), 8)
    assert zoho.token_calls == 1
    holder.go_on()
    outcome = holder.ends()
    assert zoho.token_calls == 2
    assert_all_served(outcome, 1)
    assert outcome.total("taken") == 1


@pytest.mark.parametrize("child", ["asks", "closes", "unwinds"])
def test_a_fork_between_find_and_save(start, zoho, row, by, child):
    """Rule 6: a child that is forked in a refresh is another process: it waits like any, and gives back nothing."""
    parent = start("fork_while_asking", refresh_lease=FOREVER, token=row[by], child=child)
    parent.until("holds")
    others = start("processes", refresh_lease=FOREVER, tokens=[row[by]] * 2)
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
    """Rule 2: frames of a subclass between the SDK and the store do not hide who decides."""
    outcome = start("processes", "Overriding", tokens=[row[by]] * 8).ends()
    assert zoho.token_calls == 1
    assert_all_served(outcome, 8)


def test_two_users_at_once(start, zoho, expire, users, by):
    """Rule 4: each row has a lease of its own: 1 token call for each of two users who expire at once."""
    both = [expire(user) for user in users]
    outcome = start("processes", tokens=[row[by] for row in both] * 8).ends()
    assert sorted(call.user for call in zoho.calls if call.kind == "refresh") == sorted(user.name for user in users)
    assert_all_served(outcome, 16, rows=("1", "2"))
    assert outcome.total("taken") == 2


def test_a_thread_goes_on_for_another_user_after_a_failure(start, zoho, expire, users, by):
    """Rule 11: a new decision on the thread gives back what a failed one held, though its error is still at hand."""
    adas, bobs = (expire(user) for user in users)
    zoho.fail_next()
    zoho.fail_next(hang=HANGS)
    start("fail_and_ask", refresh_lease=FOREVER, token=adas[by], other=bobs[by])
    until_asked(zoho, 2)
    outcome = start("alone", refresh_lease=FOREVER, token=adas[by]).ends()
    assert_all_served(outcome, 1)
    assert (outcome.total("taken"), outcome.total("waited")) == (1, 0)
    assert zoho.token_calls == 3
