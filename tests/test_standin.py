"""The rules of the stand-in for Zoho, tested over real HTTP. The tests control its clock, so nothing sleeps."""

import doctest
import json
import logging
import os
import re
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import zoho_token_store.testing
from zoho_token_store.testing import ZohoStandIn

TIMEOUT_SECONDS = 10  # for every wait; a test that passes needs much less


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def zoho():
    with ZohoStandIn(clock=Clock()) as standin:
        yield standin


def post(url, **form):
    # Without `trust_env`, no proxy of the environment is used.
    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, data=form, timeout=TIMEOUT_SECONDS)


def request_token(zoho, **form):
    form = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, **form}
    return post(zoho.accounts_url, **form)


def login(zoho, code, **form):
    return request_token(zoho, grant_type="authorization_code", code=code, **form)


def refresh(zoho, refresh_token, **form):
    return request_token(zoho, grant_type="refresh_token", refresh_token=refresh_token, **form)


def revoke(zoho, token):
    return post(zoho.accounts_url + "/revoke", token=token).json()


def get(zoho, path, access_token):
    headers = {} if access_token is None else {"Authorization": f"Zoho-oauthtoken {access_token}"}
    with requests.Session() as session:
        session.trust_env = False
        return session.get(zoho.url + path, headers=headers, timeout=TIMEOUT_SECONDS)


def is_valid(zoho, access_token):
    return get(zoho, "/crm/v8/Leads", access_token).status_code == 200


# Logins


def test_a_login(zoho):
    """A login answers with a refresh token, an access token, its lifetime, and the stand-in's URL as API domain."""
    zoho.expires_in = 1800
    response = login(zoho, zoho.grant_code("ada@example.com"))
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("access_token").startswith("1000.access.made-up.")
    assert answer.pop("refresh_token").startswith("1000.refresh.made-up.")
    assert answer == {"api_domain": zoho.url, "token_type": "Bearer", "expires_in": 1800}


def test_a_code_is_valid_once(zoho):
    """A second login with a grant code gets HTTP 200 and "invalid_code", and so does an unknown code."""
    code = zoho.grant_code("ada@example.com")
    assert "access_token" in login(zoho, code).json()
    for used_or_unknown in (code, "1000.code.made-up.unknown"):
        response = login(zoho, used_or_unknown)
        assert (response.status_code, response.json()) == (200, {"error": "invalid_code"})


@pytest.mark.parametrize("wrong", [{"client_id": "nobody"}, {"client_secret": "guessed"}], ids=str)
def test_a_wrong_client(zoho, wrong):
    """An unknown client id or a wrong secret gets "invalid_client". The code stays valid."""
    code = zoho.grant_code("ada@example.com")
    assert login(zoho, code, **wrong).json() == {"error": "invalid_client"}
    assert "access_token" in login(zoho, code).json()


def test_credentials_belong_to_a_client(zoho):
    """A grant code or refresh token of one client is an "invalid_code" for another client."""
    other = zoho.add_client()
    credentials = {"client_id": other.id, "client_secret": other.secret}
    assert login(zoho, zoho.grant_code("ada@example.com"), **credentials).json() == {"error": "invalid_code"}
    assert refresh(zoho, zoho.refresh_token("ada@example.com"), **credentials).json() == {"error": "invalid_code"}
    code = zoho.grant_code("ada@example.com", other)
    assert "access_token" in login(zoho, code, **credentials).json()


def test_the_redirect_url(zoho):
    """A login of a client with a redirect URL must send this URL. Other clients may send any URL."""
    client = zoho.add_client("https://app.example.com/back")
    credentials = {"client_id": client.id, "client_secret": client.secret}
    code = zoho.grant_code("ada@example.com", client)
    for wrong in ({}, {"redirect_uri": "https://elsewhere.example.com"}):
        assert login(zoho, code, **credentials, **wrong).json() == {"error": "invalid_redirect_uri"}
    assert "access_token" in login(zoho, code, **credentials, redirect_uri=client.redirect_url).json()
    any_url = zoho.grant_code("ada@example.com")
    assert "access_token" in login(zoho, any_url, redirect_uri="https://any.example.com").json()


