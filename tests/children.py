"""Forked children for the programs that tests run: they have the SDK imported already, and start at one moment."""

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

# The longest that anybody waits for another one, in seconds. Only what waits for good waits that long.
PATIENCE = 60


def fork(work: Callable[[], object]) -> int:
    """Start a child that does `work` and ends; return its process id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is told, and the child ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def join(children: list[int], seconds: float = 60) -> None:
    """Wait until all have ended well; end those that have not in time."""
    failed = []
    until = time.monotonic() + seconds
    for child in children:
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.005)
        if ended[1] != 0:
            failed.append(ended)
    if failed:
        raise SystemExit(f"children that did not end well: {failed}")


def at_once(count: int, work: Callable[[int], object], seconds: float = 60) -> None:
    """Let `count` children do `work(number)`, all from the same moment on."""
    gate, opened = os.pipe()

    def wait_and_work(number: int) -> None:
        os.close(opened)
        os.read(gate, 1)  # ends when the parent closes the other end
        work(number)

    children = [fork(lambda number=number: wait_and_work(number)) for number in range(count)]
    os.close(opened)
    os.close(gate)
    join(children, seconds)


def in_child(work: Callable[[], object], seconds: int = 30) -> tuple[int, str]:
    """Do it in a child, which is ended if it takes longer; return how that ended and what it told, as JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.alarm(seconds)
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        except BaseException as error:  # noqa: BLE001 - the test is told
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(status)
    os.close(writing)
    told = b""
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    return os.waitpid(child, 0)[1], told.decode()


class Helper:
    """A child that does what it is asked, one thing after the other, until it is let go."""

    def __init__(self, work: Callable[..., object]) -> None:
        self._end, theirs = multiprocessing.Pipe()
        self.process = fork(lambda: self._serve(theirs, work))

    @staticmethod
    def _serve(end: multiprocessing.connection.Connection, work: Callable[..., object]) -> None:
        # With an end: whoever asks may be gone.
        while end.poll(PATIENCE) and (request := end.recv()) is not None:
            try:
                end.send((True, work(*request)))
            except Exception as error:  # noqa: BLE001, PERF203 - whoever asked is told
                end.send((False, [type(error).__name__, str(error)]))

    def begin(self, *request: object) -> None:
        """Ask for something."""
        self._end.send(request)

    def answer(self) -> object:
        """Return what came of it: whether it was done, and the result or the error."""
        if not self._end.poll(PATIENCE):
            raise SystemExit("no answer")
        return self._end.recv()

    def ask(self, *request: object) -> object:
        """Ask for something, and return what came of it."""
        self.begin(*request)
        return self.answer()

    def let_go(self) -> None:
        """End it."""
        self._end.send(None)
        join([self.process])


def serve(orders: socket.socket) -> None:
    """Run the programs that `support.run_forked` sends, each in a child, until nobody is there to send any."""
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
        # Whatever it has left running.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        orders.send((outcome or "well").encode())


def _run(code: str, arguments: list[str], files: list[int]) -> None:
    os.setsid()
    for file, place in zip(files, (1, 2), strict=True):
        os.dup2(file, place)
        os.close(file)
    sys.argv = ["program", *arguments]
    exec(compile(code, "<program>", "exec"), sys.modules["__main__"].__dict__)
