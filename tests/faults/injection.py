"""Controls `faults.c` in a process that has it preloaded (fixture `preload`). Without it, each function raises."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = ctypes.CDLL(None)


def watch(folder: Path) -> None:
    """Count the operations on files of this folder, from 1, and inject no fault until another function is called."""
    LIBRARY.faults_watch(os.fsencode(folder))


def stop() -> None:
    """Count no more operations, and inject no more faults."""
    LIBRARY.faults_watch(b"")


def count() -> int:
    """Return the number of operations since `watch`."""
    return LIBRARY.faults_count()


def operations() -> list[str]:
    """Return the operations since `watch`, such as "fdatasync tokens.db-wal"."""
    operation = LIBRARY.faults_operation
    operation.restype = ctypes.c_char_p
    return [operation(ctypes.c_long(at)).decode() for at in range(1, count() + 1)]


def kill(at: int, *, halfway: bool = False) -> None:
    """Kill the process before operation `at`, or after the first half of it if it is a write."""
    LIBRARY.faults_kill(ctypes.c_long(at), halfway)


def fail(at: int, error: int, *, once: bool = False) -> None:
    """Let operation `at` fail with this errno, and all operations after it unless `once`."""
    LIBRARY.faults_fail(ctypes.c_long(at), error, once)


def record_power_cuts(folder: Path) -> None:
    """After the n-th sync, write to `folder/n` what a power cut would leave."""
    LIBRARY.faults_power(os.fsencode(folder))


def syncs() -> int:
    """Return the number of syncs since `record_power_cuts`."""
    return LIBRARY.faults_syncs()


def report_file_system(number: int) -> None:
    """Let `statfs` report this type for every file system."""
    LIBRARY.faults_filesystem(ctypes.c_long(number))


def refuse_shared_memory() -> None:
    """Let `mmap` fail for the files of the watched folder, as on some file systems."""
    LIBRARY.faults_no_shared_memory(1)