def test_an_unknown_grant_type(zoho):
    """An unknown grant type is refused, and counts as a token call."""
    assert request_token(zoho, grant_type="password").json() == {"error": "unsupported_grant_type"}
    assert [call.kind for call in zoho.calls] == ["token"]
    assert zoho.token_calls == 1


# Refreshes


def test_a_refresh(zoho):
    """A refresh issues a new access token and no new refresh token. The old access token stays valid."""
    first = login(zoho, zoho.grant_code("ada@example.com")).json()
    second = refresh(zoho, first["refresh_token"]).json()
    assert "refresh_token" not in second
    assert second["access_token"] != first["access_token"]
    assert {**first, **second, "refresh_token": None} == {**second, "refresh_token": None}
    assert is_valid(zoho, first["access_token"])
    assert is_valid(zoho, second["access_token"])


def test_an_unknown_refresh_token(zoho):
    """An unknown refresh token gets HTTP 200 and "invalid_code"."""
    response = refresh(zoho, "1000.refresh.made-up.unknown")
    assert (response.status_code, response.json()) == (200, {"error": "invalid_code"})


def test_ten_access_tokens_in_ten_minutes(zoho):
    """The 11th refresh with a refresh token is denied until 10 minutes after the first."""
    token, other = zoho.refresh_token("ada@example.com"), zoho.refresh_token("ada@example.com")
    for _ in range(10):
        assert "access_token" in refresh(zoho, token).json()
        zoho.clock.now += 1
    denied = refresh(zoho, token)
    assert (denied.status_code, denied.json()["error"]) == (200, "Access Denied")
    assert "access_token" not in denied.json()
    assert "access_token" in refresh(zoho, other).json()
    zoho.clock.now = 100 + 599
    assert refresh(zoho, token).json()["error"] == "Access Denied"
    zoho.clock.now = 100 + 600
    assert "access_token" in refresh(zoho, token).json()
    assert refresh(zoho, token).json()["error"] == "Access Denied"
    assert zoho.denials == 3


def test_the_limit_can_be_changed(zoho):
    """The maximum number of refreshes and its period can be changed while the stand-in runs."""
    zoho.tokens_per_window, zoho.window = 1, 5
    token = zoho.refresh_token("ada@example.com")
    assert "access_token" in refresh(zoho, token).json()
    assert refresh(zoho, token).json()["error"] == "Access Denied"
    zoho.clock.now += 5
    assert "access_token" in refresh(zoho, token).json()


def test_the_sixteenth_access_token_invalidates_the_oldest(zoho):
    """A refresh token has at most 15 valid access tokens. The 16th invalidates the oldest. Other users keep theirs."""
    zoho.tokens_per_window = 100
    bobs = login(zoho, zoho.grant_code("bob@example.com")).json()["access_token"]
    first = login(zoho, zoho.grant_code("ada@example.com")).json()
    tokens = [first["access_token"]]
    tokens += [refresh(zoho, first["refresh_token"]).json()["access_token"] for _ in range(14)]
    assert all(is_valid(zoho, token) for token in tokens)
    tokens.append(refresh(zoho, first["refresh_token"]).json()["access_token"])
    assert [is_valid(zoho, token) for token in tokens] == [False] + [True] * 15
    assert is_valid(zoho, bobs)


def test_expired_access_tokens_do_not_count_as_valid(zoho):
    """Expired access tokens do not count for the maximum, so a new one invalidates no valid token."""
    zoho.live_tokens = 2
    token = zoho.refresh_token("ada@example.com")
    zoho.expires_in = 10
    refresh(zoho, token)
    zoho.expires_in = 1000
    lasting = refresh(zoho, token).json()["access_token"]
    zoho.clock.now += 10
    refresh(zoho, token)
    assert is_valid(zoho, lasting)


