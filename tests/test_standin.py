"""The stand-in for Zoho, over real HTTP: each of its rules once. Time is the tests' own; nothing sleeps."""

import doctest
import json
import logging
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import zoho_token_store.testing
from zoho_token_store.testing import ZohoStandIn

WITHIN = 10  # seconds: the bound of every wait, far more than any needs


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
    # Whatever proxy the environment names, it is not meant for these.
    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, data=form, timeout=WITHIN)


def ask(zoho, **form):
    form = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, **form}
    return post(zoho.accounts_url, **form)


def login(zoho, code, **form):
    return ask(zoho, grant_type="authorization_code", code=code, **form)


def refresh(zoho, refresh_token, **form):
    return ask(zoho, grant_type="refresh_token", refresh_token=refresh_token, **form)


def revoke(zoho, token):
    return post(zoho.accounts_url + "/revoke", token=token).json()


def get(zoho, path, access_token):
    headers = {} if access_token is None else {"Authorization": f"Zoho-oauthtoken {access_token}"}
    with requests.Session() as session:
        session.trust_env = False
        return session.get(zoho.url + path, headers=headers, timeout=WITHIN)


def lives(zoho, access_token):
    return get(zoho, "/crm/v8/Leads", access_token).status_code == 200


# Logins


def test_a_login(zoho):
    """A grant code brings a refresh and an access token, its life in seconds and this URL as API domain."""
    zoho.expires_in = 1800
    response = login(zoho, zoho.grant_code("ada@example.com"))
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("access_token").startswith("1000.access.made-up.")
    assert answer.pop("refresh_token").startswith("1000.refresh.made-up.")
    assert answer == {"api_domain": zoho.url, "token_type": "Bearer", "expires_in": 1800}


def test_a_code_is_good_once(zoho):
    """A second login with a grant code gets HTTP 200 and "invalid_code", as one with an unknown code does."""
    code = zoho.grant_code("ada@example.com")
    assert "access_token" in login(zoho, code).json()
    for used_or_unknown in (code, "1000.code.made-up.unknown"):
        response = login(zoho, used_or_unknown)
        assert (response.status_code, response.json()) == (200, {"error": "invalid_code"})


@pytest.mark.parametrize("wrong", [{"client_id": "nobody"}, {"client_secret": "guessed"}], ids=str)
def test_a_wrong_client(zoho, wrong):
    """An unknown client id or a wrong secret gets "invalid_client" and does not use up the code."""
    code = zoho.grant_code("ada@example.com")
    assert login(zoho, code, **wrong).json() == {"error": "invalid_client"}
    assert "access_token" in login(zoho, code).json()


def test_credentials_belong_to_a_client(zoho):
    """A code or refresh token of one client is "invalid_code" in the hands of another."""
    other = zoho.add_client()
    theirs = {"client_id": other.id, "client_secret": other.secret}
    assert login(zoho, zoho.grant_code("ada@example.com"), **theirs).json() == {"error": "invalid_code"}
    assert refresh(zoho, zoho.refresh_token("ada@example.com"), **theirs).json() == {"error": "invalid_code"}
    code = zoho.grant_code("ada@example.com", other)
    assert "access_token" in login(zoho, code, **theirs).json()


def test_the_redirect_url(zoho):
    """A client with a redirect URL has to name it at a login; one without may name any."""
    client = zoho.add_client("https://app.example.com/back")
    own = {"client_id": client.id, "client_secret": client.secret}
    code = zoho.grant_code("ada@example.com", client)
    for wrong in ({}, {"redirect_uri": "https://elsewhere.example.com"}):
        assert login(zoho, code, **own, **wrong).json() == {"error": "invalid_redirect_uri"}
    assert "access_token" in login(zoho, code, **own, redirect_uri=client.redirect_url).json()
    anything = zoho.grant_code("ada@example.com")
    assert "access_token" in login(zoho, anything, redirect_uri="https://any.example.com").json()


