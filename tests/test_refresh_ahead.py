"""Refresh ahead of expiry (`docs/lease.md`, rule 17), with the real SDK and a stand-in for Zoho.

`tests/sdk/test_lease.py` has many processes, and `tests/rust` the rule itself.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import requests
from children import fork, join
from errors import raises
from lease_program import LONGER_THAN_ANY_TEST, Program, lease_keys, start_thread, wait_until
from own_process import in_own_process, run_in_fork, run_in_new_interpreter
from support import token, values
from zoho_token_store import CustomStoreList, CustomStoreSQLite, Refreshed, _refresh, key_id, new_key
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

if TYPE_CHECKING:
    from pathlib import Path

    from zoho_token_store._native import TokenStoreBase

VALID = "planted-valid-access-token"
AHEAD = {"refresh_ahead": 300}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "zohooauth.db"


def in_seconds(seconds: float) -> str:
    return str(int((time.time() + seconds) * 1000))


def save_valid_token(program: Program, left: float = 240) -> None:
    """Save a token for ada that is valid for `left` more seconds, and clear the log."""
    valid = token("ada@example.com", **program.credentials, access_token=VALID, expires_in=in_seconds(left))
    Initializer.initializer.store.save_token(valid)
    program.log.clear()


def refresh_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zoho-token-store-refresh"]


def is_idle() -> bool:
    return not refresh_threads()


def test_a_request_gets_the_valid_token_while_the_row_is_refreshed(path, make):
    """The request does not wait for Zoho. A later one gets the new token, and then no thread is left."""
    run_in_fork(request_during_a_refresh_ahead, path, make.kind, make.place)


def request_during_a_refresh_ahead(path: Path, kind: type[TokenStoreBase], place: dict[str, object]) -> None:
    program = Program(path)
    program.zoho.latency = LONGER_THAN_ANY_TEST
    store = program.use(kind(**place, **AHEAD))
    save_valid_token(program)
    assert program.get_token() == VALID
    wait_until(lambda: program.zoho.token_calls == 1)
    assert program.get_token() == program.get_token("refresh token") == VALID
    assert len(refresh_threads()) == 1
    program.zoho.stop()
    wait_until(is_idle)
    assert (program.zoho.token_calls, store.lease_info().taken_ahead, store.lease_info().waited) == (1, 1, 0)


@in_own_process
def test_a_refresh_ahead_is_logged_without_a_secret(path):
    """The log has the lease, and what became of the refresh."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    assert program.get_token() == VALID
    wait_until(lambda: store.get_tokens()[0].get_access_token() != VALID)
    wait_until(is_idle)
    assert program.log == [
        'INFO FILE: acquired the lease to refresh the id "1", for 10 s',
        'DEBUG FILE: released the lease to refresh the id "1" with the new token',
        'INFO FILE: refreshed the id "1" ahead of its expiry',
    ]


