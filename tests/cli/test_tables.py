"""Formatting rows as a table and as JSON."""

from __future__ import annotations

import json

import pytest
import wcwidth
from click import unstyle
from wcwidth import wcswidth
from zoho_token_store._cli._tables import render, to_json

ADA = "ada.with.a.long.name@example.com:1001"
TABLE = {
    "ID": ["1", "1234567"],
    "USER": [ADA, "日本語のとても長い名前ですよ本当に"],
    "CLIENT": ["1000.ABCDEFGHIJKLMNOPQRSTUVWXYZ"] * 2,
    "DATA CENTRE": ["US", "EU sandbox"],
    "EXPIRES": ["in 43 min", "\N{EN DASH}"],
    "REFRESH TOKEN": ["yes", "no"],
}


def lines(table, max_width):
    return unstyle(render(table, max_width)).split("\n")


@pytest.mark.parametrize("max_width", [200, 100, 80, 60, 45, 36])
def test_a_table_fits_a_terminal(max_width):
    """No line is wider than the terminal, and IDs are never cut."""
    rendered = lines(TABLE, max_width)
    assert len(rendered) == 3
    assert max(map(wcswidth, rendered)) <= max_width
    assert [line.split()[0] for line in rendered] == ["ID", "1", "1234567"]


@pytest.mark.parametrize("max_width", [None, 80])
def test_a_value_of_a_megabyte_is_not_measured(monkeypatch, max_width):
    """A table with such a value takes no longer. On a terminal the value is cut like any other."""
    measured = []
    monkeypatch.setattr(wcwidth, "wcwidth", lambda character: measured.append(character) or 1)
    table = {**TABLE, "USER": ["\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 1_000_000, ADA]}
    rendered = lines(table, max_width)
    assert len(measured) < 1_000_000
    assert max(map(len, rendered)) <= (max_width or 1_100_000)


def test_users_and_clients_are_cut_first():
    """On a terminal with 80 columns only the columns USER and CLIENT are cut."""
    head, first, second = lines(TABLE, 80)
    for part in ("DATA CENTRE", "EXPIRES", "REFRESH TOKEN"):
        assert part in head
    assert "in 43 min" in first
    assert "EU sandbox" in second
    assert "ada." in first
    assert first.count("…") == 2


def test_without_a_terminal_nothing_is_cut():
    """In a file or pipe every value is complete."""
    rendered = "\n".join(lines(TABLE, None))
    for cells in TABLE.values():
        assert all(cell in rendered for cell in cells)
    assert "…" not in rendered


def test_columns_are_aligned_by_display_width():
    """A column begins below its heading, also after characters that are two terminal columns wide."""
    head, first, second = lines(TABLE, None)
    offset = wcswidth(head[: head.index("CLIENT")])
    for line in (first, second):
        assert wcswidth(line[: line.index("1000.ABC")]) == offset


def test_styles_do_not_include_the_padding():
    """Headings are bold and a missing refresh token is yellow. The style codes surround only the text."""
    styled = render(TABLE, None).split("\n")
    assert styled[0].startswith("\x1b[1mID\x1b[0m")
    assert styled[2].endswith("\x1b[33mno\x1b[0m")
    assert "\x1b" not in styled[1]


def test_json_is_ascii_without_control_characters():
    """JSON is printable ASCII and keeps the values."""
    data = {"user_name": "\x1b[2J\x7f\x9b Zoë \u202e\n"}
    text = to_json(data)
    assert json.loads(text) == data
    assert all(character == "\n" or (character.isascii() and character.isprintable()) for character in text)
