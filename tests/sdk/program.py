"""Starts a program that uses the real SDK, and runs methods of `worker.Worker` in it."""

import contextlib
import importlib.metadata
import multiprocessing
import sys

# A fork of a process that has only imported the SDK is like a new process, and starts 0.7 s sooner. The helpers of the
# tests import pytest, which takes 0.2 s.
if sys.platform == "win32":
    processes = multiprocessing.get_context("spawn")
else:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        [
            "zohocrmsdk.src.com.zoho.crm.api.initializer",
            "zohocrmsdk.src.com.zoho.api.authenticator.oauth_token",
            "zohocrmsdk.src.com.zoho.crm.api.org",
            "zohocrmsdk.src.com.zoho.crm.api.users",
            "pytest",
        ]
    )

TIMEOUT = 30  # seconds for one method; it takes milliseconds


def installed_sdk():
    """Return the major version of the SDK in this environment."""
    for version in (5, 6, 7, 8):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"zohocrmsdk{version}_0")
            return version
    raise ImportError("no Zoho CRM SDK is installed")


class Raised(Exception):  # noqa: N818 - it stands for an error of the SDK
    """A method has raised this in the other process."""

    def __init__(self, kind, code, message, trace):
        super().__init__(f"{message}\n{trace}")
        self.kind = kind
        self.code = code
        self.message = message


class Program:
    """One program. `program.initialize(...)` and so on run the methods of `worker.Worker`, with keyword arguments.

    `restart()` restarts the program with the same store: the same object, or a new process with the same file.
    `logged` has the errors that the SDK has logged.
    """

    def __init__(self, *arguments, new_process):
        self._arguments = arguments
        self._new_process = new_process
        self.logged = []
        self._start()

    def __getattr__(self, method):
        return lambda **arguments: self._call(method, arguments)

    def restart(self):
        if self._new_process:
            self.close()
            self._start()
        else:
            self._call("restart", {})

    def close(self):
        try:
            self.logged += self._call("logged", {})
        finally:
            self._connection.close()
            self._process.join(TIMEOUT)
            self._process.kill()
            self._process.join()

    def _start(self):
        from sdk.worker import serve

        self._connection, theirs = processes.Pipe()
        self._process = processes.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()

    def _call(self, method, arguments):
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(TIMEOUT):
                raise TimeoutError(f"{method}: no answer within {TIMEOUT} s")
            succeeded, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(TIMEOUT)
            raise RuntimeError(f"{method}: the process ended ({self._process.exitcode})") from None
        if succeeded:
            return answer
        raise Raised(*answer)
