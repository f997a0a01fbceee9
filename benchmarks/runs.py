"""The order of things: whose turn it is, on which files, and what is left out because it cannot or takes too long."""

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
from operations import COLD, MISS, OPERATIONS, Stand, sync
from targets import FLOOR

if TYPE_CHECKING:
    from measure import Contender, Effort, Figures
    from operations import Operation
    from peers import Peer

LONG, TOO_LONG = 0.1, 10.0  # seconds of a call: whose cost is of the rows, and who is left out
SLOW_OPENING = 1.0  # seconds: who takes longer is opened once
ROOT = Path(__file__).parent.parent


@dataclasses.dataclass
class Bench:
    """One benchmark: what it compares, how long, and what it has found so far."""

    peers: list[Peer]
    effort: Effort
    sections: list[str]
    folder: Path
    floor: Path | None
    crowd_rows: int
    chance: random.Random = dataclasses.field(default_factory=lambda: random.Random(7))  # noqa: S311
    figures: Figures = dataclasses.field(default_factory=measure.Figures)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    gave_up: dict[str, int] = dataclasses.field(default_factory=dict)  # at how many rows somebody cannot be filled
    paces: dict[tuple[str, Operation], tuple[int, float]] = dataclasses.field(default_factory=dict)
    templates: dict[tuple[str, int], tuple[Path, list[str] | None]] = dataclasses.field(default_factory=dict)

    def leave_out(self, name: str, what: str, why: str) -> None:
        """Note who is not measured, in what, and why."""
        self.left_out.setdefault(f"{name}, {what}" if what else name, why)

    def new_home(self, peer: Peer, rows: int) -> Path:
        """Make a folder."""
        name = "".join(letter if letter.isalnum() else "-" for letter in peer.name)
        return Path(tempfile.mkdtemp(prefix=f"{name}-{rows}-", dir=self.folder))

    def template(self, peer: Peer, rows: int) -> tuple[Path, list[str] | None]:
        """Fill a folder once; each run has a copy."""
        if (peer.name, rows) not in self.templates:
            home = self.new_home(peer, rows)
            store = peer.open(home)
            ids = peer.fill(store, home, rows)
            peer.close(store)
            self.templates[peer.name, rows] = home, ids
        return self.templates[peer.name, rows]

    def stand(self, peer: Peer, rows: int) -> Stand:
        """Make a store with so many rows, on files of its own; time how long one takes to open."""
        home = self.new_home(peer, rows)
        if not peer.is_copied:
            store = peer.open(home)
            return Stand(peer, store, home, rows, peer.fill(store, home, rows))
        template, ids = self.template(peer, rows)
        shutil.copytree(template, home, dirs_exist_ok=True)
        if targets.MAKING in self.sections:
            took = [self.opened(peer, home)]
            again = self.effort.opened - 1 if took[0] < SLOW_OPENING else 0
            took += [self.opened(peer, home) for _ in range(again)]
            key = Key(targets.MAKING, "existing file", rows, peer.name)
            self.figures.add(key, statistics.median(took), singles=took)
        return Stand(peer, peer.open(home), home, rows, ids)

    @staticmethod
    def opened(peer: Peer, home: Path) -> float:
        """Return the seconds in which a store is made; then close it."""
        begun = time.perf_counter()
        store = peer.open(home)
        took = time.perf_counter() - begun
        peer.close(store)
        return took

    def stands(self, rows: int) -> list[Stand]:
        """Make every store that can have so many rows, in an order drawn by lot."""
        made = []
        for peer in self.chance.sample(self.peers, len(self.peers)):
            if rows > peer.most or rows >= self.gave_up.get(peer.name, rows + 1):
                continue
            try:
                made.append(self.stand(peer, rows))
            except Exception as error:
                self.leave_out(peer.name, f"{report.whole(rows)} rows and more", peers.in_short(error))
                self.gave_up[peer.name] = rows
        sync()  # or the stores that sync would pay for it
        return made

    def can(self, stand: Stand, operation: Operation) -> bool:
        """Try the operation once: whether it is answered, rightly and in time."""
        what = f"{operation.name}, {report.whole(stand.rows)} rows"
        rows, pace = self.paces.get((stand.name, operation), (stand.rows, 0.0))
        if pace > LONG and pace * stand.rows / rows > TOO_LONG:
            self.leave_out(stand.name, what, f"a call would take some {pace * stand.rows / rows:.0f} s")
            return False
        begun = time.perf_counter()
        try:
            wrong = stand.check(operation, self.chance.randrange(stand.rows))
        except Exception as error:
            wrong = peers.in_short(error)
        self.paces[stand.name, operation] = stand.rows, time.perf_counter() - begun
        if wrong:
            self.leave_out(stand.name, what, wrong)
        return not wrong

    def calls(self, stands: list[Stand], rows: int) -> None:
        """Time every operation, hot and cold."""
        fill, append = floors.Fill(), floors.Append(stands[0].home)
        for operation in OPERATIONS:
            able: list[Contender] = [stand for stand in stands if self.can(stand, operation)]
            under = {"find": [fill], "save": [append]}.get(operation.kind, [])
            known = {name: pace for (name, of), (at, pace) in self.paces.items() if (of, at) == (operation, rows)}
            plans = measure.plans_of([*able, *under], operation, self.effort, self.chance, known)
            self.paces |= {(name, operation): (rows, plan.pace) for name, plan in plans.items()}
            if targets.HOT in self.sections:
                found = measure.hot([*able, *under], operation, plans, self.chance)
                for name, (median, singles) in found.items():
                    if name in (fill.name, append.name):
                        self.add_floor(operation, rows, median, stands)
                    else:
                        self.figures.add(Key(targets.HOT, operation.name, rows, name), median, singles=singles)
            if targets.COLD in self.sections and operation in COLD:
                for name, singles in measure.cold(able, operation, plans, self.chance).items():
                    key = Key(targets.COLD, operation.name, rows, name)
                    self.figures.add(key, statistics.median(singles), singles=singles)
        append.close()

    def add_floor(self, operation: Operation, rows: int, median: float, stands: list[Stand]) -> None:
        """Add the floor of an operation: of a find the row's reading and the token's filling, of a miss the reading."""
        if operation.kind == "find":
            file = next((stand.home / "tokens.db" for stand in stands if stand.name == targets.SQLITE), None)
            if self.floor is None or file is None:
                return
            read = floors.select(self.floor, file, measure.FULL.batches, measure.FULL.calls)
            self.figures.add(Key("floors", "point SELECT in Rust", rows, FLOOR), read)
            self.figures.add(Key("floors", "ten getters and setters in Python", rows, FLOOR), median)
            median = read if operation is MISS else read + median
        else:
            self.figures.add(Key("floors", "append of 4 KiB and fdatasync", rows, FLOOR), median)
        self.figures.add(Key(targets.HOT, operation.name, rows, FLOOR), median)

    def crowds(self, stands: list[Stand], rows: int) -> None:
        """Let several work at once, one peer after the other. Who loses rows goes on with a new store."""
        tasks = [
            (targets.BUSY, "find", self.beside_a_busy_thread),
            (targets.SAVING, "find", self.while_others_save),
            *((targets.CROWD, crowd, partial(self.saves, crowd)) for crowd in crowds.CROWDS),
        ]
        for place, (section, what, task) in itertools.product(range(len(stands)), tasks):
            stand = stands[place]
            if section not in self.sections or (section == targets.CROWD and stand.peer.kept == "memory"):
                continue
            try:
                task(stand, rows)
            except Exception as error:
                self.leave_out(stand.name, f"{section}, {what}", peers.in_short(error))
            if lost := stand.lost():
                self.figures.add_lost(Key(section, what, rows, stand.name), lost)
                self.leave(stand)
                stands[place] = self.stand(stand.peer, rows)

    def beside_a_busy_thread(self, stand: Stand, rows: int) -> None:
        """Find while another thread computes, and while none does."""
        found = crowds.idle_and_busy(stand, self.effort.crowd, self.chance)
        for what, took in zip(("find, idle", "find"), found, strict=True):
            self.figures.add(Key(targets.BUSY, what, rows, stand.name), statistics.median(took), singles=took)

    def while_others_save(self, stand: Stand, rows: int) -> None:
        """Find while a thread and a process save."""
        took, failed, saves = crowds.find_while_saving(stand, self.effort.crowd, self.chance)
        key = Key(targets.SAVING, "find", rows, stand.name)
        self.figures.add(key, statistics.median(took), singles=took, failed=failed)
        others = key._replace(operation="saves of the others")
        self.figures.add(others, saves.per_second, failed=saves.failed, unit="/s")

    def saves(self, crowd: str, stand: Stand, rows: int) -> None:
        """Let a crowd save: how many a second, and how long each took."""
        saves = crowds.saves(stand, crowd, self.effort.crowd)
        key = Key(targets.CROWD, crowd, rows, stand.name)
        self.figures.add(key, saves.per_second, singles=saves.took, failed=saves.failed, unit="/s")
        for what, of in (("median", statistics.median), ("slowest", max)):
            self.figures.add(key._replace(operation=f"{crowd}, {what} save"), of(saves.took))

    @staticmethod
    def leave(stand: Stand) -> None:
        """Close a store and remove its files."""
        os.chdir(ROOT)
        stand.peer.close(stand.store)
        shutil.rmtree(stand.home)

    def run(self, rows: int) -> None:
        """Measure all that depends on the rows, once."""
        stands = self.stands(rows)
        try:
            self.calls(stands, rows)
            if rows == self.crowd_rows:
                self.crowds(stands, rows)
        finally:
            for stand in stands:
                self.leave(stand)

    def alone(self) -> None:
        """Measure what needs nobody else: new files, imports, sizes."""
        if targets.MAKING in self.sections:
            for peer in self.peers:
                if peer.is_copied or peer.kept == "memory":
                    took = [self.opened(peer, self.new_home(peer, 0)) for _ in range(self.effort.opened)]
                    key = Key(targets.MAKING, "new", 0, peer.name)
                    self.figures.add(key, statistics.median(took), singles=took)
        if targets.SIZES in self.sections:
            for name, module in sizes.IMPORTS.items():
                if name == targets.OURSELVES or any(peer.name == name for peer in self.peers):
                    sizes.import_time(module, self.folder / "bytecode")
                    took = [sizes.import_time(module, self.folder / "bytecode") for _ in range(self.effort.imports)]
                    self.figures.add(Key(targets.SIZES, "import", 0, name), statistics.median(took), singles=took)
            if (megabytes := sizes.wheel_size()) is not None:
                self.figures.add(Key(targets.SIZES, "wheel", 0, targets.OURSELVES), megabytes, unit="MB")

    def memory(self, rows: int) -> None:
        """Measure the memory of our three classes and `FileStore`."""
        for peer in self.peers:
            if peer.name not in (*peers.OURS, "FileStore"):
                continue
            try:
                if rows >= self.gave_up.get(peer.name, rows + 1):
                    raise TimeoutError("it could not be filled")  # noqa: TRY301 - one way to be left out
                template = self.template(peer, rows)[0] if peer.is_copied else None
                megabytes = sizes.memory(peer, template, rows)
            except Exception as error:
                self.leave_out(peer.name, "memory", peers.in_short(error))
                continue
            if megabytes is not None:
                self.figures.add(Key(targets.SIZES, "memory", rows, peer.name), megabytes, unit="MB")
