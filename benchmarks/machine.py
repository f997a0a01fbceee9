"""The environment of the figures: the machine, the file system and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from pathlib import Path


def processor() -> str:
    """Return the CPU's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def file_system(folder: Path) -> str:
    """Return the type of a folder's file system."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    folder = folder.resolve()
    over = [(len(mount[1]), mount[2]) for mount in mounts if folder.is_relative_to(mount[1])]
    return max(over)[1] if over else "unknown"


def facts(folder: Path) -> dict[str, str]:
    """Return all facts by their names."""
    found = {
        "CPU": processor(),
        "cores": str(os.cpu_count()),
        "OS": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": file_system(folder),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Python's SQLite": sqlite3.sqlite_version,
    }
    for distribution in ("zoho-token-store", "zohocrmsdk8_0", "diskcache", "mysql-connector-python"):
        try:
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
