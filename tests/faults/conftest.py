"""Fixtures: the library that injects faults."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library made from `faults.c`, with the compiler that has built SQLite into the extension."""
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).parent / "faults.c"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True, timeout=60)
    return made


@pytest.fixture
def preload(shim, monkeypatch):
    """Preload the library into all processes that a test starts. `injection.py` controls it."""
    monkeypatch.setenv("LD_PRELOAD", str(shim))
