"""How things are said."""

from __future__ import annotations

import pytest
from zoho_token_store._cli._words import count, duration, encodable, fit, iso, relative, visible

NOW = 1_795_300_000_000
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize(
    ("ahead", "said"),
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
def test_times_are_told_from_now(ahead, said):
    """A time is told in the unit that says most, rounded down."""
    assert relative(NOW + ahead, NOW) == said


def test_no_time_is_a_dash():
    """What is absent or cannot be read is a dash."""
    assert relative(None, NOW) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("moment", "written"),
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
def test_times_for_programs_are_iso_8601(moment, written):
    """Programs get UTC to the second, and `None` where ISO 8601 has no year."""
    assert iso(moment) == written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("45m", 2700), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200), ("1.5h", 5400), (" 0s ", 0)],
)
def test_durations_have_a_unit(text, seconds):
    """A duration is a number and a unit."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1e3s", "1.d", "3 d", "30D", "1h30m", "nan", "infd", "٣d", f"{'9' * 400}w", "1d\n2d"]
)
def test_what_is_no_duration_is_refused(text):
    """Anything else is refused, with what would be right."""
    with pytest.raises(ValueError, match="write 90s, 45m, 12h, 30d or 4w"):
        duration(text)


@pytest.mark.parametrize("text", [f"{'9' * 300}s", f"{'9' * 400}s", f"{'9' * 16}m"])
def test_a_duration_has_an_end(text):
    """What no store can count is none; longer than any age of a token is still one."""
    assert duration(f"{'9' * 14}m") == float("9" * 14) * 60
    with pytest.raises(ValueError, match="is no duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "shown"),
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
def test_text_from_outside_cannot_drive_a_terminal(text, shown):
    """Control characters, and those that turn the direction of writing, are shown as escapes."""
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "\N{EN DASH} ad… Zoë"), ("ascii", "- ad~ Zo\\xeb"), ("iso-8859-1", "- ad~ Zoë")],
)
def test_an_output_gets_what_it_can_show(encoding, shown):
    """Where an output cannot show our own signs, they have a like; anything else becomes an escape."""
    assert encodable("\N{EN DASH} ad… Zoë", encoding) == shown


@pytest.mark.parametrize(("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_counts(number, said):
    """One is singular."""
    assert count(number, "row") == said


@pytest.mark.parametrize(
    ("widths", "floors", "room", "fitted"),
    [
        ([2, 10], [2, 4], 12, [2, 10]),
        ([2, 10], [2, 4], 8, [2, 6]),
        ([20, 10], [3, 3], 18, [9, 9]),
        ([20, 10], [20, 3], 18, [20, 3]),
        ([20, 10], [20, 10], 5, [20, 10]),
        ([], [], 0, []),
    ],
)
def test_the_widest_column_gives_way(widths, floors, room, fitted):
    """Columns narrow from the widest on, and none below its floor, even if it does not fit then."""
    assert fit(widths, floors, room) == fitted
