"""Measure imports, the size of the wheel, and memory. Imports and memory need new processes."""

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
TIME_IMPORT = """
import sys, time
start = time.perf_counter()
__import__(sys.argv[1])
print(time.perf_counter() - start)
"""


def import_time(module: str, bytecode: Path) -> float:
    """Return the seconds of an import in a new interpreter. The first import also compiles into the bytecode folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", TIME_IMPORT, module],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=HERE.parent,
        env={**environment, "PYTHONPYCACHEPREFIX": str(bytecode)},
    )
    return float(done.stdout)


def wheel_size() -> float | None:
    """Return the megabytes of the wheel for this machine, or `None` if it was not built."""
    wheels = sorted((HERE.parent / "target" / "wheel").glob("*.whl"))
    return wheels[-1].stat().st_size / 1e6 if wheels else None


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def send_memory(results: Queue, peer: Peer, home: Path, template: Path | None, rows: int) -> None:
    """Send the bytes of a store, or a description of the error."""
    try:
        results.put(measure_memory(peer, home, template, rows))
    except Exception as error:
        results.put(in_short(error))


def measure_memory(peer: Peer, home: Path, template: Path | None, rows: int) -> int:
    """Return the bytes by which a store grows this process.

    The store is opened with the template's files, or filled if there are none. Then it is used for some finds.
    """
    os.chdir(home)
    rng = random.SystemRandom()
    first = home / "first"
    first.mkdir()
    small = peer.open(first)  # its use imports and caches all that any store needs, before the measurement
    peer.fill(small, first, 10)
    one_by_one(operations.LoadedStore(peer, small, first, 10), operations.FIND_BY_REFRESH_TOKEN, rng, 10)
    gc.collect()
    before = resident()
    store = peer.open(template or home)
    if template is None:
        peer.fill(store, home, rows)
    one_by_one(operations.LoadedStore(peer, store, home, rows), operations.FIND_BY_REFRESH_TOKEN, rng, 20)
    gc.collect()
    return resident() - before


def memory(peer: Peer, template: Path | None, rows: int) -> float | None:
    """Return the megabytes that a store with this number of rows takes, or `None` if that cannot be measured here."""
    if not STATM.exists():
        return None
    results = crowds.processes.Queue()
    with tempfile.TemporaryDirectory() as home:
        arguments = (results, peer, Path(home), template, rows)
        child = crowds.processes.Process(target=send_memory, args=arguments, daemon=True)
        child.start()
        try:
            result = results.get(timeout=crowds.TIMEOUT_SECONDS)
        finally:
            child.join(1)
            if child.is_alive():
                child.kill()
                child.join(crowds.TIMEOUT_SECONDS)
    if isinstance(result, str):
        raise RuntimeError(result)  # noqa: TRY004 - the error of the child
    return result / 1e6
