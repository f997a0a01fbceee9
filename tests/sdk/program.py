"""A program that uses the real SDK, seen from a test: `worker.Worker`'s verbs, asked of another process."""

import contextlib
import importlib.metadata
import multiprocessing
import sys

# A fork of a process that has imported the SDK and done nothing else: as good as a new one, 0.7 s sooner.
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
        ]
    )

ANSWER_WITHIN = 30  # seconds; a verb takes milliseconds


def installed_sdk():
    """The major version of the SDK in this environment."""
    for version in (5, 6, 7, 8):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"zohocrmsdk{version}_0")
            return version
    raise ImportError("no Zoho CRM SDK is installed")


class Raised(Exception):  # noqa: N818 - it is no error of ours
    """What a verb raised in the other process."""

    def __init__(self, kind, code, message, trace):
        super().__init__(f"{message}\n{trace}")
        self.kind = kind
        self.code = code
        self.message = message


class Program:
    """One program. `program.initialize(...)` and so on are the methods of `worker.Worker`, by keyword.

    `restart()` starts it anew over the same store: the same object, or another process and the same file.
    `logged` collects what the SDK logged as errors.
    """

    def __init__(self, *arguments, new_process):
        self._arguments = arguments
        self._new_process = new_process
        self.logged = []
        self._start()

    def __getattr__(self, verb):
        return lambda **arguments: self._ask(verb, arguments)

    def restart(self):
        if self._new_process:
            self.close()
            self._start()
        else:
            self._ask("restart", {})

    def close(self):
        try:
            self.logged += self._ask("heard", {})
        finally:
            self._connection.close()
            self._process.join(ANSWER_WITHIN)
            self._process.kill()
            self._process.join()

    def _start(self):
        from sdk.worker import serve

        self._connection, theirs = processes.Pipe()
        self._process = processes.Process(target=serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()

    def _ask(self, verb, arguments):
        try:
            self._connection.send((verb, arguments))
            if not self._connection.poll(ANSWER_WITHIN):
                raise TimeoutError(f"{verb}: no answer within {ANSWER_WITHIN} s")
            good, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(ANSWER_WITHIN)
            raise RuntimeError(f"{verb}: the process ended ({self._process.exitcode})") from None
        if good:
            return answer
        raise Raised(*answer)