@pytest.mark.parametrize(
    ("options", "left", "by_sdk"),
    [({}, 240, True), (AHEAD, 301, True), (AHEAD, 240, False)],
    ids=["off", "enough left", "no request"],
)
@in_own_process
def test_nothing_is_refreshed_without_need(path, options, left, by_sdk):
    """Only a request of the SDK refreshes ahead, only if it is turned on, and only if less is left."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **options))
    save_valid_token(program, left)
    for _ in range(3):
        found = program.get_token() if by_sdk else store.find_token_by_id("1").get_access_token()
        assert found == VALID
    assert is_idle()
    assert (program.zoho.token_calls, store.lease_info().taken) == (0, 0)


@in_own_process
def test_a_failed_refresh_ahead_affects_no_request(path):
    """While Zoho denies, requests get the valid token. The attempts follow rule 15."""
    _refresh._RETRY_AFTER = 0.0
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    program.zoho.fail_next(3, status=200, body={"error": "Access Denied"})
    deadline = time.monotonic() + 20
    while store.get_tokens()[0].get_access_token() == VALID:
        assert time.monotonic() < deadline
        assert program.get_token() == VALID
        time.sleep(0.02)
    wait_until(is_idle)
    refreshes = [call.at for call in program.zoho.calls if call.kind == "refresh"]
    assert len(refreshes) == 4
    # At once after the first failure, then 1 s and 2 s after the second and the third one.
    assert refreshes[1] - refreshes[0] < 1 <= refreshes[2] - refreshes[1]
    assert refreshes[3] - refreshes[2] >= 2
    denied = 'WARNING FILE: the id "1" was not refreshed ahead of its expiry: INVALID TOKEN ERROR - Access Denied'
    assert program.log.count(denied) == len([line for line in program.log if line.startswith("WARNING")]) == 3
    secrets = [VALID, *(value for name, value in program.credentials.items() if name != "client_id")]
    assert not any(secret in line for secret in secrets for line in program.log)
    assert (store.lease_info().failed_refreshes, store.lease_info().taken_ahead) == (3, 4)


@pytest.mark.parametrize("failure", [{"drop": True}, {"status": 500}], ids=["dropped", "no JSON"])
@in_own_process
def test_the_lease_is_released_at_once_if_the_refresh_fails(path, failure):
    """After a dropped connection urllib3 leaves the frames of all its callers in a reference cycle."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    save_valid_token(program)
    program.zoho.fail_next(1, **failure)
    with raises("refresh-failing"):
        store.refresh(300)
    assert (lease_keys(path), store.lease_info().failed_refreshes) == ([], 1)


