"""Measure the token calls that the refresh lease saves, and its cost for a find: `make bench-lease`.

In the first part, several processes use the real SDK with an expired access token at the same time. Runs without and
with the lease alternate. The stand-in for Zoho has a latency of 200 ms and the limit of 10 tokens in 10 minutes.

The second part times finds of a row that is not expired, interleaved with `refresh_lease=0` and `refresh_lease=10`.

The other parts are those of `traffic.py`: how long requests wait around a refresh, and what happens while Zoho denies
and after it has refused a token.

`--picture FILE.svg` draws the token calls of the runs with the most processes, and `--waits FILE.svg` the waits.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import traffic
from traffic import LazyToken, processes
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from zoho_token_store.testing import Call

LATENCY_SECONDS = 0.2
LEASE_SECONDS = 10.0
TIMEOUT_SECONDS = 60  # limit for all processes of a run; they need much less
FINDS = 2_000  # consecutive finds of one store, before the next store's
ROUNDS = 100  # of all stores


class Crowd(NamedTuple):
    """The result of one run.

    It has the start, the time at which each worker had a token or an error, the number of errors, and the calls that
    the stand-in recorded.
    """

    start: float
    ends: list[float]
    failed: int
    calls: list[Call]

    @property
    def seconds(self) -> float:
        """The seconds until the last worker had a token or an error."""
        return max(self.ends) - self.start


def work(
    barrier: Barrier, results: Queue[tuple[float, bool]], path: str, lease: float, zoho: tuple[object, ...]
) -> None:
    """Run in a worker process: wait until all workers are ready, then get an access token."""
    environment, client_id, client_secret, refresh_token = zoho
    token = LazyToken(client_id=client_id, client_secret=client_secret, refresh_token=refresh_token)
    store = CustomStoreSQLite(path, refresh_lease=lease)
    Initializer.initialize(environment, token, store=store, resource_path=str(Path(path).parent))
    barrier.wait(TIMEOUT_SECONDS)
    try:
        failed = not token.get_token()
    except Exception:
        failed = True
    results.put((time.monotonic(), failed))


def run_crowd(workers: int, lease: float) -> Crowd:
    """Let several processes get a new access token at the same time."""
    with tempfile.TemporaryDirectory() as folder, ZohoStandIn(latency=LATENCY_SECONDS) as zoho:
        path = str(Path(folder, "zohooauth.db"))
        refresh_token = zoho.refresh_token("ada@example.com")
        credentials = (zoho.client_id, zoho.client_secret, refresh_token)
        with CustomStoreSQLite(path) as store:
            expired = OAuthToken(*credentials[:2], refresh_token=refresh_token, access_token="made-up")
            expired.set_expires_in("1")
            store.save_token(expired)
        barrier, results = processes.Barrier(workers + 1), processes.Queue()
        arguments = (barrier, results, path, lease, (zoho.environment(), *credentials))
        crowd = [processes.Process(target=work, args=arguments, daemon=True) for _ in range(workers)]
        for worker in crowd:
            worker.start()
        barrier.wait(TIMEOUT_SECONDS)
        start = time.monotonic()
        ended = [results.get(timeout=TIMEOUT_SECONDS) for _ in crowd]
        for worker in crowd:
            worker.join(TIMEOUT_SECONDS)
        return Crowd(start, [end for end, _ in ended], sum(failed for _, failed in ended), zoho.calls)


def token_calls(crowd: Crowd) -> list[Call]:
    """Return the calls of the token endpoint."""
    return [call for call in crowd.calls if call.kind in ("login", "refresh", "token")]


def finds(folder: str, rounds: int) -> dict[str, float]:
    """Return the duration of a find in µs for each store. The row is not expired, and the stores take turns.

    Two of the stores have the same settings. The difference between them is the noise of the measurement.
    """
    stores = {}
    for name, lease in (("off", 0.0), ("off, again", 0.0), ("on", LEASE_SECONDS)):
        stores[name] = CustomStoreSQLite(Path(folder, f"{name}.db"), refresh_lease=lease)
        for number in range(10):
            token = OAuthToken(
                "1000.CLIENT", "made-up", refresh_token=f"made-up {number}", access_token=f"made-up {number}"
            )
            token.set_expires_in(str(int(time.time() * 1000) + 3_600_000))
            stores[name].save_token(token)
    times: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, store in stores.items():
            find = store.find_token_by_id
            start = time.perf_counter()
            for _ in range(FINDS):
                find("5")
            times[name].append((time.perf_counter() - start) / FINDS * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def draw(crowds: dict[float, Crowd], picture: str) -> None:
    """Draw the token calls of both crowds over time."""
    from matplotlib import pyplot as plt  # only needed here

    plt.rcParams.update({"svg.hashsalt": "the same input draws the same file", "svg.fonttype": "none"})
    figure, panels = plt.subplots(2, 1, figsize=(7, 4), sharex=True, sharey=True, layout="constrained")
    for panel, (lease, crowd) in zip(panels, crowds.items(), strict=True):
        calls = token_calls(crowd)
        for number, call in enumerate(calls, 1):
            colour = "#2a7f62" if call.outcome == "ok" else "#c1121f"
            panel.barh(number, LATENCY_SECONDS, left=call.at - crowd.start, height=0.8, color=colour)
        workers = len(crowd.ends)
        denied = sum(call.outcome != "ok" for call in calls)
        title = f"{'with' if lease else 'without'} the lease: {len(calls)} token call{'s' * (len(calls) != 1)}"
        panel.set_title(title + f", {denied} denied (red)" * bool(denied), fontsize=10, loc="left")
        panel.vlines(crowd.seconds, 0, workers, colors="#555555", linestyles="dotted")
        panel.set_ylabel("token calls", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].set_xlim(left=0)
    panels[1].set_xlabel(f"seconds since {workers} processes found the token expired (dotted: the last has its answer)")
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each setting (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[16, 32], help="numbers of workers")
    parser.add_argument("--fast", action="store_true", help="small sizes, to see that everything works")
    parser.add_argument(
        "--picture", metavar="FILE.svg", help="draw the token calls of the last runs (needs matplotlib)"
    )
    parser.add_argument("--waits", metavar="FILE.svg", help="draw the waits of the requests")
    options = parser.parse_args()
    if options.fast:
        options.runs, options.workers = 1, [2]
    sdk = importlib.metadata.version("zohocrmsdk8_0")
    python = platform.python_version()
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {python}, zohocrmsdk8_0 {sdk}")
    print("| workers | lease | token calls | denied | workers without a token | last answer after |")
    print("| --- | --- | --- | --- | --- | --- |")
    shown: dict[float, Crowd] = {}
    for workers in options.workers:
        crowds: dict[float, list[Crowd]] = {0.0: [], LEASE_SECONDS: []}
        for _ in range(options.runs):
            for lease, runs in crowds.items():
                runs.append(run_crowd(workers, lease))
        for lease, runs in crowds.items():
            median = lambda value, runs=runs: statistics.median(map(value, runs))  # noqa: E731
            calls = median(lambda crowd: len(token_calls(crowd)))
            denied = median(lambda crowd: sum(call.outcome != "ok" for call in token_calls(crowd)))
            seconds = median(lambda crowd: crowd.seconds)
            failed = median(lambda crowd: crowd.failed)
            name = "on" if lease else "off"
            print(f"| {workers} | {name} | {calls:g} | {denied:g} | {failed:g} | {seconds:.2f} s |")
            shown[lease] = sorted(runs, key=lambda crowd: crowd.seconds)[len(runs) // 2]
    with tempfile.TemporaryDirectory() as folder:
        figures = ", ".join(
            f"{name} {found:.2f} µs" for name, found in finds(folder, 1 if options.fast else ROUNDS).items()
        )
    print(f"one find of a row that is not expired, hot, 10 rows, lease {figures}")
    if options.picture:
        draw(shown, options.picture)
    traffic.measure(traffic.FAST if options.fast else traffic.Sizes(), options.runs, options.waits)


if __name__ == "__main__":
    main()
