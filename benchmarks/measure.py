"""How calls are timed: in batches and one by one, hot and cold, every contender in turn.

A *contender* is a store that is ready (`operations.Stand`) or a floor. Each call gets an argument of its own, made
before the clock starts. Python collects its garbage as it always does.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from operations import Calls, Operation

ENOUGH_FOR_P99 = 100
TOO_SLOW_FOR_P99 = 0.02  # seconds
FIRST_CALLS, FIRST_SECONDS = 5, 0.2
OTHER_WORK = 1e-4  # seconds
DOCUMENT = json.dumps([{"name": f"field {number}", "values": [number, str(number), None]} for number in range(8)])


class Effort(NamedTuple):
    """How long to measure."""

    runs: int
    batch: float  # seconds of a batch of calls, of which there may be fewer
    calls: int  # in a batch, at most
    batches: int
    singles: int  # calls that are timed one by one
    crowd: float  # seconds that a crowd works
    opened: int  # times that a store is made anew
    imports: int


FULL = Effort(runs=3, batch=0.01, calls=2_000, batches=9, singles=360, crowd=0.6, opened=7, imports=11)
FAST = Effort(runs=1, batch=0.0005, calls=10, batches=3, singles=12, crowd=0.05, opened=2, imports=1)


class Contender(Protocol):
    """Something that can be called and timed."""

    @property
    def name(self) -> str:
        """Who it is, in tables."""

    def prepare(self, operation: Operation, chance: Random, count: int) -> Calls:
        """Return what to call, and what to call it with."""

    def tidy(self, operation: Operation, arguments: list) -> None:
        """Take back what the calls did."""


class Key(NamedTuple):
    """What a figure is about."""

    section: str
    operation: str
    rows: int
    peer: str


@dataclasses.dataclass
class Figure:
    """One number of each run; and single calls, of all runs."""

    unit: str = "s"
    runs: list[float] = dataclasses.field(default_factory=list)
    singles: list[float] = dataclasses.field(default_factory=list)
    failed: int = 0  # calls
    lost: int = 0  # rows

    @property
    def median(self) -> float | None:
        """Of the runs."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def p99(self) -> float | None:
        """Of the single calls, if there are enough for one."""
        if len(self.singles) < ENOUGH_FOR_P99:
            return None
        return sorted(self.singles)[int(len(self.singles) * 0.99)]

    @property
    def p50(self) -> float | None:
        """Of the single calls."""
        return statistics.median(self.singles) if self.singles else None

    @property
    def slowest(self) -> float | None:
        """Of the single calls."""
        return max(self.singles, default=None)


class Figures(dict[Key, Figure]):
    """All that was measured."""

    def add(self, key: Key, value: float, *, singles: Iterable[float] = (), failed: int = 0, unit: str = "s") -> None:
        """Add one run's."""
        figure = self.setdefault(key, Figure(unit))
        figure.runs.append(value)
        figure.singles += singles
        figure.failed += failed

    def add_lost(self, key: Key, rows: int) -> None:
        """Add rows that a run lost."""
        self.setdefault(key, Figure()).lost += rows

    def value(self, key: Key, of: str = "median") -> float | None:
        """Return a number, or `None` if it was not measured."""
        return getattr(self[key], of) if key in self else None

    def unit(self, key: Key) -> str | None:
        """Return what it is counted in."""
        return self[key].unit if key in self else None


def batch(contender: Contender, operation: Operation, chance: Random, count: int) -> float:
    """Return the seconds of one call, in a loop of so many."""
    call, arguments = contender.prepare(operation, chance, count)
    begun = time.perf_counter()
    for argument in arguments:
        call(argument)
    took = time.perf_counter() - begun
    contender.tidy(operation, arguments)
    return took / count


def one_by_one(contender: Contender, operation: Operation, chance: Random, count: int) -> list[float]:
    """Return the seconds of each of so many calls."""
    call, arguments = contender.prepare(operation, chance, count)
    clock = time.perf_counter
    took = []
    for argument in arguments:
        begun = clock()
        call(argument)
        took.append(clock() - begun)
    contender.tidy(operation, arguments)
    return took


def after_other_work(contender: Contender, operation: Operation, chance: Random, count: int) -> list[float]:
    """Return the seconds of each of so many calls, each after 0.1 ms of something else."""
    call, arguments = contender.prepare(operation, chance, count)
    clock = time.perf_counter
    took = []
    for argument in arguments:
        until = clock() + OTHER_WORK
        while clock() < until:
            json.loads(DOCUMENT)
        begun = clock()
        call(argument)
        took.append(clock() - begun)
    contender.tidy(operation, arguments)
    return took


def pace(contender: Contender, operation: Operation, chance: Random, known: dict[str, float]) -> float:
    """Return about how many seconds a call takes, once it is warm. Who is known to be slow is not asked again."""
    if known.get(contender.name, 0) > FIRST_SECONDS:
        return known[contender.name]
    took: list[float] = []
    while len(took) < FIRST_CALLS and sum(took) < FIRST_SECONDS:
        took += one_by_one(contender, operation, chance, 1)
    return min(took)


def within(seconds: float, each: float, most: int) -> int:
    """Return how many fit into the time, but one at least."""
    return max(1, min(most, int(seconds / each)))


class Plan(NamedTuple):
    """How often somebody is called, by the pace: in each batch, in how many batches, and one by one beside each."""

    pace: float
    calls: int
    rounds: int
    singles: int

    @classmethod
    def of(cls, pace: float, effort: Effort) -> Plan:
        """Divide the time; whoever is slow has few calls, and if they are not too slow, enough for a p99."""
        calls = within(effort.batch, pace, effort.calls)
        rounds = within(effort.batch * effort.batches * 2, pace * calls, effort.batches)
        each = effort.singles // effort.batches
        few = ENOUGH_FOR_P99 // effort.batches // FULL.runs + 1 if pace < TOO_SLOW_FOR_P99 else 0
        return cls(pace, calls, rounds, min(each, max(few, int(effort.batch * 2 / pace))))


def plans_of(
    contenders: list[Contender], operation: Operation, effort: Effort, chance: Random, known: dict[str, float]
) -> dict[str, Plan]:
    """Plan everybody's calls."""
    return {each.name: Plan.of(pace(each, operation, chance, known), effort) for each in contenders}


def hot(
    contenders: list[Contender], operation: Operation, plans: dict[str, Plan], chance: Random
) -> dict[str, tuple[float, list[float]]]:
    """Time batches, everybody's in turn: the median of the batches, and the seconds of single calls."""
    batches: dict[str, list[float]] = {name: [] for name in plans}
    singles: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(max(plan.rounds for plan in plans.values())):
        for contender in chance.sample(contenders, len(contenders)):
            name, plan = contender.name, plans[contender.name]
            if number < plan.rounds:
                batches[name].append(batch(contender, operation, chance, plan.calls))
                singles[name] += one_by_one(contender, operation, chance, plan.singles)
    return {name: (statistics.median(found), singles[name]) for name, found in batches.items()}


def cold(
    contenders: list[Contender], operation: Operation, plans: dict[str, Plan], chance: Random
) -> dict[str, list[float]]:
    """Time single calls after other work, everybody's in turn."""
    singles: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(max(plan.rounds for plan in plans.values())):
        for contender in chance.sample(contenders, len(contenders)):
            plan = plans[contender.name]
            if number < plan.rounds:
                singles[contender.name] += after_other_work(contender, operation, chance, max(1, plan.singles))
    return singles
