"""The tables of `docs/which-row.md`: each line is run with a store.

One store is enough here: `tests/rust/contract.rs` shows that every backend follows the same rules.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import PLANTED, token, values
from zoho_token_store import CustomStoreList

PAGE = (Path(__file__).parent.parent / "docs" / "which-row.md").read_text(encoding="utf-8")

# The page's name of each field, and the name in `support.values`.
PUBLIC = {"id": "id", "user": "user", "client": "client_id", "domain": "api_domain", "expiry": "expires_in"}
SECRET = {"grant": "grant_token", "refresh": "refresh_token", "access": "access_token"}


def table(heading: str, number: int = 0) -> list[list[str]]:
    """Return the cells of a table in a section: its head, then its rows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)[number].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def fields(given: dict[str, str]) -> dict[str, str]:
    """Translate the page's names of fields. Secrets get a prefix, so that a leak is noticed."""
    secrets = {SECRET[name]: f"{PLANTED}-{value}" for name, value in given.items() if name in SECRET and value}
    return secrets | {PUBLIC[name]: value for name, value in given.items() if name in PUBLIC and value}


def read(cell: str) -> dict[str, str]:
    """Return the fields in a cell such as `user ada, client C1`."""
    given = dict(part.split(" ") for part in cell.split(", "))
    assert set(given) <= {*PUBLIC, *SECRET}, cell
    return fields(given)


def make_token(given: dict[str, str]) -> object:
    """Make a token with these fields."""
    return token(given.get("user"), **{field: value for field, value in given.items() if field != "user"})


HEAD, *ROWS = table("Finding")
FINDS = table("Finding", 1)[1:]
COMPLETIONS = table("Filling in")[1:]
SAVES = table("Saving")[1:]


@pytest.fixture
def store():
    with CustomStoreList() as made:
        yield made


def test_all_tables_are_found():
    """The tests below would pass if the page had no tables."""
    assert (len(HEAD), len(ROWS)) == (7, 7)
    assert min(map(len, (FINDS, COMPLETIONS, SAVES))) >= 5
    assert {found for _, found, _ in FINDS} == {*(row[0] for row in ROWS), "none"}


def test_each_token_finds_the_row_that_the_table_says(store):
    """Contract 3: the keys of a token name its row."""
    for row in ROWS:
        expected = fields(dict(zip(HEAD, row, strict=True)))
        store.save_token(saved := make_token(expected))
        assert values(saved) == expected
    assert len(store) == len(ROWS)
    for asked, row, _ in FINDS:
        found = store.find_token(make_token(read(asked)))
        assert (asked, "none" if found is None else found.get_id()) == (asked, row)


@pytest.mark.parametrize(("asked", "row", "expected"), [row[:3] for row in COMPLETIONS], ids=range(len(COMPLETIONS)))
def test_a_token_is_completed_as_the_table_says(store, asked, row, expected):
    """Contract 4: a find completes its token."""
    store.save_token(make_token(read(row)))
    found = store.find_token(make_token(read(asked)))
    assert values(found) == read(expected)


@pytest.mark.parametrize(("given", "row", "expected"), [row[:3] for row in SAVES], ids=range(len(SAVES)))
def test_a_row_is_updated_as_the_table_says(store, given, row, expected):
    """Contract 5: a save updates its row."""
    store.save_token(make_token(read(row)))
    store.save_token(make_token(read(given)))
    assert [values(kept) for kept in store.get_tokens()] == [read(expected)]
