"""What programs do with the SDK, with each of the stores and each of the SDKs 5 to 8.

`zoho.expires_in = 1` makes the stand-in issue access tokens with less than 5 s left, which the SDK takes for expired.
"""

import pytest
from sdk.program import Raised, installed_sdk

SDK = installed_sdk()
LOOKS_USERS_UP = SDK >= 6
LOOK_UPS = ["user", "org"] if LOOKS_USERS_UP else []


def credentials(zoho, **fields):
    return {"client_id": zoho.client_id, "client_secret": zoho.client_secret, **fields}


def named(user):
    """Return the field that tells SDK 5 the user. SDK 6 to 8 ask Zoho."""
    return {} if LOOKS_USERS_UP else {"user": user.name}


def login(zoho, user):
    return credentials(zoho, grant_token=zoho.grant_code(user), **named(user))


def log_in_both(program, zoho, users):
    ada, bob = users
    program.initialize(**login(zoho, ada))
    program.switch_user(**login(zoho, bob))


def let_tokens_expire(zoho):
    """Move Zoho's clock, so that Zoho refuses the tokens that it has issued while `expires_in` was 1."""
    zoho.clock.now += 1
    zoho.expires_in = 3600


def kinds(zoho):
    return [call.kind for call in zoho.calls]


def test_a_login_is_stored_with_all_fields(program, zoho, ada):
    """A login with a grant code makes one token call, and saves one row with everything that Zoho has answered."""
    code = zoho.grant_code(ada)
    token = program.initialize(**credentials(zoho, grant_token=code, **named(ada)))
    assert kinds(zoho) == ["login", *LOOK_UPS]
    [row] = program.rows()
    assert row == token
    assert row["id"]
    assert row["user"] == ada.name
    assert row["client_id"] == zoho.client_id
    assert row["client_secret"] == zoho.client_secret
    assert row["grant_token"] == code
    assert row["refresh_token"].startswith("1000.refresh.")
    assert row["access_token"].startswith("1000.access.")
    assert row["expires_in"].isdecimal()
    assert row["api_domain"] == zoho.url
    assert program.organisation() == ada.org_id


@pytest.mark.parametrize("by", ["grant_token", "refresh_token"])
def test_a_restart_makes_no_token_call(program, zoho, ada, by):
    """A program that starts again with the same settings uses the stored access token."""
    first = program.initialize(**login(zoho, ada))
    zoho.clear_calls()
    program.restart()
    again = program.initialize(**credentials(zoho, **{by: first[by]}))
    assert kinds(zoho) == []
    assert again == first
    assert program.organisation() == ada.org_id
    assert program.rows() == [first]


@pytest.mark.parametrize("by", ["grant_token", "refresh_token"])
def test_an_expired_token_is_refreshed_in_its_row(program, zoho, ada, by):
    """After the expiry, one refresh saves the new access token and expiry in the same row."""
    zoho.expires_in = 1
    first = program.initialize(**login(zoho, ada))
    let_tokens_expire(zoho)
    zoho.clear_calls()
    program.restart()
    program.initialize(**credentials(zoho, **{by: first[by]}))
    assert kinds(zoho) == ["refresh"]
    [row] = program.rows()
    assert row["access_token"] != first["access_token"]
    assert int(row["expires_in"]) > int(first["expires_in"])
    assert row == {**first, "access_token": row["access_token"], "expires_in": row["expires_in"]}
    assert program.organisation() == ada.org_id
    assert zoho.token_calls == 1


def refreshed_once(program, zoho, ada):
    """Make two requests. Check that the first one refreshes the token, in its row, and return the row."""
    [before] = program.rows()
    zoho.clear_calls()
    assert program.organisation() == ada.org_id
    assert program.organisation() == ada.org_id
    assert kinds(zoho) == ["refresh", "org", "org"]
    [row] = program.rows()
    assert row["id"] == before["id"]
    return row


def test_a_token_that_expires_in_a_running_program_is_refreshed(program, zoho, ada):
    """The next call refreshes the token once, in its row."""
    zoho.expires_in = 1
    first = program.initialize(**login(zoho, ada))
    let_tokens_expire(zoho)
    assert refreshed_once(program, zoho, ada)["access_token"] != first["access_token"]


def test_a_row_with_an_expiry_that_the_sdk_cannot_read_is_refreshed_once(program, zoho, ada):
    """`int(expires_in)` of the SDK raises ValueError for such a text. The SDK gets an expired token instead."""
    first = program.initialize(**login(zoho, ada))
    program.save_expiry(text="2026-11-28T06:00:00Z")
    assert program.rows()[0]["expires_in"] == "0"
    assert int(refreshed_once(program, zoho, ada)["expires_in"]) > int(first["expires_in"])


