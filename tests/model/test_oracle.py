"""The judge is judged: the oracle against truth tables worked out by hand from the contract.

The tables of the pure rules stand in `tests/data/rules.json`, which the rules in Rust are tested with, too.
Each case names the sentence it is an instance of.
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
    """Section 3: the keys in their order, contradictions, several rows."""
    row = which_row(fields(**case["token"]), [row_of(**row) for row in case["rows"]])
    assert (row and row["id"]) == case["finds"]


@cases("which_row")
def test_an_empty_text_is_as_absent_as_none_is(case):
    """Absent = `None` or `""`: the two are never told apart, neither in a token nor in a row."""
    blank = dict.fromkeys(fields(), "")
    row = which_row(blank | case["token"], [blank | row for row in case["rows"]])
    assert (row and row["id"]) == case["finds"]


@cases("complete")
def test_a_token_is_completed_from_its_row(case):
    """Section 4: absent fields, newer credentials, the pair of access token and expiry."""
    assert complete(fields(**case["token"]), fields(**case["row"])) == fields(**case["result"])


@cases("complete")
def test_what_was_absent_and_stays_so_keeps_its_form(case):
    """A token's `""` that nothing replaces is no `None` afterwards; a value taken away is `None`."""
    blank = dict.fromkeys(fields(), "")
    gone = {name: None for name in case["token"] if name not in case["result"]}
    assert complete(blank | case["token"], blank | case["row"]) == blank | gone | case["result"]


@cases("update")
def test_a_row_takes_what_a_token_brings(case):
    """Section 5: present fields replace, absent ones leave, an access token without an expiry clears it."""
    assert update(fields(**case["token"]), fields(**case["row"])) == fields(**case["result"])


@cases("purge")
def test_a_row_is_used_up_or_idle(case):
    """Section 10: no refresh token and an expired access token; with `idle_for` those idle for so long."""
    deleted = is_used_up(fields(**case["row"]), case["saved_at"], case["now"], case["idle_for"])
    assert deleted is case["deleted"]


def saved(oracle, now=0, new_id=None, **token):
    return oracle.save(fields(**token), now, new_id)


def ids(oracle):
    return [row["id"] for row in oracle.contents()]


def test_a_token_without_a_row_is_inserted_and_the_next_time_updated():
    """Section 3 finds the row and section 5 updates it; with none, a row is inserted."""
    oracle = Oracle()
    assert saved(oracle, new_id="1", user_name="ada", refresh_token="r1", redirect_url="") == "1"
    assert saved(oracle, user_name="ada", access_token="a1") == "1"
    row = fields(id="1", user_name="ada", refresh_token="r1", access_token="a1")
    assert oracle.contents() == [row]


@pytest.mark.parametrize("credential", ["refresh_token", "grant_token", "access_token"])
def test_one_credential_is_enough_for_a_row(credential):
    """A token without a refresh, grant and access token is refused: one with any of them is not."""
    assert saved(Oracle(), new_id="1", **{credential: "x"}) == "1"


@pytest.mark.parametrize("form", [None, ""])
def test_a_token_without_any_credential_is_refused(form):
    """A token without a refresh, grant and access token is refused, and nothing is changed."""
    oracle = Oracle()
    with pytest.raises(Refused):
        saved(oracle, id="1", user_name="ada", refresh_token=form, grant_token=form, access_token=form)
    assert oracle.contents() == []


def test_a_token_without_any_credential_updates_a_row():
    """The refusal is one of inserts: a row that is there is updated by whatever names it."""
    oracle = Oracle()
    saved(oracle, new_id="1", refresh_token="r1")
    assert saved(oracle, id="1", user_name="ada") == "1"
    assert oracle.contents() == [fields(id="1", user_name="ada", refresh_token="r1")]


def test_a_token_is_inserted_with_its_own_id_if_no_row_has_it():
    """Insert: with the token's id if it carries one that no row has, also one of a deleted row."""
    oracle = Oracle()
    assert saved(oracle, id="x", refresh_token="r1") == "x"
    oracle.delete("x")
    assert saved(oracle, id="x", refresh_token="r1") == "x"


def test_a_token_whose_id_is_someone_elses_gets_a_new_one():
    """A token with an id whose row now belongs to someone else never touches that row."""
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
def test_new_ids_are_decimal_strings_rising(had, new_id, may):
    """New ids are decimal strings, above every decimal id of up to 18 digits, and no row has them."""
    oracle = Oracle()
    for row_id in had:
        saved(oracle, id=row_id, user_name=f"user {row_id}", refresh_token="r")
    assert oracle.may_issue(new_id) is may
    if not may:
        with pytest.raises(AssertionError, match="is no new id"):
            saved(oracle, new_id=new_id, user_name="ada", refresh_token="r")


@pytest.mark.parametrize("emptied", ["delete", "delete_all", "purge"])
def test_new_ids_are_never_used_twice(emptied):
    """New ids are never used twice, not even after deletes."""
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


def test_a_new_id_of_nineteen_digits_counts_too():
    """New ids rise, also beyond those that an explicit id could have."""
    oracle = Oracle()
    saved(oracle, new_id="1" + "0" * 18, refresh_token="r1")
    oracle.delete_all()
    assert not oracle.may_issue("1" + "0" * 18)


def test_rows_come_oldest_first():
    """Oldest row first: by insertion, neither by id nor by saving."""
    oracle = Oracle()
    for row_id in ("2", "10", "1"):
        saved(oracle, id=row_id, user_name=f"user {row_id}", refresh_token="r")
    saved(oracle, id="2", access_token="a1")
    oracle.delete("10")
    saved(oracle, id="10", user_name="user 10", refresh_token="r")
    assert ids(oracle) == ["2", "1", "10"]


def test_what_is_saved_last_is_found_first():
    """Of several, the one saved last: an update is a saving, a find is none."""
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


def test_a_deleted_row_is_gone_alone():
    """`delete_token` deletes one row; an id that is not there is no error."""
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
    """`purge` returns how many; a row's age runs from its last saving."""
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
    """An `expires_in` given as `int` is taken as its decimal string."""
    assert taken(fields(id="1", expiry_time=given)) == fields(id="1", expiry_time=text)


def test_a_misspelt_field_is_an_error():
    """A table's field that no token has would prove nothing."""
    with pytest.raises(TypeError, match="no field of a token"):
        fields(user="ada")
