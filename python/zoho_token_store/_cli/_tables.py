"""Format rows of a token database as a table, as a list of fields, and as JSON."""

from collections.abc import Sequence
from typing import Any

from zoho_token_store._native import Record

from . import _format, _terminal

_SEPARATOR = "  "
_MIN_WIDTH = 3  # of every column except ID, which is never cut
_PREFERRED_WIDTH = 12  # of the columns USER and CLIENT: at this width, the other columns begin to shrink, too
_ID = "ID"
_REFRESH_TOKEN = "REFRESH TOKEN"  # noqa: S105 - a heading
_PROBLEM = "PROBLEM"
_NO = "no"
_MAX_MEASURED = 10_000  # in characters; a longer value fits no column, and measuring a megabyte takes a second
_SHRINK_FIRST = {"USER", "CLIENT"}

Table = dict[str, list[str]]
"""The cells of each column, by its heading."""


def columns(records: Sequence[Record], now_ms: int, *, with_last_saved: bool = False) -> Table:
    """Return the columns of a table of rows."""
    table: Table = {
        _ID: [_value(record.id) for record in records],
        "USER": [_value(record.user_name) for record in records],
        "CLIENT": [_value(record.client_id) for record in records],
        "DATA CENTRE": [_data_centre(record) for record in records],
        "EXPIRES": [_format.relative_time(record.expires_at, now_ms) for record in records],
        _REFRESH_TOKEN: ["yes" if record.has_refresh_token else _NO for record in records],
    }
    if with_last_saved:
        table["LAST SAVED"] = [_format.relative_time(record.last_saved, now_ms) for record in records]
    return {**table, **problems(records)}


def problems(records: Sequence[Record]) -> Table:
    """Return a column with the reasons why rows cannot be read. It is left out if all can be read."""
    cells = [record.unreadable or _format.ABSENT for record in records]
    return {_PROBLEM: cells} if any(record.unreadable for record in records) else {}


def render(table: Table, max_width: int | None) -> str:
    """Return the lines of a table. With `max_width`, cut cells so that a line fits into that many terminal columns.

    It uses no table library because their imports are slow. prettytable takes 45 ms, rich 60 ms and tabulate 110 ms. A
    whole run takes 110 ms without them. The library wcwidth provides the width of a text on a terminal.
    """
    heads = list(table)
    widths = [max(map(_display_width, [head, *cells])) for head, cells in table.items()]
    if max_width is not None:
        max_width -= len(_SEPARATOR) * (len(heads) - 1)
        for shrinking, minimum in ((_SHRINK_FIRST, _PREFERRED_WIDTH), (set(heads) - {_ID}, _MIN_WIDTH)):
            minimums = [
                min(width, minimum) if head in shrinking else width for head, width in zip(heads, widths, strict=True)
            ]
            widths = _format.shrink_columns(widths, minimums, max_width)
    lines = [_line([_terminal.bold] * len(heads), heads, widths)]
    highlights = {_REFRESH_TOKEN: _highlight_no, _PROBLEM: _highlight_problem}
    styles = [highlights.get(head, str) for head in heads]
    lines += [_line(styles, cells, widths) for cells in zip(*table.values(), strict=True)]
    return "\n".join(lines)


def _line(styles: Sequence[_terminal.Style], cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for style, cell, width in zip(styles, cells, widths, strict=True):
        text = _cut(cell, width)
        padded.append(style(text) + " " * (width - _display_width(text)))
    return _SEPARATOR.join(padded).rstrip(" ")


def _highlight_no(cell: str) -> str:
    return _terminal.yellow(cell) if cell == _NO else cell


def _highlight_problem(cell: str) -> str:
    return cell if cell == _format.ABSENT else _terminal.red(cell)


def _display_width(text: str) -> int:
    """Return the number of terminal columns that a text takes. It must not contain control characters.

    For a text of more than `_MAX_MEASURED` characters it is only an estimate.
    """
    if len(text) > _MAX_MEASURED or _format.ascii_symbols(text).isascii():
        return len(text)
    # Imported here: it takes a third of a run's time, and most tables do not need it.
    import wcwidth  # noqa: PLC0415

    return sum(max(wcwidth.wcwidth(character), 0) for character in text)


def _cut(text: str, width: int) -> str:
    if _display_width(text) <= width:
        return text
    end = min(len(text), width)
    while end and _display_width(text[:end]) >= width:
        end -= 1
    return text[:end] + _format.ELLIPSIS


def _value(value: str | None) -> str:
    return _format.escape_unprintable(value) if value else _format.ABSENT


def _data_centre(record: Record) -> str:
    """Return the name of the data centre, or the API domain if it is none of Zoho's known ones."""
    return _value(record.data_centre or record.api_domain)


def label(record: Record) -> str:
    """Return a short name of a row for messages. It contains no secrets."""
    known = [_format.escape_unprintable(value) for value in (record.user_name, record.client_id) if value]
    known += [_data_centre(record)] if record.api_domain else []
    return f"row {_format.escape_unprintable(record.id)}" + (f" ({', '.join(known)})" if known else "")


SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")


def render_fields(record: Record, secrets: dict[str, str] | None, now_ms: int) -> str:
    """Return all fields of a row, one per line. Secrets are masked if `secrets` is `None`."""

    def secret(column: str) -> str:
        if not getattr(record, f"has_{column}"):
            return _format.ABSENT
        return _format.MASK if secrets is None else _value(secrets.get(column))

    fields = {
        _ID: _value(record.id),
        "User": _value(record.user_name),
        "Client": _value(record.client_id),
        "Data centre": _value(record.data_centre),
        "API domain": _value(record.api_domain),
        "Redirect URL": _value(record.redirect_url),
        "Expires": _time(record.expires_at, record.expiry_time, now_ms),
        "Last saved": _time(record.last_saved, None, now_ms),
        "Client secret": secret("client_secret"),
        "Refresh token": secret("refresh_token"),
        "Access token": secret("access_token"),
        "Grant token": secret("grant_token"),
        **({"Problem": record.unreadable} if record.unreadable else {}),
    }
    return "\n".join(f"{_terminal.bold(f'{name:<13}')}  {value}" for name, value in fields.items())


def _time(time_ms: int | None, stored: str | None, now_ms: int) -> str:
    if time_ms is None:
        return f"{_format.escape_unprintable(stored)} (not a time)" if stored else _format.ABSENT
    return f"{_format.relative_time(time_ms, now_ms)} ({_format.iso_time(time_ms) or f'{time_ms} ms'})"


def json_object(record: Record, secrets: dict[str, str] | None = None) -> dict[str, object]:
    """Return the object that `--json` prints for a row."""
    data: dict[str, object] = {
        "id": record.id,
        "user_name": record.user_name,
        "client_id": record.client_id,
        "data_centre": record.data_centre,
        "api_domain": record.api_domain,
        "redirect_url": record.redirect_url,
        "expires_at": _format.iso_time(record.expires_at),
        "expiry_time": record.expiry_time,
        "last_saved": _format.iso_time(record.last_saved),
        **{f"has_{column}": getattr(record, f"has_{column}") for column in SECRETS},
        "unreadable": record.unreadable,
    }
    if secrets is not None:
        data.update({column: secrets.get(column) for column in SECRETS})
    return data


def to_json(data: Any) -> str:  # noqa: ANN401 - any JSON value
    """Return JSON in printable ASCII. The `json` module escapes everything else, but not DEL."""
    import json  # noqa: PLC0415 - only `--json` needs it

    return json.dumps(data, indent=2).replace("\x7f", "\\u007f")
