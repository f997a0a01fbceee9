"""Rows as tables, fields and JSON."""

from __future__ import annotations

import json

import pytest
from click import unstyle
from wcwidth import wcswidth
from zoho_token_store._cli._tables import as_json, render

ADA = "ada.with.a.long.name@example.com:1001"
TABLE = {
    "ID": ["1", "1234567"],
    "USER": [ADA, "日本語のとても長い名前ですよ本当に"],
    "CLIENT": ["1000.ABCDEFGHIJKLMNOPQRSTUVWXYZ"] * 2,
    "DATA CENTRE": ["US", "EU sandbox"],
    "EXPIRES": ["in 43 min", "\N{EN DASH}"],
    "REFRESH TOKEN": ["yes", "no"],
}


def lines(table, room):
    return unstyle(render(table, room)).split("\n")


@pytest.mark.parametrize("room", [200, 100, 80, 60, 45, 36])
def test_a_table_fits_a_terminal(room):
    """No line is wider than the terminal, all columns begin in one place, and ids are never cut."""
    written = lines(TABLE, room)
    assert len(written) == 3
    assert max(map(wcswidth, written)) <= room
    assert [line.split()[0] for line in written] == ["ID", "1", "1234567"]


def test_users_and_clients_give_way_first():
    """On a terminal of 80 columns the rest of the table is whole."""
    head, first, second = lines(TABLE, 80)
    for part in ("DATA CENTRE", "EXPIRES", "REFRESH TOKEN"):
        assert part in head
    assert "in 43 min" in first
    assert "EU sandbox" in second
    assert "ada." in first
    assert first.count("…") == 2


def test_without_a_terminal_a_table_is_whole():
    """Into a file or pipe every value goes uncut."""
    written = "\n".join(lines(TABLE, None))
    for cells in TABLE.values():
        assert all(cell in written for cell in cells)
    assert "…" not in written


def test_columns_are_aligned_by_what_is_seen():
    """A column begins below its heading, whatever signs stand before it."""
    head, first, second = lines(TABLE, None)
    place = wcswidth(head[: head.index("CLIENT")])
    for line in (first, second):
        assert wcswidth(line[: line.index("1000.ABC")]) == place


def test_colours_go_around_the_text_alone():
    """Headings are bold, a missing refresh token is yellow, and neither moves a column."""
    styled = render(TABLE, None).split("\n")
    assert styled[0].startswith("\x1b[1mID\x1b[0m")
    assert styled[2].endswith("\x1b[33mno\x1b[0m")
    assert "\x1b" not in styled[1]


def test_json_is_ascii_without_control_characters():
    """JSON says the same again, in printable ASCII."""
    data = {"user_name": "\x1b[2J\x7f\x9b Zoë \u202e\n"}
    written = as_json(data)
    assert json.loads(written) == data
    assert all(character == "\n" or (character.isascii() and character.isprintable()) for character in written)
