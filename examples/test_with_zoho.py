"""How a suite tests a program that uses Zoho, without Zoho: the fixtures `zoho_…` come with the library.

    pip install zohocrmsdk8_0 "zoho-token-store[testing]" pytest
    pytest test_with_zoho.py

The SDK is the real one; Zoho is a stand-in on this machine. `pytest --fixtures` lists what there is.
"""

import pytest
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations


def organisation():
    """Stand for your program: it asks Zoho for the organisation it works in."""
    return OrgOperations().get_organization().get_object().get_org()[0].get_zgid()


def test_login(zoho_login, zoho_stand_in, zoho_store):
    """A login is one token call and one row."""
    zoho_login(zoho_stand_in.add_user("ada@example.com", "1001"))
    assert organisation() == "1001"
    assert (zoho_stand_in.token_calls, len(zoho_store)) == (1, 1)


def test_expiry(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """An hour later the access token is refreshed, once."""
    zoho_login()
    zoho_let_time_pass()
    assert organisation() == organisation()
    assert zoho_stand_in.refreshes == 1


def test_throttling(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """Zoho refuses the eleventh token within ten minutes: the SDK raises, and the next try is good."""
    zoho_login()
    zoho_let_time_pass()
    zoho_stand_in.deny_next()
    with pytest.raises(SDKException, match="Access Denied"):
        organisation()
    assert organisation()


def test_revocation(zoho_login, zoho_let_time_pass, zoho_stand_in):
    """Who revokes the program's access at Zoho has to log in again."""
    zoho_login("ada@example.com")
    zoho_stand_in.revoke_user("ada@example.com")
    zoho_let_time_pass()
    with pytest.raises(SDKException, match="invalid_code"):
        organisation()
    zoho_login("ada@example.com")
    assert organisation()


def test_several_users(zoho_login, zoho_stand_in, zoho_store_file):
    """Each user has a row of their own, in a file as in production."""
    tokens = [zoho_login(user, store=zoho_store_file) for user in ("ada@example.com", "bob@example.com")]
    assert [token.get_id() for token in tokens] == ["1", "2"]
    assert zoho_stand_in.logins == len(zoho_store_file)