@in_own_process
def test_a_thread_that_cannot_be_started(path):
    """The request gets its token, and a later one tries again."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)

    def fail(_thread):
        raise RuntimeError("can't start new thread")

    with patch.object(threading.Thread, "start", fail):
        assert program.get_token() == VALID
    assert program.log == [
        'WARNING FILE: the id "1" cannot be refreshed ahead of its expiry: Python raised RuntimeError'
    ]
    assert program.get_token() == VALID
    wait_until(lambda: store.get_tokens()[0].get_access_token() != VALID)


@in_own_process
def test_a_fork_during_a_refresh_ahead(path):
    """The child gets the valid token at once, and starts a thread of its own, which leaves the lease to the parent."""
    program = Program(path)
    program.zoho.latency = 2
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    assert program.get_token() == VALID
    wait_until(lambda: program.zoho.token_calls == 1)

    def ask():
        assert program.get_token() == VALID
        wait_until(is_idle)
        assert store.lease_info().taken_ahead == 1  # the parent's
        assert program.get_token() == VALID

    join([fork(ask)], 20)
    wait_until(lambda: store.get_tokens()[0].get_access_token() != VALID)
    assert program.zoho.token_calls == 1


def end_during_a_refresh_ahead(path: Path) -> bool:
    program = Program(path)
    program.zoho.latency = LONGER_THAN_ANY_TEST
    program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    is_valid = program.get_token() == VALID
    wait_until(lambda: program.zoho.token_calls == 1)
    return is_valid


def test_a_program_that_ends_during_a_refresh_ahead(path):
    """The thread does not keep the interpreter from ending, and the lease is released."""
    assert run_in_new_interpreter(end_during_a_refresh_ahead, path)
    assert lease_keys(path) == []


class Notifying(CustomStoreSQLite):
    """A subclass as users write it."""

    def save_token(self, token):
        super().save_token(token)


@pytest.mark.parametrize("is_subclass", [False, True], ids=["store", "subclass"])
@pytest.mark.parametrize("change", ["delete", "log in again"])
@in_own_process
def test_an_old_answer_replaces_no_new_login_and_no_deleted_row(path, is_subclass, change):
    """What the user has done while Zoho took its time stays."""
    program = Program(path)
    program.zoho.latency = 1
    store = program.use((Notifying if is_subclass else CustomStoreSQLite)(path, **AHEAD))
    save_valid_token(program)
    assert program.get_token() == VALID
    wait_until(lambda: program.zoho.token_calls == 1)
    if change == "delete":
        store.delete_token("1")
    else:
        store.save_token(token("ada@example.com", **program.new_credentials("ada@example.com")))
    after = [values(row) for row in store.get_tokens()]
    wait_until(is_idle)
    assert [values(row) for row in store.get_tokens()] == after
    assert lease_keys(path) == []
    why = "was not refreshed ahead of its expiry: the user has logged in again, or the row was deleted"
    assert program.log[-1] == f'WARNING FILE: the id "1" {why}'


class Reversing(CustomStoreSQLite):
    """A subclass that stores its client secrets in another form."""

    def save_token(self, token):
        token.set_client_secret(token.get_client_secret()[::-1])
        super().save_token(token)
        token.set_client_secret(token.get_client_secret()[::-1])

    def find_token_by_id(self, id):  # noqa: A002 - the SDK's name
        token = super().find_token_by_id(id)
        token.set_client_secret(token.get_client_secret()[::-1])
        return token


@pytest.mark.parametrize("left", [-1, 240])
@in_own_process
def test_a_subclass_that_changes_what_a_find_returns(path, left):
    """The SDK gets what the subclass returns."""
    program = Program(path)
    store = program.use(Reversing(path, **AHEAD))
    save_valid_token(program, left)
    assert store.refresh(300).refreshed == ["1"]
    assert program.zoho.token_calls == 1
    assert store.lease_info().failed_refreshes == 0


ANSWERS = {
    "null": ({"access_token": None, "expires_in": 3600}, "Zoho has sent no new access token"),
    "a number": ({"access_token": 7, "expires_in": 3600}, "save_token: the token's access_token is of type int"),
    "a list": ([], "INVALID TOKEN ERROR"),
    "an echo": ({"error": "not REFRESH-TOKEN"}, "INVALID TOKEN ERROR - not …"),
}


@pytest.mark.parametrize("answer", ANSWERS)
@in_own_process
def test_an_answer_that_makes_no_sense(path, answer):
    """The row stays as it is, and the next row in the queue is refreshed."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    bob = token("bob@example.com", **program.new_credentials("bob@example.com"), access_token=VALID)
    bob.set_expires_in(in_seconds(240))
    store.save_token(bob)
    program.log.clear()
    body, reason = ANSWERS[answer]
    if "error" in body:
        body = {"error": body["error"].replace("REFRESH-TOKEN", program.credentials["refresh_token"])}
    before = values(store.find_token_by_id("1"))
    program.zoho.fail_next(1, status=200, body=body)
    for row_id in ("1", "2"):
        assert OAuthToken(id=row_id).get_token() == VALID
    wait_until(is_idle)
    assert values(store.find_token_by_id("1")) == before
    assert store.find_token_by_id("2").get_access_token() != VALID
    [why] = [line for line in program.log if "was not refreshed" in line]
    assert why.startswith(f'WARNING FILE: the id "1" was not refreshed ahead of its expiry: {reason}'), why


@in_own_process
def test_a_token_that_expires_during_a_refresh_ahead(path):
    """A request that needs a new token waits for the refresh that has begun, and makes no second one."""
    program = Program(path)
    program.zoho.latency = 1
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program, left=5.3)
    assert program.get_token() == VALID
    wait_until(lambda: program.zoho.token_calls == 1)
    wait_until(lambda: program.get_token() != VALID)
    assert (program.zoho.token_calls, store.lease_info().waited) == (1, 1)


@in_own_process
def test_a_refresh_ahead_does_not_look_the_user_up(path):
    """A program that does not want its users looked up (`find_user=False`) has rows without a user name."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    store.save_token(token(None, **program.credentials, access_token=VALID, expires_in=in_seconds(60)))
    assert store.refresh(300).refreshed == ["1"]
    assert [call.kind for call in program.zoho.calls] == ["refresh"]
    assert store.get_tokens()[0].get_user_signature() is None


@in_own_process
def test_a_store_that_is_closed_while_its_row_is_queued(path):
    """The row is left as it is, without a word: the program has ended its work with the store."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path, **AHEAD))
    save_valid_token(program)
    closed, begun = threading.Event(), _refresh._refresh_row

    def refresh_row(*arguments):
        assert closed.wait(20)
        return begun(*arguments)

    with patch.object(_refresh, "_refresh_row", refresh_row):
        assert program.get_token() == VALID
        store.close()
        closed.set()
        wait_until(is_idle)
    assert (program.zoho.token_calls, program.log) == (0, [])


