"""Tests the oracle with truth tables that were written by hand from the contract.

The tables of the pure rules are in `tests/data/rules.json`. The rules in Rust are tested with the same file. Each case
has the sentence that it is an example of.
"""

import json
from pathlib import Path

import pytest
from model.oracle import Oracle, Refused, complete, fields, is_used_up, taken, update, which_row

RULES = json.loads((Path(__file__).parents[1] / "data" / "rules.json").read_text(encoding="utf-8"))


def cases(table):
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["why"]) for case in RULES[table]])


def row_of(saved=None, **given):
    return fields(**given) | {"saved": saved}


@cases("which_row")
def test_a_token_names_the_row_that_its_keys_find(case):
    """Section 3: the order of the keys, contradictions, several rows."""
    row = which_row(fields(**case["token"]), [row_of(**row) for row in case["rows"]])
    assert (row and row["id"]) == case["finds"]


@cases("which_row")
def test_an_empty_text_is_absent_like_none(case):
    """Absent: `None` or `""`. They are never distinguished, neither in a token nor in a row."""
    blank = dict.fromkeys(fields(), "")
    row = which_row(blank | case["token"], [blank | row for row in case["rows"]])
    assert (row and row["id"]) == case["finds"]


@cases("complete")
def test_a_token_is_completed_from_its_row(case):
    """Section 4: absent fields, newer credentials, the pair of access token and expiry."""
    assert complete(fields(**case["token"]), fields(**case["row"])) == fields(**case["result"])


@cases("complete")
def test_a_field_that_stays_absent_keeps_its_form(case):
    """A `""` that is not replaced stays `""`. A value that is removed becomes `None`."""
    blank = dict.fromkeys(fields(), "")
    gone = {name: None for name in case["token"] if name not in case["result"]}
    assert complete(blank | case["token"], blank | case["row"]) == blank | gone | case["result"]


@cases("update")
def test_a_row_is_updated_with_the_present_fields_of_a_token(case):
    """Section 5: present fields replace, absent ones do not. An access token without an expiry clears the expiry."""
    assert update(fields(**case["token"]), fields(**case["row"])) == fields(**case["result"])


@cases("purge")
def test_a_row_is_used_up_or_idle(case):
    """Section 10: no refresh token and an expired access token. With `idle_for`, also rows that are idle."""
    deleted = is_used_up(fields(**case["row"]), case["saved_at"], case["now"], case["idle_for"])
    assert deleted is case["deleted"]


def saved(oracle, now=0, new_id=None, **token):
    return oracle.save(fields(**token), now, new_id)


def ids(oracle):
    return [row["id"] for row in oracle.contents()]


def test_a_token_without_a_row_is_inserted_and_then_updated():
    """Section 3 says which row is found, and section 5 how it is updated. If there is no row, one is inserted."""
    oracle = Oracle()
    assert saved(oracle, new_id="1", user_name="ada", refresh_token="r1", redirect_url="") == "1"
    assert saved(oracle, user_name="ada", access_token="a1") == "1"
    row = fields(id="1", user_name="ada", refresh_token="r1", access_token="a1")
    assert oracle.contents() == [row]


@pytest.mark.parametrize("credential", ["refresh_token", "grant_token", "access_token"])
def test_one_credential_is_enough_for_a_row(credential):
    """A token with a refresh token, a grant token or an access token is not refused."""
    assert saved(Oracle(), new_id="1", **{credential: "x"}) == "1"


@pytest.mark.parametrize("form", [None, ""])
def test_a_token_without_any_credential_is_refused(form):
    """A token that has no refresh, grant or access token is refused, and nothing is changed."""
    oracle = Oracle()
    with pytest.raises(Refused):
        saved(oracle, id="1", user_name="ada", refresh_token=form, grant_token=form, access_token=form)
    assert oracle.contents() == []


def test_a_token_without_any_credential_updates_a_row():
    """Only an insert is refused. A token without any credential updates the row that it names."""
    oracle = Oracle()
    saved(oracle, new_id="1", refresh_token="r1")
    assert saved(oracle, id="1", user_name="ada") == "1"
    assert oracle.contents() == [fields(id="1", user_name="ada", refresh_token="r1")]


def test_a_token_is_inserted_with_its_own_id_if_no_row_has_it():
    """Insert: the new row gets the token's id if no row has it. A deleted row does not count."""
    oracle = Oracle()
    assert saved(oracle, id="x", refresh_token="r1") == "x"
    oracle.delete("x")
    assert saved(oracle, id="x", refresh_token="r1") == "x"


def test_a_token_with_the_id_of_another_users_row_gets_a_new_id():
    """If a token has an id and that id's row now belongs to someone else, the token never touches that row."""
    oracle = Oracle()
    saved(oracle, id="1", user_name="bob", refresh_token="r1")
    assert saved(oracle, new_id="2", id="1", user_name="ada", refresh_token="r2") == "2"
    assert [row["user_name"] for row in oracle.contents()] == ["bob", "ada"]


