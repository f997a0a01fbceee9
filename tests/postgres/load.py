"""Programs that save and find without a pause, while a test lets something fail.

Each program has its own users, so it knows what their rows must be. It counts the versions of a user, and each save has
the next one. An acknowledged save must be found from then on. A save that failed may have been done or not.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sdk.program import processes
from support import login, token

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 90.0  # seconds; no program lasts so long
PAUSE = 0.002  # seconds between two rounds
NEW_USER_EACH = 3  # rounds


@dataclass
class Report:
    """What one program has seen. It holds no secret."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # the last version of each user
    attempted: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[str, str, float, str]] = field(default_factory=list)  # the call, code, seconds, text
    wrong: list[str] = field(default_factory=list)  # a find that missed an acknowledged save
    longest: float = 0.0


def version_of(found: Any) -> int:
    """Return the version of a token that was found."""
    return int(found.get_access_token().rpartition("-")[2])


def versioned(user: str, version: int) -> Any:
    """Make a token of this version. Only its access token changes, as with a refresh."""
    return login(user, refresh_token=f"planted-refresh-{user}", access_token=f"planted-access-{user}-{version}")


class Worker:
    """One program."""

    def __init__(self, dsn: str, options: dict[str, Any], number: int) -> None:
        from zoho_token_store import CustomStorePostgreSQL

        self.number = number
        self.random = random.Random(number)
        self.report = Report()
        self.store = self.call("open", lambda: CustomStorePostgreSQL(dsn, **options))

    def call(self, name: str, work: Callable[[], Any]) -> Any:
        """Make a call, and measure it. Return nothing if it fails."""
        from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

        begun = time.monotonic()
        try:
            return work()
        except SDKException as error:
            cause: Any = error.cause
            self.report.errors.append((name, getattr(cause, "code", ""), time.monotonic() - begun, str(cause or error)))
            return None
        finally:
            self.report.longest = max(self.report.longest, time.monotonic() - begun)

    def round(self, number: int) -> bool:
        """Save one token, and find it. Return whether the save was acknowledged."""
        report = self.report
        if number % NEW_USER_EACH == 0:
            user = f"user{self.number}.{number}@example.com"
        else:
            user = self.random.choice(list(report.attempted))
        version = report.attempted[user] = report.attempted.get(user, 0) + 1

        def save() -> bool:
            self.store.save_token(versioned(user, version))
            return True

        is_saved = bool(self.call("save", save))
        if is_saved:
            report.acknowledged[user] = version
        errors = len(report.errors)
        found = self.call("find", lambda: self.store.find_token(token(user)))
        if len(report.errors) == errors:
            seen = 0 if found is None else version_of(found)
            if not report.acknowledged.get(user, 0) <= seen <= version:
                report.wrong.append(f"{user}: {seen} after {report.acknowledged.get(user, 0)}")
        return is_saved


def work(dsn: str, options: dict[str, Any], number: int, ends: Any, counts: Any, answer: Any) -> None:  # noqa: PLR0917, PLR0913
    """Run one program, until it shall end."""
    worker = Worker(dsn, options, number)
    deadline = time.monotonic() + TIMEOUT
    rounds = 0
    while worker.store is not None and not ends.is_set() and time.monotonic() < deadline:
        is_saved = worker.round(rounds)
        rounds += 1
        counts[2 * number] += is_saved
        counts[2 * number + 1] = len(worker.report.errors)
        time.sleep(PAUSE)
    answer.send(json.dumps(vars(worker.report)))


class Load:
    """Some programs that save and find, in a `with` block."""

    def __init__(self, dsn: str, count: int = 4, **options: object) -> None:
        self.dsn = dsn
        self.options = {"refresh_lease": 0, **options}
        self.count = count
        self.reports: list[Report] = []

    def __enter__(self) -> Load:  # noqa: PYI034 - Python 3.10 has no `Self`
        self._ends = processes.Event()
        self._counts = processes.Array("q", 2 * self.count)
        self._running = []
        for number in range(self.count):
            answer, theirs = processes.Pipe(duplex=False)
            arguments = (self.dsn, self.options, number, self._ends, self._counts, theirs)
            process = processes.Process(target=work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._running.append((process, answer))
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ends.set()
        for process, _ in self._running:
            process.kill()
            process.join(TIMEOUT)

    def until_saved(self, more: int = 15) -> None:
        """Wait until each program has made some more saves."""
        self._until(0, more)

    def until_failed(self, more: int = 1) -> None:
        """Wait until each program has had some more errors."""
        self._until(1, more)

    def _until(self, which: int, more: int) -> None:
        wanted = [count + more for count in self._counts[which::2]]
        deadline = time.monotonic() + TIMEOUT
        while not all(count >= want for count, want in zip(self._counts[which::2], wanted, strict=True)):
            assert time.monotonic() < deadline, f"saves and errors of each program: {list(self._counts)}"
            assert all(process.is_alive() for process, _ in self._running), "a program has ended"
            time.sleep(0.01)

    def end(self) -> Load:
        """Let all programs end, and collect their reports."""
        self._ends.set()
        for process, answer in self._running:
            assert answer.poll(TIMEOUT), "a program does not end"
            self.reports.append(Report(**json.loads(answer.recv())))
            process.join(TIMEOUT)
        return self

    @property
    def errors(self) -> list[tuple[str, str, float, str]]:
        """The errors of all programs."""
        return [error for report in self.reports for error in report.errors]

    @property
    def longest(self) -> float:
        """The longest call of all programs, in seconds."""
        return max(report.longest for report in self.reports)

    def verify(self, store: Any) -> None:
        """Check the rows: nothing acknowledged is lost, and nothing is there twice."""
        assert [wrong for report in self.reports for wrong in report.wrong] == []
        found = store.get_tokens()
        versions = {row.get_user_signature().get_name(): version_of(row) for row in found}
        assert len(versions) == len(found), "a user has two rows"
        assert len({row.get_id() for row in found}) == len(found), "an id has two rows"
        for report in self.reports:
            for user, attempted in report.attempted.items():
                lowest = report.acknowledged.get(user, 0)
                assert lowest <= versions.pop(user, 0) <= attempted, user
        assert versions == {}