def test_another_grant_type(zoho):
    """A grant type that is neither of the two is refused, and counts as a token call."""
    assert ask(zoho, grant_type="password").json() == {"error": "unsupported_grant_type"}
    assert [call.kind for call in zoho.calls] == ["token"]
    assert zoho.token_calls == 1


# Refreshes


def test_a_refresh(zoho):
    """A refresh token brings another access token, and no other refresh token."""
    first = login(zoho, zoho.grant_code("ada@example.com")).json()
    second = refresh(zoho, first["refresh_token"]).json()
    assert "refresh_token" not in second
    assert second["access_token"] != first["access_token"]
    assert {**first, **second, "refresh_token": None} == {**second, "refresh_token": None}
    assert lives(zoho, first["access_token"])
    assert lives(zoho, second["access_token"])


def test_an_unknown_refresh_token(zoho):
    """An unknown refresh token gets HTTP 200 and "invalid_code"."""
    response = refresh(zoho, "1000.refresh.made-up.unknown")
    assert (response.status_code, response.json()) == (200, {"error": "invalid_code"})


def test_ten_access_tokens_in_ten_minutes(zoho):
    """A refresh token's 11th refresh within 10 minutes is denied, until the first lies 10 minutes back."""
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


def test_the_limit_can_be_set(zoho):
    """The number of refreshes and the window can be set while the stand-in runs."""
    zoho.tokens_per_window, zoho.window = 1, 5
    token = zoho.refresh_token("ada@example.com")
    assert "access_token" in refresh(zoho, token).json()
    assert refresh(zoho, token).json()["error"] == "Access Denied"
    zoho.clock.now += 5
    assert "access_token" in refresh(zoho, token).json()


def test_the_sixteenth_access_token_ends_the_oldest(zoho):
    """Of one refresh token 15 access tokens live at once; the 16th ends the oldest, and no other user's."""
    zoho.tokens_per_window = 100
    others = login(zoho, zoho.grant_code("bob@example.com")).json()["access_token"]
    first = login(zoho, zoho.grant_code("ada@example.com")).json()
    tokens = [first["access_token"]]
    tokens += [refresh(zoho, first["refresh_token"]).json()["access_token"] for _ in range(14)]
    assert all(lives(zoho, token) for token in tokens)
    tokens.append(refresh(zoho, first["refresh_token"]).json()["access_token"])
    assert [lives(zoho, token) for token in tokens] == [False] + [True] * 15
    assert lives(zoho, others)


def test_expired_access_tokens_do_not_count_as_live(zoho):
    """Access tokens that have expired make room: the next one ends none that lives."""
    zoho.live_tokens = 2
    token = zoho.refresh_token("ada@example.com")
    zoho.expires_in = 10
    refresh(zoho, token)
    zoho.expires_in = 1000
    lasting = refresh(zoho, token).json()["access_token"]
    zoho.clock.now += 10
    refresh(zoho, token)
    assert lives(zoho, lasting)


def test_an_access_token_expires(zoho):
    """An access token is good for `expires_in` seconds and refused from then on."""
    zoho.expires_in = 60
    token = login(zoho, zoho.grant_code("ada@example.com")).json()["access_token"]
    zoho.clock.now += 59
    assert lives(zoho, token)
    zoho.clock.now += 1
    assert not lives(zoho, token)


# Revoking


def test_revoking_a_refresh_token(zoho):
    """Revoking a refresh token ends its access tokens and itself, nobody else's, and once only."""
    others = login(zoho, zoho.grant_code("bob@example.com")).json()
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert revoke(zoho, answer["refresh_token"]) == {"status": "success"}
    assert not lives(zoho, answer["access_token"])
    assert refresh(zoho, answer["refresh_token"]).json() == {"error": "invalid_code"}
    assert lives(zoho, others["access_token"])
    assert "access_token" in refresh(zoho, others["refresh_token"]).json()
    assert revoke(zoho, answer["refresh_token"])["status"] != "success"
    assert revoke(zoho, "1000.refresh.made-up.unknown")["status"] != "success"
    assert zoho.revocations == 1


