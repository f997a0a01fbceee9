"""Format times, durations, counts and text from outside. Pure functions."""

import re
import time

# Symbols in the output that are not ASCII. `ascii_symbols` replaces them.
ABSENT = "\N{EN DASH}"
ELLIPSIS = "…"

MASK = "********"

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_MAX_DURATION_SECONDS = 2.0**53  # above, a float cannot represent every whole number of seconds
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")

# Each unit: the distance in seconds from which it is used, its length in seconds, its symbol. Hours are used only from
# 2 h on, because "119 min" is more precise than "1 h".
_RELATIVE_UNITS = (
    (730 * 86400, 31_556_952, "y"),
    (2 * 86400, 86400, "d"),
    (7200, 3600, "h"),
    (60, 60, "min"),
    (5, 1, "s"),
)

_MAX_ISO_SECONDS = 253_402_300_799  # the last second of the year 9999: ISO 8601 has four digits for a year


def relative_time(time_ms: int | None, now_ms: int) -> str:
    """Return the distance of a time from now, rounded down. Both times are in milliseconds since the epoch."""
    if time_ms is None:
        return ABSENT
    seconds = abs(time_ms - now_ms) // 1000
    for least, length, unit in _RELATIVE_UNITS:
        if seconds >= least:
            amount = f"{seconds // length} {unit}"
            return f"in {amount}" if time_ms > now_ms else f"{amount} ago"
    return "now"


def iso_time(time_ms: int | None) -> str | None:
    """Return milliseconds since the epoch as ISO 8601 in UTC, to the second. `None` outside the years 1 to 9999."""
    if time_ms is None:
        return None
    seconds = time_ms // 1000
    if seconds > _MAX_ISO_SECONDS:
        return None
    # On some platforms `gmtime` fails for times before the epoch.
    try:
        parts = time.gmtime(seconds)
    except (OSError, OverflowError, ValueError):
        return None
    if parts.tm_year < 1:
        return None
    return f"{parts.tm_year:04}-{time.strftime('%m-%dT%H:%M:%SZ', parts)}"


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `30d`.

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]] if match else None
    if seconds is None or seconds > _MAX_DURATION_SECONDS:
        raise ValueError(f"{escape_unprintable(text)!r} is not a duration. Examples: 90s, 45m, 12h, 30d, 4w")
    return seconds


def escape_unprintable(text: str) -> str:
    """Escape unprintable characters: text from outside must not send control sequences to the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def ascii_symbols(text: str) -> str:
    """Replace the symbols of this module by ASCII characters."""
    return text.replace(ABSENT, "-").replace(ELLIPSIS, "~")


def encodable(text: str, encoding: str) -> str:
    """Replace what the encoding lacks: the symbols of this module by ASCII characters, other characters by escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return ascii_symbols(text).encode(encoding, "backslashreplace").decode(encoding)
    return text


def count(number: int, thing: str) -> str:
    """Return a count with its unit: `1 row`, `2 rows`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def shrink_columns(widths: list[int], minimums: list[int], max_width: int) -> list[int]:
    """Shrink columns until they fit or all have their minimum. The widest one above its minimum shrinks first."""
    widths = list(widths)
    while sum(widths) > max_width:
        shrinkable = [index for index, width in enumerate(widths) if width > minimums[index]]
        if not shrinkable:
            break
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    return widths
