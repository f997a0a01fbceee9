"""What the tests of a cell do with it: they load, swap, compare, and run and kill other programs."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoho_token_store.cells import Cell

WRITERS, CHANGES = 3, 4
TIMEOUT = 90  # seconds: far more than any test needs


def load(cell: Cell[Any]) -> tuple[bytes | None, Any]:
    """Load, and check the types."""
    loaded = cell.load()
    assert isinstance(loaded, tuple), f"load returned {_type(loaded)}: it must return the document and its version"
    assert len(loaded) == 2, f"load returned {len(loaded)} values: it must return the document and its version"  # noqa: PLR2004
    document, _ = loaded
    assert document is None or isinstance(document, bytes), f"load returned {_type(document)}: a document is bytes"
    return loaded


def swap(cell: Cell[Any], document: bytes, version: object) -> bool:
    """Swap, and check the type."""
    swapped = cell.swap(document, version)
    assert isinstance(swapped, bool), f"swap returned {_type(swapped)}: it must return True or False"
    return swapped


def write(cell: Cell[Any], document: bytes) -> None:
    """Replace the document of a place that no other program uses."""
    assert swap(cell, document, load(cell)[1]), "swap returned False for the version that load has just returned"


def expect(cell: Cell[Any], document: bytes) -> None:
    """Check that this document is loaded."""
    loaded = load(cell)[0]
    assert loaded == document, f"load returned {_difference(loaded, document)}"


def expect_refusal(cell: Cell[Any], version: object) -> None:
    """Check that a swap with an old version returns `False`."""
    try:
        swapped = cell.swap(b"refused", version)
    except Exception as error:
        message = f"swap raised {type(error).__name__} for an old version: it must return False"
        raise AssertionError(message) from error
    message = "swap returned True for a version that the place no longer has: compare and write in one step"
    assert swapped is not True, message
    assert swapped is False, f"swap returned {_type(swapped)} for an old version: it must return False"


def append(cell: Cell[Any], writer: int) -> None:
    """Append a line for each change of this writer. Start over when another one came first."""
    deadline = time.monotonic() + TIMEOUT
    for change in range(CHANGES):
        while True:
            assert time.monotonic() < deadline, f"swap has returned False for {TIMEOUT} seconds"
            document, version = load(cell)
            if swap(cell, (document or b"") + f"{writer}-{change}\n".encode(), version):
                break
            time.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret


def expect_all_changes(cell: Cell[Any], writers: int) -> None:
    """Check that the document has the lines of all writers."""
    expected = sorted(f"{writer}-{change}".encode() for writer in range(writers) for change in range(CHANGES))
    found = sorted((load(cell)[0] or b"").split())
    lost = len({*expected} - {*found})
    assert not lost, f"{lost} of {len(expected)} changes were lost: comparing and writing are two steps"
    assert found == expected, "a change was made twice: swap returned False, and has written"


def text(size: int, number: int = 0) -> bytes:
    """Return a document of this size. Each number gives another one."""
    line = f'{{"number":{number:06}}}\n'.encode()
    return (line * (size // len(line) + 1))[:size]


def expect_whole(document: bytes | None) -> int:
    """Check that a document is one that `text` has made, and return its number."""
    assert document is not None, "load returned no document, although there was one before"
    number = document[len(b'{"number":') :][:6]
    whole = number.isdigit() and text(len(document), int(number)) == document
    assert whole, "load returned parts of two documents: write a document as a whole, or load under the lock"
    return int(number)


def _type(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def _difference(loaded: bytes | None, document: bytes) -> str:
    if loaded is None:
        return f"no document, after {len(document)} bytes were written"
    pairs = zip(loaded, document, strict=False)
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(loaded), len(document)))
    return f"{len(loaded)} bytes, which differ from the {len(document)} bytes that were written from byte {same} on"


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a child, and return its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, if the process has threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - the child must not go on with the tests of its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def has_ended(child: int) -> int | None:
    """Return the exit status of a child, or `None` if it still runs. A signal is negative."""
    ended, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def wait(child: int) -> int:
    """Wait for a child, and return its exit status. Kill it after the time limit."""
    deadline = time.monotonic() + TIMEOUT
    while (status := has_ended(child)) is None:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += TIMEOUT
        time.sleep(0.005)
    return status
