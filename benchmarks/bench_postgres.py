"""Compare `CustomStorePostgreSQL` with other stores on servers, interleaved in one process: `make bench-postgres`.

The program starts its own PostgreSQL server and, if MariaDB is installed, its own MariaDB server, in temporary folders.
Both wait for the disk at each commit. It prints tables in Markdown: calls of one thread, the same in Rust beside bare
statements, calls of 16 threads, and waits at one expiry. All calls are *hot*: a part of a loop. A cell has the median
of the runs and, in brackets, the p99 of single calls. The last section lists what was left out, with the reasons.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import itertools
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import crowds
import database
import floors
import machine
import mariadb
import measure
import peers
import psycopg
import report
import targets
import tokens
import traffic
from measure import Key
from operations import FIND_BY_ID, FIND_BY_REFRESH_TOKEN, FIND_BY_USER, SAVE_NEW, SAVE_UPDATE, LoadedStore
from plain import FIELDS
from psycopg_store import CONNECTIONS, PsycopgStore
from zoho_token_store import CustomStorePostgreSQL, _native

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))

import postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = "CustomStorePostgreSQL"
STORE, BARE = "store", "bare"  # the contenders in Rust
ONE, RUST, CROWD = "One thread", "In Rust", "16 threads"
CROWD_THREADS = 16
# "save, new" is last because it makes the table larger.
OPERATIONS = (FIND_BY_REFRESH_TOKEN, FIND_BY_USER, FIND_BY_ID, SAVE_UPDATE, SAVE_NEW)
# A bound for the time of the store's call in Rust, in times of the bare statement.
BOUNDS = {"find": 1.3, "save": 1.5}
SETTINGS = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "128MB"}
# The floor of a save is the text of the store's statement, which is longer than 1024 bytes.
SETTINGS |= {"track_activity_query_size": "16kB"}
DISTRIBUTIONS = ("zoho-token-store", "zohocrmsdk8_0", "psycopg", "mysql-connector-python")
FLOOR_TIMEOUT_SECONDS = 120
EXPIRY_LATENCY_SECONDS = 0.2  # of the stand-in for Zoho


class Size(NamedTuple):
    """How much is measured."""

    rows: tuple[int, int]  # the crowd uses the larger table
    effort: measure.Effort
    floor_rounds: int
    waits: traffic.Sizes
    wait_runs: int


FULL = Size(
    (10, 1_000),
    measure.FULL._replace(runs=5, batch=0.03, crowd=2.0),
    floor_rounds=25,
    waits=traffic.Sizes(latency=EXPIRY_LATENCY_SECONDS),
    wait_runs=5,
)
FAST = Size((10, 100), measure.FAST, floor_rounds=1, waits=traffic.FAST, wait_runs=1)


@dataclasses.dataclass(frozen=True)
class OnServer(peers.Peer):
    """A store on the PostgreSQL server, in a schema with the name of its folder."""

    kept: str = "server"
    dsn: str = dataclasses.field(default="", repr=False)

    def schema(self, home: Path) -> str:
        """Return the name of the schema."""
        return home.name.lower().replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Ours(OnServer):
    """`CustomStorePostgreSQL` with its default settings."""

    def open(self, home: Path) -> Any:  # noqa: ANN401
        """Connect, and create the tables if they are missing."""
        return CustomStorePostgreSQL(self.dsn, schema=self.schema(home))

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Import tokens. That takes longer than a call may by default."""
        with CustomStorePostgreSQL(self.dsn, schema=self.schema(home), busy_timeout=peers.MAX_FILL_SECONDS) as filling:
            filling.import_tokens([tokens.login(number) for number in range(rows)])