def test_an_access_token_expires(zoho):
    """An access token is valid for `expires_in` seconds."""
    zoho.expires_in = 60
    token = login(zoho, zoho.grant_code("ada@example.com")).json()["access_token"]
    zoho.clock.now += 59
    assert is_valid(zoho, token)
    zoho.clock.now += 1
    assert not is_valid(zoho, token)


# Revoking


def test_revoking_a_refresh_token(zoho):
    """Revoking invalidates a refresh token and its access tokens, and none of another user. A second call fails."""
    bobs = login(zoho, zoho.grant_code("bob@example.com")).json()
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert revoke(zoho, answer["refresh_token"]) == {"status": "success"}
    assert not is_valid(zoho, answer["access_token"])
    assert refresh(zoho, answer["refresh_token"]).json() == {"error": "invalid_code"}
    assert is_valid(zoho, bobs["access_token"])
    assert "access_token" in refresh(zoho, bobs["refresh_token"]).json()
    assert revoke(zoho, answer["refresh_token"])["status"] != "success"
    assert revoke(zoho, "1000.refresh.made-up.unknown")["status"] != "success"
    assert zoho.revocations == 1


def test_revoking_an_access_token(zoho):
    """Revoking an access token invalidates only this token."""
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert revoke(zoho, answer["access_token"]) == {"status": "success"}
    assert not is_valid(zoho, answer["access_token"])
    assert is_valid(zoho, refresh(zoho, answer["refresh_token"]).json()["access_token"])


def test_a_user_revokes_everything(zoho):
    """`revoke_user` revokes all refresh tokens of a user in one organisation. It is not recorded as a call."""
    first, second = zoho.add_user("ada@example.com", "1"), zoho.add_user("ada@example.com", "2")
    tokens = [zoho.refresh_token(first), zoho.refresh_token(first)]
    token_of_second = zoho.refresh_token(second)
    assert zoho.revoke_user(first) == 2
    assert zoho.calls == []
    assert [refresh(zoho, token).json() for token in tokens] == [{"error": "invalid_code"}] * 2
    assert "access_token" in refresh(zoho, token_of_second).json()


# The CRM's API


@pytest.mark.parametrize("version", [6, 7, 8])
def test_the_look_ups_after_a_login(zoho, version):
    """The look-ups answer with the user and organisation of the access token."""
    user = zoho.add_user("ada@example.com", "4711")
    token = login(zoho, zoho.grant_code(user)).json()["access_token"]
    users = get(zoho, f"/crm/v{version}/users?type=CurrentUser", token)
    org = get(zoho, f"/crm/v{version}/org", token)
    assert (users.status_code, users.json()["users"][0]["email"]) == (200, "ada@example.com")
    assert (org.status_code, org.json()["org"][0]["zgid"]) == (200, "4711")
    assert user.name == "ada@example.com:4711"
    assert [call.kind for call in zoho.calls] == ["login", "user", "org"]


def test_any_other_authorised_call(zoho):
    """Any other path of the API answers with the user of the access token."""
    user = zoho.add_user("ada@example.com")
    token = zoho.access_token(user)
    response = get(zoho, "/crm/v8/Leads/1", token)
    assert response.status_code == 200
    assert response.json()["data"] == [{"user": user.name, "path": "/crm/v8/Leads/1"}]
    assert zoho.api_calls == 1
    assert zoho.token_calls == 0


@pytest.mark.parametrize("token", [None, "", "1000.access.made-up.unknown"], ids=["none", "empty", "unknown"])
@pytest.mark.parametrize("path", ["/crm/v8/users", "/crm/v8/org", "/crm/v8/Leads"])
def test_an_unauthorised_call(zoho, path, token):
    """A call without a valid access token gets HTTP 401 and Zoho's "INVALID_TOKEN"."""
    response = get(zoho, path, token)
    assert response.status_code == 401
    assert (response.json()["code"], response.json()["status"]) == ("INVALID_TOKEN", "error")


