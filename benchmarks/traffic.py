"""Measure how long requests wait while Zoho refreshes, denies, or has refused a token: a part of `make bench-lease`.

The real SDK runs in processes of several threads, and a stand-in for Zoho in this one. Runs with the settings that are
compared alternate, and a table has the medians of the runs. Each store is used once before a measurement begins (hot).
"""

from __future__ import annotations

import math
import multiprocessing
import random
import secrets
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zoho_token_store import CustomStorePostgreSQL, CustomStoreSQLite, TokenStoreBase
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import Queue
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Barrier

TIMEOUT_SECONDS = 120  # limit for all processes of a run; they need much less
SDK_SECONDS = 5.0  # the SDK refreshes a token with less than this left
HOUR_SECONDS = 3600.0
USED, WARM = "1", "2"  # the row that is measured, and one with a token that is valid for an hour
NAMES_THE_NEXT_ATTEMPT = "the next one may begin in"
UNAUTHORIZED = 401
ATTEMPTS = 10  # of one request whose token is refused
GRACE_SECONDS = 0.5  # from the moment when all workers are ready until they begin
TEN_MS = 0.01
POLL_SECONDS = 0.1  # between two requests after the denial has ended
DENIAL_LATENCY_SECONDS = 0.2
REFUSED_LATENCY_SECONDS, API_LATENCY_SECONDS = 0.2, 0.3
SPREAD_SECONDS = 0.5  # in which the requests with a refused token begin
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["refresh_lease"])


class Sizes(NamedTuple):
    """How much is measured."""

    processes: int = 3
    threads: int = 16
    latency: float = 1.0  # seconds that Zoho takes for a refresh
    before: float = 1.0  # seconds of requests before a refresh is due
    after: float = 1.0  # seconds of requests after it
    pause: float = 0.4  # the average pause of a thread between two requests
    down: float = 4.0  # seconds until the token expires while Zoho is down
    denial: float = 20.0  # seconds that Zoho denies
    denied_requests: int = 80
    refused_processes: int = 4


FAST = Sizes(
    processes=2,
    threads=2,
    latency=0.2,
    before=0.3,
    after=0.3,
    pause=0.05,
    down=1.0,
    denial=2.0,
    denied_requests=8,
    refused_processes=2,
)


class Request(NamedTuple):
    """A request: when it began, how long it waited for a token, and the text of its error."""

    start: float
    seconds: float
    error: str | None

    @property
    def end(self) -> float:
        """When it had a token or an error."""
        return self.start + self.seconds


class Run(NamedTuple):
    """The result of one run: the requests and the token calls, in seconds since the common start of the workers."""

    requests: list[Request]
    calls: list[tuple[float, bool]]
    ahead: int  # attempts to refresh ahead of expiry

    @property
    def slowest(self) -> float:
        """The longest time that a request waited."""
        return max(request.seconds for request in self.requests)

    def median_wait(self, first: float, last: float) -> float:
        """Return the median wait of the requests that were open at some time between two times."""
        waits = [request.seconds for request in self.requests if request.end >= first and request.start <= last]
        return statistics.median(waits) if waits else math.nan


class LazyToken(OAuthToken):
    """A token that `Initializer.initialize` does not refresh. The worker does that when all workers are ready."""

    def generate_token(self) -> None:
        """Do nothing."""


def open_store(address: str, **options: float) -> TokenStoreBase:
    """Open the store with this address: that of a PostgreSQL database, or the path of a SQLite file."""
    is_server = address.startswith("postgresql://")
    return (CustomStorePostgreSQL if is_server else CustomStoreSQLite)(address, **options)


class Workers(NamedTuple):
    """What all worker processes of a run share."""

    address: str
    options: dict[str, float]
    folder: str  # for the files of the SDK
    environment: object
    barrier: Barrier
    start: Synchronized[float]
    results: Queue[tuple[list[Request], int]]

    def enter(self) -> tuple[TokenStoreBase, float]:
        """Initialize the SDK of this process, and use the store once. Return it, and when all workers begin."""
        store = open_store(self.address, **self.options)
        Initializer.initialize(self.environment, LazyToken(id=USED), store=store, resource_path=self.folder)
        OAuthToken(id=WARM).get_token()
        self.barrier.wait(TIMEOUT_SECONDS)  # all workers are ready
        self.barrier.wait(TIMEOUT_SECONDS)  # the token was saved, and the start is known
        return store, self.start.value

    def leave(self, store: TokenStoreBase, requests: list[Request], start: float) -> None:
        """Send the result."""
        done = [Request(one.start - start, one.seconds, one.error) for one in requests]
        self.results.put((done, store.lease_info().taken_ahead))


