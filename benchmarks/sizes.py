"""What is measured in processes and files of their own: imports, the wheel's size, memory."""

from __future__ import annotations

import gc
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import crowds
import operations
from measure import one_by_one
from peers import in_short

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from peers import Peer

STATM = Path("/proc/self/statm")
HERE = Path(__file__).parent
IMPORTS = {
    "zoho_token_store": "zoho_token_store",
    "plain": "sqlite3",
    "FileStore": "zohocrmsdk.src.com.zoho.api.authenticator.store.file_store",
    "diskcache": "diskcache",
}
PROGRAM = """
import sys, time
begun = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - begun)
"""


def import_time(module: str, bytecode: Path) -> float:
    """Return the seconds of an import in a fresh interpreter, by its own clock; the first one there compiles it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=HERE.parent,
        env={**environment, "PYTHONPYCACHEPREFIX": str(bytecode)},
    )
    return float(done.stdout)


def wheel_size() -> float | None:
    """Return the megabytes of the wheel that was built for this machine, if there is one."""
    wheels = sorted((HERE.parent / "target" / "wheel").glob("*.whl"))
    return wheels[-1].stat().st_size / 1e6 if wheels else None


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def grow(answers: Queue, peer: Peer, home: Path, template: Path | None, rows: int) -> None:
    """Tell how many bytes a store takes, or what went wrong."""
    try:
        answers.put(grown(peer, home, template, rows))
    except Exception as error:
        answers.put(in_short(error))


def grown(peer: Peer, home: Path, template: Path | None, rows: int) -> int:
    """Return the bytes of a store with so many rows: filled, or opened on its file, and then found in."""
    os.chdir(home)
    chance = random.SystemRandom()
    first = home / "first"
    first.mkdir()
    small = peer.open(first)  # so that nothing is loaded for the first time while it counts
    peer.fill(small, first, 10)
    one_by_one(operations.Stand(peer, small, first, 10), operations.FIND_BY_REFRESH_TOKEN, chance, 10)
    gc.collect()
    before = resident()
    store = peer.open(template or home)
    if template is None:
        peer.fill(store, home, rows)
    one_by_one(operations.Stand(peer, store, home, rows), operations.FIND_BY_REFRESH_TOKEN, chance, 20)
    gc.collect()
    return resident() - before


def memory(peer: Peer, template: Path | None, rows: int) -> float | None:
    """Return the megabytes that a store with so many rows takes."""
    if not STATM.exists():
        return None
    answers = crowds.processes.Queue()
    with tempfile.TemporaryDirectory() as home:
        child = crowds.processes.Process(target=grow, args=(answers, peer, Path(home), template, rows), daemon=True)
        child.start()
        try:
            told = answers.get(timeout=crowds.IN_TIME)
        finally:
            child.join(1)
            if child.is_alive():
                child.kill()
                child.join(crowds.IN_TIME)
    if isinstance(told, str):
        raise RuntimeError(told)  # noqa: TRY004 - another process's error
    return told / 1e6
