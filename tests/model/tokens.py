"""Functions that make, read and compare tokens of the real SDK."""

import contextlib

import pytest
from hypothesis import note
from model.oracle import CREDENTIALS, fields, taken
from model.values import written_out
from zoho_token_store import StoreError
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature


def set_fields(token, changes):
    for name, value in changes.items():
        if name == "signature":
            token.set_user_signature(value)
        elif name == "user_name":
            token.set_user_signature(None if value is None else UserSignature(written_out(value)))
        else:
            getattr(token, "set_" + {"expiry_time": "expires_in"}.get(name, name))(written_out(value))
    return token


def make_token(given):
    """Make a token with setters. They accept what the constructor refuses: no key at all, an id of a wrong type."""
    return set_fields(OAuthToken(id="to be replaced"), fields(**given))


def read(token):
    signature = token.get_user_signature()
    return {
        "id": token.get_id(),
        "user_name": signature.get_name() if isinstance(signature, UserSignature) else None,
        "client_id": token.get_client_id(),
        "client_secret": token.get_client_secret(),
        "refresh_token": token.get_refresh_token(),
        "grant_token": token.get_grant_token(),
        "access_token": token.get_access_token(),
        "expiry_time": token.get_expires_in(),
        "redirect_url": token.get_redirect_url(),
        "api_domain": token.get_api_domain(),
    }


def short(value):
    """Return the short form of a value, for messages."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [short(one) for one in value]
    return f"<{len(value)} times {value[0]!r}>" if isinstance(value, str) and len(value) > 500 else value


@contextlib.contextmanager
def noting(value):
    """Add the value of this round of a loop to the report of a failure."""
    try:
        yield
    except BaseException:
        note(f"with {short(value)}")
        raise


def same(found, expected, what):
    """Check that two dicts have equal values of equal types."""
    if found != expected or any(type(found[name]) is not type(expected[name]) for name in found):
        raise AssertionError(f"{what}:\n  is      {short(found)}\n  must be {short(expected)}")


class Watched:
    """Keeps the state of a token before a call, and checks what the call has changed."""

    def __init__(self, token):
        self.token = token
        if isinstance(token, OAuthToken):
            self.attributes = dict(vars(token))
            self.signature = token.get_user_signature()
            self.before = read(token)

    def fields(self):
        return taken(self.before)

    def must_be_unchanged(self):
        if isinstance(self.token, OAuthToken):
            after = vars(self.token)
            assert after.keys() == self.attributes.keys()
            changed = [name for name, value in after.items() if value is not self.attributes[name]]
            assert not changed, f"changed {changed}: {short(self.before)} to {short(read(self.token))}"

    def may_only_have_changed(self, changes):
        after = read(self.token)
        same(after, self.before | changes, "the token after the call")
        if after["user_name"] == self.before["user_name"]:
            assert self.token.get_user_signature() is self.signature, "a new signature object with the same name"

    def must_not_be_in(self, message):
        if isinstance(self.token, OAuthToken):
            for name in ("client_secret", *CREDENTIALS):
                secret = self.before[name]
                assert not (isinstance(secret, str) and secret.startswith("1000.") and secret in message)


@contextlib.contextmanager
def refused(method, *arguments):
    """Expect an `SDKException` that names the method and has a `StoreError` as its cause. No token may change."""
    watched = [Watched(one) for one in arguments]
    with pytest.raises(SDKException) as caught:
        yield
    error = caught.value
    assert error.code == "TOKEN_STORE"
    assert isinstance(error.cause, StoreError)
    assert error.__cause__ is error.cause
    assert error.args[1].startswith(f"{method}: ")
    for one in watched:
        one.must_be_unchanged()
        one.must_not_be_in(f"{error} {error!r} {error.cause} {error.cause!r}")