@pytest.mark.parametrize(
    ("had", "new_id", "may"),
    [
        ([], "1", True),
        ([], "5", True),
        (["1"], "1", False),
        (["9"], "10", True),
        (["10"], "9", False),
        (["10", "9"], "10", False),
        (["x"], "1", True),
        (["007"], "7", False),
        (["007"], "8", True),
        (["9" * 18], "1" + "0" * 18, True),
        (["9" * 18], "9" * 17, False),
        (["9" * 19], "1", True),
        (["9" * 18, "1" + "0" * 18], "1" + "0" * 18, False),
        (["9" * 18, "1" + "0" * 18], "1" + "0" * 17 + "1", True),
        (["\u0661"], "1", True),
        ([], "0", False),
        ([], "01", False),
        ([], "x", False),
        ([], "", False),
        ([], "-1", False),
        ([], " 1", False),
        ([], "\u0661", False),
        ([], 1, False),
        ([], None, False),
    ],
)
def test_new_ids_are_rising_decimal_strings(had, new_id, may):
    """A new id is a decimal string. It is above every decimal id of up to 18 digits, and no row has it."""
    oracle = Oracle()
    for row_id in had:
        saved(oracle, id=row_id, user_name=f"user {row_id}", refresh_token="r")
    assert oracle.may_issue(new_id) is may
    if not may:
        with pytest.raises(AssertionError, match="is no new id"):
            saved(oracle, new_id=new_id, user_name="ada", refresh_token="r")


@pytest.mark.parametrize("emptied", ["delete", "delete_all", "purge"])
def test_new_ids_are_never_used_twice(emptied):
    """No id is used twice, not even after deletes."""
    oracle = Oracle()
    saved(oracle, new_id="3", access_token="a1", expiry_time="1")
    {
        "delete": lambda: oracle.delete("3"),
        "delete_all": oracle.delete_all,
        "purge": lambda: oracle.purge(now=1),
    }[emptied]()
    assert oracle.contents() == []
    assert not oracle.may_issue("2")
    assert not oracle.may_issue("3")
    assert oracle.may_issue("4")


def test_a_new_id_of_nineteen_digits_is_never_used_twice():
    """A token's own id counts up to 18 digits. A new id can be longer, and is not used twice either."""
    oracle = Oracle()
    saved(oracle, new_id="1" + "0" * 18, refresh_token="r1")
    oracle.delete_all()
    assert not oracle.may_issue("1" + "0" * 18)


def test_rows_come_oldest_first():
    """The oldest row comes first. The time of the insert counts, not the id and not the last save."""
    oracle = Oracle()
    for row_id in ("2", "10", "1"):
        saved(oracle, id=row_id, user_name=f"user {row_id}", refresh_token="r")
    saved(oracle, id="2", access_token="a1")
    oracle.delete("10")
    saved(oracle, id="10", user_name="user 10", refresh_token="r")
    assert ids(oracle) == ["2", "1", "10"]


def test_what_is_saved_last_is_found_first():
    """The row is the one that was saved last. An update is a save, and a find is not."""
    oracle = Oracle()
    saved(oracle, id="1", user_name="ada", client_id="c1", refresh_token="r")
    saved(oracle, id="2", user_name="ada", client_id="c2", refresh_token="r")
    assert oracle.find(fields(user_name="ada"))["id"] == "2"
    saved(oracle, id="1", client_secret="s1")
    assert oracle.find(fields(id="2"))["id"] == "2"
    assert oracle.find(fields(user_name="ada"))["id"] == "1"


def test_a_token_without_a_row_finds_nothing():
    """`find_token` returns the same object, completed, or `None`."""
    assert Oracle().find(fields(id="1", user_name="ada")) is None


def test_a_delete_deletes_one_row():
    """`delete_token` deletes one row. An id that no row has is not an error."""
    oracle = Oracle()
    for row_id in ("1", "2"):
        saved(oracle, id=row_id, user_name=f"user {row_id}", refresh_token="r")
    for row_id in (None, "", "3", "1 or 1=1", "1"):
        oracle.delete(row_id)
    assert ids(oracle) == ["2"]
    assert oracle.row("1") is None
    assert oracle.row(None) is None
    assert oracle.row("2")["user_name"] == "user 2"


def test_purge_counts_what_it_deletes():
    """`purge` returns the number of deleted rows. The age of a row is the time since its last save."""
    oracle = Oracle()
    saved(oracle, id="1", user_name="ada", access_token="a1", expiry_time="5000", now=1000)
    saved(oracle, id="2", user_name="bob", refresh_token="r2", now=1000)
    saved(oracle, id="3", user_name="cyd", refresh_token="r3", now=1000)
    assert oracle.purge(now=4999) == 0
    assert oracle.purge(now=5000) == 1
    assert ids(oracle) == ["2", "3"]
    saved(oracle, id="2", client_secret="s2", now=6000)
    assert oracle.purge(now=7000, idle_for=2000) == 1
    assert ids(oracle) == ["2"]


@pytest.mark.parametrize(("given", "text"), [(0, "0"), (-5, "-5"), (10**30, "1" + "0" * 30), ("5", "5"), (None, None)])
def test_an_expiry_given_as_int_is_its_decimal_string(given, text):
    """An `expires_in` given as an `int` is accepted as its decimal string."""
    assert taken(fields(id="1", expiry_time=given)) == fields(id="1", expiry_time=text)


def test_a_misspelt_field_is_an_error():
    """A field that no token has is a mistake in the table of cases."""
    with pytest.raises(TypeError, match="no field of a token"):
        fields(user="ada")
