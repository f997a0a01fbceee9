"""Zoho's rules for grant codes and tokens: who gets one, how many, and for how long.

This module knows no HTTP. It is not thread-safe: the caller holds the stand-in's lock. Time comes from the settings.
"""

import itertools
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ._failures import ACCESS_DENIED
from ._records import Client, User
from ._settings import Settings

# Shared by all stand-ins of the process, so that each generated value is unique and can be traced to its origin.
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """The answer of an endpoint, with the outcome and user for the record of the call."""

    body: Mapping[str, object]
    outcome: str = "ok"
    user: User | None = None
    status: int = 200


@dataclass(eq=False)
class _AccessToken:
    token: str
    expires_at: float
    revoked: bool = False


@dataclass(eq=False)
class _Authorization:
    """A refresh token and the access tokens issued with it."""

    user: User
    client: Client
    refresh_token: str
    revoked: bool = False
    refreshed_at: deque[float] = field(default_factory=deque)
    access_tokens: list[_AccessToken] = field(default_factory=list)


def _refuse(error: str, user: User | None = None) -> Answer:
    # Zoho sends HTTP 200 here, too. The SDK reads only the body.
    return Answer({"error": error}, error, user)


class Accounts:
    """The clients, users, codes and tokens of one stand-in."""

    def __init__(self, settings: Settings) -> None:
        """Start without clients and users."""
        # Part of each token answer. The stand-in sets it as soon as it has a URL.
        self.api_domain = ""
        self._settings = settings
        # The numbers begin at 1 in each process. A token database can be older than the process. Without this part, a
        # new grant code could equal a stored one, and the store would find the row of another user.
        self._start = secrets.token_hex(4)
        self._clients: dict[str, Client] = {}
        self._users: list[User] = []
        self._codes: dict[str, tuple[User, Client]] = {}
        self._by_refresh: dict[str, _Authorization] = {}
        self._by_access: dict[str, tuple[_Authorization, _AccessToken]] = {}

    def _generate(self, kind: str) -> str:
        return f"1000.{kind}.made-up.{self._start}.{next(_numbers):04}"

    def dump(self, now: float) -> dict[str, Any]:
        """Return the clients, users, refresh and access tokens as JSON data. `now` is the time of day in seconds."""
        clock = self._settings.clock()
        return {
            "saved_at": now,
            "clients": [asdict(client) for client in self._clients.values()],
            "users": [asdict(user) for user in self._users],
            "authorizations": [
                {
                    "user": asdict(each.user),
                    "client_id": each.client.id,
                    "refresh_token": each.refresh_token,
                    "revoked": each.revoked,
                    # The settings' clock has another origin in another process.
                    "access_tokens": [
                        {"token": access.token, "expires_in": access.expires_at - clock, "revoked": access.revoked}
                        for access in each.access_tokens
                    ],
                }
                for each in self._by_refresh.values()
            ],
        }

    def load(self, dumped: Mapping[str, Any], now: float) -> Client:
        """Take over what `dump` returned, and return the first client."""
        clock = self._settings.clock() - (now - dumped["saved_at"])
        clients = [Client(**client) for client in dumped["clients"]]
        for client in clients:
            self.know_client(client)
        self._users = [User(**user) for user in dumped["users"]]
        for each in dumped["authorizations"]:
            authorization = _Authorization(
                User(**each["user"]), self._clients[each["client_id"]], each["refresh_token"], each["revoked"]
            )
            self._by_refresh[authorization.refresh_token] = authorization
            for issued in each["access_tokens"]:
                access = _AccessToken(issued["token"], clock + issued["expires_in"], issued["revoked"])
                authorization.access_tokens.append(access)
                self._by_access[access.token] = (authorization, access)
        return clients[0]

    def add_client(self, redirect_url: str | None) -> Client:
        """Register a new client. If it has a redirect URL, each login must send the same one."""
        client = Client(self._generate("client"), self._generate("secret"), redirect_url)
        self.know_client(client)
        return client

    def know_client(self, client: Client) -> None:
        """Register a client that already has an id and a secret."""
        self._clients[client.id] = client

    def client(self, client_id: str) -> Client | None:
        """Return the client with this id, or `None`."""
        return self._clients.get(client_id)

    def users(self) -> list[User]:
        """Return all users in the order of their registration."""
        return list(self._users)

    def add_user(self, email: str, org_id: str | None) -> User:
        """Register a user. Without `org_id` the user gets a new organisation."""
        if org_id is None:
            known = {user.org_id for user in self._users}
            org_id = next(new for number in _numbers if (new := str(700_000_000 + number)) not in known)
        user = User(email, org_id)
        if user not in self._users:
            self._users.append(user)
        return user

    def user(self, user: User | str) -> User:
        """Return this user, or the first user with this e-mail address. Register the user if there is none."""
        if isinstance(user, User):
            return self.add_user(user.email, user.org_id)
        known = next((known for known in self._users if known.email == user), None)
        return known or self.add_user(user, None)

    def grant_code(self, user: User | str, client: Client) -> str:
        """Issue a grant code, as after a user's consent. It is valid for one login."""
        code = self._generate("code")
        self._codes[code] = (self.user(user), client)
        return code

    def authorize(self, user: User | str, client: Client) -> str:
        """Issue a refresh token without a login."""
        return self._authorize(self.user(user), client).refresh_token

    def access_token(self, user: User | str, client: Client) -> str:
        """Issue an access token without a login."""
        return str(self._issue(self._authorize(self.user(user), client))["access_token"])

    def revoke_user(self, user: User | str) -> int:
        """Revoke all tokens of a user, and return the number of revoked refresh tokens."""
        owner = self.user(user)
        authorizations = [each for each in self._by_refresh.values() if each.user == owner and not each.revoked]
        for authorization in authorizations:
            self._revoke(authorization)
        return len(authorizations)

    def token(self, form: Mapping[str, str]) -> Answer:
        """Answer a request to the token endpoint."""
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
        """Answer a request to the revoke endpoint. Revoking a refresh token also revokes its access tokens."""
        token = form.get("token", "")
        authorization = self._by_refresh.get(token)
        if authorization is not None and not authorization.revoked:
            self._revoke(authorization)
            return Answer({"status": "success"}, user=authorization.user)
        found, access = self._by_access.get(token, (None, None))
        if found is not None and access is not None and self._is_valid(access):
            access.revoked = True
            return Answer({"status": "success"}, user=found.user)
        return Answer({"status": "error", "error": "invalid_code"}, "invalid_code")

    def user_of(self, access_token: str) -> User | None:
        """Return the user of an access token, or `None` if the token is unknown, expired or revoked."""
        authorization, access = self._by_access.get(access_token, (None, None))
        if authorization is None or access is None or not self._is_valid(access):
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
        refreshed_at = authorization.refreshed_at
        while refreshed_at and now - refreshed_at[0] >= self._settings.window:
            refreshed_at.popleft()
        if len(refreshed_at) >= self._settings.tokens_per_window:
            return Answer(ACCESS_DENIED, "Access Denied", authorization.user)
        refreshed_at.append(now)
        return Answer(self._issue(authorization), user=authorization.user)

    def _authorize(self, user: User, client: Client) -> _Authorization:
        authorization = _Authorization(user, client, self._generate("refresh"))
        self._by_refresh[authorization.refresh_token] = authorization
        return authorization

    def _issue(self, authorization: _Authorization) -> dict[str, object]:
        lifetime = self._settings.expires_in
        access = _AccessToken(self._generate("access"), self._settings.clock() + lifetime)
        valid = [each for each in authorization.access_tokens if self._is_valid(each)]
        authorization.access_tokens = [*valid, access]
        surplus = max(0, len(authorization.access_tokens) - self._settings.live_tokens)
        for oldest in authorization.access_tokens[:surplus]:
            oldest.revoked = True
        self._by_access[access.token] = (authorization, access)
        return {
            "access_token": access.token,
            "api_domain": self.api_domain,
            "token_type": "Bearer",
            "expires_in": lifetime,
        }

    def _is_valid(self, access: _AccessToken) -> bool:
        return not access.revoked and self._settings.clock() < access.expires_at

    @staticmethod
    def _revoke(authorization: _Authorization) -> None:
        authorization.revoked = True
        for access in authorization.access_tokens:
            access.revoked = True
