"""What the refresh lease saves at one expiry, and what it costs a find: `make bench-lease`.

First crowds of processes whose access token has expired, each with the real SDK, without the lease and with it, in
turn. Zoho's part is the stand-in's, with 200 ms latency and the limit of 10 tokens in 10 minutes. Then one find of a
fresh row, with `refresh_lease=0` and `10`, interleaved. `--picture FILE.svg` draws the largest crowds' token calls.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from zoho_token_store.testing import Call

LATENCY = 0.2  # seconds
LEASE = 10.0
IN_TIME = 60  # seconds for a crowd: far more than it needs
FINDS = 2_000  # in a row, before the other store has its turn
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["refresh_lease"])


class Crowd(NamedTuple):
    """What came of one expiry: when it was, when each worker had a token or an error, the errors, and Zoho's record."""

    began: float
    ended: list[float]
    failed: int
    calls: list[Call]

    @property
    def took(self) -> float:
        """Seconds until the last worker had its answer."""
        return max(self.ended) - self.began


class Worker(OAuthToken):
    """A token for which `Initializer.initialize` asks nobody: the worker asks when all are ready."""

    def generate_token(self) -> None:
        """Do nothing yet."""


def work(gate: Barrier, answers: Queue[tuple[float, bool]], path: str, lease: float, zoho: tuple[object, ...]) -> None:
    """Be one worker: get an access token, when all are ready to."""
    environment, client_id, client_secret, refresh_token = zoho
    token = Worker(client_id=client_id, client_secret=client_secret, refresh_token=refresh_token)
    store = CustomStoreSQLite(path, refresh_lease=lease)
    Initializer.initialize(environment, token, store=store, resource_path=str(Path(path).parent))
    gate.wait(IN_TIME)
    try:
        failed = not token.get_token()
    except Exception:
        failed = True
    answers.put((time.monotonic(), failed))


def one_expiry(workers: int, lease: float) -> Crowd:
    """Let so many processes need a new access token at once."""
    with tempfile.TemporaryDirectory() as folder, ZohoStandIn(latency=LATENCY) as zoho:
        path = str(Path(folder, "zohooauth.db"))
        refresh_token = zoho.refresh_token("ada@example.com")
        credentials = (zoho.client_id, zoho.client_secret, refresh_token)
        with CustomStoreSQLite(path) as store:
            expired = OAuthToken(*credentials[:2], refresh_token=refresh_token, access_token="made-up")
            expired.set_expires_in("1")
            store.save_token(expired)
        gate, answers = processes.Barrier(workers + 1), processes.Queue()
        arguments = (gate, answers, path, lease, (zoho.environment(), *credentials))
        crowd = [processes.Process(target=work, args=arguments, daemon=True) for _ in range(workers)]
        for worker in crowd:
            worker.start()
        gate.wait(IN_TIME)
        began = time.monotonic()
        told = [answers.get(timeout=IN_TIME) for _ in crowd]
        for worker in crowd:
            worker.join(IN_TIME)
        return Crowd(began, [ended for ended, _ in told], sum(failed for _, failed in told), zoho.calls)


def token_calls(crowd: Crowd) -> list[Call]:
    """Return the calls that asked for a token."""
    return [call for call in crowd.calls if call.kind in ("login", "refresh", "token")]


def finds(folder: str) -> dict[str, float]:
    """Time finds of a fresh row, in µs, the stores in turn. Two of them are the same: how they differ is noise."""
    stores = {}
    for name, lease in (("off", 0.0), ("off, again", 0.0), ("on", LEASE)):
        stores[name] = CustomStoreSQLite(Path(folder, f"{name}.db"), refresh_lease=lease)
        for number in range(10):
            token = OAuthToken(
                "1000.CLIENT", "made-up", refresh_token=f"made-up {number}", access_token=f"made-up {number}"
            )
            token.set_expires_in(str(int(time.time() * 1000) + 3_600_000))
            stores[name].save_token(token)
    times: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(100):
        for name, store in stores.items():
            find = store.find_token_by_id
            begun = time.perf_counter()
            for _ in range(FINDS):
                find("5")
            times[name].append((time.perf_counter() - begun) / FINDS * 1e6)
    return {name: statistics.median(found) for name, found in times.items()}


def draw(crowds: dict[float, Crowd], picture: str) -> None:
    """Draw the token calls of both crowds over time."""
    from matplotlib import pyplot as plt  # only for a picture

    plt.rcParams.update({"svg.hashsalt": "the same input draws the same file", "svg.fonttype": "none"})
    figure, panels = plt.subplots(2, 1, figsize=(7, 4), sharex=True, sharey=True, layout="constrained")
    for panel, (lease, crowd) in zip(panels, crowds.items(), strict=True):
        calls = token_calls(crowd)
        for number, call in enumerate(calls, 1):
            colour = "#2a7f62" if call.outcome == "ok" else "#c1121f"
            panel.barh(number, LATENCY, left=call.at - crowd.began, height=0.8, color=colour)
        workers = len(crowd.ended)
        denied = sum(call.outcome != "ok" for call in calls)
        title = f"{'with' if lease else 'without'} the lease: {len(calls)} token call{'s' * (len(calls) != 1)}"
        panel.set_title(title + f", {denied} denied (red)" * bool(denied), fontsize=10, loc="left")
        panel.vlines(crowd.took, 0, workers, colors="#555555", linestyles="dotted")
        panel.set_ylabel("token calls", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].set_xlim(left=0)
    panels[1].set_xlabel(f"seconds since {workers} processes found the token expired (dotted: the last has its answer)")
    figure.savefig(picture, metadata={"Date": None})


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="expiries per size and setting (%(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[16, 32], help="sizes of the crowd")
    parser.add_argument("--picture", metavar="FILE.svg", help="draw the last crowds (needs matplotlib)")
    options = parser.parse_args()
    sdk = importlib.metadata.version("zohocrmsdk8_0")
    python = platform.python_version()
    print(f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, CPython {python}, zohocrmsdk8_0 {sdk}")
    print("| workers | lease | token calls | denied | workers without a token | last answer after |")
    print("| --- | --- | --- | --- | --- | --- |")
    shown: dict[float, Crowd] = {}
    for workers in options.workers:
        crowds: dict[float, list[Crowd]] = {0.0: [], LEASE: []}
        for _ in range(options.runs):
            for lease, runs in crowds.items():
                runs.append(one_expiry(workers, lease))
        for lease, runs in crowds.items():
            middle = lambda of, runs=runs: statistics.median(map(of, runs))  # noqa: E731
            calls = middle(lambda crowd: len(token_calls(crowd)))
            denied = middle(lambda crowd: sum(call.outcome != "ok" for call in token_calls(crowd)))
            served = middle(lambda crowd: crowd.took)
            failed = middle(lambda crowd: crowd.failed)
            name = "on" if lease else "off"
            print(f"| {workers} | {name} | {calls:g} | {denied:g} | {failed:g} | {served:.2f} s |")
            shown[lease] = sorted(runs, key=lambda crowd: crowd.took)[len(runs) // 2]
    with tempfile.TemporaryDirectory() as folder:
        told = ", ".join(f"{name} {found:.2f} µs" for name, found in finds(folder).items())
    print(f"one find of a fresh row, hot, 10 rows, lease {told}")
    if options.picture:
        draw(shown, options.picture)


if __name__ == "__main__":
    main()