def test_an_unknown_url(zoho):
    """An unknown URL, or a known one with the wrong method, gets HTTP 404 with JSON. It is not a token call."""
    for path in ("/", "/elsewhere", "/oauth/v2/token"):
        response = get(zoho, path, None)
        assert (response.status_code, response.json()["status"]) == (404, "error")
    assert [call.kind for call in zoho.calls] == ["other"] * 3
    assert (zoho.token_calls, zoho.api_calls) == (0, 0)


# Failures


def test_failing_calls(zoho):
    """`fail_next` makes a number of token calls fail, in the order of its calls. The calls after them succeed."""
    zoho.fail_next(2)
    zoho.fail_next(1, status=503, body={"error": "maintenance"})
    token = zoho.refresh_token("ada@example.com")
    for _ in range(2):
        failed = refresh(zoho, token)
        assert (failed.status_code, failed.headers["Content-Type"]) == (500, "text/html; charset=utf-8")
    failed = refresh(zoho, token)
    assert (failed.status_code, failed.json()) == (503, {"error": "maintenance"})
    assert "access_token" in refresh(zoho, token).json()
    assert [call.outcome for call in zoho.calls] == ["HTTP 500", "HTTP 500", "maintenance", "ok"]
    assert zoho.token_calls == 4


def test_injected_denials(zoho):
    """`deny_next` makes calls fail like calls above Zoho's limit. Denied calls do not count for the limit."""
    zoho.tokens_per_window = 1
    zoho.deny_next()
    token = zoho.refresh_token("ada@example.com")
    denied = refresh(zoho, token)
    assert (denied.status_code, denied.json()["error"]) == (200, "Access Denied")
    assert "access_token" in refresh(zoho, token).json()
    assert zoho.denials == 1


@pytest.mark.parametrize("how", [{"drop": True}, {"hang": 0.01}], ids=str)
def test_a_dropped_connection(zoho, how):
    """A call with `drop` or `hang` ends without an answer. The next call succeeds."""
    zoho.fail_next(**how)
    token = zoho.refresh_token("ada@example.com")
    with pytest.raises(requests.ConnectionError):
        refresh(zoho, token)
    assert "access_token" in refresh(zoho, token).json()


def test_failures_affect_only_their_target(zoho):
    """A failure injected for one endpoint does not affect the other two."""
    zoho.fail_next(target="api")
    zoho.fail_next(target="revoke")
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert get(zoho, "/crm/v8/org", answer["access_token"]).status_code == 500
    assert get(zoho, "/crm/v8/org", answer["access_token"]).status_code == 200
    assert post(zoho.accounts_url + "/revoke", token=answer["refresh_token"]).status_code == 500
    assert revoke(zoho, answer["refresh_token"]) == {"status": "success"}


def test_failures_can_be_cleared(zoho):
    """`clear_failures` removes the failures that have not happened yet."""
    zoho.fail_next(3)
    zoho.clear_failures()
    assert "access_token" in refresh(zoho, zoho.refresh_token("ada@example.com")).json()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"hang": -1}, {"target": "everything"}], ids=str)
def test_invalid_failures_are_refused(zoho, wrong):
    """`fail_next` with an invalid argument raises ValueError and injects nothing."""
    with pytest.raises(ValueError, match=r"count|hang|target"):
        zoho.fail_next(**wrong)
    assert "access_token" in refresh(zoho, zoho.refresh_token("ada@example.com")).json()


# Waiting


@pytest.mark.parametrize("slow", ["latency", "api_latency", "hang"])
def test_stopping_ends_every_delay(slow):
    """`stop` ends all delays: a delayed call gets its answer at once, and a hanging call is dropped."""
    zoho = ZohoStandIn()
    zoho.start()
    arrived = zoho.access_token("ada@example.com")
    if slow == "hang":
        zoho.fail_next(hang=10 * TIMEOUT_SECONDS)
    else:
        setattr(zoho, slow, 10 * TIMEOUT_SECONDS)
    call = get if slow == "api_latency" else refresh
    arguments = (zoho, "/crm/v8/org", arrived) if slow == "api_latency" else (zoho, "unknown")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, *arguments)
        while not zoho.calls:  # a call is recorded at its arrival, before the delay
            assert not waiting.done()
        zoho.stop()
        if slow == "hang":
            assert isinstance(waiting.exception(TIMEOUT_SECONDS), requests.ConnectionError)
        else:
            assert waiting.result(TIMEOUT_SECONDS).status_code == 200