@in_own_process
def test_a_subclass_sees_the_save_of_a_refresh_ahead(path):
    """A program that overrides `save_token`, to be notified of it, is notified of these saves, too."""
    program = Program(path)
    saved = []

    class Notifying(CustomStoreSQLite):
        def save_token(self, token):
            super().save_token(token)
            saved.append(token.get_id())

    store = program.use(Notifying(path, **AHEAD))
    save_valid_token(program)
    saved.clear()
    assert program.get_token() == VALID
    wait_until(lambda: saved == ["1"])
    assert store.get_tokens()[0].get_access_token() != VALID


@in_own_process
def test_a_refresh_ahead_leaves_the_sdk_as_it_was(path):
    """It has an `Initializer` of its own, so environment and store of the program do not change."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    for number, domain in enumerate(["https://www.zohoapis.eu", program.zoho.environment().url], 1):
        user = f"user{number}@example.com"
        row = token(user, **program.new_credentials(user), access_token=VALID, expires_in=in_seconds(240))
        row.set_api_domain(domain)
        store.save_token(row)
    environment, before = Initializer.initializer.environment, vars(Initializer.initializer).copy()
    assert store.refresh(300, ids=["2"]).refreshed == ["2"]

    # The SDK knows the data centre of this row, so it does not use the program's environment.
    refuse = requests.ConnectionError("a test does not connect to Zoho")
    with patch.object(requests, "post", side_effect=refuse) as post, raises("refresh-failing", "ConnectionError"):
        store.refresh(300, ids=["1"])
    assert post.call_args.args == ("https://accounts.zoho.eu/oauth/v2/token",)
    assert Initializer.initializer.environment is environment
    assert vars(Initializer.initializer) == before
    assert getattr(Initializer.LOCAL, "init", None) is None


@in_own_process
def test_a_row_of_a_data_centre_that_the_sdk_does_not_know(path):
    """Without an environment, Zoho is not asked. So that is no failed refresh, and delays no other program."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    save_valid_token(program)
    Initializer.initializer.environment = None
    for _ in range(3):
        with raises("refresh-failing", "the SDK does not know the API domain of the row"):
            store.refresh(300)
    assert (program.zoho.token_calls, store.lease_info().taken) == (0, 0)


@in_own_process
def test_refresh_says_what_it_did_with_each_row(path):
    """One row is refreshed, one is valid for long enough, one is being refreshed elsewhere, and three fail."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    for number, left in enumerate([-1, 3000, 60, 60], 1):
        user = f"user{number}@example.com"
        row = token(
            user, **program.new_credentials(user), access_token=f"{VALID}-{number}", expires_in=in_seconds(left)
        )
        store.save_token(row)
    store.save_token(token("user5@example.com", access_token=f"{VALID}-5", expires_in=in_seconds(-1)))
    program.zoho.fail_next(hang=LONGER_THAN_ANY_TEST)
    start_thread(lambda: store.refresh(timedelta(minutes=10), ids=["3"]))
    wait_until(lambda: program.zoho.token_calls == 1)
    program.zoho.fail_next(1, status=200, body={"error": "invalid_code"})
    result = store.refresh(timedelta(minutes=10), ids=["4", "1", "2", "3", "5", "9", "1"])
    assert isinstance(result, Refreshed)
    assert (result.refreshed, result.skipped) == (["1"], ["2", "3"])
    assert result.failed == {
        "4": "INVALID TOKEN ERROR - invalid_code",
        "5": "its access token has expired, and it has no refresh token",
        "9": "no row has this id",
    }
    assert repr(result) == f"Refreshed(refreshed=['1'], skipped=['2', '3'], failed={result.failed!r})"
    assert store.refresh(0, ids=[]).failed == {}
    with raises("missing-id"):
        store.refresh(0, ids=["9"])


@in_own_process
def test_refresh_of_all_rows(path):
    """Without `ids`, every row is looked at. If all that was tried fails, `refresh` raises with the first reason."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    for user in ("ada", "bob", "eve"):
        name = f"{user}@example.com"
        store.save_token(token(name, **program.new_credentials(name), access_token=VALID, expires_in=in_seconds(60)))
    assert store.refresh(30).skipped == ["1", "2", "3"]
    program.zoho.fail_next(3, status=200, body={"error": "Access Denied"})
    with raises("refresh-failing", r'the id "1" \(and 2 more\): INVALID TOKEN ERROR - Access Denied\.'):
        store.refresh(90)
    assert store.refresh(90).refreshed == ["1", "2", "3"]


