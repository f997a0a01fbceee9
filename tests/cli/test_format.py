"""Formatting times, durations, counts and text from outside."""

from __future__ import annotations

import pytest
from zoho_token_store._cli._format import (
    count,
    encodable,
    escape_unprintable,
    iso_time,
    parse_duration,
    relative_time,
    shrink_columns,
)

# In milliseconds.
NOW = 1_795_300_000_000
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (0, "now"),
        (4 * SECOND + 999, "now"),
        (-4 * SECOND, "now"),
        (5 * SECOND, "in 5 s"),
        (59 * SECOND, "in 59 s"),
        (-59 * SECOND, "59 s ago"),
        (MINUTE, "in 1 min"),
        (43 * MINUTE + 59 * SECOND, "in 43 min"),
        (2 * HOUR - 1, "in 119 min"),
        (2 * HOUR, "in 2 h"),
        (-2 * HOUR, "2 h ago"),
        (-47 * HOUR, "47 h ago"),
        (2 * DAY, "in 2 d"),
        (3 * DAY + 5 * HOUR, "in 3 d"),
        (-729 * DAY, "729 d ago"),
        (731 * DAY, "in 2 y"),
        (-NOW, "56 y ago"),
        (10**18 - NOW, "in 31688681 y"),
    ],
)
def test_a_time_is_shown_by_its_distance_from_now(ahead, text):
    """The distance of a time from now has one unit and is rounded down."""
    assert relative_time(NOW + ahead, NOW) == text


def test_an_absent_time_is_a_dash():
    """A time that is absent or cannot be read is shown as a dash."""
    assert relative_time(None, NOW) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (NOW, "2026-11-21T22:26:40Z"),
        (NOW + 999, "2026-11-21T22:26:40Z"),
        (0, "1970-01-01T00:00:00Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59Z"),
        (253_402_300_800_000, None),
        (2**63 - 1, None),
        (-(2**63), None),
        (None, None),
    ],
)
def test_times_in_json_are_iso_8601(time_ms, text):
    """JSON has times in UTC to the second, and `None` outside the years of ISO 8601."""
    assert iso_time(time_ms) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200), ("1.5h", 5400), (" 0s ", 0)],
)
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    """A duration is a number and a unit."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1e3s", "1.d", "3 d", "30D", "1h30m", "nan", "infd", "٣d", f"{'9' * 400}w", "1d\n2d"]
)
def test_other_texts_are_not_durations(text):
    """Any other text is refused. The error has examples of durations."""
    with pytest.raises(ValueError, match=r"is not a duration\. Examples: 90s, 45m, 12h, 30d, 4w"):
        parse_duration(text)


@pytest.mark.parametrize("text", [f"{'9' * 300}s", f"{'9' * 400}s", f"{'9' * 16}m"])
def test_a_duration_has_a_maximum(text):
    """A duration is refused if a float cannot represent its seconds exactly."""
    assert parse_duration(f"{'9' * 14}m") == float("9" * 14) * 60
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("ada@example.com:1001", "ada@example.com:1001"),
        ("Zoë 日本", "Zoë 日本"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x7f\x9b31m", r"\x7f\x9b31m"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\U000e0041", r"\U000e0041"),
        ("\udc80", r"\udc80"),
        ("", ""),
    ],
)
def test_unprintable_characters_are_escaped(text, escaped):
    """Control characters and characters that change the writing direction are escaped."""
    assert escape_unprintable(text) == escaped


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-8", "\N{EN DASH} ad… Zoë"), ("ascii", "- ad~ Zo\\xeb"), ("iso-8859-1", "- ad~ Zoë")],
)
def test_text_is_made_encodable(encoding, text):
    """If the encoding lacks a character, a symbol of the command line becomes ASCII, and any other an escape."""
    assert encodable("\N{EN DASH} ad… Zoë", encoding) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_counts(number, text):
    """Only the number 1 is singular."""
    assert count(number, "row") == text


@pytest.mark.parametrize(
    ("widths", "minimums", "max_width", "shrunk"),
    [
        ([2, 10], [2, 4], 12, [2, 10]),
        ([2, 10], [2, 4], 8, [2, 6]),
        ([20, 10], [3, 3], 18, [9, 9]),
        ([20, 10], [20, 3], 18, [20, 3]),
        ([20, 10], [20, 10], 5, [20, 10]),
        ([], [], 0, []),
    ],
)
def test_the_widest_column_shrinks_first(widths, minimums, max_width, shrunk):
    """The widest column shrinks first, and none below its minimum, even if the columns do not fit then."""
    assert shrink_columns(widths, minimums, max_width) == shrunk