@dataclasses.dataclass(frozen=True)
class Psycopg(OnServer):
    """`psycopg_store.PsycopgStore`."""

    is_kept: bool = True

    def open(self, home: Path) -> Any:  # noqa: ANN401
        """Connect, and create the table if it is missing."""
        return PsycopgStore(self.dsn, self.schema(home), is_kept=self.is_kept)

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Copy the rows into the table."""
        copying = f"COPY tokens ({', '.join(FIELDS)}) FROM STDIN"
        with store._connection() as connection, connection.cursor() as cursor, cursor.copy(copying) as copy:  # noqa: SLF001
            for number in range(rows):
                copy.write_row(tokens.row(number))


class Bench:
    """One benchmark: its stores, and the figures so far."""

    def __init__(self, folder: Path, size: Size, left_out: dict[str, str]) -> None:
        """Begin without figures. `folder` is a temporary one."""
        self.folder, self.size, self.left_out = folder, size, left_out
        self.rng = random.Random(7)  # noqa: S311 - no secret
        self.figures = measure.Figures()
        self.numbers = itertools.count(1)

    def leave_out(self, peer: str, what: str, why: str) -> None:
        """Note what of a peer is not measured, and why."""
        self.left_out.setdefault(f"{peer}, {what}", why)

    def load_all(self, stores: list[peers.Peer], rows: int) -> list[LoadedStore]:
        """Return the stores with this number of rows, each in new tables."""
        loaded_stores = []
        for peer in stores:
            home = self.folder / f"bench-{next(self.numbers)}"
            home.mkdir()
            try:
                store = peer.open(home)
                loaded_stores.append(LoadedStore(peer, store, home, rows, peer.fill(store, home, rows)))
            except Exception as error:
                self.leave_out(peer.name, f"{report.whole(rows)} rows", peers.in_short(error))
        return loaded_stores

    def one_thread(self, loaded_stores: list[LoadedStore], rows: int) -> None:
        """Time every operation in one thread. The stores take turns."""
        for operation in OPERATIONS:
            able = []
            for loaded in loaded_stores:
                try:
                    wrong = loaded.check(operation, self.rng.randrange(rows))
                except Exception as error:
                    wrong = peers.in_short(error)
                if wrong:
                    self.leave_out(loaded.name, f"{operation.name}, {report.whole(rows)} rows", wrong)
                else:
                    able.append(loaded)
            plans = measure.plans_of(able, operation, self.size.effort, self.rng, {})
            for name, (median, singles) in measure.hot(able, operation, plans, self.rng).items():
                self.figures.add(Key(ONE, operation.name, rows, name), median, singles=singles)

    def in_rust(self, program: Path, dsn: str, rows: int) -> None:
        """Time the store and bare statements without Python."""
        schema = f"bench_{next(self.numbers)}"
        done = subprocess.run(
            [program, dsn, schema, str(rows), str(self.size.floor_rounds)],
            capture_output=True, text=True, check=False, timeout=FLOOR_TIMEOUT_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program.name} failed: {done.stderr.strip()}")
        calls: dict[tuple[str, str], list[float]] = {}
        for line in done.stdout.splitlines():
            operation, contender, nanoseconds = line.split()
            calls.setdefault((operation, contender), []).append(int(nanoseconds) * 1e-9)
        for (operation, contender), seconds in calls.items():
            self.figures.add(Key(RUST, operation, rows, contender), statistics.median(seconds), singles=seconds)

    def crowd(self, loaded: LoadedStore, rows: int) -> None:
        """Count the finds and the saves of many threads that use one store."""
        seconds = self.size.effort.crowd
        durations, failed = finds_of_threads(loaded, seconds)
        key = Key(CROWD, "finds", rows, loaded.name)
        self.figures.add(key, len(durations) / seconds, singles=durations, failed=failed, unit="/s")
        with crowds.saving_threads(loaded, CROWD_THREADS, seconds) as results:
            pass
        saves = crowds.combine(results)
        key = key._replace(operation="saves")
        self.figures.add(key, saves.per_second, singles=saves.durations, failed=saves.failed, unit="/s")
        if lost := loaded.lost():
            self.figures.add_lost(key, lost)

    def run(self, stores: list[peers.Peer], floor: Path | None, dsn: str) -> None:
        """Measure everything once."""
        for rows in self.size.rows:
            loaded_stores = self.load_all(stores, rows)
            analyze(dsn)
            self.one_thread(loaded_stores, rows)
            if floor:
                self.in_rust(floor, dsn, rows)
            for loaded in loaded_stores:
                if rows == self.size.rows[-1]:
                    self.crowd(loaded, rows)
                loaded.peer.close(loaded.store)


def analyze(dsn: str) -> None:
    """Make the statistics of all new tables. Otherwise the server makes them at some time during the measurement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")


