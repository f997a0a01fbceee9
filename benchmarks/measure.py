"""Time calls: in batches and one by one, hot and cold, with the contenders in turn.

A *contender* is a store with rows (`operations.LoadedStore`) or a floor. Each call gets an argument of its own.
Arguments are prepared before the clock starts. Python's garbage collector is on.
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

MIN_CALLS_FOR_P99 = 100
MAX_SECONDS_FOR_P99 = 0.02  # if a call is slower, there are too few single calls for a p99
WARM_UP_CALLS, WARM_UP_SECONDS = 5, 0.2
OTHER_WORK_SECONDS = 1e-4
DOCUMENT = json.dumps([{"name": f"field {number}", "values": [number, str(number), None]} for number in range(8)])


class Effort(NamedTuple):
    """How much to measure."""

    runs: int
    batch: float  # target seconds of a batch
    calls: int  # maximum number of calls in a batch
    batches: int  # maximum number of batches
    singles: int  # maximum number of calls that are timed one by one
    crowd: float  # seconds of concurrent work
    opened: int  # how often a store is opened
    imports: int  # how often a module is imported


FULL = Effort(runs=3, batch=0.01, calls=2_000, batches=9, singles=360, crowd=0.6, opened=7, imports=11)
FAST = Effort(runs=1, batch=0.0005, calls=10, batches=3, singles=12, crowd=0.05, opened=2, imports=1)


class Contender(Protocol):
    """A store or a floor whose calls can be timed."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def prepare(self, operation: Operation, rng: Random, count: int) -> Calls:
        """Return the function to call and the arguments of its calls."""

    def clean_up(self, operation: Operation, arguments: list) -> None:
        """Undo what the calls did."""


class Key(NamedTuple):
    """The identity of a figure."""

    section: str
    operation: str
    rows: int
    peer: str


@dataclasses.dataclass
class Figure:
    """A measured quantity: one number per run, and the seconds of the single calls of all runs."""

    unit: str = "s"
    runs: list[float] = dataclasses.field(default_factory=list)
    singles: list[float] = dataclasses.field(default_factory=list)
    failed: int = 0  # calls
    lost: int = 0  # rows

    @property
    def median(self) -> float | None:
        """The median of the runs."""
        return statistics.median(self.runs) if self.runs else None

    @property
    def p99(self) -> float | None:
        """The 99th percentile of the single calls, if there are enough of them."""
        if len(self.singles) < MIN_CALLS_FOR_P99:
            return None
        return sorted(self.singles)[int(len(self.singles) * 0.99)]

    @property
    def p50(self) -> float | None:
        """The median of the single calls."""
        return statistics.median(self.singles) if self.singles else None

    @property
    def slowest(self) -> float | None:
        """The slowest single call."""
        return max(self.singles, default=None)


class Figures(dict[Key, Figure]):
    """All figures."""

    def add(self, key: Key, value: float, *, singles: Iterable[float] = (), failed: int = 0, unit: str = "s") -> None:
        """Add the result of one run."""
        figure = self.setdefault(key, Figure(unit))
        figure.runs.append(value)
        figure.singles += singles
        figure.failed += failed

    def add_lost(self, key: Key, rows: int) -> None:
        """Add rows that a run lost."""
        self.setdefault(key, Figure()).lost += rows

    def value(self, key: Key, of: str = "median") -> float | None:
        """Return an attribute of a figure, or `None` if it was not measured."""
        return getattr(self[key], of) if key in self else None

    def unit(self, key: Key) -> str | None:
        """Return the unit of a figure, or `None` if it was not measured."""
        return self[key].unit if key in self else None


def batch(contender: Contender, operation: Operation, rng: Random, count: int) -> float:
    """Time a loop of calls. Return the seconds per call."""
    call, arguments = contender.prepare(operation, rng, count)
    start = time.perf_counter()
    for argument in arguments:
        call(argument)
    duration = time.perf_counter() - start
    contender.clean_up(operation, arguments)
    return duration / count