@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
@pytest.mark.parametrize("by", ["user", "id", "access_token"])
def test_one_key_is_enough(program, zoho, users, by, expired):
    """A token with only a user name, an id or an access token works as the user of the row that it names."""
    zoho.expires_in = 1 if expired else 3600
    log_in_both(program, zoho, users)
    let_tokens_expire(zoho)
    zoho.clear_calls()
    before = {row["user"]: row for row in program.rows()}
    for user, other in (users, reversed(users)):
        others_row = next(row for row in program.rows() if row["user"] == other.name)
        program.restart()
        program.initialize(**{by: before[user.name][by]})
        assert program.organisation() == user.org_id
        after = {row["user"]: row for row in program.rows()}
        assert {name: row["id"] for name, row in after.items()} == {name: row["id"] for name, row in before.items()}
        assert (after[user.name]["access_token"] != before[user.name]["access_token"]) == expired
        assert after[other.name] == others_row
    assert zoho.token_calls == (2 if expired else 0)


def test_an_unknown_user_name_is_an_error_of_the_sdk(program, zoho, ada):
    """A token with only a user name that no row has raises the SDK's own error. No request goes to Zoho."""
    program.initialize(**login(zoho, ada))
    before = program.rows()
    zoho.clear_calls()
    with pytest.raises(Raised) as raised:
        program.switch_user(user="nobody@example.com:1")
    assert (raised.value.kind, raised.value.code) == ("SDKException", "MANDATORY VALUE ERROR")
    assert kinds(zoho) == []
    assert program.rows() == before


@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
def test_two_users_in_two_threads(program, zoho, users, expired):
    """Two threads that call `switch_user` work as their own users, and each refreshes its own row."""
    ada, bob = users
    zoho.expires_in = 1 if expired else 3600
    log_in_both(program, zoho, users)
    before = program.rows()
    let_tokens_expire(zoho)
    zoho.clear_calls()
    program.restart()
    program.initialize(id=before[0]["id"])
    seen = program.in_threads(users=[{"user": ada.name}, {"user": bob.name}])
    assert seen == [[ada.org_id] * 5, [bob.org_id] * 5]
    assert [(row["id"], row["user"], row["refresh_token"]) for row in program.rows()] == [
        (row["id"], row["user"], row["refresh_token"]) for row in before
    ]
    assert zoho.token_calls == (2 if expired else 0)


@pytest.mark.parametrize("expired", [False, True], ids=["fresh", "expired"])
def test_switching_to_a_stored_token(program, zoho, users, expired):
    """A program can switch to a token that `get_tokens` has returned. The token is refreshed if it has expired."""
    ada, bob = users
    zoho.expires_in = 1 if expired else 3600
    log_in_both(program, zoho, users)
    let_tokens_expire(zoho)
    zoho.clear_calls()
    program.restart()
    program.initialize(user=bob.name)
    for number, user in enumerate(users):
        program.switch_to_stored(number=number)
        assert program.organisation() == user.org_id
    assert zoho.token_calls == (2 if expired else 0)
    assert [row["user"] for row in program.rows()] == [ada.name, bob.name]


def test_revoke_by_id(program, zoho, users):
    """`revoke(id)` revokes only that user's tokens, and changes no row. Before SDK 8 it only raises an error."""
    ada, bob = users
    log_in_both(program, zoho, users)
    program.restart()
    program.initialize(user=bob.name)
    before = program.rows()
    zoho.clear_calls()
    if SDK == 8:
        assert program.revoke(of=before[0]["id"]) is True
        assert [(call.kind, call.user, call.outcome) for call in zoho.calls] == [("revoke", ada.name, "ok")]
    else:
        with pytest.raises(Raised) as raised:
            program.revoke(of=before[0]["id"])
        assert (raised.value.kind, raised.value.code) == ("SDKException", "MANDATORY VALUE ERROR")
        assert kinds(zoho) == []
    assert program.rows() == before
    assert program.organisation() == bob.org_id
    assert zoho.revoke_user(ada) == (0 if SDK == 8 else 1)  # her remaining refresh tokens
    assert zoho.revoke_user(bob) == 1


def test_remove_deletes_the_row(program, zoho, users):
    """`remove()` deletes the row of the token. The next call fails, and does not save the token again."""
    _, bob = users
    log_in_both(program, zoho, users)
    adas, _ = program.rows()
    program.restart()
    program.initialize(user=bob.name)
    assert program.remove() is True
    assert program.rows() == [adas]
    zoho.clear_calls()
    with pytest.raises(Raised) as raised:
        program.organisation()
    assert (raised.value.kind, raised.value.code) == ("SDKException", "TOKEN_STORE")
    assert kinds(zoho) == []
    assert program.rows() == [adas]