# The record


def test_the_record(zoho):
    """Every call is recorded with its time, kind, user, outcome and path. The counters count the records."""
    user = zoho.add_user("ada@example.com", "1")
    answer = login(zoho, zoho.grant_code(user)).json()
    zoho.clock.now += 5
    refresh(zoho, answer["refresh_token"])
    refresh(zoho, "unknown")
    get(zoho, "/crm/v8/Leads?page=2", answer["access_token"])
    revoke(zoho, answer["refresh_token"])
    assert [(call.at, call.kind, call.user, call.outcome, call.path) for call in zoho.calls] == [
        (100, "login", user.name, "ok", "/oauth/v2/token"),
        (105, "refresh", user.name, "ok", "/oauth/v2/token"),
        (105, "refresh", None, "invalid_code", "/oauth/v2/token"),
        (105, "api", user.name, "ok", "/crm/v8/Leads"),
        (105, "revoke", user.name, "ok", "/oauth/v2/token/revoke"),
    ]
    assert (zoho.logins, zoho.refreshes, zoho.token_calls) == (1, 2, 3)
    assert (zoho.revocations, zoho.api_calls, zoho.denials) == (1, 1, 0)
    zoho.clear_calls()
    assert (zoho.calls, zoho.token_calls) == ([], 0)


def test_no_secret_is_shown(zoho, caplog, capfd):
    """No secret is logged, printed, or in the `repr` of the stand-in, a call or a client."""
    caplog.set_level(logging.INFO, "urllib3")  # at DEBUG it logs URLs, and the query of one below has a secret
    caplog.set_level(logging.DEBUG)
    client = zoho.add_client()
    code = zoho.grant_code("ada@example.com", client)
    credentials = {"client_id": client.id, "client_secret": client.secret}
    answer = login(zoho, code, **credentials).json()
    # Zoho also accepts the parameters in the query.
    post(f"{zoho.accounts_url}?grant_type=refresh_token&refresh_token={answer['refresh_token']}", **credentials)
    get(zoho, f"/crm/v8/Leads?token={answer['access_token']}", answer["access_token"])
    revoke(zoho, answer["refresh_token"])
    assert [call.outcome for call in zoho.calls] == ["ok"] * 4
    logged = [record.getMessage() for record in caplog.records if record.name == "zoho_token_store.testing"]
    assert len(logged) == 4
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    shown = " ".join([*logged, repr(zoho), repr(zoho.calls), repr(client)])
    for secret in (client.secret, code, answer["refresh_token"], answer["access_token"]):
        assert secret not in shown


def test_made_up_values_are_unique(zoho):
    """Two stand-ins in one process never issue the same value, and each value looks made up."""
    with ZohoStandIn() as other:
        values = [
            value
            for standin in (zoho, other)
            for value in (
                standin.client_id,
                standin.client_secret,
                standin.grant_code("ada@example.com"),
                standin.refresh_token("ada@example.com"),
                standin.access_token("ada@example.com"),
            )
        ]
    assert len(set(values)) == len(values) == 10
    assert all(re.fullmatch(r"1000\.\w+\.made-up\.[0-9a-f]{8}\.\d{4,}", value) for value in values)


def test_made_up_values_differ_from_start_to_start():
    """A new process issues other values: a token database may still have those of an older one."""
    script = "from zoho_token_store.testing import ZohoStandIn; zoho = ZohoStandIn()"
    script += "; print(zoho.client_id, zoho.grant_code('ada@example.com'))"
    starts = [run_python("-c", script).stdout.split() for _ in range(2)]
    assert [len(values) for values in starts] == [2, 2]
    assert not {*starts[0]} & {*starts[1]}