def sleep_until(moment: float) -> None:
    """Sleep until a time of the monotonic clock, which all processes share."""
    time.sleep(max(0.0, moment - time.monotonic()))


def in_threads(work: Callable[[int], None], threads: int) -> None:
    """Run a function in several threads, and wait until all have ended."""
    workers = [threading.Thread(target=work, args=[number], daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(TIMEOUT_SECONDS)


def ask() -> Request:
    """Get an access token, as a web application does for each of its requests."""
    start, error = time.monotonic(), None
    try:
        assert OAuthToken(id=USED).get_token()
    except Exception as raised:
        error = str(raised)
    return Request(start, time.monotonic() - start, error)


def serve(shared: Workers, threads: int, pause: float, until: float) -> None:
    """Run in a worker process: make a request in each thread at once, then others with pauses."""
    store, start = shared.enter()
    requests: list[Request] = []

    def work(_number: int) -> None:
        sleep_until(start)
        while time.monotonic() < start + until:
            requests.append(ask())
            time.sleep(random.uniform(0, 2 * pause))  # noqa: S311 - no secret

    in_threads(work, threads)
    shared.leave(store, requests, start)


def keep_asking(shared: Workers, threads: int, count: int, seconds: float) -> None:
    """Run in a worker process: make `count` requests at even distances, and others until one has a token."""
    store, start = shared.enter()
    requests: list[Request] = []

    def work(number: int) -> None:
        for index in range(number, count, threads):
            sleep_until(start + index * seconds / count)
            requests.append(ask())

    in_threads(work, threads)
    sleep_until(start + seconds)
    while not requests or requests[-1].error is not None:
        requests.append(ask())
        time.sleep(POLL_SECONDS)
    shared.leave(store, requests, start)


def use_refused(shared: Workers, threads: int, report: str) -> None:
    """Run in a worker process: call Zoho's API in each thread. If Zoho refuses the token, report it and try again."""
    store, start = shared.enter()
    requests: list[Request] = []

    def work(_number: int) -> None:
        begin = start + random.uniform(0, SPREAD_SECONDS)  # noqa: S311 - no secret
        sleep_until(begin)
        error: str | None = "refused"
        for _ in range(ATTEMPTS):
            try:
                used = OAuthToken(id=USED).get_token()
                if OrgOperations().get_organization().get_status_code() != UNAUTHORIZED:
                    error = None
                    break
                REPORTS[report](store, used)
            except Exception as raised:
                error = str(raised)
        requests.append(Request(begin, time.monotonic() - begin, error))

    in_threads(work, threads)
    shared.leave(store, requests, start)


def make_expired(store: TokenStoreBase, _used: str) -> None:
    """Save a made-up expiry. A program without `refused` has no other way."""
    token = store.find_token_by_id(USED)
    token.set_expires_in("1")
    store.save_token(token)


REPORTS: dict[str, Callable[[TokenStoreBase, str], object]] = {
    "a made-up expiry": make_expired,
    "`store.refused`": TokenStoreBase.refused,
}


class Setting(NamedTuple):
    """A way to open the store, and a token with `left` seconds left. It is due for a refresh in `due` seconds."""

    name: str
    options: dict[str, float]
    left: float
    due: float = 0.0
    # The address of a PostgreSQL database, with parameters. Each run has a schema of its own. Otherwise it has a file.
    server: str = ""


# What was compared, each with its runs.
Found = list[tuple[Setting, list[Run]]]


def save(store: TokenStoreBase, zoho: ZohoStandIn, row: str, left: float) -> None:
    """Save a token that is valid for `left` more seconds."""
    token = OAuthToken(zoho.client_id, zoho.client_secret, refresh_token=zoho.refresh_token(f"user{row}@example.com"))
    token.set_access_token(f"made-up {row}")
    token.set_expires_in(str(int((time.time() + left) * 1000)))
    token.set_api_domain(zoho.url)
    token.set_user_signature(UserSignature(f"user{row}@example.com"))
    store.save_token(token)


def run(
    zoho: ZohoStandIn,
    setting: Setting,
    workers: int,
    work: tuple[object, ...],
    meanwhile: Callable[[float], object] = lambda _start: None,
) -> Run:
    """Let worker processes run a function. They begin at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "zohooauth.db"))
        if setting.server:
            address = f"{setting.server}&schema=waits_{secrets.token_hex(8)}"
        barrier, start, results = processes.Barrier(workers + 1), processes.Value("d", 0.0), processes.Queue()
        shared = Workers(address, setting.options, folder, zoho.environment(), barrier, start, results)
        with open_store(address) as store:
            for row in (USED, WARM):
                save(store, zoho, row, HOUR_SECONDS)
            target, *arguments = work
            crowd = [processes.Process(target=target, args=(shared, *arguments), daemon=True) for _ in range(workers)]
            for worker in crowd:
                worker.start()
            barrier.wait(TIMEOUT_SECONDS)
            start.value = time.monotonic() + GRACE_SECONDS
            save(store, zoho, USED, GRACE_SECONDS + setting.left)
            barrier.wait(TIMEOUT_SECONDS)
            meanwhile(start.value)
            ended = [results.get(timeout=TIMEOUT_SECONDS) for _ in crowd]
            for worker in crowd:
                worker.join(TIMEOUT_SECONDS)
        requests = [request for done, _ in ended for request in done]
        calls = [(call.at - start.value, call.outcome == "ok") for call in zoho.calls if call.kind == "refresh"]
        return Run(sorted(requests), calls, sum(ahead for _, ahead in ended))


def settings(sizes: Sizes, server: str) -> list[Setting]:
    """Return what the first table compares."""
    left = SDK_SECONDS + sizes.before
    compared = [
        Setting("without a lease (`refresh_lease=0`)", {"refresh_lease": 0.0}, left, sizes.before),
        Setting("with a lease (the default)", {}, left, sizes.before),
        Setting("ahead (`refresh_ahead=300`), 4 minutes left", {"refresh_ahead": 300.0}, 240.0, 0.0),
    ]
    return [setting._replace(server=server) for setting in compared]


def measure_waits(sizes: Sizes, runs: int, server: str = "") -> Found:
    """Measure how long requests wait around a refresh, and print a table. `server`: see `Setting`."""
    found: Found = [(setting, []) for setting in settings(sizes, server)]
    for _ in range(runs):
        for setting, done in found:
            until = setting.due + sizes.latency + sizes.after
            with ZohoStandIn(latency=sizes.latency) as zoho:
                work = (serve, sizes.threads, sizes.pause, until)
                done.append(run(zoho, setting, sizes.processes, work))
    print(f"\n{sizes.processes} processes x {sizes.threads} threads, and Zoho takes {sizes.latency:g} s for a refresh.")
    print(f"The median is that of the requests in the first {sizes.latency:g} s after a refresh was due.")
    print("| store | token calls | denied | requests without a token | median wait | slowest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for setting, done in found:
        due, end = setting.due, setting.due + sizes.latency
        calls, refused, failed = (median(done, value) for value in (lambda run: len(run.calls), denied, failures))
        middle = median(done, lambda run, due=due, end=end: run.median_wait(due, end))
        slowest = median(done, lambda run: run.slowest)
        cells = [f"{calls:g}", f"{refused:g}", f"{failed:g}", milliseconds(middle), milliseconds(slowest)]
        print(f"| {setting.name} | {' | '.join(cells)} |")
    return found


def measure_outage(sizes: Sizes, runs: int) -> None:
    """Count the requests without a token while Zoho is down, until the token expires, and print a line."""
    done = []
    setting = Setting("`refresh_ahead=300`", {"refresh_ahead": 300.0}, SDK_SECONDS + sizes.down)
    for _ in range(runs):
        with ZohoStandIn() as zoho:
            work = (serve, sizes.threads, sizes.pause, sizes.down)
            found = run(zoho, setting, sizes.processes, work, lambda _, zoho=zoho: zoho.stop())
            # A request that ends later may have met the expired token.
            done.append(found._replace(requests=[one for one in found.requests if one.end < sizes.down]))
    requests, failed, attempts = (
        median(done, value) for value in (lambda run: len(run.requests), failures, lambda run: run.ahead)
    )
    slowest = milliseconds(median(done, lambda run: run.slowest))
    print(
        f"\nZoho is down, {setting.name}: {requests:.0f} requests in the last {sizes.down:g} s of the token, ", end=""
    )
    print(f"{failed:g} without a token, slowest {slowest}, {attempts:g} attempts to refresh")


def measure_denial(sizes: Sizes, runs: int) -> None:
    """Count the token calls while Zoho denies, without and with back-off, and print a table."""
    off, default = Setting("0", {"refresh_backoff": 0.0}, 0.0), Setting("the default, 30 s", {}, 0.0)
    found: Found = [(off, []), (default, [])]
    for _ in range(runs):
        for setting, done in found:
            with ZohoStandIn(latency=DENIAL_LATENCY_SECONDS) as zoho:
                zoho.deny_next(10**6)

                def end_denial(start: float, zoho: ZohoStandIn = zoho) -> None:
                    sleep_until(start + sizes.denial)
                    zoho.clear_failures()

                work = (keep_asking, sizes.threads, sizes.denied_requests, sizes.denial)
                done.append(run(zoho, setting, 1, work, end_denial))
    print(
        f"\n{sizes.denied_requests} requests of {sizes.threads} threads in the {sizes.denial:g} s in which Zoho denies:"
    )
    print("| `refresh_backoff` | token calls | errors | of them, with the time of the next attempt | recovered after |")
    print("| --- | --- | --- | --- | --- |")
    for setting, done in found:
        calls = median(done, lambda run: sum(at < sizes.denial for at, _ in run.calls))
        failed = median(done, lambda run: len(errors_in(run, sizes)))
        named = median(done, lambda run: sum(NAMES_THE_NEXT_ATTEMPT in error for error in errors_in(run, sizes)))
        recovered = median(done, lambda run: run.requests[-1].end - sizes.denial)
        print(f"| {setting.name} | {calls:g} | {failed:g} | {named:g} | {recovered:.1f} s |")


def measure_refused(sizes: Sizes, runs: int) -> None:
    """Count the token calls after Zoho has refused an access token, and print a table."""
    # The stand-in has not issued the access token. So it refuses it.
    found: Found = [(Setting(name, {}, HOUR_SECONDS), []) for name in REPORTS]
    for _ in range(runs):
        for setting, done in found:
            with ZohoStandIn(latency=REFUSED_LATENCY_SECONDS, api_latency=API_LATENCY_SECONDS) as zoho:
                work = (use_refused, sizes.threads, setting.name)
                done.append(run(zoho, setting, sizes.refused_processes, work))
    count = sizes.refused_processes
    print(f"\n{count} processes x {sizes.threads} threads make a request each within {SPREAD_SECONDS:g} s. ", end="")
    print(f"Zoho refuses their token, after {API_LATENCY_SECONDS:g} s each. They report that with:")
    print("| report | token calls | denied | requests without an answer | slowest answer |")
    print("| --- | --- | --- | --- | --- |")
    for setting, done in found:
        calls, refused, failed = (median(done, value) for value in (lambda run: len(run.calls), denied, failures))
        print(
            f"| {setting.name} | {calls:g} | {refused:g} | {failed:g} | {median(done, lambda run: run.slowest):.2f} s |"
        )


def median(runs: list[Run], value: Callable[[Run], float]) -> float:
    """Return the median of a figure over all runs."""
    return statistics.median(map(value, runs))


def denied(run: Run) -> int:
    """Return the number of token calls that brought no token."""
    return sum(not is_ok for _, is_ok in run.calls)


def failures(run: Run) -> int:
    """Return the number of requests without a token."""
    return sum(request.error is not None for request in run.requests)


def errors_in(run: Run, sizes: Sizes) -> list[str]:
    """Return the errors of the requests that were made while Zoho denied."""
    return [one.error for one in run.requests[: sizes.denied_requests] if one.error is not None]


def milliseconds(seconds: float) -> str:
    """Format a wait."""
    return f"{seconds * 1000:.{0 if seconds > TEN_MS else 1}f} ms"


def draw(found: Found, sizes: Sizes, picture: str) -> None:
    """Draw each request of one run per setting: when it began, and how long it waited."""
    from matplotlib import pyplot as plt  # only needed here

    plt.rcParams.update({"svg.hashsalt": "the same input draws the same file", "svg.fonttype": "none"})
    figure, panels = plt.subplots(len(found), 1, figsize=(7, 5.4), sharex=True, sharey=True, layout="constrained")
    for panel, (setting, runs) in zip(panels, found, strict=True):
        shown = sorted(runs, key=lambda run: run.slowest)[len(runs) // 2]
        for served, colour in ((True, "#2a7f62"), (False, "#c1121f")):
            dots = [one for one in shown.requests if (one.error is None) == served]
            at = [one.start - setting.due for one in dots]
            panel.plot(at, [one.seconds for one in dots], "o", color=colour, markersize=3, markeredgewidth=0)
        title = f"{setting.name.replace('`', '')}: {len(shown.calls)} token call{'s' * (len(shown.calls) != 1)}"
        if failed := failures(shown):
            title += f", {failed} requests fail (red)"
        panel.set_title(f"{title}, slowest {milliseconds(shown.slowest)}", fontsize=10, loc="left")
        panel.axvline(0, color="#555555", linestyle="dotted")
        panel.set_ylabel("wait, s", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    count = sizes.processes * sizes.threads
    panels[-1].set_xlabel(f"seconds since a refresh was due (each dot is a request of one of {count} threads)")
    panels[-1].set_ylim(bottom=-0.05)
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def measure(sizes: Sizes, runs: int, picture: str | None) -> None:
    """Measure everything, print the tables, and draw the picture."""
    waits = measure_waits(sizes, runs)
    measure_outage(sizes, runs)
    measure_denial(sizes, runs)
    measure_refused(sizes, runs)
    if picture:
        draw(waits, sizes, picture)
