"""Measure a store under concurrency: finds beside a busy thread, finds during saves, saves of several workers.

Each worker stops by itself when its time is over. Worker processes are new ones and open the store themselves.
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

    from operations import LoadedStore
    from peers import Peer
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

    Location = tuple[Peer, Path, int, list[str] | None]  # how a process opens the store: peer, folder, rows, ids

TIMEOUT_SECONDS = 60  # limit for a crowd to be ready, or to end; it needs much less
PAUSE_SECONDS = 0.0002  # between finds: a thread that never waits would keep the GIL from saving threads
PREPARED_SAVES = 1_000  # tokens that a worker prepares and saves again and again
PREPARED_FINDS = 20  # tokens that are prepared before they are found
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["crowds", "database"])


class Saves(NamedTuple):
    """The result of saving: the seconds of each save, the number of failed saves, and the total seconds."""

    durations: list[float]
    failed: int
    seconds: float

    @property
    def per_second(self) -> float:
        """The number of successful saves per second."""
        return len(self.durations) / self.seconds if self.seconds else 0


class Worker(NamedTuple):
    """A worker that saves random rows without pause."""

    call: Callable[[OAuthToken], object]
    tokens: list[OAuthToken]

    @classmethod
    def of(cls, loaded: LoadedStore) -> Worker:
        """Prepare the tokens."""
        return cls(*loaded.prepare(operations.SAVE_UPDATE, random.SystemRandom(), PREPARED_SAVES))

    def save(self, seconds: float) -> Saves:
        """Save until the time is over."""
        durations, failed = [], 0
        clock = time.perf_counter
        first_start = now = clock()
        for token in itertools.cycle(self.tokens):
            start = now
            if start > first_start + seconds:
                break
            try:
                self.call(token)
            except Exception:
                failed += 1
                now = clock()
            else:
                now = clock()
                durations.append(now - start)
        return Saves(durations, failed, now - first_start)


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """Let another Python thread compute."""
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
        thread.join(TIMEOUT_SECONDS)


def finds(loaded: LoadedStore, seconds: float, rng: Random, pause: float = 0) -> tuple[list[float], int]:
    """Find by refresh token until the time is over.

    Return the seconds of each find, and the number of those that found nothing or failed.
    """
    durations, failed = [], 0
    clock = time.perf_counter
    end = clock() + seconds
    while clock() < end:
        call, tokens = loaded.prepare(operations.FIND_BY_REFRESH_TOKEN, rng, PREPARED_FINDS)
        for token in tokens:
            if pause:
                time.sleep(pause)
            start = clock()
            try:
                found = call(token)
            except Exception:
                found = None
            now = clock()
            if found is None:
                failed += 1
            else:
                durations.append(now - start)
            if now > end:
                break
    return durations, failed


def idle_and_busy(loaded: LoadedStore, seconds: float, rng: Random) -> tuple[list[float], list[float]]:
    """Return the seconds of each find without and with a busy second thread."""
    idle, _ = finds(loaded, seconds / 4, rng)
    with busy_thread():
        busy, _ = finds(loaded, seconds, rng)
    return idle, busy


def work(barrier: Barrier, results: Queue, location: Location, seconds: float) -> None:
    """Run in a process: open the store, wait until all are ready, and save for this time."""
    peer, home, rows, ids = location
    try:
        store = peer.open(home)
        worker = Worker.of(operations.LoadedStore(peer, store, home, rows, ids))
        barrier.wait(TIMEOUT_SECONDS)
        results.put(worker.save(seconds))
        peer.close(store)
    except Exception:
        barrier.abort()
        results.put(Saves([], 1, seconds))


@contextlib.contextmanager
def saving_processes(loaded: LoadedStore, count: int, seconds: float) -> Iterator[list[Saves]]:
    """Let several processes save while the body runs. The yielded list has their results after the body."""
    barrier, results = processes.Barrier(count + 1), processes.Queue()
    arguments = (barrier, results, (loaded.peer, loaded.home, loaded.rows, loaded.ids), seconds)
    crowd = [processes.Process(target=work, args=arguments, daemon=True) for _ in range(count)]
    saves: list[Saves] = []
    try:
        for worker in crowd:
            worker.start()
        barrier.wait(TIMEOUT_SECONDS)
        yield saves
        saves += [results.get(timeout=TIMEOUT_SECONDS) for _ in crowd]
        for worker in crowd:
            worker.join(TIMEOUT_SECONDS)
    finally:
        for worker in crowd:
            if worker.is_alive():
                worker.kill()
                worker.join(TIMEOUT_SECONDS)


@contextlib.contextmanager
def saving_threads(loaded: LoadedStore, count: int, seconds: float) -> Iterator[list[Saves]]:
    """Let several threads save with one store while the body runs. The yielded list has their results after it."""
    barrier = threading.Barrier(count + 1)
    workers = [Worker.of(loaded) for _ in range(count)]
    saves: list[Saves] = []

    def save(worker: Worker) -> None:
        barrier.wait(TIMEOUT_SECONDS)
        saves.append(worker.save(seconds))

    crowd = [threading.Thread(target=save, args=(worker,), daemon=True) for worker in workers]
    for thread in crowd:
        thread.start()
    barrier.wait(TIMEOUT_SECONDS)
    yield saves
    for thread in crowd:
        thread.join(TIMEOUT_SECONDS)


CROWDS = {
    "1 thread": (1, saving_threads),
    "4 threads": (4, saving_threads),
    "8 threads": (8, saving_threads),
    "4 processes": (4, saving_processes),
}


def combine(results: list[Saves]) -> Saves:
    """Combine the results of workers that saved at the same time."""
    durations = [duration for saves in results for duration in saves.durations]
    return Saves(
        durations, sum(saves.failed for saves in results), max((saves.seconds for saves in results), default=0)
    )


def saves(loaded: LoadedStore, crowd: str, seconds: float) -> Saves:
    """Let the workers of a crowd save."""
    count, saving = CROWDS[crowd]
    with saving(loaded, count, seconds) as results:
        pass
    return combine(results)


def find_while_saving(loaded: LoadedStore, seconds: float, rng: Random) -> tuple[list[float], int, Saves]:
    """Find while a thread saves, and also a process if the store is not in memory.

    Return the seconds of each find, the number of failed finds, and the saves.
    """
    others = 0 if loaded.peer.kept == "memory" else 1
    with saving_processes(loaded, others, seconds) as by_processes, saving_threads(loaded, 1, seconds) as by_threads:
        durations, failed = finds(loaded, seconds * 0.9, rng, PAUSE_SECONDS)
    return durations, failed, combine([*by_processes, *by_threads])
