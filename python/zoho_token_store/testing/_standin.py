"""The stand-in itself: a server in a thread of this process, and what a test says to it."""

import inspect
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from werkzeug.serving import make_server

from ._accounts import Accounts
from ._app import App, QuietHandler
from ._failures import ACCESS_DENIED, ERROR_PAGE, Failure
from ._records import Call, Client, User
from ._settings import Settings
from ._state import State

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's from Python 3.11 on
    from werkzeug.serving import BaseWSGIServer

HOST = "127.0.0.1"
# Seconds: how often the server looks whether it is to stop, and how long stopping may take.
_POLL = 0.02
_STOP_WITHIN = 5.0


@dataclass(kw_only=True, eq=False, repr=False)
class ZohoStandIn(Settings):
    """Zoho on this machine: ``with ZohoStandIn(latency=0.2) as zoho: ...``.

    Any number of threads and processes may call it, and every method may be used from any thread. What it
    issued stays good while it is stopped, and it comes back at the same URL.

    Args: the attributes of `Settings`, by name.
    """

    def __post_init__(self) -> None:
        """Know one client, and nobody else; listen to nothing yet."""
        self._state = State(self, Accounts(self))
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._port = 0
        self._client = self.add_client()

    # Running

    def start(self) -> "Self":
        """Listen, on a free port the first time and on the same one after a `stop`; on 127.0.0.1 alone.

        Raises:
            RuntimeError: it is running already.
            OSError: another program has taken the port since the `stop`.

        """
        if self._server is not None:
            raise RuntimeError("the stand-in is running already")
        # An event per run: calls that still hang from the run before stay released.
        self._stopping = threading.Event()
        app = App(self._state, self._stopping)
        try:
            server = make_server(HOST, self._port, app, threaded=True, request_handler=QuietHandler)
        except SystemExit as error:  # what Werkzeug makes of a port that is taken
            raise OSError(f"cannot listen on {HOST}:{self._port}") from error
        self._port = server.port
        with self._state.lock:
            self._state.accounts.api_domain = self.url
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(_POLL,), name="zoho-stand-in", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening, and let calls that wait for their answer have it. A second `stop` does nothing."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        self._stopping.set()
        server.shutdown()
        thread.join(_STOP_WITHIN)

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
        """Where it listens, and how often it was asked for tokens."""
        where = "not started" if self._port == 0 else self.url
        return f"<ZohoStandIn {where}, token_calls={self.token_calls}>"

    @property
    def url(self) -> str:
        """The base URL, ``http://127.0.0.1:<port>``: the API's, and the API domain that logins answer with.

        Raises:
            RuntimeError: it was never started.

        """
        if self._port == 0:
            raise RuntimeError("the stand-in has no URL before it is started")
        return f"http://{HOST}:{self._port}"

    @property
    def accounts_url(self) -> str:
        """The token endpoint's URL; ``/revoke`` behind it is the revoke endpoint's."""
        return f"{self.url}/oauth/v2/token"

    @property
    def consent_url(self) -> str:
        """The URL of the page where users log in and agree to what a client wants: Zoho's ``/oauth/v2/auth``.

        A program sends its user's browser there, with ``client_id``, ``redirect_uri`` and ``state``. The page has a
        button for each registered user; the browser comes back with a grant code.
        """
        return f"{self.url}/oauth/v2/auth"

    def environment(self) -> object:
        """Make a `DataCenter.Environment` of the installed SDK that points here alone.

        Raises:
            ImportError: no SDK is installed.
            RuntimeError: the stand-in was never started.

        """
        try:
            from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter  # noqa: PLC0415 - it is slow
        except ImportError as error:
            raise ImportError("environment() needs a Zoho CRM SDK: pip install zohocrmsdk8_0") from error
        urls = {"url": self.url, "accounts_url": self.accounts_url, "file_upload_url": self.url}
        if "name" in inspect.signature(DataCenter.Environment).parameters:  # SDK 5
            urls["name"] = "stand-in"
        environment: object = DataCenter.Environment(**urls)
        return environment

    # Who is known, and what they were given

    @property
    def client_id(self) -> str:
        """The id of the client that is registered from the beginning."""
        return self._client.id

    @property
    def client_secret(self) -> str:
        """Its secret."""
        return self._client.secret

    def add_client(self, redirect_url: str | None = None) -> Client:
        """Register one more client. With a redirect URL, its logins must name the same one."""
        with self._state.lock:
            return self._state.accounts.add_client(redirect_url)

    def know_client(self, client: Client) -> None:
        """Register a client of another stand-in's, as production and the sandbox know the same ones."""
        with self._state.lock:
            self._state.accounts.know_client(client)

    def add_user(self, email: str, org_id: str | None = None) -> User:
        """Register a user, in an organisation of their own unless one is named."""
        with self._state.lock:
            return self._state.accounts.add_user(email, org_id)

    def grant_code(self, user: User | str, client: Client | None = None) -> str:
        """Issue a grant code: good for one login of this user by this client.

        A string is an e-mail address: the first user with it, who is registered if there is none.
        """
        with self._state.lock:
            return self._state.accounts.grant_code(user, client or self._client)

    def refresh_token(self, user: User | str, client: Client | None = None) -> str:
        """Issue a refresh token, as a login elsewhere would have brought. It counts as no call."""
        with self._state.lock:
            return self._state.accounts.authorize(user, client or self._client)

    def access_token(self, user: User | str, client: Client | None = None) -> str:
        """Issue an access token in the same way, with a refresh token of its own that nobody gets to know."""
        with self._state.lock:
            return self._state.accounts.access_token(user, client or self._client)

    def revoke_user(self, user: User | str) -> int:
        """Revoke all a user was issued, as the user can on Zoho's site. Returns how many refresh tokens."""
        with self._state.lock:
            return self._state.accounts.revoke_user(user)

    # Failures

    def fail_next(  # noqa: PLR0913 - all but the first by name
        self,
        count: int = 1,
        *,
        status: int = 500,
        body: Mapping[str, object] | str = ERROR_PAGE,
        drop: bool = False,
        hang: float = 0.0,
        target: Literal["token", "revoke", "api"] = "token",
    ) -> None:
        """Let the next `count` calls of `target` fail; `Failure` says what the other arguments mean.

        The targets are the token endpoint, the revoke endpoint, and the CRM's API with the look-ups after a
        login.

        Raises:
            ValueError: `count` is below 1, `hang` is negative or `target` is unknown.

        """
        with self._state.lock:
            self._state.failures.order(count, Failure(status, body, drop, hang), target)

    def deny_next(self, count: int = 1) -> None:
        """Answer the next `count` token calls with "Access Denied", as beyond the limit.

        Raises:
            ValueError: `count` is below 1.

        """
        self.fail_next(count, status=200, body=ACCESS_DENIED)

    def clear_failures(self) -> None:
        """Forget the failures that were ordered and have not happened yet."""
        with self._state.lock:
            self._state.failures.clear()

    # The record

    @property
    def calls(self) -> list[Call]:
        """Every call since the start or the last `clear_calls`, in the order of arrival: a copy."""
        with self._state.lock:
            return list(self._state.calls)

    def clear_calls(self) -> None:
        """Begin the record anew."""
        with self._state.lock:
            self._state.calls.clear()

    @property
    def logins(self) -> int:
        """Calls for tokens with a grant code, whatever came of them."""
        return self._count("login")

    @property
    def refreshes(self) -> int:
        """Calls for an access token with a refresh token, whatever came of them."""
        return self._count("refresh")

    @property
    def token_calls(self) -> int:
        """All calls of the token endpoint, whatever came of them."""
        return self._count("login", "refresh", "token")

    @property
    def denials(self) -> int:
        """Token calls answered with "Access Denied"."""
        return sum(call.outcome == "Access Denied" for call in self.calls)

    @property
    def revocations(self) -> int:
        """Calls of the revoke endpoint that did revoke something."""
        return sum(call.kind == "revoke" and call.outcome == "ok" for call in self.calls)

    @property
    def api_calls(self) -> int:
        """Calls of the CRM's API, the look-ups after a login among them, whatever came of them."""
        return self._count("user", "org", "api")

    def _count(self, *kinds: str) -> int:
        return sum(call.kind in kinds for call in self.calls)
