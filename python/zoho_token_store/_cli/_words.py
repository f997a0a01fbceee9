"""How things are said: times, durations, counts, text from outside. Pure functions."""

import re
import time

NOTHING = "\N{EN DASH}"
MORE = "…"
MASK = "********"

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = 2.0**53
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")

# From which number of seconds on to count in a unit, the largest first: 90 minutes tell more than 1 hour.
_UNITS = ((730 * 86400, 31_556_952, "y"), (2 * 86400, 86400, "d"), (7200, 3600, "h"), (60, 60, "min"), (5, 1, "s"))

_LAST_SECOND = 253_402_300_799  # of the year 9999, where ISO 8601 ends


def relative(moment: int | None, now: int) -> str:
    """Say how far a moment is from now, both in milliseconds, rounded down."""
    if moment is None:
        return NOTHING
    seconds = abs(moment - now) // 1000
    for least, length, unit in _UNITS:
        if seconds >= least:
            amount = f"{seconds // length} {unit}"
            return f"in {amount}" if moment > now else f"{amount} ago"
    return "now"


def iso(moment: int | None) -> str | None:
    """Write milliseconds since the epoch as ISO 8601 in UTC, to the second; `None` for what is beyond its years."""
    if moment is None:
        return None
    seconds = moment // 1000
    if seconds > _LAST_SECOND:
        return None
    # Some platforms know no time before the epoch.
    try:
        parts = time.gmtime(seconds)
    except (OSError, OverflowError, ValueError):
        return None
    if parts.tm_year < 1:
        return None
    return f"{parts.tm_year:04}-{time.strftime('%m-%dT%H:%M:%SZ', parts)}"


def duration(text: str) -> float:
    """Read a duration such as `30d` in seconds; `ValueError` if it is none."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else None
    if seconds is None or seconds > _LONGEST:
        raise ValueError(f"{visible(text)!r} is no duration: write 90s, 45m, 12h, 30d or 4w")
    return seconds


def visible(text: str) -> str:
    """Escape what is not printable: a user name from outside must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def plain(text: str) -> str:
    """Put ASCII in place of our own signs."""
    return text.replace(NOTHING, "-").replace(MORE, "~")


def encodable(text: str, encoding: str) -> str:
    """Replace what an output cannot show: our own signs by their like, the rest by escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return plain(text).encode(encoding, "backslashreplace").decode(encoding)
    return text


def count(number: int, thing: str) -> str:
    """Count things: `1 row`, `2 rows`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def fit(widths: list[int], floors: list[int], room: int) -> list[int]:
    """Narrow columns until they fit into the room: always the widest one that is above its floor."""
    widths = list(widths)
    while sum(widths) > room:
        above = [index for index, width in enumerate(widths) if width > floors[index]]
        if not above:
            break
        widths[max(above, key=widths.__getitem__)] -= 1
    return widths
