"""Faults on demand, for the programs of these tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """`faults.c`, compiled: with the compiler that has built SQLite into the extension."""
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).parent / "faults.c"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True, timeout=60)
    return made


@pytest.fixture
def preload(shim, monkeypatch):
    """Have the programs that a test runs start with the shim in front of libc."""
    monkeypatch.setenv("LD_PRELOAD", str(shim))
