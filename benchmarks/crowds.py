"""A store under several at once: beside a busy thread, found in while others save, saved into by many.

Everybody works until a deadline and ends by itself. Processes are fresh ones, which open the store themselves.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import operations
from measure import one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier
    from pathlib import Path
    from random import Random

    from operations import Stand
    from peers import Peer

IN_TIME = 60  # seconds for a crowd to be ready, or to end: far more than it needs
PAUSE = 0.0002  # seconds between finds: a thread that never waits would keep the saving ones from the GIL
AT_MOST = 20_000  # calls of one worker
PROCESSES = 4
THREADS = (1, 4, 8)
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["crowds"])


class Saves(NamedTuple):
    """What came of a crowd that saved: the seconds of each save, how many failed, and how long it all took."""

    took: list[float]
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Of all together."""
        return len(self.took) / self.seconds


def save_until(stand: Stand, deadline: float, chance: Random) -> tuple[list[float], int]:
    """Save without pause, each time a row drawn by lot."""
    took, failed = [], 0
    while time.monotonic() < deadline and len(took) + failed < AT_MOST:
        try:
            took += one_by_one(stand, operations.SAVE_UPDATE, chance, 1)
        except Exception:
            failed += 1
    return took, failed


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """Let another Python thread compute all the while."""
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(IN_TIME)


def finds_until(stand: Stand, seconds: float, chance: Random, pause: float = 0) -> tuple[list[float], int]:
    """Find by refresh token, one call at a time."""
    took, failed = [], 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(took) + failed < AT_MOST:
        if pause:
            time.sleep(pause)
        try:
            took += one_by_one(stand, operations.FIND_BY_REFRESH_TOKEN, chance, 1)
        except Exception:
            failed += 1
    return took, failed


def idle_and_busy(stand: Stand, seconds: float, chance: Random) -> tuple[list[float], list[float]]:
    """Find without and with a busy second thread."""
    idle, _ = finds_until(stand, seconds / 4, chance)
    with busy_thread():
        busy, _ = finds_until(stand, seconds, chance)
    return idle, busy


def work(
    gate: Barrier, answers: Queue, peer: Peer, home: Path, rows: int, ids: list[str] | None, seconds: float
) -> None:
    """Be one process: open the store, and save for so long when all are ready."""
    try:
        stand = operations.Stand(peer, peer.open(home), home, rows, ids)
        gate.wait(IN_TIME)
        begun = time.monotonic()
        took, failed = save_until(stand, begun + seconds, random.SystemRandom())
        answers.put(Saves(took, failed, time.monotonic() - begun))
        peer.close(stand.store)
    except Exception:
        gate.abort()
        answers.put(Saves([], 1, seconds))


@contextlib.contextmanager
def saving_processes(stand: Stand, count: int, seconds: float) -> Iterator[list[Saves]]:
    """Let so many processes save; when all are ready the body runs, and the list is filled after it."""
    gate, answers = processes.Barrier(count + 1), processes.Queue()
    arguments = (gate, answers, stand.peer, stand.home, stand.rows, stand.ids, seconds)
    crowd = [processes.Process(target=work, args=arguments, daemon=True) for _ in range(count)]
    told: list[Saves] = []
    try:
        for worker in crowd:
            worker.start()
        gate.wait(IN_TIME)
        yield told
        told += [answers.get(timeout=IN_TIME) for _ in crowd]
        for worker in crowd:
            worker.join(IN_TIME)
    finally:
        for worker in crowd:
            if worker.is_alive():
                worker.kill()
                worker.join(IN_TIME)


def find_while_saving(stand: Stand, seconds: float, chance: Random) -> tuple[list[float], int, int]:
    """Find while a thread saves, and a process if it can: the seconds of each find, failed finds, others' saves."""
    others = 1 if stand.peer.kept != "memory" else 0
    by_thread: list[tuple[list[float], int]] = []
    with saving_processes(stand, others, seconds + 0.05) as by_processes:
        deadline = time.monotonic() + seconds
        saver = threading.Thread(
            target=lambda: by_thread.append(save_until(stand, deadline, random.SystemRandom())), daemon=True
        )
        saver.start()
        took, failed = finds_until(stand, seconds, chance, PAUSE)
        saver.join(IN_TIME)
    saves = sum(len(done) for done, _ in by_thread) + sum(len(saved.took) for saved in by_processes)
    return took, failed, saves


def saving_threads(stand: Stand, count: int, seconds: float) -> Saves:
    """Let so many threads save with one store."""
    done: list[tuple[list[float], int]] = []
    begun = time.monotonic()
    crowd = [
        threading.Thread(
            target=lambda: done.append(save_until(stand, begun + seconds, random.SystemRandom())), daemon=True
        )
        for _ in range(count)
    ]
    for worker in crowd:
        worker.start()
    for worker in crowd:
        worker.join(IN_TIME)
    took = [each for saved, _ in done for each in saved]
    return Saves(took, sum(failed for _, failed in done), time.monotonic() - begun)


def four_processes(stand: Stand, seconds: float) -> Saves:
    """Let four processes save into one file, or one server."""
    with saving_processes(stand, PROCESSES, seconds) as told:
        pass
    took = [each for saves in told for each in saves.took]
    return Saves(took, sum(saves.failed for saves in told), max(saves.seconds for saves in told))
