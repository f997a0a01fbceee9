"""Run the benchmark: open the stores, measure each section, and leave out what fails or takes too long."""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import crowds
import floors
import measure
import peers
import report
import sizes
import targets
from measure import Key
from operations import COLD, MISS, OPERATIONS, LoadedStore, sync
from targets import FLOOR

if TYPE_CHECKING:
    from measure import Contender, Effort, Figures
    from operations import Operation
    from peers import Peer

# If a call takes longer than `LONG_CALL_SECONDS`, its duration is assumed to be proportional to the number of rows. A
# call is left out if its expected duration is more than `MAX_CALL_SECONDS`.
LONG_CALL_SECONDS, MAX_CALL_SECONDS = 0.1, 10.0
SLOW_OPENING_SECONDS = 1.0  # a store that takes longer to open is opened only once
ROOT = Path(__file__).parent.parent


@dataclasses.dataclass
class Bench:
    """One benchmark: its settings, and the figures so far."""

    peers: list[Peer]
    effort: Effort
    sections: list[str]
    folder: Path
    floor: Path | None
    crowd_rows: int
    rng: random.Random = dataclasses.field(default_factory=lambda: random.Random(7))  # noqa: S311
    figures: Figures = dataclasses.field(default_factory=measure.Figures)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    # The table size at which filling a peer failed.
    fill_failures: dict[str, int] = dataclasses.field(default_factory=dict)
    # For each peer and operation: the last table size, and the seconds per call.
    call_seconds: dict[tuple[str, Operation], tuple[int, float]] = dataclasses.field(default_factory=dict)
    templates: dict[tuple[str, int], tuple[Path, list[str] | None]] = dataclasses.field(default_factory=dict)

    def leave_out(self, name: str, what: str, why: str) -> None:
        """Note what of a peer is not measured, and why."""
        self.left_out.setdefault(f"{name}, {what}" if what else name, why)

    def new_home(self, peer: Peer, rows: int) -> Path:
        """Create a folder for a peer's files."""
        name = "".join(letter if letter.isalnum() else "-" for letter in peer.name)
        return Path(tempfile.mkdtemp(prefix=f"{name}-{rows}-", dir=self.folder))

    def template(self, peer: Peer, rows: int) -> tuple[Path, list[str] | None]:
        """Return a filled folder and its ids. It is filled once, and each run uses a copy."""
        if (peer.name, rows) not in self.templates:
            home = self.new_home(peer, rows)
            store = peer.open(home)
            ids = peer.fill(store, home, rows)
            peer.close(store)
            self.templates[peer.name, rows] = home, ids
        return self.templates[peer.name, rows]

    def load(self, peer: Peer, rows: int) -> LoadedStore:
        """Return a store with this number of rows, on new files. Also time the opening of such a store."""
        home = self.new_home(peer, rows)
        if not peer.is_copied:
            store = peer.open(home)
            return LoadedStore(peer, store, home, rows, peer.fill(store, home, rows))
        template, ids = self.template(peer, rows)
        shutil.copytree(template, home, dirs_exist_ok=True)
        if targets.MAKING in self.sections:
            durations = [self.time_opening(peer, home)]
            more = self.effort.opened - 1 if durations[0] < SLOW_OPENING_SECONDS else 0
            durations += [self.time_opening(peer, home) for _ in range(more)]
            key = Key(targets.MAKING, "existing file", rows, peer.name)
            self.figures.add(key, statistics.median(durations), singles=durations)
        return LoadedStore(peer, peer.open(home), home, rows, ids)

    @staticmethod
    def time_opening(peer: Peer, home: Path) -> float:
        """Open and close a store. Return the seconds of the opening."""
        start = time.perf_counter()
        store = peer.open(home)
        duration = time.perf_counter() - start
        peer.close(store)
        return duration

    def load_all(self, rows: int) -> list[LoadedStore]:
        """Return all stores that can have this number of rows, in a random order."""
        loaded_stores = []
        for peer in self.rng.sample(self.peers, len(self.peers)):
            if rows > peer.most or rows >= self.fill_failures.get(peer.name, rows + 1):
                continue
            try:
                loaded_stores.append(self.load(peer, rows))
            except Exception as error:
                self.leave_out(peer.name, f"{report.whole(rows)} rows and more", peers.in_short(error))
                self.fill_failures[peer.name] = rows
        sync()  # otherwise the first store that syncs would wait for the data of all others
        return loaded_stores

    def can_run(self, loaded: LoadedStore, operation: Operation) -> bool:
        """Try the operation once. Return whether its result is right and it does not take too long."""
        what = f"{operation.name}, {report.whole(loaded.rows)} rows"
        rows, seconds = self.call_seconds.get((loaded.name, operation), (loaded.rows, 0.0))
        expected_seconds = seconds * loaded.rows / rows
        if seconds > LONG_CALL_SECONDS and expected_seconds > MAX_CALL_SECONDS:
            self.leave_out(loaded.name, what, f"a call would take about {expected_seconds:.0f} s")
            return False
        start = time.perf_counter()
        try:
            wrong = loaded.check(operation, self.rng.randrange(loaded.rows))
        except Exception as error:
            wrong = peers.in_short(error)
        self.call_seconds[loaded.name, operation] = loaded.rows, time.perf_counter() - start
        if wrong:
            self.leave_out(loaded.name, what, wrong)
        return not wrong

    def calls(self, loaded_stores: list[LoadedStore], rows: int) -> None:
        """Time every operation, hot and cold."""
        fill, overwrite = floors.Fill(), floors.Overwrite(loaded_stores[0].home)
        for operation in OPERATIONS:
            able: list[Contender] = [loaded for loaded in loaded_stores if self.can_run(loaded, operation)]
            floor = {"find": [fill], "save": [overwrite]}.get(operation.kind, [])
            known = {
                name: seconds
                for (name, known_operation), (known_rows, seconds) in self.call_seconds.items()
                if (known_operation, known_rows) == (operation, rows)
            }
            plans = measure.plans_of([*able, *floor], operation, self.effort, self.rng, known)
            self.call_seconds |= {(name, operation): (rows, plan.call_seconds) for name, plan in plans.items()}
            if targets.HOT in self.sections:
                found = measure.hot([*able, *floor], operation, plans, self.rng)
                for name, (median, singles) in found.items():
                    if name in (fill.name, overwrite.name):
                        self.add_floor(operation, rows, median, loaded_stores)
                    else:
                        self.figures.add(Key(targets.HOT, operation.name, rows, name), median, singles=singles)
            if targets.COLD in self.sections and operation in COLD:
                for name, singles in measure.cold(able, operation, plans, self.rng).items():
                    key = Key(targets.COLD, operation.name, rows, name)
                    self.figures.add(key, statistics.median(singles), singles=singles)
        overwrite.close()

    def add_floor(self, operation: Operation, rows: int, median: float, loaded_stores: list[LoadedStore]) -> None:
        """Add the floor of an operation.

        A find must read the row and fill the token, and a miss must only read. A save must overwrite a page and sync.
        """
        if operation.kind == "find":
            file = next((loaded.home / "tokens.db" for loaded in loaded_stores if loaded.name == targets.SQLITE), None)
            if self.floor is None or file is None:
                return
            read = floors.select(self.floor, file, measure.FULL.batches, measure.FULL.calls)
            self.figures.add(Key("floors", "point SELECT in Rust", rows, FLOOR), read)
            self.figures.add(Key("floors", "ten getters and setters in Python", rows, FLOOR), median)
            median = read if operation is MISS else read + median
        else:
            self.figures.add(Key("floors", "overwrite of 4 KiB and fdatasync", rows, FLOOR), median)
        self.figures.add(Key(targets.HOT, operation.name, rows, FLOOR), median)

    def crowds(self, loaded_stores: list[LoadedStore], rows: int) -> None:
        """Measure concurrent work, one peer after the other. After a loss of rows the peer gets a new store."""
        tasks = [
            (targets.BUSY, "find", self.beside_a_busy_thread),
            (targets.SAVING, "find", self.while_others_save),
            *((targets.CROWD, crowd, partial(self.saves, crowd)) for crowd in crowds.CROWDS),
        ]
        for index, (section, what, task) in itertools.product(range(len(loaded_stores)), tasks):
            loaded = loaded_stores[index]
            if section not in self.sections or (section == targets.CROWD and loaded.peer.kept == "memory"):
                continue
            try:
                task(loaded, rows)
            except Exception as error:
                self.leave_out(loaded.name, f"{section}, {what}", peers.in_short(error))
            if lost := loaded.lost():
                self.figures.add_lost(Key(section, what, rows, loaded.name), lost)
                self.remove(loaded)
                loaded_stores[index] = self.load(loaded.peer, rows)

    def beside_a_busy_thread(self, loaded: LoadedStore, rows: int) -> None:
        """Find with and without another thread that computes."""
        found = crowds.idle_and_busy(loaded, self.effort.crowd, self.rng)
        for what, durations in zip(("find, idle", "find"), found, strict=True):
            key = Key(targets.BUSY, what, rows, loaded.name)
            self.figures.add(key, statistics.median(durations), singles=durations)

    def while_others_save(self, loaded: LoadedStore, rows: int) -> None:
        """Find while a thread and a process save."""
        durations, failed, saves = crowds.find_while_saving(loaded, self.effort.crowd, self.rng)
        key = Key(targets.SAVING, "find", rows, loaded.name)
        self.figures.add(key, statistics.median(durations), singles=durations, failed=failed)
        others = key._replace(operation="saves of the others")
        self.figures.add(others, saves.per_second, failed=saves.failed, unit="/s")

    def saves(self, crowd: str, loaded: LoadedStore, rows: int) -> None:
        """Let a crowd save. Add the saves per second, and the median and slowest save."""
        saves = crowds.saves(loaded, crowd, self.effort.crowd)
        key = Key(targets.CROWD, crowd, rows, loaded.name)
        self.figures.add(key, saves.per_second, singles=saves.durations, failed=saves.failed, unit="/s")
        for what, function in (("median", statistics.median), ("slowest", max)):
            self.figures.add(key._replace(operation=f"{crowd}, {what} save"), function(saves.durations))

    @staticmethod
    def remove(loaded: LoadedStore) -> None:
        """Close a store and remove its files."""
        os.chdir(ROOT)
        loaded.peer.close(loaded.store)
        shutil.rmtree(loaded.home)

    def run(self, rows: int) -> None:
        """Measure everything that depends on the number of rows, once."""
        loaded_stores = self.load_all(rows)
        try:
            self.calls(loaded_stores, rows)
            if rows == self.crowd_rows:
                self.crowds(loaded_stores, rows)
        finally:
            for loaded in loaded_stores:
                self.remove(loaded)

    def alone(self) -> None:
        """Measure what does not depend on the number of rows: new files, imports, the wheel's size."""
        if targets.MAKING in self.sections:
            for peer in self.peers:
                if peer.is_copied or peer.kept == "memory":
                    durations = [self.time_opening(peer, self.new_home(peer, 0)) for _ in range(self.effort.opened)]
                    key = Key(targets.MAKING, "new", 0, peer.name)
                    self.figures.add(key, statistics.median(durations), singles=durations)
        if targets.SIZES in self.sections:
            for name, module in sizes.IMPORTS.items():
                if name == targets.OURSELVES or any(peer.name == name for peer in self.peers):
                    sizes.import_time(module, self.folder / "bytecode")
                    folder = self.folder / "bytecode"
                    durations = [sizes.import_time(module, folder) for _ in range(self.effort.imports)]
                    key = Key(targets.SIZES, "import", 0, name)
                    self.figures.add(key, statistics.median(durations), singles=durations)
            if (megabytes := sizes.wheel_size()) is not None:
                self.figures.add(Key(targets.SIZES, "wheel", 0, targets.OURSELVES), megabytes, unit="MB")

    def memory(self, rows: int) -> None:
        """Measure the memory of our three classes and `FileStore`."""
        for peer in self.peers:
            if peer.name not in (*peers.OURS, "FileStore"):
                continue
            try:
                if rows >= self.fill_failures.get(peer.name, rows + 1):
                    raise TimeoutError("it could not be filled")  # noqa: TRY301 - handled like other failures
                template = self.template(peer, rows)[0] if peer.is_copied else None
                megabytes = sizes.memory(peer, template, rows)
            except Exception as error:
                self.leave_out(peer.name, "memory", peers.in_short(error))
                continue
            if megabytes is not None:
                self.figures.add(Key(targets.SIZES, "memory", rows, peer.name), megabytes, unit="MB")
