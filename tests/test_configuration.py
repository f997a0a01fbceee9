"""Tokens and data centres from environment variables, and tokens as dictionaries."""

from __future__ import annotations

import doctest

import pytest
import zoho_token_store
from support import login, values
from zoho_token_store import (
    _environment,
    data_centre_from_environment,
    token_from_dict,
    token_from_environment,
    token_to_dict,
)
from zoho_token_store._native import StoreError
from zohocrmsdk.src.com.zoho.crm.api.dc import EUDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

CLIENT = {"ZOHO_CLIENT_ID": "1000.CLIENT", "ZOHO_CLIENT_SECRET": "planted-secret"}
VARIABLES = (
    *("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN", "GRANT_TOKEN", "REDIRECT_URL", "USER_NAME", "TOKEN_ID"),
    *("DATA_CENTRE", "ENVIRONMENT"),
)


@pytest.fixture
def set_variables(monkeypatch):
    """Set these environment variables, and none of the others."""

    def apply(variables, prefix="ZOHO_"):
        for name in VARIABLES:
            for ending in ("", "_FILE"):
                monkeypatch.delenv(prefix + name + ending, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return apply


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({**CLIENT, "ZOHO_REFRESH_TOKEN": "planted-refresh"}, {"refresh_token": "planted-refresh"}),
        (
            {**CLIENT, "ZOHO_GRANT_TOKEN": " planted-grant\n", "ZOHO_REFRESH_TOKEN": ""},
            {"grant_token": "planted-grant"},
        ),
        ({**CLIENT, "ZOHO_GRANT_TOKEN": "planted-grant", "ZOHO_REDIRECT_URL": "https://a.example"}, None),
        ({"ZOHO_USER_NAME": "ada@example.com"}, {"user_name": "ada@example.com"}),
        ({"ZOHO_TOKEN_ID": "7"}, {"id": "7"}),
    ],
)
def test_a_token_of_the_environment(set_variables, variables, expected):
    """An empty variable counts as missing, and white space around a value is removed."""
    set_variables(variables)
    made = token_to_dict(token_from_environment())
    if expected is None:
        expected = {"grant_token": "planted-grant", "redirect_url": "https://a.example"}
    client = {"client_id": "1000.CLIENT", "client_secret": "planted-secret"} if "ZOHO_CLIENT_ID" in variables else {}
    assert made == {**client, **expected}


def test_a_mounted_secret(set_variables, tmp_path):
    """`…_FILE` names a file with the value, and the prefix is an argument."""
    secret = tmp_path / "secret"
    secret.write_text("planted-refresh\n")
    set_variables(
        {"CRM_CLIENT_ID": "1000.CLIENT", "CRM_CLIENT_SECRET": "s", "CRM_REFRESH_TOKEN_FILE": str(secret)}, "CRM_"
    )
    assert token_to_dict(token_from_environment("CRM_"))["refresh_token"] == "planted-refresh"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "ZOHO_REFRESH_TOKEN or ZOHO_GRANT_TOKEN must be set, or ZOHO_USER_NAME or ZOHO_TOKEN_ID for"),
        (CLIENT, "ZOHO_REFRESH_TOKEN or ZOHO_GRANT_TOKEN must be set"),
        ({"ZOHO_REFRESH_TOKEN": "planted-refresh"}, "ZOHO_CLIENT_ID and ZOHO_CLIENT_SECRET must be set"),
        ({"ZOHO_REFRESH_TOKEN": "planted-refresh", "ZOHO_CLIENT_ID": "c"}, "^ZOHO_CLIENT_SECRET must be set"),
        ({"ZOHO_REFRESH_TOKEN": "planted-a", "ZOHO_GRANT_TOKEN": "planted-b"}, "ZOHO_GRANT_TOKEN are both set"),
        ({"ZOHO_TOKEN_ID": "planted-a", "ZOHO_TOKEN_ID_FILE": "planted-b"}, "ZOHO_TOKEN_ID_FILE are both set"),
        ({"ZOHO_TOKEN_ID_FILE": "/planted/missing"}, "the file that ZOHO_TOKEN_ID_FILE names cannot be read: No such"),
        ({"ZOHO_TOKEN_ID_FILE": "/dev/null"}, "the file that ZOHO_TOKEN_ID_FILE names is empty"),
    ],
)
def test_a_variable_that_is_missing_or_given_twice(set_variables, variables, message):
    """The message names the variable, and shows no value."""
    set_variables(variables)
    with pytest.raises(ValueError, match=message) as raised:
        token_from_environment()
    assert "planted" not in str(raised.value)


