"""Present the figures: tables in Markdown, JSON, and a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from measure import Key
from targets import BEST, FLOOR, HOT, PLAIN, REFRESH, SQLITE, UPDATE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from measure import Figure, Figures
    from targets import Verdict

UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (0, "ns"))


def digits(value: float) -> str:
    """Format a number with three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}".replace(",", " ")


def whole(number: int) -> str:
    """Format a whole number."""
    return f"{number:,}".replace(",", " ")


def quantity(value: float | None, unit: str = "s") -> str:
    """Format a value with its unit."""
    if value is None:
        return "-"
    if unit != "s":
        return f"{digits(value)} {unit}".rstrip()
    size, name = next((size, name) for size, name in UNITS if value >= size)
    return f"{digits(value / (size or 1e-9))} {name}"


def ratio(over: float | None, under: float | None) -> str:
    """Format the ratio of two values."""
    return "-" if over is None or not under else f"{digits(over / under)} x"


def cell(figure: Figure | None) -> str:
    """Format a figure: the median of the runs and the p99."""
    if figure is None or figure.median is None:
        return "-"
    text = quantity(figure.median, figure.unit)
    if figure.p99 is not None and figure.unit == "s":
        text += f" ({quantity(figure.p99)})"
    text += f", {whole(figure.failed)} failed" if figure.failed else ""
    return text + (f", {whole(figure.lost)} rows lost" if figure.lost else "")


def table(headers: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a table in Markdown."""
    headers = list(headers)
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def judged(verdict: Verdict) -> str:
    """Format a verdict: whether the target is reached, the measured value and the bound."""
    measured = "" if verdict.value is None else f" {digits(verdict.value)}"
    target = verdict.target
    return f"{verdict.sign}{measured} ({target.about.peer} {target.bound} {target.what})"


def section(figures: Figures, name: str, verdicts: list[Verdict], peers: list[str]) -> str:
    """Format one section: a line for each operation and table size, a column for each peer."""
    keys = [key for key in figures if key.section == name]
    present = [peer for peer in peers if any(key.peer == peer for key in keys)]
    present += sorted({key.peer for key in keys} - {*present, FLOOR})
    has_floor = any(key.peer == FLOOR for key in keys)
    headers = [
        "",
        "rows",
        "faster than best Python",
        *present,
        *(["floor", "times the floor"] if has_floor else []),
        "faster than plain",
        "targets",
    ]
    lines = []
    for operation, rows in dict.fromkeys((key.operation, key.rows) for key in keys):
        at = Key(name, operation, rows, SQLITE)
        ours, best, plain, floor = (figures.value(at._replace(peer=peer)) for peer in (SQLITE, BEST, PLAIN, FLOOR))
        is_rate = figures.unit(at) == "/s"
        about = [verdict for verdict in verdicts if verdict.target.about._replace(peer=SQLITE) == at]
        lines.append(
            [
                operation,
                whole(rows) if rows else "",
                ratio(ours, best) if is_rate else ratio(best, ours),
                *(cell(figures.get(at._replace(peer=peer))) for peer in present),
                *([quantity(floor), ratio(ours, floor)] if has_floor else []),
                ratio(ours, plain) if is_rate else ratio(plain, ours),
                "; ".join(map(judged, about)),
            ]
        )
    return f"## {name.capitalize()}\n\n{table(headers, lines)}\n"


def ratios(figures: Figures, peers: list[str]) -> str:
    """Format the hot figures of each peer as ratios to those of the best Python store, of `plain` and of the floor."""
    keys = [key for key in figures if key.section == HOT]
    present = [peer for peer in peers if any(key.peer == peer for key in keys)]
    lines = []
    for operation, rows in dict.fromkeys((key.operation, key.rows) for key in keys):
        at = Key(HOT, operation, rows, SQLITE)
        best, plain, floor = (figures.value(at._replace(peer=peer)) for peer in (BEST, PLAIN, FLOOR))
        times = [figures.value(at._replace(peer=peer)) for peer in present]
        cells = (
            f"{ratio(best, time)} · {ratio(plain, time)} · {ratio(time, floor)}" if time else "-" for time in times
        )
        lines.append([operation, whole(rows), *cells])
    return (
        "## Hot, as ratios\n\n"
        "How many times faster than best Python · how many times faster than plain · how many times the floor\n\n"
        + table(["", "rows", *present], lines)
        + "\n"
    )


def summary(verdicts: list[Verdict]) -> str:
    """Format the number of targets that are reached, and a list of those that are not."""
    count = {reached: sum(verdict.reached is reached for verdict in verdicts) for reached in (True, False, None)}
    text = f"{count[True]} targets reached, {count[False]} not, {count[None]} not measured."
    for verdict in verdicts:
        if verdict.reached is False:
            about = verdict.target.about
            rows = f" at {whole(about.rows)} rows" if about.rows else ""
            text += f"\n- {about.section}, {about.operation}{rows}: {judged(verdict)}"
    return f"## Targets\n\n{text}\n"


def draw(figures: Figures, peers: list[str], picture: Path) -> None:
    """Draw the cost of a find and of a save by the number of rows, on logarithmic scales."""
    from matplotlib import pyplot as plt  # only needed here

    plt.rcParams.update({"svg.hashsalt": "the same input draws the same file", "svg.fonttype": "none"})
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True, layout="constrained")
    for panel, operation in zip(panels, (REFRESH, UPDATE), strict=True):
        for index, peer in enumerate([*peers, FLOOR]):
            keys = sorted(key for key in figures if key[:2] == (HOT, operation) and key.peer == peer)
            values = [figures.value(key) for key in keys]
            if not keys or None in values:
                continue
            ours = peer.startswith("CustomStore")
            colour = "#2a7f62" if ours else "#555555" if peer == FLOOR else f"C{index}"
            line = {"CustomStoreInMemory": "--", "CustomStoreList": "-.", FLOOR: ":"}.get(peer, "-")
            counts, width, dot = [key.rows for key in keys], 1 + ours, None if peer == FLOOR else "o"
            panel.loglog(counts, values, label=peer, color=colour, linestyle=line, linewidth=width, marker=dot, ms=3)
        panel.set_title(operation, fontsize=10, loc="left")
        panel.set_xlabel("rows")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds of one call, hot")
    handles = {label: line for panel in panels for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def document(figures: Figures, verdicts: list[Verdict], facts: dict[str, object]) -> dict[str, object]:
    """Return the figures, targets and facts as a JSON object."""
    return {
        **facts,
        "figures": [
            {
                **key._asdict(),
                "unit": figure.unit,
                "median": figure.median,
                "runs": figure.runs,
                "p50": figure.p50,
                "p99": figure.p99,
                "slowest": figure.slowest,
                "failed": figure.failed,
                "lost": figure.lost,
            }
            for key, figure in figures.items()
        ],
        "targets": [
            {
                "what": verdict.target.what,
                "over": verdict.target.over._asdict(),
                "under": verdict.target.under and verdict.target.under._asdict(),
                "bound": verdict.target.bound,
                "measured": verdict.value,
                "reached": verdict.reached,
            }
            for verdict in verdicts
        ],
    }
