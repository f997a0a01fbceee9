"""Made-up tokens: as long as real ones, the same in every run."""

from __future__ import annotations

import hashlib
import itertools
import os
import time

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

CLIENT = "1000.MADEUPCLIENT0123456789ABCDEFGHIJ"
SECRET = "made-up-client-secret-0123456789abcdef012345"  # noqa: S105 - nobody's
REDIRECT = "https://www.example.com/oauth/callback"
DOMAIN = "https://www.zohoapis.com"
EXPIRY = str(int(time.time() * 1000) + 3_600_000)
Row = tuple[str, str, str, str, str, str, str, str, str]  # all but the id, in the order of the SDK's table

unused = itertools.count(10**8 * os.getpid())  # numbers that are nobody's: new users, new access tokens


def text(kind: str, number: object) -> str:
    """Return 70 characters that follow no order."""
    return "made-up-" + hashlib.blake2b(f"{kind} {number}".encode(), digest_size=31).hexdigest()


def user(number: int) -> str:
    """Name a user."""
    return f"user{number}@example.com"


def row(number: int) -> Row:
    """Return what a row has after a login."""
    refresh, access, grant = (text(kind, number) for kind in ("refresh", "access", "grant"))
    return user(number), CLIENT, SECRET, refresh, access, grant, EXPIRY, REDIRECT, DOMAIN


def login(number: int) -> OAuthToken:
    """Make a token as it is after a login."""
    name, client, secret, refresh, access, grant, expiry, redirect, domain = row(number)
    made = OAuthToken(client, secret, grant, refresh, redirect, None, access, UserSignature(name), domain)
    made.set_expires_in(expiry)
    return made


def refreshed(number: int, row_id: str) -> OAuthToken:
    """Make a row's token as it is after a refresh."""
    made = login(number)
    made.set_id(row_id)
    made.set_access_token(text("access", next(unused)))
    return made


def with_refresh_token(number: int) -> OAuthToken:
    """Make a token that knows its row by the refresh token alone."""
    return OAuthToken(CLIENT, SECRET, refresh_token=text("refresh", number))


def with_user(number: int) -> OAuthToken:
    """Make a token that knows its row by the user alone."""
    return OAuthToken(CLIENT, SECRET, user_signature=UserSignature(user(number)))