def test_users(zoho):
    """An e-mail address means the first user with it. The same person in two organisations is two users."""
    first, second = zoho.add_user("ada@example.com", "1"), zoho.add_user("ada@example.com", "2")
    assert first.name != second.name
    assert zoho.add_user("bob@example.com").org_id != zoho.add_user("eve@example.com").org_id
    for user, name in (("ada@example.com", first.name), (second, second.name)):
        login(zoho, zoho.grant_code(user))
        assert zoho.calls[-1].user == name


# Running


def test_it_listens_on_127_0_0_1_only(zoho):
    """The host of the URL is 127.0.0.1. No other address of this machine accepts connections on the port."""
    host, port = zoho.url.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    with socket.socket() as client:
        client.settimeout(TIMEOUT_SECONDS)
        assert client.connect_ex(("127.0.0.2", int(port))) != 0


def test_starting_and_stopping():
    """After `start` there is a URL, after `stop` calls are refused, and a restart keeps the URL and all tokens."""
    zoho = ZohoStandIn()
    with pytest.raises(RuntimeError, match="started"):
        _ = zoho.url
    zoho.stop()
    token = zoho.refresh_token("ada@example.com")
    with zoho:
        url = zoho.url
        with pytest.raises(RuntimeError, match="running"):
            zoho.start()
    zoho.stop()
    with pytest.raises(requests.ConnectionError):
        refresh(zoho, token)
    with zoho:
        assert zoho.url == url
        assert "access_token" in refresh(zoho, token).json()


def test_a_restart_on_a_taken_port(capfd):
    """A restart raises OSError if another program has taken the port."""
    zoho = ZohoStandIn()
    with zoho:
        port = int(zoho.url.rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(OSError, match=str(port)):
            zoho.start()
    capfd.readouterr()


def test_a_port():
    """`port` is the port to listen on. Without it a free one is chosen, and `port` is that one."""
    with ZohoStandIn() as zoho:
        port = zoho.port
        assert zoho.url == f"http://127.0.0.1:{port}"
    with ZohoStandIn(port=port) as zoho:
        assert zoho.url == f"http://127.0.0.1:{port}"


# Proxies

PROXY = "http://127.0.0.1:9"  # nothing listens on this port


@pytest.fixture
def proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    for name in NO_PROXY:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


NO_PROXY = ("no_proxy", "NO_PROXY")


def no_proxy():
    return [os.environ.get(name) for name in NO_PROXY]


@pytest.mark.usefixtures("proxy")
def test_a_proxy_of_the_environment_is_bypassed():
    """While a stand-in runs, no call of this process to it goes through a proxy. Then the environment is as before."""
    with ZohoStandIn() as zoho:
        assert requests.get(zoho.url + "/crm/v8/Leads", timeout=TIMEOUT_SECONDS).status_code == 401
        with pytest.raises(requests.exceptions.ProxyError):
            requests.get("http://zoho.example.com/", timeout=TIMEOUT_SECONDS)
        assert no_proxy() == ["127.0.0.1", "127.0.0.1"]
    assert no_proxy() == [None, None]


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ("intra", None, ["127.0.0.1,intra"] * 2),
        (None, "intra", ["127.0.0.1,intra"] * 2),
        ("a", "b", ["127.0.0.1,a", "127.0.0.1,b"]),
        ("*", None, ["*", "*"]),
        ("", "", ["127.0.0.1"] * 2),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="both names are one variable there")
def test_other_hosts_still_bypass_the_proxy(proxy, lower, upper, expected):
    """The hosts that bypass the proxy anyway still do: the lower-case variable hides the other one."""
    for name, value in zip(NO_PROXY, (lower, upper), strict=True):
        if value is not None:
            proxy.setenv(name, value)
    before = no_proxy()
    with ZohoStandIn():
        assert no_proxy() == expected
    assert no_proxy() == before


