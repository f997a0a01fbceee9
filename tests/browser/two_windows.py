"""The example `flask_login` in a real browser (`make test-browser`). `tests/examples` has the same flow without one.

The file's name keeps pytest from collecting it: not every machine has a browser.
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

TIMEOUT_SECONDS = 30  # for every wait for a page
FLASK = ("-m", "flask", "--app", EXAMPLES / "flask_login.py", "run", "--port")
# Without `--no-sandbox` Chromium does not start in a container, which has no user namespaces for it. The last options
# keep it from connecting to other machines.
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


def find_program(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.fail(
        f"this test needs {' or '.join(names)} (Debian: apt-get install chromium chromium-driver)"
    )


class Window:
    """A browser window with its own profile."""

    def __init__(self, profile):
        options = webdriver.ChromeOptions()
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.binary_location = find_program(*BROWSERS)
        # Without a path to the driver, Selenium would download one.
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(find_program("chromedriver")))
        self.driver.set_page_load_timeout(TIMEOUT_SECONDS)

    def open(self, url):
        self.driver.get(url)

    def click(self, by, value):
        """Click, and wait until the next page is complete.

        The wait polls for a property of the old window. Polling for a stale element is not reliable: between two pages
        the driver raises various errors. They are ignored until the timeout.
        """
        element = WebDriverWait(self.driver, TIMEOUT_SECONDS).until(
            expected_conditions.element_to_be_clickable((by, value))
        )
        self.driver.execute_script("window.clicked = true")
        element.click()
        WebDriverWait(self.driver, TIMEOUT_SECONDS, ignored_exceptions=(WebDriverException,)).until(
            lambda driver: driver.execute_script("return !window.clicked && document.readyState === 'complete'")
        )

    def log_in(self, user):
        self.click(By.ID, "login")
        self.click(By.XPATH, f"//button[text()='{user.name}']")

    def user(self):
        """Return the logged-in user on the page, or `None` if it offers a login."""
        WebDriverWait(self.driver, TIMEOUT_SECONDS).until(
            expected_conditions.any_of(
                *(expected_conditions.presence_of_element_located((By.ID, name)) for name in ("user", "login"))
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
    for each in opened:
        each.driver.quit()


@pytest.mark.timeout(10 * TIMEOUT_SECONDS)  # a run that passes needs less time
def test_two_users_in_two_windows(workspace, zoho, ada, window):
    """Two users log in in two windows and stay logged in over a restart. The logout of one leaves the other's login."""
    bob = zoho.add_user("bob@example.com", "1002")
    server, url = workspace.serve(*FLASK, 0)
    ada_window, bob_window = window(url), window(url)
    assert (ada_window.user(), bob_window.user()) == (None, None)
    ada_window.log_in(ada)
    bob_window.log_in(bob)
    assert (ada_window.user(), bob_window.user()) == (ada.name, bob.name)
    assert zoho.logins == 2

    workspace.stop(server)
    workspace.serve(*FLASK, urlsplit(url).port)
    for each in (ada_window, bob_window):
        each.open(url)
    assert (ada_window.user(), bob_window.user()) == (ada.name, bob.name)
    assert zoho.token_calls == 2

    ada_window.click(By.ID, "logout")
    assert ada_window.user() is None
    bob_window.open(url)
    assert bob_window.user() == bob.name
    assert zoho.revocations == 1
    assert workspace.rows() == [("2", bob.name)]