@in_own_process
def test_a_row_that_cannot_be_read_does_not_stop_the_others(path):
    """In an encrypted store, `refresh` fails for a row whose key is missing, and refreshes the others."""
    program = Program(path)
    old, new = new_key(), new_key()
    for user, keys in (("ada", [old, new]), ("bob", [new, old])):
        name = f"{user}@example.com"
        row = token(name, **program.new_credentials(name), access_token=f"{VALID}-{user}", expires_in=in_seconds(60))
        with CustomStoreSQLite(path, keys=keys) as writer:
            writer.save_token(row)
    store = program.use(CustomStoreSQLite(path, keys=new))
    result = store.refresh(300)
    assert result.refreshed == ["2"]
    assert list(result.failed) == ["1"]
    assert f'the row with the id "1" needs the key {key_id(old)}' in result.failed["1"]
    with raises("refresh-failing", "needs the key"):
        store.refresh(300, ids=["1", "2"])
    assert program.zoho.token_calls == 1


@in_own_process
def test_refresh_reports_a_save_that_failed(path):
    """SDK 6 to 8 swallow the error of the save. The result has it."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    save_valid_token(program)

    def fail(_store, _token):
        raise OSError(28, "No space left on device")

    with patch.object(CustomStoreSQLite, "save_token", fail), raises("refresh-failing", "OSError"):
        store.refresh(300)


@pytest.mark.parametrize(
    "arguments",
    [("soon",), (-1,), (None,), (1, "1"), (1, 1), (1, [1])],
    ids=["text", "negative", "None", "str as ids", "int as ids", "int as id"],
)
def test_refresh_refuses_other_arguments(arguments):
    """`within` is a duration, and `ids` is an iterable of ids."""
    within, *ids = arguments
    store = CustomStoreList()
    with raises("invalid-argument"):
        store.refresh(within, ids=ids[0] if ids else None)


@pytest.mark.parametrize(
    ("ahead", "lease", "message"),
    [(300, 0, "refresh_ahead needs a refresh_lease"), (1800.1, 10, "at most 1800 s")],
    ids=["no lease", "too long"],
)
def test_refresh_ahead_has_limits(ahead, lease, message):
    """Without a lease each worker would refresh, and a new token would be refreshed again and again."""
    CustomStoreList(refresh_ahead=timedelta(minutes=30)).close()
    with raises("invalid-argument", message):
        CustomStoreList(refresh_ahead=timedelta(seconds=ahead), refresh_lease=lease)


@in_own_process
def test_ctrl_c_ends_a_refresh(path):
    """`KeyboardInterrupt` passes through, and the lease is released."""
    program = Program(path)
    store = program.use(CustomStoreSQLite(path))
    save_valid_token(program)
    program.zoho.fail_next(hang=LONGER_THAN_ANY_TEST)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    is_interrupted = threading.Event()

    def interrupt():
        wait_until(lambda: program.zoho.token_calls == 1)
        # Python ignores an exception that a signal handler raises in a finalizer. So one signal may not be enough.
        while not is_interrupted.wait(2):
            os.kill(os.getpid(), signal.SIGINT)

    start_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.refresh(300)
    is_interrupted.set()
    assert getattr(Initializer.LOCAL, "init", None) is None
    assert OAuthToken(id="1").get_token() == VALID
