"""Forked children for the programs that tests run: they have the SDK imported already, and start at one moment."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


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
