"""The example of a login with Zoho in a real browser (`make test-browser`); `make test` has the flow without one.

It is not named as a test, so that only who names it runs it: a fresh machine has no browser.
"""

import shutil
from urllib.parse import urlsplit

import pytest
from examples.conftest import EXAMPLES
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.wait import WebDriverWait

WITHIN = 30  # seconds for a page to come
FLASK = ("-m", "flask", "--app", EXAMPLES / "flask_login.py", "run", "--port")
# A container has no user namespaces for the sandbox; the rest keeps the browser from calling anybody.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--proxy-server=direct://",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def where(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.fail(
        f"this test needs {' or '.join(names)} (Debian: apt-get install chromium chromium-driver)"
    )


class Window:
    """A window of a browser with a profile of its own."""

    def __init__(self, profile):
        options = webdriver.ChromeOptions()
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.binary_location = where(*BROWSERS)
        # Named, or Selenium looks for one on the network.
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(where("chromedriver")))
        self.driver.set_page_load_timeout(WITHIN)

    def open(self, url):
        self.driver.get(url)

    def click(self, by, value):
        """Click, and wait until the page that was there is gone and the next is complete.

        The page is asked for a mark rather than an element of it for its staleness: between two pages the driver has
        no one error for "stale", and what it says then is no failure but a reason to ask again, for `WITHIN` at most.
        """
        element = WebDriverWait(self.driver, WITHIN).until(expected_conditions.element_to_be_clickable((by, value)))
        self.driver.execute_script("window.clicked = true")
        element.click()
        WebDriverWait(self.driver, WITHIN, ignored_exceptions=(WebDriverException,)).until(
            lambda driver: driver.execute_script("return !window.clicked && document.readyState === 'complete'")
        )

    def log_in(self, user):
        self.click(By.ID, "login")
        self.click(By.XPATH, f"//button[text()='{user.name}']")

    def user(self):
        """Who the page says is logged in; `None` if it offers a login."""
        WebDriverWait(self.driver, WITHIN).until(
            expected_conditions.any_of(
                *(expected_conditions.presence_of_element_located((By.ID, one)) for one in ("user", "login"))
            )
        )
        found = self.driver.find_elements(By.ID, "user")
        return found[0].text if found else None


@pytest.fixture
def window(tmp_path):
    opened = []

    def open_window(url):
        opened.append(Window(tmp_path / f"profile-{len(opened)}"))
        opened[-1].open(url)
        return opened[-1]

    yield open_window
    for one in opened:
        one.driver.quit()


@pytest.mark.timeout(10 * WITHIN)  # more than all its waits that can come to their end in a run that passes
def test_two_users_in_two_windows(stage, zoho, ada, window):
    """Two users log in in two windows, are still so after a restart, and one's logout leaves the other's login."""
    bob = zoho.add_user("bob@example.com", "1002")
    server, url = stage.serve(*FLASK, 0)
    hers, his = window(url), window(url)
    assert (hers.user(), his.user()) == (None, None)
    hers.log_in(ada)
    his.log_in(bob)
    assert (hers.user(), his.user()) == (ada.name, bob.name)
    assert zoho.logins == 2

    stage.end(server)
    stage.serve(*FLASK, urlsplit(url).port)
    for one in (hers, his):
        one.open(url)
    assert (hers.user(), his.user()) == (ada.name, bob.name)
    assert zoho.token_calls == 2

    hers.click(By.ID, "logout")
    assert hers.user() is None
    his.open(url)
    assert his.user() == bob.name
    assert zoho.revocations == 1
    assert stage.rows() == [("2", bob.name)]