def test_a_data_centre_of_the_environment(set_variables):
    """The environment object is the SDK's own. Upper and lower case are the same."""
    set_variables({"ZOHO_DATA_CENTRE": "EU"})
    assert vars(data_centre_from_environment()) == vars(EUDataCenter.PRODUCTION())
    for name, url in (
        ("sandbox", "https://sandbox.zohoapis.com.au"),
        ("developer", "https://developer.zohoapis.com.au"),
    ):
        set_variables({"ZOHO_DATA_CENTRE": "au", "ZOHO_ENVIRONMENT": name})
        assert data_centre_from_environment().url == url
    for variables, message in (
        ({}, "ZOHO_DATA_CENTRE must be one of au, ca, cn, eu, in, jp, sa, us"),
        ({"ZOHO_DATA_CENTRE": "planted"}, "ZOHO_DATA_CENTRE must be one of"),
        ({"ZOHO_DATA_CENTRE": "us", "ZOHO_ENVIRONMENT": "planted"}, "must be one of production, sandbox, developer"),
    ):
        set_variables(variables)
        with pytest.raises(ValueError, match=message) as raised:
            data_centre_from_environment()
        assert "planted" not in str(raised.value)


def test_the_examples_of_the_environment(set_variables):
    """Each example prints what its docstring shows."""
    set_variables({})
    result = doctest.testmod(_environment)
    assert (result.failed, result.attempted > 4) == (0, True)


def test_a_dictionary_has_the_columns_of_a_row():
    """A token that goes through a dictionary is the same token."""
    made = login("ada@example.com", 7)
    made.set_id("7")
    found = token_to_dict(made)
    assert found["user_name"] == "ada@example.com"
    assert found["id"] == "7"
    assert values(token_from_dict(found)) == values(made)
    given = {**dict.fromkeys(found), "id": "7", "expiry_time": 5}
    assert token_to_dict(token_from_dict(given)) == {"id": "7", "expiry_time": "5"}
    with pytest.raises(SDKException, match="MANDATORY VALUE ERROR"):
        token_from_dict({"client_id": "1000.CLIENT"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planted-a": None}, "a key is not a column: the columns are id, user_name, client_id"),
        ({7: "planted-a"}, "a key is not a column"),
        ({"id": 7}, "the token's id is of type int, not str"),
        ({"expiry_time": True}, "the token's expiry_time is of type bool, not str"),
        ({"refresh_token": "planted-\ud800"}, "the token's refresh_token has no UTF-8 form"),
        ([("id", "7")], "a mapping is needed, not an object of type list"),
    ],
)
def test_a_dictionary_that_is_no_token(given, message):
    """The message shows no key and no value."""
    with pytest.raises(StoreError, match=message) as raised:
        token_from_dict(given)
    assert raised.value.code == "invalid-argument"
    assert "planted" not in str(raised.value)


def test_only_a_token_has_a_dictionary():
    """Another object is an invalid argument."""
    with pytest.raises(StoreError, match="an OAuthToken of the Zoho CRM SDK is needed"):
        token_to_dict("planted-a")
    assert {"token_to_dict", "token_from_dict"} <= set(zoho_token_store.__all__)


def test_a_refused_token_object_is_not_used_again(store):
    """Lease, rule 14: the caller's object loses its access token, even if another worker has reported it already."""
    made = login("ada@example.com", 7)
    store.save_token(made)
    old, other = store.find_token_by_id(made.get_id()), store.find_token_by_id(made.get_id())
    refused = made.get_access_token()
    assert store.refused(old) is True
    assert store.refused(other) is False
    assert (old.get_access_token(), old.get_expires_in(), other.get_access_token()) == (None, None, None)
    found = store.find_token_by_id(made.get_id())
    assert (found.get_access_token(), found.get_refresh_token()) == (None, made.get_refresh_token())
    assert store.refused(refused) is False
    assert store.refused("") is False
    assert store.refused(old) is False