@pytest.mark.parametrize("says_who", [True, False] if LOOKS_USERS_UP else [True], ids=str)
@pytest.mark.parametrize("by", ["grant_token", "refresh_token"])
def test_a_known_user_logs_in_again(program, zoho, users, by, says_who):
    """The SDK uses the new credentials of a known user, and they are saved in the row of that user."""
    ada, _ = users
    log_in_both(program, zoho, users)
    first, bobs = program.rows()
    # The stored access token has not expired, but it is revoked. So a call with it would fail.
    assert zoho.revoke_user(ada) == 1
    new = zoho.grant_code(ada) if by == "grant_token" else zoho.refresh_token(ada)
    zoho.clear_calls()
    zoho.expires_in = 1
    program.restart()
    who = {"user": ada.name} if says_who else {}
    program.initialize(**credentials(zoho, **{by: new}, **who))
    row, others = program.rows()
    assert others == bobs
    assert (row["id"], row["user"], row[by]) == (first["id"], ada.name, new)
    assert row["refresh_token"] != first["refresh_token"]
    assert kinds(zoho) == [
        "login" if by == "grant_token" else "refresh",
        *([] if says_who else LOOK_UPS),
    ]
    # The next refresh uses the new credentials.
    let_tokens_expire(zoho)
    program.restart()
    program.initialize(user=ada.name)
    assert program.organisation() == ada.org_id
    after, others = program.rows()
    assert after == {**row, "access_token": after["access_token"], "expires_in": after["expires_in"]}
    assert others == bobs


# SDK 5 has no such parameter, and looks up no user.
@pytest.mark.parametrize("choice", [{"find_user": True}, {"find_user": False}] if LOOKS_USERS_UP else [{}], ids=str)
def test_the_user_is_looked_up_if_find_user_is_set(program, zoho, ada, choice):
    """A row with a looked-up user has Zoho's name of that user. A row without a user is found by its credentials."""
    looked_up = choice.get("find_user", False)
    refresh_token = zoho.refresh_token(ada)
    zoho.expires_in = 1
    first = program.initialize(**credentials(zoho, refresh_token=refresh_token), **choice)
    assert kinds(zoho) == ["refresh", *(LOOK_UPS if looked_up else [])]
    assert first["user"] == (ada.name if looked_up else None)
    let_tokens_expire(zoho)
    for _ in range(2):
        program.restart()
        program.initialize(**credentials(zoho, refresh_token=refresh_token), **choice)
        assert program.organisation() == ada.org_id
    assert zoho.token_calls == 2
    [row] = program.rows()
    assert (row["id"], row["user"]) == (first["id"], first["user"])


def test_a_row_without_a_user_gets_the_user_name_later(program, zoho, ada):
    """A row that was saved without a user name gets the name when it is known. There is no second row."""
    refresh_token = zoho.refresh_token(ada)
    zoho.expires_in = 1
    unknown = {"find_user": False} if LOOKS_USERS_UP else {}
    first = program.initialize(**credentials(zoho, refresh_token=refresh_token), **unknown)
    assert first["user"] is None
    let_tokens_expire(zoho)
    program.restart()
    program.initialize(**credentials(zoho, refresh_token=refresh_token, **named(ada)))
    [row] = program.rows()
    assert (row["id"], row["user"]) == (first["id"], ada.name)


def test_an_access_token_that_no_row_has(program, zoho, ada):
    """A token with only an unknown access token is saved as a new row, and found again by its access token."""
    elsewhere = zoho.access_token(ada)
    program.initialize(access_token=elsewhere)
    assert program.organisation() == ada.org_id
    first = program.rows()
    assert [(row["access_token"], row["refresh_token"]) for row in first] == [(elsewhere, None)]
    program.restart()
    program.initialize(access_token=elsewhere)
    assert program.organisation() == ada.org_id
    assert program.rows() == first
    assert zoho.token_calls == 0


@pytest.mark.parametrize(
    "failure",
    [{"status": 500}, {"status": 200, "body": {"error": "Access Denied"}}, {"drop": True}],
    ids=["http-500", "denied", "dropped"],
)
def test_a_failed_refresh_is_tried_again(program, zoho, ada, failure):
    """A refresh that fails raises the SDK's error and does not change the row. The next call refreshes again."""
    zoho.expires_in = 1
    program.initialize(**login(zoho, ada))
    before = program.rows()
    let_tokens_expire(zoho)
    zoho.fail_next(**failure)
    zoho.clear_calls()
    with pytest.raises(Raised) as raised:
        program.organisation()
    assert raised.value.kind == "SDKException"
    assert raised.value.code != "TOKEN_STORE"
    assert program.rows() == before
    assert program.organisation() == ada.org_id
    assert kinds(zoho) == ["refresh", "refresh", "org"]
    [row] = program.rows()
    assert row["id"] == before[0]["id"]
    assert row["access_token"] != before[0]["access_token"]
