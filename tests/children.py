"""Forked child processes for the tests. They have imported the SDK already, and can start at the same moment."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The time limit of each wait for another process, in seconds. Only a wait without an end reaches it.
TIMEOUT = 60
SUCCEEDED = "succeeded"


def fork(work: Callable[[], object]) -> int:
    """Start a child that calls `work` and ends. Return its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - any exception ends the child, and its status tells the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def join(children: list[int], seconds: float = TIMEOUT) -> None:
    """Wait until all children have ended, and exit if one has failed. Kill those that do not end in time."""
    failed = []
    deadline = time.monotonic() + seconds
    for child in children:
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.005)
        if ended[1] != 0:
            failed.append(ended)
    if failed:
        raise SystemExit(f"children that failed: {failed}")


def at_once(count: int, work: Callable[[int], object], seconds: float = TIMEOUT) -> None:
    """Call `work(number)` in `count` children, which all start at the same moment."""
    gate, opened = os.pipe()

    def wait_and_work(number: int) -> None:
        os.close(opened)
        os.read(gate, 1)  # returns when the parent closes the other end
        work(number)

    children = [fork(lambda number=number: wait_and_work(number)) for number in range(count)]
    os.close(opened)
    os.close(gate)
    join(children, seconds)


def in_child(work: Callable[[], object], seconds: int = 30) -> tuple[int, str]:
    """Call `work` in a child that is killed after `seconds`. Return its status, and the result or the error as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(seconds)
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException as error:  # noqa: BLE001 - the test reports it
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(writing)
    result = b""
    while part := os.read(reading, 65536):
        result += part
    os.close(reading)
    return os.waitpid(child, 0)[1], result.decode()


class Helper:
    """A child that calls `work` once for each request, until `let_go`."""

    def __init__(self, work: Callable[..., object]) -> None:
        self._end, theirs = multiprocessing.Pipe()
        self.process = fork(lambda: self._serve(theirs, work))

    @staticmethod
    def _serve(end: multiprocessing.connection.Connection, work: Callable[..., object]) -> None:
        # The wait has a limit, because the parent may be gone.
        while end.poll(TIMEOUT) and (request := end.recv()) is not None:
            try:
                end.send((True, work(*request)))
            except Exception as error:  # noqa: BLE001, PERF203 - the parent gets it
                end.send((False, [type(error).__name__, str(error)]))

    def begin(self, *request: object) -> None:
        """Send a request: the arguments of `work`."""
        self._end.send(request)

    def answer(self) -> object:
        """Return whether the request succeeded, and its result or its error."""
        if not self._end.poll(TIMEOUT):
            raise SystemExit("no answer")
        return self._end.recv()

    def ask(self, *request: object) -> object:
        """Send a request, and return its answer."""
        self.begin(*request)
        return self.answer()

    def let_go(self) -> None:
        """End the child."""
        self._end.send(None)
        join([self.process])


def serve(orders: socket.socket) -> None:
    """Run the programs that `support.run_forked` sends, each in a child, until the sender closes the socket."""
    while True:
        order, files, *_ = socket.recv_fds(orders, 1 << 20, 2)
        if not order:
            return
        code, arguments, seconds = json.loads(order)
        child = fork(lambda code=code, arguments=arguments, files=files: _run(code, arguments, files))
        for file in files:
            os.close(file)
        outcome = ""
        try:
            join([child], seconds)
        except SystemExit as error:
            outcome = str(error)
        # The program may have left processes behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        orders.send((outcome or SUCCEEDED).encode())


def _run(code: str, arguments: list[str], files: list[int]) -> None:
    os.setsid()
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["program", *arguments]
    exec(compile(code, "<program>", "exec"), sys.modules["__main__"].__dict__)
