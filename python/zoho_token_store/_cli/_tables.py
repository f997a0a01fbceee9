"""Rows of a token database as a table, as fields, and as JSON."""

from collections.abc import Sequence
from typing import Any

from zoho_token_store._native import Record

from . import _terminal, _words

_GAP = "  "
_LEAST = 3  # columns that anything but an id keeps on the narrowest terminal
_LEGIBLE = 12  # columns that a user or client keeps while others can give way
_ID = "ID"
_RENEWABLE = "REFRESH TOKEN"
_NO = "no"
_NARROW_FIRST = {"USER", "CLIENT"}

Table = dict[str, list[str]]


def of_rows(records: Sequence[Record], now: int, *, with_age: bool = False) -> Table:
    """Make the columns of a table of rows."""
    columns: Table = {
        _ID: [_text(record.id) for record in records],
        "USER": [_text(record.user_name) for record in records],
        "CLIENT": [_text(record.client_id) for record in records],
        "DATA CENTRE": [data_centre(record) for record in records],
        "EXPIRES": [_words.relative(record.expires_at, now) for record in records],
        _RENEWABLE: ["yes" if record.has_refresh_token else _NO for record in records],
    }
    if with_age:
        columns["LAST SAVED"] = [_words.relative(record.last_saved, now) for record in records]
    return columns


def render(columns: Table, room: int | None) -> str:
    """Write a table, cut to fit into so many columns of a terminal, or whole.

    Not by a library. Where a whole run takes 110 ms, importing one of the kept ones takes 45 (prettytable), 60 (rich)
    or 110 (tabulate) more. What is hard about a table, how many columns a text takes, is a library's here, too.
    """
    heads = list(columns)
    widths = [max(map(_width, [head, *cells])) for head, cells in columns.items()]
    if room is not None:
        room -= len(_GAP) * (len(heads) - 1)
        for narrow, least in ((_NARROW_FIRST, _LEGIBLE), (set(heads) - {_ID}, _LEAST)):
            floors = [min(width, least) if head in narrow else width for head, width in zip(heads, widths, strict=True)]
            widths = _words.fit(widths, floors, room)
    lines = [_line([_terminal.bold] * len(heads), heads, widths)]
    paints = [_renewable if head == _RENEWABLE else str for head in heads]
    lines += [_line(paints, cells, widths) for cells in zip(*columns.values(), strict=True)]
    return "\n".join(lines)


def _line(paints: Sequence[_terminal.Paint], cells: Sequence[str], widths: Sequence[int]) -> str:
    painted = []
    for paint, cell, width in zip(paints, cells, widths, strict=True):
        text = _cut(cell, width)
        painted.append(paint(text) + " " * (width - _width(text)))
    return _GAP.join(painted).rstrip(" ")


def _renewable(cell: str) -> str:
    return _terminal.yellow(cell) if cell == _NO else cell


def _width(text: str) -> int:
    """Return how many columns of a terminal a text without control characters takes."""
    if _words.plain(text).isascii():
        return len(text)
    # Imported here: most tables do without, and it takes a third of a run.
    import wcwidth  # noqa: PLC0415

    return sum(max(wcwidth.wcwidth(character), 0) for character in text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    end = min(len(text), width)
    while end and _width(text[:end]) >= width:
        end -= 1
    return text[:end] + _words.MORE


def _text(value: str | None) -> str:
    return _words.visible(value) if value else _words.NOTHING


def data_centre(record: Record) -> str:
    """Name the data centre, or the API domain that is none of Zoho's known ones."""
    return _text(record.data_centre or record.api_domain)


def name(record: Record) -> str:
    """Name a row in a sentence, without secrets."""
    known = [_words.visible(value) for value in (record.user_name, record.client_id) if value]
    known += [data_centre(record)] if record.api_domain else []
    return f"row {_words.visible(record.id)}" + (f" ({', '.join(known)})" if known else "")


SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")


def fields(record: Record, secrets: dict[str, str] | None, now: int) -> str:
    """Write all fields of a row, one in a line, its secrets masked unless they are given."""

    def secret(column: str) -> str:
        if not getattr(record, f"has_{column}"):
            return _words.NOTHING
        return _words.MASK if secrets is None else _text(secrets.get(column))

    shown = {
        _ID: _text(record.id),
        "User": _text(record.user_name),
        "Client": _text(record.client_id),
        "Data centre": _text(record.data_centre),
        "API domain": _text(record.api_domain),
        "Redirect URL": _text(record.redirect_url),
        "Expires": _moment(record.expires_at, record.expiry_time, now),
        "Last saved": _moment(record.last_saved, None, now),
        "Client secret": secret("client_secret"),
        "Refresh token": secret("refresh_token"),
        "Access token": secret("access_token"),
        "Grant token": secret("grant_token"),
    }
    return "\n".join(f"{_terminal.bold(f'{head:<13}')}  {value}" for head, value in shown.items())


def _moment(moment: int | None, stored: str | None, now: int) -> str:
    if moment is None:
        return f"{_words.visible(stored)} (not a time)" if stored else _words.NOTHING
    return f"{_words.relative(moment, now)} ({_words.iso(moment) or f'{moment} ms'})"


def as_data(record: Record, secrets: dict[str, str] | None = None) -> dict[str, object]:
    """Make what `--json` prints of a row."""
    data: dict[str, object] = {
        "id": record.id,
        "user_name": record.user_name,
        "client_id": record.client_id,
        "data_centre": record.data_centre,
        "api_domain": record.api_domain,
        "redirect_url": record.redirect_url,
        "expires_at": _words.iso(record.expires_at),
        "expiry_time": record.expiry_time,
        "last_saved": _words.iso(record.last_saved),
        **{f"has_{column}": getattr(record, f"has_{column}") for column in SECRETS},
    }
    if secrets is not None:
        data.update({column: secrets.get(column) for column in SECRETS})
    return data


def as_json(data: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Write JSON in ASCII, without control characters: DEL is the one that JSON itself would let through."""
    import json  # noqa: PLC0415 - only programs ask for it

    return json.dumps(data, indent=2).replace("\x7f", "\\u007f")
