"""The WSGI application: it routes requests to `Accounts` and turns answers into responses.

A call is decided and recorded when it arrives, before any delay.
"""

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from ._accounts import Accounts, Answer
from ._consent import consent
from ._failures import Failure
from ._records import Call, User
from ._state import State

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("zoho_token_store.testing")

_BEARER = "Zoho-oauthtoken "
_URLS = Map(
    [
        Rule("/oauth/v2/auth", endpoint="consent", methods=["GET", "POST"]),
        Rule("/oauth/v2/token", endpoint="token", methods=["POST"]),
        Rule("/oauth/v2/token/revoke", endpoint="revoke", methods=["POST"]),
        Rule("/crm/v<int:version>/users", endpoint="user", methods=["GET"]),
        Rule("/crm/v<int:version>/org", endpoint="org", methods=["GET"]),
        Rule("/crm/v<int:version>/<path:rest>", endpoint="api"),
    ],
    strict_slashes=False,
)
_GRANTS: Mapping[str | None, str] = {"authorization_code": "login", "refresh_token": "refresh"}


class QuietHandler(WSGIRequestHandler):
    """Write no log. `App` logs each call itself, without the query and the body: they may contain secrets."""

    # One request per connection. With keep-alive, a dropped connection would wait for the next request.
    protocol_version = "HTTP/1.0"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - Werkzeug's name
        """Write nothing."""


class App:
    """The WSGI application of one stand-in."""

    def __init__(self, state: State, stopping: threading.Event) -> None:
        """Answer from `state`. Once `stopping` is set, all delays end."""
        self._state = state
        self._stopping = stopping

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request.

        Raises:
            ConnectionAbortedError: A failure was injected that drops the connection. Werkzeug closes it without a log.

        """
        request = Request(environ)
        kind, target = self._classify(request)
        if kind == "consent":
            return self._consent(request)(environ, start_response)
        failure, answer = self._decide(request, kind, target)
        settings = self._state.settings
        self._stopping.wait(settings.api_latency if target == "api" else settings.latency)
        if failure is None:
            return _json(answer.body, answer.status)(environ, start_response)
        if failure.drop or failure.hang > 0:
            self._stopping.wait(failure.hang)
            raise ConnectionAbortedError("connection dropped by fail_next()")
        if isinstance(failure.body, str):
            return Response(failure.body, failure.status, mimetype="text/html")(environ, start_response)
        return _json(failure.body, failure.status)(environ, start_response)

    @staticmethod
    def _classify(request: Request) -> tuple[str, str]:
        """Return the kind of the call, for the record, and its target, for injected failures."""
        try:
            endpoint, _ = _URLS.bind_to_environ(request.environ).match()
        except HTTPException:
            return "other", "api"
        if endpoint == "token":
            return _GRANTS.get(request.values.get("grant_type"), "token"), "token"
        if endpoint == "revoke":
            return "revoke", "revoke"
        return str(endpoint), "api"

    def _decide(self, request: Request, kind: str, target: str) -> tuple[Failure | None, Answer]:
        # Read the body before the lock is acquired. A slow sender then blocks no other call.
        form = request.values.to_dict()
        state = self._state
        # Only calls of the accounts server change what a state file keeps.
        with state.lock if target == "api" else state.change():
            failure = state.failures.pop(target)
            if failure is not None:
                answer = Answer({}, failure.outcome)
            elif target == "token":
                answer = state.accounts.token(form)
            elif target == "revoke":
                answer = state.accounts.revoke(form)
            else:
                answer = _api(state.accounts, kind, request)
            self._record(request, kind, answer.user, answer.outcome)
        return failure, answer

    def _consent(self, request: Request) -> Response:
        form = request.values.to_dict()
        response, user, outcome = consent(self._state, form, chosen=request.method == "POST")
        with self._state.lock:
            self._record(request, "consent", user, outcome)
        return response

    def _record(self, request: Request, kind: str, user: User | None, outcome: str) -> None:
        # The caller holds the lock, so calls are recorded in the order of their decisions.
        name = None if user is None else user.name
        self._state.calls.append(Call(self._state.settings.clock(), kind, name, outcome, request.path))
        logger.debug("%s for %s: %s (%s %s)", kind, name, outcome, request.method, request.path)


def _api(accounts: Accounts, kind: str, request: Request) -> Answer:
    if kind == "other":
        return _api_error(HTTPStatus.NOT_FOUND, "INVALID_URL_PATTERN", "the stand-in has no such URL")
    header = request.headers.get("Authorization", "")
    user = accounts.user_of(header.removeprefix(_BEARER)) if header.startswith(_BEARER) else None
    if user is None:
        return _api_error(HTTPStatus.UNAUTHORIZED, "INVALID_TOKEN", "invalid oauth token")
    if kind == "user":
        return Answer({"users": [{"email": user.email}]}, user=user)
    if kind == "org":
        return Answer({"org": [{"zgid": user.org_id}]}, user=user)
    return Answer({"data": [{"user": user.name, "path": request.path}]}, user=user)


def _api_error(status: HTTPStatus, code: str, message: str) -> Answer:
    body = {"code": code, "details": {}, "message": message, "status": "error"}
    return Answer(body, code, status=status)


def _json(body: Mapping[str, object], status: int) -> Response:
    return Response(json.dumps(dict(body)), status, mimetype="application/json")