def one_by_one(contender: Contender, operation: Operation, rng: Random, count: int) -> list[float]:
    """Time each call of a loop. Return the seconds of each."""
    call, arguments = contender.prepare(operation, rng, count)
    clock = time.perf_counter
    durations = []
    for argument in arguments:
        start = clock()
        call(argument)
        durations.append(clock() - start)
    contender.clean_up(operation, arguments)
    return durations


def after_other_work(contender: Contender, operation: Operation, rng: Random, count: int) -> list[float]:
    """Time calls that each follow 0.1 ms of other work. Return the seconds of each."""
    call, arguments = contender.prepare(operation, rng, count)
    clock = time.perf_counter
    durations = []
    for argument in arguments:
        end = clock() + OTHER_WORK_SECONDS
        while clock() < end:
            json.loads(DOCUMENT)
        start = clock()
        call(argument)
        durations.append(clock() - start)
    contender.clean_up(operation, arguments)
    return durations


def estimate(contender: Contender, operation: Operation, rng: Random, known: dict[str, float]) -> float:
    """Return the approximate seconds of a warm call. A contender that is known to be slow is not called again."""
    if known.get(contender.name, 0) > WARM_UP_SECONDS:
        return known[contender.name]
    durations: list[float] = []
    while len(durations) < WARM_UP_CALLS and sum(durations) < WARM_UP_SECONDS:
        durations += one_by_one(contender, operation, rng, 1)
    return min(durations)


def within(seconds: float, each: float, most: int) -> int:
    """Return how many items fit into the time: at least one, and at most `most`."""
    return max(1, min(most, int(seconds / each)))


class Plan(NamedTuple):
    """The number of calls of a contender, for its estimated seconds per call."""

    call_seconds: float
    calls: int  # in each batch
    rounds: int  # number of batches
    singles: int  # calls that are timed one by one, after each batch

    @classmethod
    def of(cls, call_seconds: float, effort: Effort) -> Plan:
        """Return a plan that fits into the time. Unless a call is very slow, there are enough calls for a p99."""
        calls = within(effort.batch, call_seconds, effort.calls)
        rounds = within(effort.batch * effort.batches * 2, call_seconds * calls, effort.batches)
        most = effort.singles // effort.batches
        least = MIN_CALLS_FOR_P99 // effort.batches // FULL.runs + 1 if call_seconds < MAX_SECONDS_FOR_P99 else 0
        return cls(call_seconds, calls, rounds, min(most, max(least, int(effort.batch * 2 / call_seconds))))


def plans_of(
    contenders: list[Contender], operation: Operation, effort: Effort, rng: Random, known: dict[str, float]
) -> dict[str, Plan]:
    """Return the plan of each contender."""
    return {each.name: Plan.of(estimate(each, operation, rng, known), effort) for each in contenders}


def hot(
    contenders: list[Contender], operation: Operation, plans: dict[str, Plan], rng: Random
) -> dict[str, tuple[float, list[float]]]:
    """Time batches of calls. The contenders take turns.

    Return the median of the batches and the seconds of single calls of each contender.
    """
    batches: dict[str, list[float]] = {name: [] for name in plans}
    singles: dict[str, list[float]] = {name: [] for name in plans}
    for number in range(max(plan.rounds for plan in plans.values())):
        for contender in rng.sample(contenders, len(contenders)):
            name, plan = contender.name, plans[contender.name]
            if number < plan.rounds:
                batches[name].append(batch(contender, operation, rng, plan.calls))
                singles[name] += one_by_one(contender, operation, rng, plan.singles)
    return {name: (statistics.median(found), singles[name]) for name, found in batches.items()}


def cold(
    contenders: list[Contender], operation: Operation, plans: dict[str, Plan], rng: Random
) -> dict[str, list[float]]:
    """Time single calls after other work. The contenders take turns."""
    singles: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(max(plan.rounds for plan in plans.values())):
        for contender in rng.sample(contenders, len(contenders)):
            plan = plans[contender.name]
            if number < plan.rounds:
                singles[contender.name] += after_other_work(contender, operation, rng, max(1, plan.singles))
    return singles
