"""The test suite for a cell, which its author runs."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import uuid
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from zoho_token_store import CustomStoreShared

if TYPE_CHECKING:
    from collections.abc import Callable

    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

    from zoho_token_store.cells import Cell

_WRITERS, _CHANGES = 3, 4
_TIMEOUT = 90  # seconds: far more than any test needs


class CellContract:
    """The tests. pytest runs each of them with a place of its own."""

    factory: Callable[[str], Cell[Any]]
    __test__ = False  # only what `cell_contract` returns

    def setup_method(self) -> None:
        """Name a place that no other test uses."""
        self.place = f"contract-{uuid.uuid4().hex}"

    def cell(self) -> Cell[Any]:
        """Make another cell on the place of this test, as another program would."""
        return type(self).factory(self.place)

    def append(self, writer: int) -> None:
        """Append the lines of a writer with a cell of its own."""
        _append(self.cell(), writer)

    def test_a_new_place_has_no_document(self) -> None:
        """`load` returns `None` before the first `swap`."""
        assert _load(self.cell())[0] is None

    def test_a_document_is_loaded_exactly_as_it_was_written(self) -> None:
        """It is ASCII text of several lines, with everything that JSON escapes."""
        for number in range(3):
            document = b'{"a":"\\u0000 \\\\ \' %s ? :x $1 \\"\\ud83e\\udd86"}\n' * (200 * number + 1)
            assert _swap(self.cell(), document, _load(self.cell())[1]) is True
            assert _load(self.cell())[0] == document

    def test_a_change_needs_the_current_version(self) -> None:
        """`swap` with a version that the place had before returns `False`, and writes nothing."""
        one, other = self.cell(), self.cell()
        first = _load(one)[1]
        assert _swap(one, b"1", first) is True
        second = _load(one)[1]
        assert _swap(other, b"2", second) is True
        for version in (first, second):
            assert _swap(one, b"3", version) is False
            assert _load(one)[0] == _load(other)[0] == b"2"

    def test_one_of_two_programs_writes_the_first_document(self) -> None:
        """Both have found that there is none."""
        one, other = self.cell(), self.cell()
        versions = _load(one)[1], _load(other)[1]
        assert _swap(one, b"one", versions[0]) is True
        assert _swap(other, b"other", versions[1]) is False
        assert _load(other)[0] == b"one"

    def test_threads_that_share_a_cell_lose_no_change(self) -> None:
        """Several threads call one cell at the same time."""
        cell, failures = self.cell(), []

        def work(number: int) -> None:
            try:
                _append(cell, number)
            except BaseException as error:  # noqa: BLE001 - the test reports it
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(_WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_TIMEOUT)
        assert not failures, failures[0]
        assert sorted(_load(cell)[0].split()) == _everything(range(_WRITERS))

    def test_two_processes_lose_no_change(self) -> None:
        """Each has a cell of its own."""
        children = [_fork(partial(self.append, number)) for number in range(2)]
        assert [_wait(child) for child in children] == [0, 0]
        assert sorted(_load(self.cell())[0].split()) == _everything(range(2))

    def test_a_program_that_is_killed_between_load_and_swap_leaves_no_lock(self) -> None:
        """Others go on, and its change is not made."""

        def load_and_die() -> None:
            _load(self.cell())
            os.kill(os.getpid(), signal.SIGKILL)

        assert _swap(self.cell(), b"before", _load(self.cell())[1]) is True
        assert _wait(_fork(load_and_die)) == -signal.SIGKILL
        begun = time.monotonic()
        assert _swap(self.cell(), b"after", _load(self.cell())[1]) is True
        assert time.monotonic() - begun < _TIMEOUT
        assert _load(self.cell())[0] == b"after"

    def test_a_store_saves_through_a_network_that_loses_answers(self) -> None:
        """The change is made, but its answer is lost. The store finds out, and does not save twice."""
        store = CustomStoreShared(_LosesAnswers(self.cell()))
        for number in range(3):
            store.save_token(_token(number))
        assert [token.get_id() for token in CustomStoreShared(self.cell()).get_tokens()] == ["1", "2", "3"]

    def test_two_stores_see_the_changes_of_each_other(self) -> None:
        """A save, an update, a delete."""
        one, other = CustomStoreShared(self.cell()), CustomStoreShared(self.cell())
        token = _token(1)
        one.save_token(token)
        token.set_access_token("made-up-new")
        other.save_token(token)
        assert [token.get_access_token() for token in one.get_tokens()] == ["made-up-new"]
        one.delete_token("1")
        assert len(other) == 0
        other.save_token(_token(2))
        assert [token.get_id() for token in one.get_tokens()] == ["2"]

    if sys.platform == "win32":  # no fork, and no SIGKILL
        del test_two_processes_lose_no_change, test_a_program_that_is_killed_between_load_and_swap_leaves_no_lock


def cell_contract(factory: Callable[[str], Cell[Any]]) -> type[CellContract]:
    """Return a class of tests for pytest, which checks that a cell can be used with `CustomStoreShared`.

    Two writers lose no change, a lost answer is resolved, and a program that is killed leaves no lock.

    Args:
        factory: A function that makes a cell on the place with a name. Two cells with one name are on the same place,
            also in two processes. A place with a new name is empty. A name has 41 letters, digits and hyphens.

    Returns:
        The class. Its name must begin with `Test`, so that pytest finds it.

    Example:
        >>> from zoho_token_store.testing import cell_contract
        >>> TestMyCell = cell_contract(lambda name: FileCell(f"/tmp/{name}"))
    """
    return type("TestCell", (CellContract,), {"factory": staticmethod(factory), "__test__": True})


class _LosesAnswers:
    """A cell whose network loses the answer to each `swap`."""

    def __init__(self, cell: Cell[Any]) -> None:
        self.load, self._cell = cell.load, cell

    def swap(self, document: bytes, version: object) -> bool:
        if self._cell.swap(document, version):
            raise ConnectionError("the answer was lost")
        return False


def _load(cell: Cell[Any]) -> tuple[Any, Any]:
    loaded = cell.load()
    assert isinstance(loaded, tuple), "load returns a tuple"
    assert len(loaded) == 2, "load returns the document and its version"  # noqa: PLR2004
    assert loaded[0] is None or isinstance(loaded[0], bytes), "a document is bytes, or None"
    return loaded


def _swap(cell: Cell[Any], document: bytes, version: object) -> bool:
    swapped = cell.swap(document, version)
    assert isinstance(swapped, bool), "swap returns True or False"
    return swapped


def _append(cell: Cell[Any], writer: int) -> None:
    """Append a line for each change of this writer. Start over when another one came first."""
    deadline = time.monotonic() + _TIMEOUT
    for change in range(_CHANGES):
        while True:
            assert time.monotonic() < deadline, "swap keeps returning False"
            document, version = _load(cell)
            if _swap(cell, (document or b"") + f"{writer}-{change}\n".encode(), version):
                break
            time.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret


def _everything(writers: range) -> list[bytes]:
    return sorted(f"{writer}-{change}".encode() for writer in writers for change in range(_CHANGES))


def _token(number: int) -> OAuthToken:
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken  # noqa: PLC0415 - it takes 0.7 s

    return OAuthToken("1000.CLIENT", "made-up", refresh_token=f"made-up-{number}")


def _fork(work: Callable[[], None]) -> int:
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


def _wait(child: int) -> int:
    """Wait for a child, and return its exit status. A signal is negative. Kill it after the time limit."""
    deadline = time.monotonic() + _TIMEOUT
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline += _TIMEOUT
        time.sleep(0.005)