def test_several_stand_ins_bypass_proxies(proxy):
    """The last one that stops restores the environment. What the program itself has set stays."""
    one, two = ZohoStandIn().start(), ZohoStandIn().start()
    one.stop()
    one.stop()
    assert requests.get(two.url, timeout=TIMEOUT_SECONDS).status_code == 404
    proxy.setenv("NO_PROXY", "set.by.the.program")
    two.stop()
    assert no_proxy() == [None, "set.by.the.program"]


# The state file


def test_a_state_file(tmp_path):
    """A stand-in with the state file of an older one has its clients, users and tokens. Only the owner can read it."""
    file = tmp_path / "state.json"
    with ZohoStandIn(state_file=file, clock=Clock()) as old:
        ada = old.add_user("ada@example.com")
        tokens = login(old, old.grant_code(ada)).json()
        expired = old.access_token("bob@example.com")
        revoked = old.refresh_token("eve@example.com")
        old.revoke_user("eve@example.com")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    clock = Clock()
    clock.now = 1e6
    state = json.loads(file.read_text(encoding="utf-8"))
    [each] = [each for each in state["authorizations"] if each["user"]["email"] == "bob@example.com"]
    each["access_tokens"][0]["expires_in"] = 0.0
    file.write_text(json.dumps(state), encoding="utf-8")
    with ZohoStandIn(state_file=file, clock=clock) as new:
        assert (new.client_id, new.client_secret) == (old.client_id, old.client_secret)
        assert new.add_user("ada@example.com", ada.org_id) == ada
        assert new.add_user("new@example.com").org_id != ada.org_id
        assert is_valid(new, tokens["access_token"])
        assert not is_valid(new, expired)
        assert "access_token" in refresh(new, tokens["refresh_token"]).json()
        assert refresh(new, revoked).json() == {"error": "invalid_code"}
        clock.now += 3600
        assert not is_valid(new, tokens["access_token"])


def test_without_a_state_file_nothing_is_kept(tmp_path):
    """Without a state file, a new stand-in does not know the tokens of an older one."""
    with ZohoStandIn() as old:
        token = old.refresh_token("ada@example.com")
    with ZohoStandIn() as new:
        assert refresh(new, token).json() == {"error": "invalid_code"}
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("content", ["", "precious", "[]", '{"format": "another"}'])
def test_another_file_is_no_state_file(tmp_path, content):
    """A file of another kind is refused and stays as it is."""
    file = tmp_path / "precious"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="is not a state file"):
        ZohoStandIn(state_file=file)
    assert file.read_text(encoding="utf-8") == content


def test_concurrent_refreshes(zoho):
    """Exactly 10 of 32 concurrent refreshes with one refresh token succeed. All 32 are recorded."""
    token = zoho.refresh_token("ada@example.com")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: refresh(zoho, token).json(), range(32)))
    issued = [answer["access_token"] for answer in answers if "access_token" in answer]
    assert len(set(issued)) == 10
    assert zoho.denials == 22
    assert zoho.refreshes == 32


def test_the_environment(zoho):
    """`environment()` returns the installed SDK's own class, with only URLs of the stand-in."""
    environment = zoho.environment()
    assert type(environment).__qualname__ == "DataCenter.Environment"
    assert environment.url == environment.file_upload_url == zoho.url
    assert environment.accounts_url == zoho.accounts_url


def run_python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_importing_it_does_not_import_the_sdk():
    """The import of `zoho_token_store.testing` does not import the SDK."""
    loaded = "any(name.startswith('zohocrmsdk') for name in sys.modules)"
    done = run_python("-c", f"import sys, zoho_token_store.testing; sys.exit({loaded})")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_werkzeug_the_import_says_what_to_install():
    """Without Werkzeug the import raises an ImportError that names the command to install it."""
    script = "import sys; sys.modules['werkzeug'] = None; import zoho_token_store.testing"
    done = run_python("-c", script)
    assert done.returncode == 1
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert 'pip install "zoho-token-store[testing]"' in done.stderr.splitlines()[-1]


