"""The examples that serve: several users of a web application, and several workers of one user."""

import html
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from .conftest import EXAMPLES, WITHIN

FLASK = ("-m", "flask", "--app", EXAMPLES / "flask_login.py", "run", "--port")


class Browser:
    """A window with cookies of its own: it follows redirects, links by their id, and buttons by their label."""

    def __init__(self, url):
        self.session = requests.Session()
        self.session.trust_env = False
        self.url = url
        self.page = None

    def open(self, path="/"):
        self._show(self.session.get(urljoin(self.url, path), timeout=WITHIN))

    def follow(self, link):
        [target] = re.findall(rf'<a id="{link}" href="([^"]+)"', self.page.text)
        self._show(self.session.get(urljoin(self.page.url, html.unescape(target)), timeout=WITHIN))

    def press(self, label):
        """Press a button of the page's form. Its name and value go along if it has them."""
        [(attributes, value)] = re.findall(
            rf'<button(?: id="\w+")?( name="user" value="([^"]+)")?>{label}<', self.page.text
        )
        form = re.search(r'<form method="post"(?: action="([^"]+)")?>', self.page.text)
        target = urljoin(self.page.url, form[1] or "")
        self._show(self.session.post(target, data={"user": value} if attributes else None, timeout=WITHIN))

    def user(self):
        """Who the application says is logged in, and in which organisation."""
        return who(self.page)

    def look(self):
        """Open the first page beside what the window shows; return who it says is logged in."""
        return who(self.session.get(self.url, timeout=WITHIN))

    def _show(self, response):
        self.page = response


def who(page):
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


def test_login_with_zoho(stage, zoho, ada, windows):
    """Two users log in, stay so over a restart, are never taken for each other, and one's logout is theirs alone."""
    bob = zoho.add_user("bob@example.com", "1002")
    server, url = stage.serve(*FLASK, 0)
    port = urlsplit(url).port
    hers, his = windows(url), windows(url)
    log_in(hers, ada)
    log_in(his, bob)
    assert stage.rows() == [("1", ada.name), ("2", bob.name)]

    stage.end(server)
    stage.serve(*FLASK, port)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(Browser.look, [hers, his] * 8))
    assert seen == [(ada.name, "1001"), (bob.name, "1002")] * 8
    assert zoho.logins == zoho.token_calls == 2

    stage.let_an_hour_pass()
    hers.open()
    assert zoho.refreshes == 1

    hers.press("Log out")
    assert hers.user() is None
    assert stage.rows() == [("2", bob.name)]
    assert zoho.revocations == 1
    his.open()
    assert his.user() == (bob.name, "1002")
    log_in(hers, ada)
    assert stage.rows() == [("2", bob.name), ("3", ada.name)]


def test_logins_that_are_none(stage, zoho, ada, windows):
    """Nobody is logged in who refuses, whose login was begun elsewhere, or who has revoked it at Zoho."""
    _, url = stage.serve(*FLASK, 0)
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
    stage.let_an_hour_pass()
    window.open()
    assert "Zoho does not know you any more" in window.page.text
    log_in(window, ada)


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_gunicorn(stage, zoho, ada):
    """Four preloaded workers log in once, and at an expiry one of them refreshes for all."""
    refresh_token = {"ZOHO_REFRESH_TOKEN": zoho.refresh_token(ada)}
    _, url = stage.serve(
        *("-m", "gunicorn", "--workers", 4, "--preload", "--bind", "127.0.0.1:0", "--no-control-socket"),
        *("--pythonpath", EXAMPLES, "gunicorn_app:app"),
        **refresh_token,
    )

    def ask(_number):
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, timeout=WITHIN).text

    zoho.latency = zoho.api_latency = 0.1
    with ThreadPoolExecutor(8) as pool:
        seen = set()
        while len(seen) < 4:  # each of them is up; the test's time limit bounds it
            seen |= {answer.split()[-1] for answer in pool.map(ask, range(8))}
        assert zoho.token_calls == 1
        stage.let_an_hour_pass()
        answers = list(pool.map(ask, range(32)))
    assert {answer.split(",")[0] for answer in answers} == {"organisation 1001"}
    assert {answer.split()[-1] for answer in answers} == seen
    assert zoho.token_calls == 2
