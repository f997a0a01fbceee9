"""A suite that `test_plugin.py` runs. It has its own state in the SDK before and after it uses the fixtures."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

OWN_INITIALIZER = object()


def organisation():
    return OrgOperations().get_organization().get_object().get_org()[0].get_zgid()


def log_in(zoho, environment, user, folder, store):
    token = OAuthToken(zoho.client_id, zoho.client_secret, zoho.grant_code(user))
    Initializer.initialize(environment, token, store=store, resource_path=str(folder))
    return organisation()


def test_the_suites_own_state():
    Initializer.initializer = OWN_INITIALIZER
    Initializer.LOCAL.init = OWN_INITIALIZER


@pytest.mark.parametrize("number", ["1001", "1002"])
def test_tests_share_no_state(zoho_environment, zoho_stand_in, zoho_store_file, tmp_path, number):
    assert Initializer.get_initializer() is None
    user = zoho_stand_in.add_user("ada@example.com", number)
    assert log_in(zoho_stand_in, zoho_environment, user, tmp_path, zoho_store_file) == number
    # The SDK now has a thread-local user in addition to the one of `initialize`.
    Initializer.switch_user(token=zoho_store_file.get_tokens()[0])
    assert organisation() == number
    assert (zoho_stand_in.logins, len(zoho_store_file)) == (1, 1)


def test_two_logins_in_one_test(zoho_login, zoho_stand_in):
    for number in ("1001", "1002"):
        zoho_login(zoho_stand_in.add_user("ada@example.com", number))
        assert organisation() == number
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(organisation).result(30) == number


def test_time_passes_for_a_switched_user(zoho_login, zoho_let_time_pass, zoho_stand_in, zoho_store):
    zoho_login()
    Initializer.switch_user(token=zoho_store.get_tokens()[0])
    zoho_stand_in.tokens_per_window = 1
    zoho_let_time_pass(3000)
    organisation()
    assert zoho_stand_in.refreshes == 0
    zoho_let_time_pass(600)
    for number in (1, 2):
        organisation()
        assert zoho_stand_in.refreshes == number
        zoho_let_time_pass()
    assert zoho_stand_in.denials == 0


def test_another_client(zoho_login, zoho_stand_in, zoho_store_file):
    client = zoho_stand_in.add_client("https://app.example.com/back")
    token = zoho_login(store=zoho_store_file, client=client)
    assert token.get_client_id() == client.id
    assert organisation()


def test_the_suites_own_state_is_restored():
    assert Initializer.get_initializer() is OWN_INITIALIZER
    assert Initializer.initializer is OWN_INITIALIZER