def test_the_command_line():
    """`python -m` prints one line of JSON that contains all that a login needs. It ends when its stdin ends."""
    command = [sys.executable, "-m", "zoho_token_store.testing", "--seconds=60", "--user=ada@example.com"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        description = json.loads(process.stdout.readline())
        answer = post(
            description["accounts_url"],
            client_id=description["client_id"],
            client_secret=description["client_secret"],
            grant_type="authorization_code",
            code=description["grant_codes"]["ada@example.com"],
        ).json()
        rest, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert answer["api_domain"] == description["url"]
    assert (process.returncode, rest, errors) == (0, "", "")


def describe(*arguments):
    """Start the command, read its line of JSON, end its stdin, and return the description and the exit status."""
    command = [sys.executable, "-m", "zoho_token_store.testing", "--seconds=60", *arguments]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    return done, json.loads(done.stdout or "{}")


def test_the_command_line_keeps_its_port_and_state(tmp_path):
    """With `--port` and `--state` a second start has the same URL and client."""
    with ZohoStandIn() as zoho:
        port = zoho.port
    options = ["--port", str(port), "--state", str(tmp_path / "state.json")]
    (_, first), (_, second) = describe(*options), describe(*options)
    for key in ("url", "client_id", "client_secret", "data_centres"):
        assert first[key] == second[key]
    assert first["url"] == f"http://127.0.0.1:{port}"
    assert first["grant_codes"] != second["grant_codes"]


def test_the_command_line_with_two_data_centres(tmp_path):
    """Each data centre has its URL and its users. Both have the same client."""
    state = tmp_path / "state.json"
    centres = [
        "--data-centre",
        "us",
        "--data-centre",
        "eu",
        "--user",
        "ada@example.com",
        "--user",
        "eu:bob@example.com",
    ]
    _, description = describe(*centres, "--state", str(state))
    urls = {location: centre["url"] for location, centre in description["data_centres"].items()}
    assert list(urls) == ["us", "eu"]
    assert urls["us"] == description["url"] != urls["eu"]
    assert list(description["grant_codes"]) == ["ada@example.com", "eu:bob@example.com"]
    users = {
        file.name: [user["email"] for user in json.loads(file.read_text(encoding="utf-8"))["users"]]
        for file in tmp_path.iterdir()
    }
    assert users == {"state.json": ["ada@example.com"], "state.json.eu": ["bob@example.com"]}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--user", "eu:bob@example.com"], 2, "there is no data centre for eu:bob@example.com"),
        (["--data-centre", "us", "--data-centre", "us"], 2, "each data centre needs a name of its own"),
        (["--state", __file__], 1, "is not a state file of the stand-in"),
    ],
)
def test_the_command_line_refuses(arguments, status, message):
    """Wrong usage and a file of another kind are errors without a traceback."""
    done, _ = describe(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_of_the_command_line_names_no_proxy():
    """The help says what a program in another process needs if there is a proxy."""
    assert "NO_PROXY=127.0.0.1" in run_python("-m", "zoho_token_store.testing", "--help").stdout


def test_the_command_line_has_a_time_limit():
    """With `--seconds` it ends after this time even if its stdin stays open."""
    reader, writer = os.pipe()
    try:
        done = run_python("-m", "zoho_token_store.testing", "--seconds", "0", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["url"].startswith("http://127.0.0.1:")


def test_the_example_in_the_docstring(tmp_path):
    """The example in the package's docstring runs and prints what is documented there."""
    examples = doctest.DocTestFinder().find(zoho_token_store.testing, "testing")
    assert sum(len(example.examples) for example in examples) > 0
    # The SDK keeps its state in class attributes, so the example needs a new process.
    script = "import doctest, sys, zoho_token_store.testing as package; sys.exit(doctest.testmod(package).failed)"
    done = run_python("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert list(Path(tmp_path).iterdir()) == []
