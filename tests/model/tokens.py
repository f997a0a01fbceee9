"""Tokens of the real SDK: made, read, and watched over a call."""

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
    """By setters, which take what the constructor refuses: a token without any key, an id of a wrong type."""
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
    """A value as a failure shows it."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [short(one) for one in value]
    return f"<{len(value)} times {value[0]!r}>" if isinstance(value, str) and len(value) > 500 else value


@contextlib.contextmanager
def told(what):
    """Says, in a loop's failure, in which turn."""
    try:
        yield
    except BaseException:
        note(f"with {short(what)}")
        raise


def same(found, expected, what):
    """Equal in value, type and form; told briefly where not."""
    if found != expected or any(type(found[name]) is not type(expected[name]) for name in found):
        raise AssertionError(f"{what}:\n  is      {short(found)}\n  must be {short(expected)}")


class Watched:
    """A token before a call, to say exactly what the call may change."""

    def __init__(self, token):
        self.token = token
        if isinstance(token, OAuthToken):
            self.attributes = dict(vars(token))
            self.signature = token.get_user_signature()
            self.before = read(token)

    def fields(self):
        return taken(self.before)

    def must_be_untouched(self):
        if isinstance(self.token, OAuthToken):
            after = vars(self.token)
            assert after.keys() == self.attributes.keys()
            changed = [name for name, value in after.items() if value is not self.attributes[name]]
            assert not changed, f"changed {changed}: {short(self.before)} to {short(read(self.token))}"

    def may_only_have_changed(self, changes):
        after = read(self.token)
        same(after, self.before | changes, "the token after the call")
        if after["user_name"] == self.before["user_name"]:
            assert self.token.get_user_signature() is self.signature, "another signature of the same name"

    def must_not_be_told(self, message):
        if isinstance(self.token, OAuthToken):
            for name in ("client_secret", *CREDENTIALS):
                secret = self.before[name]
                assert not (isinstance(secret, str) and secret.startswith("1000.") and secret in message)


@contextlib.contextmanager
def refused(method, *arguments):
    """`SDKException`, code `TOKEN_STORE`, told by its method, caused by a `StoreError`; no token changed."""
    watched = [Watched(one) for one in arguments]
    with pytest.raises(SDKException) as caught:
        yield
    error = caught.value
    assert error.code == "TOKEN_STORE"
    assert isinstance(error.cause, StoreError)
    assert error.__cause__ is error.cause
    assert error.args[1].startswith(f"{method}: ")
    for one in watched:
        one.must_be_untouched()
        one.must_not_be_told(f"{error} {error!r} {error.cause} {error.cause!r}")
