"""The examples that are servers: a web application with several users, and one with several workers."""

import html
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import pytest
import requests
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn

from .conftest import EXAMPLES, HOUR_SECONDS, TIMEOUT_SECONDS

FLASK = ("-m", "flask", "--app", EXAMPLES / "flask_login.py", "run", "--port")


class Browser:
    """A minimal browser with its own cookies. It follows links by their id and presses buttons by their label."""

    def __init__(self, url):
        self.session = requests.Session()
        self.session.trust_env = False
        self.url = url
        self.page = None

    def open(self, path="/"):
        self._show(self.session.get(urljoin(self.url, path), timeout=TIMEOUT_SECONDS))

    def follow(self, link):
        [target] = re.findall(rf'<a id="{link}" href="([^"]+)"', self.page.text)
        self._show(self.session.get(urljoin(self.page.url, html.unescape(target)), timeout=TIMEOUT_SECONDS))

    def press(self, label):
        """Press a button of the page's form. If the button has a name and a value, they are sent."""
        [(attributes, value)] = re.findall(
            rf'<button(?: id="\w+")?( name="user" value="([^"]+)")?>{label}<', self.page.text
        )
        form = re.search(r'<form method="post"(?: action="([^"]+)")?>', self.page.text)
        target = urljoin(self.page.url, form[1] or "")
        self._show(self.session.post(target, data={"user": value} if attributes else None, timeout=TIMEOUT_SECONDS))

    def user(self):
        """Return the user and organisation on the current page, or `None`."""
        return logged_in_user(self.page)

    def fetch_user(self):
        """Fetch the first page without changing the current page. Return its user and organisation, or `None`."""
        return logged_in_user(self.session.get(self.url, timeout=TIMEOUT_SECONDS))

    def _show(self, response):
        self.page = response


def logged_in_user(page):
    found = re.search(r'<b id="user">(.*?)</b> of <b id="organisation">(.*?)</b>', page.text)
    return found and found.groups()


@pytest.fixture
def windows():
    opened = []

    def open_window(url):
        opened.append(Browser(url))
        opened[-1].open()
        return opened[-1]

    yield open_window
    for window in opened:
        window.session.close()


def log_in(window, user):
    window.follow("login")
    window.press(user.name)
    assert window.user() == (user.name, user.org_id)


def test_login_with_zoho(workspace, zoho, ada, windows):
    """Two users stay logged in over a restart and are never confused. A logout affects only its user."""
    bob = zoho.add_user("bob@example.com", "1002")
    server, url = workspace.serve(*FLASK, 0)
    port = urlsplit(url).port
    ada_window, bob_window = windows(url), windows(url)
    log_in(ada_window, ada)
    log_in(bob_window, bob)
    assert workspace.rows() == [("1", ada.name), ("2", bob.name)]

    workspace.stop(server)
    workspace.serve(*FLASK, port)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(Browser.fetch_user, [ada_window, bob_window] * 8))
    assert seen == [(ada.name, "1001"), (bob.name, "1002")] * 8
    assert zoho.logins == zoho.token_calls == 2

    workspace.let_an_hour_pass()
    ada_window.open()
    assert zoho.refreshes == 1

    ada_window.press("Log out")
    assert ada_window.user() is None
    assert workspace.rows() == [("2", bob.name)]
    assert zoho.revocations == 1
    bob_window.open()
    assert bob_window.user() == (bob.name, "1002")
    log_in(ada_window, ada)
    assert workspace.rows() == [("2", bob.name), ("3", ada.name)]


def test_rejected_logins(workspace, zoho, ada, windows):
    """A refused consent, a foreign `state` and a revoked token do not log a user in."""
    _, url = workspace.serve(*FLASK, 0)
    window = windows(url)
    window.follow("login")
    window.press("No")
    assert window.user() is None
    for query in ("", "&state=", "&state=guessed"):
        window.open(f"/callback?code={zoho.grant_code(ada)}{query}")
        assert window.page.status_code == 400
    assert zoho.token_calls == 0
    window.open()
    log_in(window, ada)
    zoho.revoke_user(ada)
    workspace.let_an_hour_pass()
    window.open()
    assert "Your login is no longer valid." in window.page.text
    log_in(window, ada)


def test_while_zoho_does_not_refresh(workspace, zoho, ada, windows):
    """Denials, back-off and an outage end no login. The page says when to try again, and then it works."""
    _, url = workspace.serve(*FLASK, 0)
    window = windows(url)
    log_in(window, ada)
    workspace.let_an_hour_pass()
    zoho.deny_next(2)
    for _ in range(2):
        window.open()
        assert (window.page.status_code, "Please try again later." in window.page.text) == (503, True)
    window.open()  # the store backs off
    seconds = window.page.headers["Retry-After"]
    assert (window.page.status_code, f"Please try again in {seconds} s." in window.page.text) == (503, True)
    assert (zoho.token_calls, zoho.denials) == (3, 2)
    time.sleep(int(seconds))
    window.follow("again")
    assert window.user() == (ada.name, "1001")

    zoho.stop()
    window.open()
    assert (window.page.status_code, "no longer valid" in window.page.text) == (503, False)
    zoho.start()
    window.follow("again")
    assert window.user() == (ada.name, "1001")
    assert zoho.logins == 1