def test_revoking_an_access_token(zoho):
    """Revoking an access token ends it alone."""
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert revoke(zoho, answer["access_token"]) == {"status": "success"}
    assert not lives(zoho, answer["access_token"])
    assert lives(zoho, refresh(zoho, answer["refresh_token"]).json()["access_token"])


def test_a_user_revokes_everything(zoho):
    """`revoke_user` ends all refresh tokens of that user in that organisation, and makes no call."""
    here, there = zoho.add_user("ada@example.com", "1"), zoho.add_user("ada@example.com", "2")
    tokens = [zoho.refresh_token(here), zoho.refresh_token(here)]
    elsewhere = zoho.refresh_token(there)
    assert zoho.revoke_user(here) == 2
    assert zoho.calls == []
    assert [refresh(zoho, token).json() for token in tokens] == [{"error": "invalid_code"}] * 2
    assert "access_token" in refresh(zoho, elsewhere).json()


# The CRM's API


@pytest.mark.parametrize("version", [6, 7, 8])
def test_the_look_ups_after_a_login(zoho, version):
    """The current user and the organisation are those that the access token was issued for."""
    user = zoho.add_user("ada@example.com", "4711")
    token = login(zoho, zoho.grant_code(user)).json()["access_token"]
    users = get(zoho, f"/crm/v{version}/users?type=CurrentUser", token)
    org = get(zoho, f"/crm/v{version}/org", token)
    assert (users.status_code, users.json()["users"][0]["email"]) == (200, "ada@example.com")
    assert (org.status_code, org.json()["org"][0]["zgid"]) == (200, "4711")
    assert user.name == "ada@example.com:4711"
    assert [call.kind for call in zoho.calls] == ["login", "user", "org"]


def test_any_other_authorised_call(zoho):
    """Any path of the API answers whom it takes the caller for."""
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
    """A call without a good access token gets HTTP 401 and Zoho's "INVALID_TOKEN"."""
    response = get(zoho, path, token)
    assert response.status_code == 401
    assert (response.json()["code"], response.json()["status"]) == ("INVALID_TOKEN", "error")


def test_a_url_that_is_not_there(zoho):
    """An unknown URL, and a known one with the wrong method, get HTTP 404 as JSON and are no token call."""
    for path in ("/", "/elsewhere", "/oauth/v2/token"):
        response = get(zoho, path, None)
        assert (response.status_code, response.json()["status"]) == (404, "error")
    assert [call.kind for call in zoho.calls] == ["other"] * 3
    assert (zoho.token_calls, zoho.api_calls) == (0, 0)


# Failures


def test_failing_calls(zoho):
    """`fail_next` makes so many token calls fail, the first ordered first, and then things work again."""
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


def test_denials_to_order(zoho):
    """`deny_next` answers as Zoho does beyond its limit, without counting towards it."""
    zoho.tokens_per_window = 1
    zoho.deny_next()
    token = zoho.refresh_token("ada@example.com")
    denied = refresh(zoho, token)
    assert (denied.status_code, denied.json()["error"]) == (200, "Access Denied")
    assert "access_token" in refresh(zoho, token).json()
    assert zoho.denials == 1


@pytest.mark.parametrize("how", [{"drop": True}, {"hang": 0.01}], ids=str)
def test_a_dropped_connection(zoho, how):
    """A dropped call, silent for a while before or not, ends without any answer, and the next one works."""
    zoho.fail_next(**how)
    token = zoho.refresh_token("ada@example.com")
    with pytest.raises(requests.ConnectionError):
        refresh(zoho, token)
    assert "access_token" in refresh(zoho, token).json()


