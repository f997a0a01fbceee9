"""Run functions of the test modules in processes of their own.

The new process imports the test module again and calls the function. So the code of such a process is ordinary Python,
which linters and editors see. The arguments are pickled. The result comes back as JSON.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import inspect
import json
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from support import run_forked, run_program
from zoho_token_store import CustomStoreSQLite

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parent
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def in_own_process(test: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test so that all of it runs in a forked process, assertions included.

    A failed assertion shows the values of the local variables.
    """

    @functools.wraps(test)
    def run(**arguments: object) -> None:
        run_forked(*_program(test, (), arguments))

    return run


def run_in_fork(work: Callable[..., object], *arguments: object) -> object:
    """Call a function in a process that is forked from one with the SDK imported. Return its result."""
    return _result(run_forked(*_program(work, arguments, {})))


def run_in_new_interpreter(work: Callable[..., object], *arguments: object) -> object:
    """Call a function in a new interpreter, for tests of an interpreter's start or end. Return its result."""
    return _result(run_program(*_program(work, arguments, {})))


def drop_privileges() -> None:
    """Let file permissions apply to root, too: to this thread, and to the threads and forks that it starts from now on.

    On Linux the process stays root and loses its capabilities. So it is still the owner of its files, like a developer
    who is not root, and it can still import a package from root's private folder. A program that it executes gets the
    capabilities again (capabilities(7)). On other systems it becomes an unprivileged user.
    """
    if os.geteuid() != 0:
        return
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)  # 0: this thread
        no_capabilities = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable: 64 bits each
        if libc.capset(header, no_capabilities) != 0:
            raise OSError(ctypes.get_errno(), "capset")
    else:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


class Unprivileged:
    """A process without root's privileges that has a store. `children.Helper` calls its methods by their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: CustomStoreSQLite | None = None

    def __call__(self, method: str) -> object:
        return getattr(self, method)()

    def open(self) -> None:
        """Lose the privileges, and open the store."""
        drop_privileges()
        self.store = CustomStoreSQLite(self.path, busy_timeout=20)


def call(module: str, name: str, pickled: str) -> None:
    """Call a function and print its result. This runs in the new process."""
    work = inspect.unwrap(getattr(importlib.import_module(module), name))
    arguments, named = pickle.loads(bytes.fromhex(pickled))
    try:
        result = work(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - the test that waits for this process reports it
        sys.stderr.writelines(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        raise SystemExit(1) from None
    sys.stdout.write(json.dumps(result) + "\n")


def _program(work: Callable[..., object], arguments: tuple[object, ...], named: dict[str, object]) -> tuple[str, ...]:
    """Return the code and the arguments of a program that calls a function."""
    # Not `work.__module__`: it depends on how pytest has imported the file.
    file = Path(inspect.unwrap(work).__code__.co_filename).relative_to(TESTS)
    module = ".".join(file.with_suffix("").parts)
    code = "import own_process\nown_process.call(*sys.argv[1:])"
    return code, module, work.__name__, pickle.dumps((arguments, named)).hex()


def _result(printed: str) -> object:
    return json.loads(printed.splitlines()[-1])
