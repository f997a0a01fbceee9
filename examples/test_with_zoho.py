"""Tests of a program that uses Zoho, without access to Zoho. The fixtures `zoho_…` are part of the library.

    pip install zohocrmsdk8_0 "zoho-token-store[testing]" pytest
    pytest test_with_zoho.py

The tests use the real SDK and a local stand-in for Zoho. `pytest --fixtures` lists all fixtures.
"""

import pytest
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations


def organisation():
    """Return the current organisation's id from Zoho. Replace this function by your program."""
    return OrgOperations().get_organization().get_object().get_org()[0].get_zgid()


def test_login(zoho_login, zoho_stand_in, zoho_store):
    """A login makes one token call and saves one row."""
    zoho_login(zoho_stand_in.add_user("ada@example.com", "1001"))
    assert organisation() == "1001"
    assert (zoho_stand_in.token_calls, len(zoho_store)) == (1, 1)


def test_expiry(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """After an hour, the access token is refreshed once."""
    zoho_login()
    zoho_let_time_pass()
    assert organisation() == organisation()
    assert zoho_stand_in.refreshes == 1


def test_throttling(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """The SDK raises if Zoho denies a refresh because of its limit. The next call succeeds."""
    zoho_login()
    zoho_let_time_pass()
    zoho_stand_in.deny_next()
    with pytest.raises(SDKException, match="Access Denied"):
        organisation()
    assert organisation()


def test_revocation(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """After a user has revoked the program's access at Zoho, the user must log in again."""
    zoho_login("ada@example.com")
    zoho_stand_in.revoke_user("ada@example.com")
    zoho_let_time_pass()
    with pytest.raises(SDKException, match="invalid_code"):
        organisation()
    zoho_login("ada@example.com")
    assert organisation()


def test_several_users(zoho_login, zoho_stand_in, zoho_store_file):
    """Each user has a row in a SQLite file."""
    tokens = [zoho_login(user, store=zoho_store_file) for user in ("ada@example.com", "bob@example.com")]
    assert [token.get_id() for token in tokens] == ["1", "2"]
    assert zoho_stand_in.logins == len(zoho_store_file)
