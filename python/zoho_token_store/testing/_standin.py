"""The stand-in: a server in a thread of this process, and the methods that control it."""

import inspect
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from werkzeug.serving import make_server

from ._accounts import Accounts
from ._app import App, QuietHandler
from ._failures import ACCESS_DENIED, ERROR_PAGE, Failure
from ._proxies import bypass_proxies, restore_proxies
from ._records import Call, Client, User
from ._settings import Settings
from ._state import State
from ._state_file import read_state

if TYPE_CHECKING:
    from typing_extensions import Self  # `typing` has it from Python 3.11 on
    from werkzeug.serving import BaseWSGIServer

HOST = "127.0.0.1"
_POLL_SECONDS = 0.02  # how often the server checks whether to stop
_STOP_TIMEOUT_SECONDS = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class ZohoStandIn(Settings):
    """A local stand-in for Zoho: ``with ZohoStandIn(latency=0.2) as zoho: ...``.

    Any number of threads and processes may send it requests. All methods are thread-safe. While it is stopped, the
    tokens that it issued stay valid. After a restart it has the same URL.

    While it runs, `NO_PROXY` of this process names 127.0.0.1: a proxy of the environment would not reach the stand-in.

    Its arguments are the attributes of `Settings`, by name, and:

    Args:
        port: the port to listen on. 0 means a free one at the first start. The attribute is the port while it runs.
        location: the name of the data centre, as Zoho sends it to a callback: `"us"`, `"eu"`, `"in"`.
        state_file: a file that keeps the clients, users and tokens for the next stand-in with this file. Only its owner
            can read it. Without it, every stand-in starts empty.

    Raises:
        ValueError: `state_file` is a file of another kind.

    """

    port: int = 0
    location: str = "us"
    state_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Register one client, or the clients of the state file. The server does not listen yet."""
        file = None if self.state_file is None else os.path.abspath(self.state_file)  # noqa: PTH100 - `chdir` is no move
        self._state = State(self, Accounts(self), self.location, file)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._has_url = False
        kept = None if file is None else read_state(file)
        self._client = self.add_client() if kept is None else self._state.accounts.load(kept, time.time())

    # Running

    def start(self) -> "Self":
        """Listen on 127.0.0.1, on `port`. After a `stop` it is the same port.

        Raises:
            RuntimeError: The stand-in is running already.
            OSError: Another program has taken the port.

        """
        if self._server is not None:
            raise RuntimeError("the stand-in is running already")
        # A new event for each run. Calls of the previous run keep the old one, which stays set and ends their delays.
        self._stopping = threading.Event()
        app = App(self._state, self._stopping)
        try:
            server = make_server(HOST, self.port, app, threaded=True, request_handler=QuietHandler)
        except SystemExit as error:  # Werkzeug exits if the port is taken
            raise OSError(f"cannot listen on {HOST}:{self.port}") from error
        self.port = server.port
        self._has_url = True
        with self._state.lock:
            self._state.accounts.api_domain = self.url
        self._server = server
        bypass_proxies(HOST)
        self._thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_SECONDS,), name="zoho-stand-in", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening, and end the delay of all waiting calls. A second `stop` does nothing."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        self._stopping.set()
        restore_proxies()
        server.shutdown()
        thread.join(_STOP_TIMEOUT_SECONDS)

    def __enter__(self) -> "Self":
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()

    def __repr__(self) -> str:
        """Return the URL and the number of token calls."""
        where = self.url if self._has_url else "not started"
        return f"<ZohoStandIn {where}, token_calls={self.token_calls}>"

    @property
    def url(self) -> str:
        """The base URL, ``http://127.0.0.1:<port>``. It is also the API domain in the answers to logins.

        Raises:
            RuntimeError: The stand-in was never started.

        """
        if not self._has_url:
            raise RuntimeError("the stand-in has no URL before it is started")
        return f"http://{HOST}:{self.port}"

    @property
    def accounts_url(self) -> str:
        """The URL of the token endpoint. The URL of the revoke endpoint is this one with ``/revoke`` at the end."""
        return f"{self.url}/oauth/v2/token"

    @property
    def consent_url(self) -> str:
        """The URL of the consent page, as Zoho's ``/oauth/v2/auth``.

        A program sends its user's browser there with ``client_id``, ``redirect_uri`` and ``state``. The page has a
        button for each registered user. The browser returns to the program with a grant code.
        """
        return f"{self.url}/oauth/v2/auth"

    def environment(self) -> object:
        """Return a `DataCenter.Environment` of the installed SDK with only URLs of this stand-in.

        Raises:
            ImportError: No SDK is installed.
            RuntimeError: The stand-in was never started.

        """
        try:
            from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter  # noqa: PLC0415 - a slow import
        except ImportError as error:
            raise ImportError("environment() needs a Zoho CRM SDK: pip install zohocrmsdk8_0") from error
        urls = {"url": self.url, "accounts_url": self.accounts_url, "file_upload_url": self.url}
        if "name" in inspect.signature(DataCenter.Environment).parameters:  # SDK 5
            urls["name"] = "stand-in"
        environment: object = DataCenter.Environment(**urls)
        return environment

    # Clients, users and their credentials

    @property
    def client_id(self) -> str:
        """The id of the client that the stand-in registers at its creation."""
        return self._client.id

    @property
    def client_secret(self) -> str:
        """The secret of that client."""
        return self._client.secret

    def add_client(self, redirect_url: str | None = None) -> Client:
        """Register another client. If it has a redirect URL, each login must send the same one."""
        with self._state.change():
            return self._state.accounts.add_client(redirect_url)

    def know_client(self, client: Client) -> None:
        """Register a client of another stand-in. At Zoho, too, production and the sandbox share their clients."""
        with self._state.change():
            self._state.accounts.know_client(client)

    def know_data_centre(self, other: "ZohoStandIn") -> None:
        """Make this stand-in and another one data centres of one Zoho. Each of them needs a `location` of its own.

        On the consent page of either, users of both can log in. The callback gets the `location` and the
        `accounts-server` of the user's data centre. Both know the same clients. A code or token of one is invalid at
        the other.
        """
        self._state.others.append(other._state)  # noqa: SLF001 - an object of the same class
        other._state.others.append(self._state)  # noqa: SLF001
        self.know_client(other._client)  # noqa: SLF001
        other.know_client(self._client)

    def add_user(self, email: str, org_id: str | None = None) -> User:
        """Register a user. Without `org_id` the user gets a new organisation."""
        with self._state.change():
            return self._state.accounts.add_user(email, org_id)

    def grant_code(self, user: User | str, client: Client | None = None) -> str:
        """Issue a grant code, valid for one login of this user with this client.

        A string is an e-mail address and means the first user with it. If there is none, the user is registered.
        """
        with self._state.change():
            return self._state.accounts.grant_code(user, client or self._client)

    def refresh_token(self, user: User | str, client: Client | None = None) -> str:
        """Issue a refresh token without a login. It is not recorded as a call."""
        with self._state.change():
            return self._state.accounts.authorize(user, client or self._client)

    def access_token(self, user: User | str, client: Client | None = None) -> str:
        """Issue an access token without a login. Its refresh token is not returned."""
        with self._state.change():
            return self._state.accounts.access_token(user, client or self._client)

    def revoke_user(self, user: User | str) -> int:
        """Revoke all tokens of a user, as the user can on Zoho's site. Return the number of refresh tokens."""
        with self._state.change():
            return self._state.accounts.revoke_user(user)

    # Failures

    def fail_next(  # noqa: PLR0913 - all but the first are keyword-only
        self,
        count: int = 1,
        *,
        status: int = 500,
        body: Mapping[str, object] | str = ERROR_PAGE,
        drop: bool = False,
        hang: float = 0.0,
        target: Literal["token", "revoke", "api"] = "token",
    ) -> None:
        """Make the next `count` calls of `target` fail. `Failure` describes the other arguments.

        The targets are the token endpoint, the revoke endpoint and the CRM's API. The API includes the user look-ups
        after a login.

        Raises:
            ValueError: `count` is below 1, `hang` is negative or `target` is unknown.

        """
        with self._state.lock:
            self._state.failures.inject(count, Failure(status, body, drop, hang), target)

    def deny_next(self, count: int = 1) -> None:
        """Answer the next `count` token calls with "Access Denied", as Zoho does above its limit.

        Raises:
            ValueError: `count` is below 1.

        """
        self.fail_next(count, status=200, body=ACCESS_DENIED)

    def clear_failures(self) -> None:
        """Remove the injected failures that have not happened yet."""
        with self._state.lock:
            self._state.failures.clear()

    # The record

    @property
    def calls(self) -> list[Call]:
        """A copy of the record: every call since the last `clear_calls`, in the order of arrival."""
        with self._state.lock:
            return list(self._state.calls)

    def clear_calls(self) -> None:
        """Clear the record."""
        with self._state.lock:
            self._state.calls.clear()

    @property
    def logins(self) -> int:
        """The number of logins: token calls with a grant code, successful or not."""
        return self._count("login")

    @property
    def refreshes(self) -> int:
        """The number of refreshes: token calls with a refresh token, successful or not."""
        return self._count("refresh")

    @property
    def token_calls(self) -> int:
        """The number of calls of the token endpoint, successful or not."""
        return self._count("login", "refresh", "token")

    @property
    def denials(self) -> int:
        """The number of calls answered with "Access Denied"."""
        return sum(call.outcome == "Access Denied" for call in self.calls)

    @property
    def revocations(self) -> int:
        """The number of successful revocations."""
        return sum(call.kind == "revoke" and call.outcome == "ok" for call in self.calls)

    @property
    def api_calls(self) -> int:
        """The number of calls of the CRM's API, successful or not, including the user look-ups after a login."""
        return self._count("user", "org", "api")

    def _count(self, *kinds: str) -> int:
        return sum(call.kind in kinds for call in self.calls)