def finds_of_threads(loaded: LoadedStore, seconds: float) -> tuple[list[float], int]:
    """Let threads find with one store. Return the seconds of each find, and the number of those that failed."""
    results: list[tuple[list[float], int]] = []
    barrier = threading.Barrier(CROWD_THREADS)

    def find(number: int) -> None:
        barrier.wait(crowds.TIMEOUT_SECONDS)
        results.append(crowds.finds(loaded, seconds, random.Random(number)))  # noqa: S311 - no secret

    crowd = [threading.Thread(target=find, args=[number], daemon=True) for number in range(CROWD_THREADS)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(crowds.TIMEOUT_SECONDS)
    return [one for durations, _ in results for one in durations], sum(failed for _, failed in results)


def compared(dsn: str, maria: mariadb.Server | str, left_out: dict[str, str]) -> list[peers.Peer]:
    """Return the available stores, and note why others are left out."""
    kept = f"psycopg, {CONNECTIONS} connections kept"
    stores: list[peers.Peer] = [
        Ours(OURS, f"its default settings: {CONNECTIONS} connections kept", dsn=dsn),
        Psycopg(kept, "`benchmarks/psycopg_store.py`: one statement per find, one transaction per save", dsn=dsn),
        Psycopg("psycopg, a connection per call", "the same store", dsn=dsn, is_kept=False),
    ]
    peer = maria if isinstance(maria, str) else database.answering(*maria, "bench")
    if isinstance(peer, str):
        left_out["DBStore"] = peer
    else:
        about = f"{peer.about}, by TCP on this machine; it opens a connection for each call"
        stores.append(dataclasses.replace(peer, about=about))
    return stores


def facts(server: postgres_server.Server, folder: Path) -> dict[str, str]:
    """Return the environment of the figures by names."""
    found = {name: value for name, value in machine.facts(folder).items() if name in ("CPU", "cores", "OS", "Python")}
    found["file system"] = machine.file_system(server.folder)
    disk = floors.Overwrite(folder)
    overwrite, positions = disk.prepare(SAVE_UPDATE, random.Random(7), 100)  # noqa: S311 - no secret
    durations = []
    for position in positions:
        start = time.perf_counter()
        overwrite(position)
        durations.append(time.perf_counter() - start)
    disk.close()
    found["overwrite of 4 KiB and fdatasync"] = report.quantity(statistics.median(durations))
    version = subprocess.run(
        [server.binaries / "postgres", "--version"], capture_output=True, text=True, check=True, timeout=30
    )
    found["server"] = f"{version.stdout.strip()} on a Unix socket"
    found |= {name: SETTINGS[name] for name in ("fsync", "synchronous_commit")}
    for distribution in DISTRIBUTIONS:
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def verdicts(figures: measure.Figures, sizes: tuple[int, int]) -> list[targets.Verdict]:
    """Compare the store in Rust with the bare statements."""
    bounds = [
        targets.Target("times the bare statement", Key(RUST, what, rows, STORE), Key(RUST, what, rows, BARE), most=most)
        for rows in sizes
        for what, most in BOUNDS.items()
    ]
    return [targets.judge(target, figures) for target in bounds]


def comparison(figures: measure.Figures, section: str, names: list[str]) -> str:
    """Format a section: a line for each operation and table size, a column for each store."""
    lines = [
        [
            operation,
            report.whole(rows),
            *(report.cell(figures.get(Key(section, operation, rows, name))) for name in names),
        ]
        for operation, rows in dict.fromkeys((key.operation, key.rows) for key in figures if key.section == section)
    ]
    return f"## {section}\n\n{report.table(['', 'rows', *names], lines)}\n"


def report_lines(bench: Bench, stores: list[peers.Peer], about: dict[str, str], *, is_fast: bool) -> Iterator[str]:
    """Return the parts of the report."""
    if is_fast:
        yield "A fast run: it shows that everything works. Its figures are not meaningful.\n"
    yield ", ".join(f"{name} {value}" for name, value in about.items()) + "\n"
    yield from (f"- {peer.name}: {peer.about}" for peer in stores)
    yield ""
    names = [peer.name for peer in stores]
    yield comparison(bench.figures, ONE, names)
    lines = []
    for verdict in verdicts(bench.figures, bench.size.rows):
        under = verdict.target.under
        assert under is not None
        measured = "-" if verdict.value is None else f"{report.digits(verdict.value)} x"
        cells = [report.cell(bench.figures.get(key)) for key in (verdict.target.over, under)]
        lines.append(
            [under.operation, report.whole(under.rows), *cells, measured, f"{verdict.sign} {verdict.target.bound}"]
        )
    headers = ["", "rows", "`Store`", "bare statement", "ratio", "target"]
    yield f"## {RUST}\n\n{report.table(headers, lines)}\n"
    yield comparison(bench.figures, CROWD, names)
    if bench.left_out:
        yield "## Left out\n"
        yield from (f"- {name}: {why}" for name, why in bench.left_out.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fast", action="store_true", help="tiny batches, to see that it works")
    parser.add_argument("--runs", type=int, help=f"number of runs ({FULL.effort.runs})")
    parser.add_argument("--server", choices=["found", "wheel", "system"], default="found", help="which PostgreSQL")
    parser.add_argument(
        "--floor", type=Path, default=ROOT / "target" / "postgres_floor", help="see make postgres-floor"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args()
    if _native.__profile__ != "release" and not options.fast:
        profile = _native.__profile__
        sys.exit(
            f"zoho_token_store is a {profile} build, and its figures would be meaningless. Run: make bench-postgres"
        )
    logging.disable()  # failures are counted, not logged
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # an exit stops the servers
    size = FAST if options.fast else FULL
    if options.runs:
        size = size._replace(effort=size.effort._replace(runs=options.runs), wait_runs=options.runs)
    left_out: dict[str, str] = {}
    floor = options.floor.resolve() if options.floor.exists() else None
    json_file = options.json and options.json.resolve()  # the current folder changes
    if floor is None:
        left_out["bare statements"] = f"no {options.floor.name} (make postgres-floor)"
    with (
        postgres_server.Server(options.server, settings=SETTINGS) as server,
        mariadb.running() as maria,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name).resolve()
        stores = compared(server.dsn, maria, left_out)
        about = facts(server, folder)
        bench = Bench(folder, size, left_out)
        for run in range(size.effort.runs):
            begun = time.monotonic()
            bench.run(stores, floor, server.dsn)
            print(f"run {run + 1}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        print("\n".join(report_lines(bench, stores, about, is_fast=options.fast)))
        os.chdir(ROOT)
        print("\n## Waits at one expiry")
        traffic.measure_waits(size.waits, size.wait_runs, server.dsn)
    if json_file:
        whole = report.document(
            bench.figures, verdicts(bench.figures, size.rows), {"machine": about, "left out": left_out}
        )
        json_file.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
