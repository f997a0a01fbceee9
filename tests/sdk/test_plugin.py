"""The fixtures `zoho_…` in a user's suite, with whichever SDK is installed. pytest finds them by itself."""

import shutil
from pathlib import Path

pytest_plugins = ["pytester"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "test_with_zoho.py"

# A suite with state of its own in the SDK, before and after the tests that use the fixtures.
INDEPENDENT = """
import threading

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

THEIRS = object()


def organisation():
    return OrgOperations().get_organization().get_object().get_org()[0].get_zgid()


def program(zoho, environment, user, folder, store):
    token = OAuthToken(zoho.client_id, zoho.client_secret, zoho.grant_code(user))
    Initializer.initialize(environment, token, store=store, resource_path=str(folder))
    return organisation()


def test_the_suites_own_state():
    Initializer.initializer = THEIRS
    Initializer.LOCAL.init = THEIRS


@pytest.mark.parametrize("number", ["1001", "1002"])
def test_one_after_the_other(zoho_environment, zoho_stand_in, zoho_store_file, tmp_path, number):
    assert Initializer.get_initializer() is None
    user = zoho_stand_in.add_user("ada@example.com", number)
    assert program(zoho_stand_in, zoho_environment, user, tmp_path, zoho_store_file) == number
    # On this thread the SDK now has a user beside its first one.
    Initializer.switch_user(token=zoho_store_file.get_tokens()[0])
    assert organisation() == number
    assert (zoho_stand_in.logins, len(zoho_store_file)) == (1, 1)


def test_two_logins_in_one_test(zoho_login, zoho_stand_in, zoho_store):
    for number in ("1001", "1002"):
        zoho_login(zoho_stand_in.add_user("ada@example.com", number))
        assert organisation() == number
        seen = []
        thread = threading.Thread(target=lambda: seen.append(organisation()))
        thread.start()
        thread.join(30)
        assert seen == [number]


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


def test_what_the_suite_had_is_back():
    assert Initializer.get_initializer() is THEIRS
    assert Initializer.initializer is THEIRS
"""


def test_a_users_suite(pytester, monkeypatch):
    """The worked example passes as a user runs it, and no test of a suite sees what another left in the SDK."""
    # A proxy that nobody listens at: no call may go there.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(EXAMPLE, pytester.path)
    pytester.makepyfile(INDEPENDENT)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", timeout=60)
    result.assert_outcomes(passed=5 + 7)
