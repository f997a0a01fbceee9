"""Zoho's rules for codes and tokens: who gets which, how many, and for how long.

No HTTP here, no threads and no clock of its own: the stand-in's lock is held around every call, and time
comes from the settings.
"""

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ._failures import ACCESS_DENIED
from ._records import Client, User
from ._settings import Settings

# One count for all stand-ins of the process: a value that turns up in the wrong place is then nobody else's.
_numbers = itertools.count(1)


def _made_up(what: str) -> str:
    return f"1000.{what}.made-up.{next(_numbers):04}"


@dataclass(frozen=True)
class Answer:
    """What an endpoint answers, and what the record of the call says about it."""

    body: Mapping[str, object]
    outcome: str = "ok"
    user: User | None = None
    status: int = 200


@dataclass(eq=False)
class _Access:
    token: str
    expires_at: float
    ended: bool = False


@dataclass(eq=False)
class _Authorization:
    """A refresh token and what was issued with it."""

    user: User
    client: Client
    refresh_token: str
    revoked: bool = False
    asked_at: deque[float] = field(default_factory=deque)
    access: list[_Access] = field(default_factory=list)


def _refuse(error: str, user: User | None = None) -> Answer:
    # HTTP 200, as Zoho has it: the SDK looks at the body alone.
    return Answer({"error": error}, error, user)


class Accounts:
    """The clients, users, codes and tokens of one stand-in."""

    def __init__(self, settings: Settings) -> None:
        """Know nobody yet."""
        # In each answer with a token. The stand-in sets it, once it has a URL.
        self.api_domain = ""
        self._settings = settings
        self._clients: dict[str, Client] = {}
        self._users: list[User] = []
        self._codes: dict[str, tuple[User, Client]] = {}
        self._by_refresh: dict[str, _Authorization] = {}
        self._by_access: dict[str, tuple[_Authorization, _Access]] = {}

    def add_client(self, redirect_url: str | None) -> Client:
        """Register a client. With a redirect URL, a login has to name the same one."""
        client = Client(_made_up("client"), _made_up("secret"), redirect_url)
        self.know_client(client)
        return client

    def know_client(self, client: Client) -> None:
        """Register a client that has an id and a secret already."""
        self._clients[client.id] = client

    def client(self, client_id: str) -> Client | None:
        """Return the client with this id, if there is one."""
        return self._clients.get(client_id)

    def users(self) -> list[User]:
        """Return all users, in the order in which they were registered."""
        return list(self._users)

    def add_user(self, email: str, org_id: str | None) -> User:
        """Register a user, in an organisation of their own unless one is named."""
        user = User(email, org_id if org_id is not None else str(700_000_000 + next(_numbers)))
        if user not in self._users:
            self._users.append(user)
        return user

    def user(self, user: User | str) -> User:
        """Return a user as given, or the first one with that e-mail address, who is registered if need be."""
        if isinstance(user, User):
            return self.add_user(user.email, user.org_id)
        known = next((known for known in self._users if known.email == user), None)
        return known or self.add_user(user, None)

    def grant_code(self, user: User | str, client: Client) -> str:
        """Let a user agree to what a client wants: a code that is good for one login."""
        code = _made_up("code")
        self._codes[code] = (self.user(user), client)
        return code

    def authorize(self, user: User | str, client: Client) -> str:
        """Issue a refresh token, as a login elsewhere would have done."""
        return self._authorize(self.user(user), client).refresh_token

    def access_token(self, user: User | str, client: Client) -> str:
        """Issue an access token, as a login elsewhere would have done."""
        return str(self._issue(self._authorize(self.user(user), client))["access_token"])

    def revoke_user(self, user: User | str) -> int:
        """Revoke all that was issued to a user; how many refresh tokens that were."""
        named = self.user(user)
        theirs = [one for one in self._by_refresh.values() if one.user == named and not one.revoked]
        for authorization in theirs:
            self._end(authorization)
        return len(theirs)

    def token(self, form: Mapping[str, str]) -> Answer:
        """Answer a call of the token endpoint."""
        client = self._clients.get(form.get("client_id", ""))
        if client is None or form.get("client_secret") != client.secret:
            return _refuse("invalid_client")
        grant_type = form.get("grant_type")
        if grant_type == "authorization_code":
            return self._login(form, client)
        if grant_type == "refresh_token":
            return self._refresh(form, client)
        return _refuse("unsupported_grant_type")

    def revoke(self, form: Mapping[str, str]) -> Answer:
        """Answer a call of the revoke endpoint. A refresh token takes its access tokens with it."""
        token = form.get("token", "")
        authorization = self._by_refresh.get(token)
        if authorization is not None and not authorization.revoked:
            self._end(authorization)
            return Answer({"status": "success"}, user=authorization.user)
        found, access = self._by_access.get(token, (None, None))
        if found is not None and access is not None and self._lives(access):
            access.ended = True
            return Answer({"status": "success"}, user=found.user)
        return Answer({"status": "error", "error": "invalid_code"}, "invalid_code")

    def whose(self, access_token: str) -> User | None:
        """Whom an access token speaks for; nobody if it is unknown, expired or ended."""
        authorization, access = self._by_access.get(access_token, (None, None))
        if authorization is None or access is None or not self._lives(access):
            return None
        return authorization.user

    def _login(self, form: Mapping[str, str], client: Client) -> Answer:
        code = form.get("code", "")
        user, owner = self._codes.get(code, (None, None))
        if user is None or owner != client:
            return _refuse("invalid_code")
        if client.redirect_url is not None and form.get("redirect_uri") != client.redirect_url:
            return _refuse("invalid_redirect_uri", user)
        del self._codes[code]
        authorization = self._authorize(user, client)
        issued = self._issue(authorization)
        return Answer({**issued, "refresh_token": authorization.refresh_token}, user=user)

    def _refresh(self, form: Mapping[str, str], client: Client) -> Answer:
        authorization = self._by_refresh.get(form.get("refresh_token", ""))
        if authorization is None or authorization.revoked or authorization.client != client:
            return _refuse("invalid_code")
        now = self._settings.clock()
        asked_at = authorization.asked_at
        while asked_at and now - asked_at[0] >= self._settings.window:
            asked_at.popleft()
        if len(asked_at) >= self._settings.tokens_per_window:
            return Answer(ACCESS_DENIED, "Access Denied", authorization.user)
        asked_at.append(now)
        return Answer(self._issue(authorization), user=authorization.user)

    def _authorize(self, user: User, client: Client) -> _Authorization:
        authorization = _Authorization(user, client, _made_up("refresh"))
        self._by_refresh[authorization.refresh_token] = authorization
        return authorization

    def _issue(self, authorization: _Authorization) -> dict[str, object]:
        lifetime = self._settings.expires_in
        access = _Access(_made_up("access"), self._settings.clock() + lifetime)
        authorization.access = [one for one in authorization.access if self._lives(one)] + [access]
        too_many = max(0, len(authorization.access) - self._settings.live_tokens)
        for oldest in authorization.access[:too_many]:
            oldest.ended = True
        self._by_access[access.token] = (authorization, access)
        return {
            "access_token": access.token,
            "api_domain": self.api_domain,
            "token_type": "Bearer",
            "expires_in": lifetime,
        }

    def _lives(self, access: _Access) -> bool:
        return not access.ended and self._settings.clock() < access.expires_at

    @staticmethod
    def _end(authorization: _Authorization) -> None:
        authorization.revoked = True
        for access in authorization.access:
            access.ended = True
