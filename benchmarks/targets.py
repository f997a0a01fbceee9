"""The performance targets as data, and the comparison of figures with them.

A target is a bound for one figure, or for the ratio of two figures of one run. Without a measured figure there is no
verdict.
"""

from __future__ import annotations

from typing import NamedTuple

from measure import Figures, Key

SQLITE, MEMORY, LIST = "CustomStoreSQLite", "CustomStoreInMemory", "CustomStoreList"
OURS = (SQLITE, MEMORY, LIST)
OURSELVES = "zoho_token_store"
BEST, PLAIN, PYTHON_LIST, PYTHON_MEMORY = "best Python", "plain", "Python list", "sqlite3 :memory:"
FLOOR = "floor"
HOT, COLD, BUSY, SAVING, CROWD, MAKING, SIZES = (
    *("hot", "cold", "busy thread", "find while others save"),
    *("saves of a crowd", "construction", "import and sizes"),
)
SECTIONS = (HOT, COLD, BUSY, SAVING, CROWD, MAKING, SIZES)
REFRESH, USER, ID, UPDATE = "find by refresh token", "find by user", "find by id", "save, update"


class Target(NamedTuple):
    """A bound for `over / under`, or for `over`. It is reached by values from `least` on or up to `most`."""

    what: str
    over: Key
    under: Key | None = None
    of: str = "median"  # the attribute of the figure `over`
    under_of: str = "median"  # the attribute of the figure `under`
    least: float | None = None
    most: float | None = None

    @property
    def bound(self) -> str:
        """The bound as a text for tables."""
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    @property
    def about(self) -> Key:
        """The figure of this library that must reach the target."""
        return self.over if self.under is None or self.over.peer in OURS else self.under


class Verdict(NamedTuple):
    """A target, the measured value, and whether it is reached. Both are `None` if it was not measured."""

    target: Target
    value: float | None
    reached: bool | None

    @property
    def sign(self) -> str:
        """The verdict as a symbol for tables."""
        return {True: "✓", False: "✗", None: "-"}[self.reached]


def judge(target: Target, figures: Figures) -> Verdict:
    """Compare the measured value with the bound."""
    value = figures.value(target.over, target.of)
    if target.under is not None and value is not None:
        under = figures.value(target.under, target.under_of)
        value = value / under if under else None
    if value is None:
        return Verdict(target, None, None)
    high_enough = target.least is None or value >= target.least
    low_enough = target.most is None or value <= target.most
    return Verdict(target, value, high_enough and low_enough)


# Plain opens the file in each call, which costs ten times as much on one machine as on another. The best store in
# Python does not, so these factors differ less from machine to machine.
FASTER_THAN_BEST = {REFRESH: (2, 2, 1, 1), USER: (2, 2, 1, 1)}
FASTER_THAN_PLAIN = {  # the least factors at 10, 1 000, 10 000 and 100 000 rows
    REFRESH: (40, 100, 250, 1_000),
    USER: (40, 100, 250, 1_000),
    ID: (45, 45, 45, 30),
    UPDATE: (5, 8, 15, 45),
    "save, new": (5, 9, 18, 30),
    "get_tokens": (12, 5.5, 5, 5),
}
ROWS = (10, 1_000, 10_000, 100_000)
FEW, MANY = ROWS[0], ROWS[-1]
CROWD_ROWS = 1_000


def hot(operation: str, rows: int, peer: str = SQLITE) -> Key:
    """Return the key of a hot figure."""
    return Key(HOT, operation, rows, peer)


def all_targets(crowd_rows: int = CROWD_ROWS) -> list[Target]:
    """Return all targets. `crowd_rows` is the table size for concurrent work."""
    found = [
        Target(f"times faster than {peer}", hot(operation, rows, peer), hot(operation, rows), least=least)
        for peer, least_factors in ((BEST, FASTER_THAN_BEST), (PLAIN, FASTER_THAN_PLAIN))
        for operation, bounds in least_factors.items()
        for rows, least in zip(ROWS, bounds, strict=True)
    ]
    for operation in (REFRESH, USER):
        few, many = hot(operation, FEW), hot(operation, MANY)
        found += [
            Target("times the floor", few, hot(operation, FEW, FLOOR), most=1.9),
            Target("times a Python list of ten rows", few, hot(operation, FEW, PYTHON_LIST), most=1),
            Target("times the find at 10 rows", many, few, most=4),
        ]
    found += [
        Target("times faster than plain", cold, cold._replace(peer=SQLITE), least=15)
        for operation in (REFRESH, USER)
        for rows in ROWS
        for cold in [Key(COLD, operation, rows, PLAIN)]
    ]
    busy = Key(BUSY, "find", crowd_rows, SQLITE)
    one, eight = (Key(CROWD, name, crowd_rows, SQLITE) for name in ("1 thread", "8 threads"))
    four = Key(CROWD, "4 processes", crowd_rows, SQLITE)
    found += [
        Target("times the idle find", busy, busy._replace(operation="find, idle"), most=1.5),
        Target("s, p99", Key(SAVING, "find", crowd_rows, SQLITE), of="p99", most=0.0003),
        *(Target("times the floor", hot(UPDATE, rows), hot(UPDATE, rows, FLOOR), most=1.3) for rows in ROWS),
        Target("times the saves of one thread", eight, one, least=3),
        Target("times the median save: the slowest", four, four, of="slowest", under_of="p50", most=20),
    ]
    for rows in ROWS:
        for operation in (REFRESH, ID):
            ours = hot(operation, rows, MEMORY)
            under = hot(operation, rows, PYTHON_MEMORY)
            found.append(Target("times Python's sqlite3 on :memory:", ours, under, most=0.5))
    for operation in (REFRESH, USER):
        few, many = hot(operation, FEW, LIST), hot(operation, MANY, LIST)
        found += [
            Target("times a Python list of ten rows", few, hot(operation, FEW, PYTHON_LIST), most=1),
            Target("times the find at 10 rows", many, few, most=2),  # constant time, apart from CPU cache misses
        ]
    package = Key(SIZES, "import", 0, OURSELVES)
    return [
        *found,
        Target("s", package, most=0.002),
        Target("MB", Key(SIZES, "wheel", 0, OURSELVES), most=2.8),
    ]
