"""A program with the real SDK and a stand-in for Zoho, for the tests of the refresh lease.

The SDK keeps its settings per process, so each process makes one `Program`.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from support import token
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoho_token_store import TokenStoreBase

LOG = logging.getLogger("zoho_token_store")
LONGER_THAN_ANY_TEST = 300  # seconds; if a test waits until the lease expires, it fails


class RecordingHandler(logging.Handler):
    """Records the store's log lines. In them, `FILE` stands for the path of the store's file."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self.path = str(path)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}".replace(self.path, "FILE"))


class Program:
    """A program whose SDK refreshes the tokens of ada@example.com, and maybe of others, at a stand-in for Zoho."""

    def __init__(self, path: Path) -> None:
        self._recorder = RecordingHandler(path)
        self.log = self._recorder.lines
        LOG.addHandler(self._recorder)
        LOG.setLevel(logging.DEBUG)
        logging.getLogger("zoho_token_store.testing").propagate = False
        logging.raiseExceptions = False  # some of the SDK's own log calls have a wrong format
        self.zoho = ZohoStandIn(latency=0.05).start()
        self.credentials = self.new_credentials("ada@example.com")
        Initializer.initializer = Initializer()
        Initializer.initializer.environment = self.zoho.environment()
        Initializer.initializer.sdk_config = SDKConfig()

    def new_credentials(self, user: str) -> dict[str, str]:
        """Return a client and a new refresh token for a user."""
        zoho = self.zoho
        return {
            "client_id": zoho.client_id,
            "client_secret": zoho.client_secret,
            "refresh_token": zoho.refresh_token(user),
        }

    def use(self, store: TokenStoreBase) -> TokenStoreBase:
        """Let the SDK use a store, and return it. The program itself keeps no reference to it."""
        Initializer.initializer.store = store
        return store

    def save_expired_token(self) -> None:
        """Save a token for ada whose access token has expired, and clear the log."""
        expired = token("ada@example.com", **self.credentials, access_token="expired", expires_in="1")
        Initializer.initializer.store.save_token(expired)
        self.log.clear()

    def get_token(self, by: str = "id") -> str:
        """Get an access token as the SDK does before each API call: by the id 1, or by ada's refresh token."""
        asked = OAuthToken(id="1") if by == "id" else OAuthToken(**self.credentials)
        return asked.get_token()

    def fail_to_refresh(self, by: str = "id") -> Exception:
        """Make one refresh fail, and return its exception. The exception keeps the frames of the call alive."""
        self.zoho.fail_next(1)
        try:
            self.get_token(by)
        except Exception as error:  # noqa: BLE001 - each version of the SDK raises another class
            return error
        raise AssertionError("the refresh did not fail")

    def begin_refresh(self, by: str = "id") -> threading.Thread:
        """Begin a refresh in another thread, and wait until Zoho has received its call."""
        calls = self.zoho.token_calls
        thread = start_thread(lambda: self.get_token(by))
        wait_until(lambda: self.zoho.token_calls == calls + 1)
        return thread

    def waiting(self) -> int:
        """Return how many calls have logged that they wait for another's refresh."""
        return sum(line.endswith(": waiting") for line in self.log)


def start_thread(work: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until a condition is true, and fail after some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.005)


def lease_keys(path: Path) -> list[str]:
    """Return the keys in the lease table of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM zoho_token_lease")]
