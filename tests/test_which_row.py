"""The worked tables of `docs/which-row.md` are true: each line is run, with each store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import PLANTED, token, values

PAGE = (Path(__file__).parent.parent / "docs" / "which-row.md").read_text(encoding="utf-8")

# The page's word for a field, and the field's own. Those in the second line are secrets, which a test marks as such.
PUBLIC = {"id": "id", "user": "user", "client": "client_id", "domain": "api_domain", "expiry": "expires_in"}
SECRET = {"grant": "grant_token", "refresh": "refresh_token", "access": "access_token"}


def table(after: str, number: int = 0) -> list[list[str]]:
    """Return the lines of a table below a heading, the first of which is its head."""
    section = PAGE.split(f"\n## {after}\n")[1].split("\n## ")[0]
    lines = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)[number].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def fields(told: dict[str, str]) -> dict[str, str]:
    """Return fields by the SDK's names, with values that show what they are."""
    secrets = {SECRET[word]: f"{PLANTED}-{value}" for word, value in told.items() if word in SECRET and value}
    return secrets | {PUBLIC[word]: value for word, value in told.items() if word in PUBLIC and value}


def read(cell: str) -> dict[str, str]:
    """Return the fields that a cell names: `user ada, client C1`."""
    told = dict(part.split(" ") for part in cell.split(", "))
    assert set(told) <= {*PUBLIC, *SECRET}, cell
    return fields(told)


def made(of: dict[str, str]) -> object:
    """Make a token of such fields."""
    return token(of.get("user"), **{field: value for field, value in of.items() if field != "user"})


HEAD, *ROWS = table("Finding")
FINDS = table("Finding", 1)[1:]
FILLINGS = table("Filling in")[1:]
SAVES = table("Saving")[1:]


def test_the_tables_are_there():
    """A table that is not found would have no line that fails."""
    assert (len(HEAD), len(ROWS)) == (7, 7)
    assert min(map(len, (FINDS, FILLINGS, SAVES))) >= 5
    assert {found for _, found, _ in FINDS} == {*(row[0] for row in ROWS), "none"}


def test_each_find_names_the_row_that_the_table_says(store):
    """Contract 3: which row a token names."""
    for row in ROWS:
        wanted = fields(dict(zip(HEAD, row, strict=True)))
        store.save_token(saved := made(wanted))
        assert values(saved) == wanted
    assert len(store) == len(ROWS)
    for asked, row, _ in FINDS:
        found = store.find_token(made(read(asked)))
        assert (asked, "none" if found is None else found.get_id()) == (asked, row)


@pytest.mark.parametrize(("asked", "row", "wanted"), [line[:3] for line in FILLINGS], ids=range(len(FILLINGS)))
def test_a_token_is_filled_in_as_the_table_says(store, asked, row, wanted):
    """Contract 4: completing a token."""
    store.save_token(made(read(row)))
    found = store.find_token(made(read(asked)))
    assert values(found) == read(wanted)


@pytest.mark.parametrize(("given", "row", "wanted"), [line[:3] for line in SAVES], ids=range(len(SAVES)))
def test_a_row_is_updated_as_the_table_says(store, given, row, wanted):
    """Contract 5: saving."""
    store.save_token(made(read(row)))
    store.save_token(made(read(given)))
    assert [values(kept) for kept in store.get_tokens()] == [read(wanted)]