def test_failures_hit_their_target_alone(zoho):
    """A failure ordered for one endpoint leaves the other two alone."""
    zoho.fail_next(target="api")
    zoho.fail_next(target="revoke")
    answer = login(zoho, zoho.grant_code("ada@example.com")).json()
    assert get(zoho, "/crm/v8/org", answer["access_token"]).status_code == 500
    assert get(zoho, "/crm/v8/org", answer["access_token"]).status_code == 200
    assert post(zoho.accounts_url + "/revoke", token=answer["refresh_token"]).status_code == 500
    assert revoke(zoho, answer["refresh_token"]) == {"status": "success"}


def test_failures_can_be_taken_back(zoho):
    """`clear_failures` forgets what has not happened yet."""
    zoho.fail_next(3)
    zoho.clear_failures()
    assert "access_token" in refresh(zoho, zoho.refresh_token("ada@example.com")).json()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"hang": -1}, {"target": "everything"}], ids=str)
def test_nonsense_cannot_be_ordered(zoho, wrong):
    """A failure that could never happen as ordered raises ValueError, and nothing is ordered."""
    with pytest.raises(ValueError, match=r"count|hang|target"):
        zoho.fail_next(**wrong)
    assert "access_token" in refresh(zoho, zoho.refresh_token("ada@example.com")).json()


# Waiting


@pytest.mark.parametrize("slow", ["latency", "api_latency", "hang"])
def test_stopping_ends_every_wait(slow):
    """`stop` waits for no answer, however slow they are set to be: whoever waits is served or dropped."""
    zoho = ZohoStandIn()
    zoho.start()
    arrived = zoho.access_token("ada@example.com")
    if slow == "hang":
        zoho.fail_next(hang=10 * WITHIN)
    else:
        setattr(zoho, slow, 10 * WITHIN)
    call = get if slow == "api_latency" else refresh
    arguments = (zoho, "/crm/v8/org", arrived) if slow == "api_latency" else (zoho, "unknown")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, *arguments)
        while not zoho.calls:  # recorded on arrival, before it is made to wait
            assert not waiting.done()
        zoho.stop()
        if slow == "hang":
            assert isinstance(waiting.exception(WITHIN), requests.ConnectionError)
        else:
            assert waiting.result(WITHIN).status_code == 200


# The record


def test_the_record(zoho):
    """Every call is recorded with its time, kind, user and outcome, and the counters count them."""
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
    """No secret is in a log line, in what is printed, or in the repr of the stand-in, a call or a client."""
    caplog.set_level(logging.INFO, "urllib3")  # it logs the addresses that are asked for below
    caplog.set_level(logging.DEBUG)
    client = zoho.add_client()
    code = zoho.grant_code("ada@example.com", client)
    own = {"client_id": client.id, "client_secret": client.secret}
    answer = login(zoho, code, **own).json()
    # In the query, too, where Zoho takes them as well.
    post(f"{zoho.accounts_url}?grant_type=refresh_token&refresh_token={answer['refresh_token']}", **own)
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
    """Two stand-ins in one process never issue the same value, and each looks made up."""
    with ZohoStandIn() as other:
        values = [
            value
            for one in (zoho, other)
            for value in (
                one.client_id,
                one.client_secret,
                one.grant_code("ada@example.com"),
                one.refresh_token("ada@example.com"),
                one.access_token("ada@example.com"),
            )
        ]
    assert len(set(values)) == len(values) == 10
    assert all(re.fullmatch(r"1000\.\w+\.made-up\.\d{4,}", value) for value in values)


def test_users(zoho):
    """An e-mail address names the first user with it; the same person in two organisations is two users."""
    first, second = zoho.add_user("ada@example.com", "1"), zoho.add_user("ada@example.com", "2")
    assert first.name != second.name
    assert zoho.add_user("bob@example.com").org_id != zoho.add_user("eve@example.com").org_id
    for user, name in (("ada@example.com", first.name), (second, second.name)):
        login(zoho, zoho.grant_code(user))
        assert zoho.calls[-1].user == name