def test_a_logout_that_zoho_does_not_confirm(workspace, zoho, ada, windows):
    """The row is kept until the token is revoked. Two browsers of a user can log out."""
    _, url = workspace.serve(*FLASK, 0)
    window, second = windows(url), windows(url)
    for each in (window, second):
        log_in(each, ada)
    zoho.fail_next(status=503, target="revoke")
    window.press("Log out")
    assert (window.page.status_code, "you are still logged in" in window.page.text) == (503, True)
    assert workspace.rows() == [("1", ada.name)]
    window.follow("again")
    assert window.user() == (ada.name, "1001")

    zoho.fail_next(status=200, body={"error": "invalid_code"}, target="revoke")
    window.press("Log out")
    assert "Zoho has not revoked" in window.page.text
    assert workspace.rows() == [("1", ada.name)]
    window.open()
    assert window.user() is None
    log_in(window, ada)

    second.open()
    window.press("Log out")
    assert (window.user(), workspace.rows(), zoho.revocations) == (None, [], 1)
    second.press("Log out")
    assert (second.page.status_code, second.user()) == (200, None)


def test_a_refused_access_token(workspace, zoho, ada, windows):
    """A refused access token is replaced. If the user has revoked everything, the login is over."""
    _, url = workspace.serve(*FLASK, 0)
    window = windows(url)
    log_in(window, ada)
    zoho.fail_next(status=401, body={"code": "INVALID_TOKEN", "message": "invalid oauth token"}, target="api")
    window.open()
    assert (window.user(), zoho.refreshes) == ((ada.name, "1001"), 1)
    zoho.revoke_user(ada)
    window.open()
    assert "Your login is no longer valid." in window.page.text
    log_in(window, ada)


def test_a_data_centre_that_is_not_configured(workspace, ada, windows):
    """A row of an unknown data centre gets a page that says so, and a deleted row a new login."""
    _, url = workspace.serve(*FLASK, 0)
    window = windows(url)
    log_in(window, ada)
    with CustomStoreSQLite(workspace.database) as store:
        [token] = store.get_tokens()
        token.set_api_domain("https://www.zohoapis.example")
        store.save_token(token)
    window.open()
    assert (window.page.status_code, "is not configured" in window.page.text) == (503, True)
    with CustomStoreSQLite(workspace.database) as store:
        store.delete_tokens()
    window.open()
    assert "Your login is no longer valid." in window.page.text
    log_in(window, ada)


def test_logins_in_two_data_centres(workspace, zoho, ada, windows):
    """Login, call, refresh and revocation go to the user's data centre, for two users in the same threads."""
    with ZohoStandIn(location="eu") as eu:
        zoho.know_data_centre(eu)
        bob = eu.add_user("bob@example.com", "1002")
        _, url = workspace.serve(*FLASK, 0, STAND_IN_EU=eu.url)
        ada_window, bob_window = windows(url), windows(url)
        log_in(ada_window, ada)
        log_in(bob_window, bob)
        workspace.let_an_hour_pass()
        eu.clock = lambda clock=eu.clock: clock() + HOUR_SECONDS
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(Browser.fetch_user, [ada_window, bob_window] * 8))
        assert seen == [(ada.name, "1001"), (bob.name, "1002")] * 8
        bob_window.press("Log out")
        for centre, revocations in ((zoho, 0), (eu, 1)):
            assert (centre.logins, centre.refreshes, centre.revocations) == (1, 1, revocations)
        assert {call.outcome for centre in (zoho, eu) for call in centre.calls} == {"ok"}
        assert workspace.rows() == [("1", ada.name)]


def test_a_forged_callback_gets_no_secret(workspace, zoho, ada, windows):
    """The code and the client secret go to a data centre of the list, never to the server in `accounts-server`."""
    with ZohoStandIn(location="eu") as eu, ZohoStandIn() as forged:
        zoho.know_data_centre(eu)
        _, url = workspace.serve(*FLASK, 0, STAND_IN_EU=eu.url)
        window = windows(url)

        def come_back(location):
            """Follow the redirect of the consent page after it was changed. Return its code."""
            window.open()
            window.follow("login")
            [state] = parse_qs(urlsplit(window.page.url).query)["state"]
            query = {"code": zoho.grant_code(ada), "state": state, "location": location}
            window.open("/callback?" + urlencode({**query, "accounts-server": forged.url}))
            return window.page

        assert come_back(forged.url).status_code == come_back("").status_code == 400
        assert "Zoho did not accept this login." in come_back("eu").text
        assert workspace.rows() == []
        assert (zoho.token_calls, eu.token_calls) == (0, 1)
        come_back("us")
        assert window.user() == (ada.name, "1001")
        assert zoho.logins == 1
        assert forged.calls == []


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_gunicorn(workspace, zoho, ada):
    """Four preloaded workers together make one token call at the start and one after an expiry."""
    refresh_token = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada)}
    _, url = workspace.serve(
        *("-m", "gunicorn", "--workers", 4, "--preload", "--bind", "127.0.0.1:0", "--no-control-socket"),
        *("--pythonpath", EXAMPLES, "gunicorn_app:app"),
        **refresh_token,
    )

    def call(_number):
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=TIMEOUT_SECONDS).text

    zoho.latency = zoho.api_latency = 0.1
    with ThreadPoolExecutor(8) as pool:
        seen = set()
        while len(seen) < 4:  # until each worker has answered; pytest's timeout ends a loop that never does
            seen |= {answer.split()[-1] for answer in pool.map(call, range(8))}
        assert zoho.token_calls == 1
        workspace.let_an_hour_pass()
        answers = list(pool.map(call, range(32)))
    assert {answer.split(",")[0] for answer in answers} == {"organisation 1001"}
    assert {answer.split()[-1] for answer in answers} == seen
    assert zoho.token_calls == 2
