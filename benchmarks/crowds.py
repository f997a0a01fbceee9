"""A store under several at once: beside a busy thread, found in while others save, saved into by many.

Everybody works until the time is over and ends by itself. Processes are fresh ones, which open the store themselves.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import operations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier
    from pathlib import Path
    from random import Random

    from operations import Stand
    from peers import Peer
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

    Place = tuple[Peer, Path, int, list[str] | None]  # where a process makes its stand

IN_TIME = 60  # seconds for a crowd to be ready, or to end: far more than it needs
PAUSE = 0.0002  # seconds between finds: a thread that never waits would keep the saving ones from the GIL
READY = 1_000  # tokens that a worker makes beforehand, to save them again and again
AT_ONCE = 20  # tokens that are made before they are found
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["crowds", "database"])


class Saves(NamedTuple):
    """What came of saving: the seconds of each save, how many failed, and how long it all took."""

    took: list[float]
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Of all together."""
        return len(self.took) / self.seconds if self.seconds else 0


class Worker(NamedTuple):
    """Someone who saves without pause, each time a row drawn by lot."""

    call: Callable[[OAuthToken], object]
    tokens: list[OAuthToken]

    @classmethod
    def of(cls, stand: Stand) -> Worker:
        """Make the tokens beforehand."""
        return cls(*stand.prepare(operations.SAVE_UPDATE, random.SystemRandom(), READY))

    def save(self, seconds: float) -> Saves:
        """Save until the time is over."""
        took, failed = [], 0
        clock = time.perf_counter
        began = now = clock()
        for token in itertools.cycle(self.tokens):
            begun = now
            if begun > began + seconds:
                break
            try:
                self.call(token)
            except Exception:
                failed += 1
                now = clock()
            else:
                now = clock()
                took.append(now - begun)
        return Saves(took, failed, now - began)


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


def finds(stand: Stand, seconds: float, chance: Random, pause: float = 0) -> tuple[list[float], int]:
    """Find by refresh token until the time is over: the seconds of each, and how many found nothing or failed."""
    took, failed = [], 0
    clock = time.perf_counter
    until = clock() + seconds
    while clock() < until:
        call, tokens = stand.prepare(operations.FIND_BY_REFRESH_TOKEN, chance, AT_ONCE)
        for token in tokens:
            if pause:
                time.sleep(pause)
            begun = clock()
            try:
                found = call(token)
            except Exception:
                found = None
            now = clock()
            if found is None:
                failed += 1
            else:
                took.append(now - begun)
            if now > until:
                break
    return took, failed


def idle_and_busy(stand: Stand, seconds: float, chance: Random) -> tuple[list[float], list[float]]:
    """Find without and with a busy second thread."""
    idle, _ = finds(stand, seconds / 4, chance)
    with busy_thread():
        busy, _ = finds(stand, seconds, chance)
    return idle, busy


def work(gate: Barrier, answers: Queue, place: Place, seconds: float) -> None:
    """Be one process: open the store, and save for so long when all are ready."""
    peer, home, rows, ids = place
    try:
        store = peer.open(home)
        worker = Worker.of(operations.Stand(peer, store, home, rows, ids))
        gate.wait(IN_TIME)
        answers.put(worker.save(seconds))
        peer.close(store)
    except Exception:
        gate.abort()
        answers.put(Saves([], 1, seconds))


@contextlib.contextmanager
def saving_processes(stand: Stand, count: int, seconds: float) -> Iterator[list[Saves]]:
    """Let so many processes save; when all are ready the body runs, and after it the list is filled."""
    gate, answers = processes.Barrier(count + 1), processes.Queue()
    place = stand.peer, stand.home, stand.rows, stand.ids
    crowd = [processes.Process(target=work, args=(gate, answers, place, seconds), daemon=True) for _ in range(count)]
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


@contextlib.contextmanager
def saving_threads(stand: Stand, count: int, seconds: float) -> Iterator[list[Saves]]:
    """Let so many threads save with one store, in the same way."""
    gate = threading.Barrier(count + 1)
    workers = [Worker.of(stand) for _ in range(count)]
    told: list[Saves] = []

    def save(worker: Worker) -> None:
        gate.wait(IN_TIME)
        told.append(worker.save(seconds))

    crowd = [threading.Thread(target=save, args=(worker,), daemon=True) for worker in workers]
    for thread in crowd:
        thread.start()
    gate.wait(IN_TIME)
    yield told
    for thread in crowd:
        thread.join(IN_TIME)


CROWDS = {
    "1 thread": (1, saving_threads),
    "4 threads": (4, saving_threads),
    "8 threads": (8, saving_threads),
    "4 processes": (4, saving_processes),
}


def together(told: list[Saves]) -> Saves:
    """Add up what a crowd's members did at the same time."""
    took = [each for saves in told for each in saves.took]
    return Saves(took, sum(saves.failed for saves in told), max((saves.seconds for saves in told), default=0))


def saves(stand: Stand, crowd: str, seconds: float) -> Saves:
    """Let a crowd save."""
    count, how = CROWDS[crowd]
    with how(stand, count, seconds) as told:
        pass
    return together(told)


def find_while_saving(stand: Stand, seconds: float, chance: Random) -> tuple[list[float], int, Saves]:
    """Find while a thread saves, and a process if it can: the seconds of each find, failed finds, the others' saves."""
    others = 0 if stand.peer.kept == "memory" else 1
    with saving_processes(stand, others, seconds) as by_processes, saving_threads(stand, 1, seconds) as by_threads:
        took, failed = finds(stand, seconds * 0.9, chance, PAUSE)
    return took, failed, together([*by_processes, *by_threads])