# Running


def test_it_listens_on_loopback_alone(zoho):
    """The URL is 127.0.0.1 with a free port, and no other address of this machine answers on it."""
    host, port = zoho.url.removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    with socket.socket() as caller:
        caller.settimeout(WITHIN)
        assert caller.connect_ex(("127.0.0.2", int(port))) != 0


def test_starting_and_stopping():
    """It has a URL once started, refuses calls once stopped, and comes back there, remembering all."""
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


def test_a_port_that_was_taken_meanwhile(capfd):
    """Starting again while another program has the port raises OSError."""
    zoho = ZohoStandIn()
    with zoho:
        port = int(zoho.url.rpartition(":")[2])
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", port))
        taker.listen()
        with pytest.raises(OSError, match=str(port)):
            zoho.start()
    capfd.readouterr()


def test_many_callers_at_once(zoho):
    """Of 32 calls at once with one refresh token exactly 10 are served, and all 32 recorded."""
    token = zoho.refresh_token("ada@example.com")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: refresh(zoho, token).json(), range(32)))
    served = [answer["access_token"] for answer in answers if "access_token" in answer]
    assert len(set(served)) == 10
    assert zoho.denials == 22
    assert zoho.refreshes == 32


def test_the_environment(zoho):
    """`environment()` is the installed SDK's own class, with every URL of it here."""
    environment = zoho.environment()
    assert type(environment).__qualname__ == "DataCenter.Environment"
    assert environment.url == environment.file_upload_url == zoho.url
    assert environment.accounts_url == zoho.accounts_url


def in_new_process(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_importing_it_does_not_import_the_sdk():
    """The import of the stand-in costs no import of the SDK."""
    loaded = "any(name.startswith('zohocrmsdk') for name in sys.modules)"
    done = in_new_process("-c", f"import sys, zoho_token_store.testing; sys.exit({loaded})")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_werkzeug_the_import_says_what_to_install():
    """Without Werkzeug the import raises ImportError with the command that brings it."""
    script = "import sys; sys.modules['werkzeug'] = None; import zoho_token_store.testing"
    done = in_new_process("-c", script)
    assert done.returncode == 1
    assert "ImportError" in done.stderr.splitlines()[-1]
    assert 'pip install "zoho-token-store[testing]"' in done.stderr.splitlines()[-1]


def test_from_the_command_line():
    """`python -m` prints one line of JSON that is enough to log in with, and ends when its stdin does."""
    command = [sys.executable, "-m", "zoho_token_store.testing", "--seconds=60", "--user=ada@example.com"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        about = json.loads(process.stdout.readline())
        answer = post(
            about["accounts_url"],
            client_id=about["client_id"],
            client_secret=about["client_secret"],
            grant_type="authorization_code",
            code=about["grant_codes"]["ada@example.com"],
        ).json()
        rest, errors = process.communicate(timeout=WITHIN)
    assert answer["api_domain"] == about["url"]
    assert (process.returncode, rest, errors) == (0, "", "")


def test_the_command_line_ends_by_itself():
    """`--seconds` bounds its life even while its stdin stays open."""
    reader, writer = os.pipe()
    try:
        done = in_new_process("-m", "zoho_token_store.testing", "--seconds", "0", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["url"].startswith("http://127.0.0.1:")


def test_its_documentation_runs(tmp_path):
    """The example in the package's documentation does what it says."""
    examples = doctest.DocTestFinder().find(zoho_token_store.testing, "testing")
    assert sum(len(example.examples) for example in examples) > 0
    # In a process of its own: the SDK keeps its state in class attributes.
    script = "import doctest, sys, zoho_token_store.testing as it; sys.exit(doctest.testmod(it).failed)"
    done = in_new_process("-c", script, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert list(Path(tmp_path).iterdir()) == []
