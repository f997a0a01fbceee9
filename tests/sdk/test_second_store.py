"""A second `Initializer.initialize` with another store, in one process: what each SDK does, and what works with all.

The recipe "A second store in one process" and the entry `missing-id` of troubleshooting tell users about it.
"""

import pytest
from sdk.program import Program, Raised, installed_sdk
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

SDK = installed_sdk()


def login(zoho, user):
    """Return the fields of a new login. SDK 5 does not ask Zoho for the user."""
    fields = {"client_id": zoho.client_id, "client_secret": zoho.client_secret, "grant_token": zoho.grant_code(user)}
    return fields | ({"user": user.name} if SDK == 5 else {})


@pytest.fixture
def files(tmp_path):
    """The paths of the first and of the second store."""
    return str(tmp_path / "first.db"), str(tmp_path / "second.db")


@pytest.fixture(params=["initialize", "switch_user"])
def remembered(request):
    """Whether the SDK remembers the first store for the thread of the program, on which this method was called last.

    SDK 5 to 7 remember it at both calls, and SDK 8 only at `switch_user`.
    """
    return SDK < 8 or request.param == "switch_user"


@pytest.fixture
def program(request, zoho, ada, files, tmp_path):
    """A program in which ada has logged in with the first store. The next `initialize` gets the second one."""
    program = Program("CustomStoreSQLite", {"path": files[0]}, zoho.environment(), str(tmp_path), new_process=False)
    try:
        program.initialize(**login(zoho, ada))
        if request.node.callspec.params["remembered"] == "switch_user":
            program.switch_user(user=ada.name)
        program.use_second_store(path=files[1])
        yield program
    finally:
        program.close()


def users_in(path):
    with CustomStoreSQLite(path) as store:
        return [token.get_user_signature().get_name() for token in store.get_tokens()]


def test_the_login_goes_into_a_remembered_first_store(program, remembered, zoho, users, files):
    """If the SDK remembers the first store, the login is saved there. Afterwards SDK 5 to 7 use the second store."""
    ada, bob = users
    first, second = files
    program.initialize(**login(zoho, bob))
    if not remembered:
        assert (users_in(first), users_in(second)) == ([ada.name], [bob.name])
        assert program.organisation() == bob.org_id
        return
    assert (users_in(first), users_in(second)) == ([ada.name, bob.name], [])
    if SDK == 8:
        assert program.organisation() == ada.org_id
        return
    with pytest.raises(Raised) as raised:
        program.organisation()
    assert raised.value.code == "TOKEN_STORE"
    assert f'{second} has no token with the id "2"' in raised.value.message
    assert "Check that it is the right store" in raised.value.message


def test_its_id_can_be_another_user_in_the_second_store(program, remembered, zoho, users, files):
    """If the SDK remembers the first store, the calls after bob's login are made as ada.

    SDK 5 to 7 look for the id of the first store in the second one. SDK 8 keeps the first user.
    """
    ada, bob = users
    with CustomStoreSQLite(files[1]) as store:
        for user in (bob, ada):
            store.save_token(OAuthToken(access_token=zoho.access_token(user), user_signature=UserSignature(user.name)))
    program.initialize(**login(zoho, bob))
    assert program.organisation() == (ada if remembered else bob).org_id


@pytest.mark.usefixtures("remembered")
def test_a_new_thread_uses_the_second_store(program, zoho, users, files):
    """On a new thread `initialize` uses the store that it gets, with every SDK."""
    ada, bob = users
    program.continue_in_new_thread()
    program.initialize(**login(zoho, bob))
    assert [users_in(path) for path in files] == [[ada.name], [bob.name]]
    assert program.organisation() == bob.org_id
