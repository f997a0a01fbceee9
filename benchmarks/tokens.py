"""Made-up tokens that are as long as real ones and the same in every run."""

from __future__ import annotations

import hashlib
import itertools
import os
import time

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

CLIENT = "1000.MADEUPCLIENT0123456789ABCDEFGHIJ"
SECRET = "made-up-client-secret-0123456789abcdef012345"  # noqa: S105 - made up
REDIRECT = "https://www.example.com/oauth/callback"
DOMAIN = "https://www.zohoapis.com"
EXPIRY = str(int(time.time() * 1000) + 3_600_000)
Row = tuple[str, str, str, str, str, str, str, str, str]  # all but the id, in the order of the SDK's table

unused = itertools.count(10**8 * os.getpid())  # numbers for new users and access tokens, unique over all processes


def text(kind: str, number: object) -> str:
    """Return a text of 70 characters. The texts of consecutive numbers are in no particular order."""
    return "made-up-" + hashlib.blake2b(f"{kind} {number}".encode(), digest_size=31).hexdigest()


def user(number: int) -> str:
    """Return the name of a user."""
    return f"user{number}@example.com"


def row(number: int) -> Row:
    """Return the values of a row after a login."""
    refresh, access, grant = (text(kind, number) for kind in ("refresh", "access", "grant"))
    return user(number), CLIENT, SECRET, refresh, access, grant, EXPIRY, REDIRECT, DOMAIN


def login(number: int) -> OAuthToken:
    """Return a token as it is after a login."""
    name, client, secret, refresh, access, grant, expiry, redirect, domain = row(number)
    token = OAuthToken(client, secret, grant, refresh, redirect, None, access, UserSignature(name), domain)
    token.set_expires_in(expiry)
    return token


def refreshed(number: int, row_id: str) -> OAuthToken:
    """Return a row's token as it is after a refresh."""
    token = login(number)
    token.set_id(row_id)
    token.set_access_token(text("access", next(unused)))
    return token


def with_refresh_token(number: int) -> OAuthToken:
    """Return a token that identifies its row only by the refresh token."""
    return OAuthToken(CLIENT, SECRET, refresh_token=text("refresh", number))


def with_user(number: int) -> OAuthToken:
    """Return a token that identifies its row only by the user."""
    return OAuthToken(CLIENT, SECRET, user_signature=UserSignature(user(number)))
