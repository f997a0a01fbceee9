"""The test suite for a cell, which its author runs."""

from __future__ import annotations

import os
import random
import selectors
import signal
import sys
import threading
import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

from zoho_token_store import CustomStoreShared

from . import _cell_trials as trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

    from zoho_token_store.cells import Cell

_SIZES = (1_000, 20_000, 40_000, 70_000, 140_000, 300_000)  # bytes: a TEXT of MySQL and a secret of AWS have 64 KiB
_LARGE = 50_000
_REPLACEMENTS, _KILLS = 30, 8
_LOCK_TIMEOUT = 30  # seconds; a lock of a program that was killed may last for some


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
        trials.append(self.cell(), writer)

    def replace(self) -> None:
        """Replace the document many times. Wait so that a reader sees each version more than once, or not at all."""
        cell = self.cell()
        for number in range(1, _REPLACEMENTS):
            begun = time.monotonic()
            trials.load(cell)
            took = time.monotonic() - begun
            trials.write(cell, trials.text(_LARGE, number))
            time.sleep(min(random.uniform(0, 3) * took, 0.5))  # noqa: S311 - no secret

    def replace_until_killed(self, reading_end: int, progress: int) -> None:
        """Replace the document again and again, and write a byte into the pipe `progress` each time."""
        # If the test ends without killing this program, nothing reads the pipe, and the next write fails.
        os.close(reading_end)
        cell, swapped = self.cell(), time.monotonic()
        while (waited := time.monotonic() - swapped) < 2 * _LOCK_TIMEOUT:
            document, version = trials.load(cell)
            number = 0 if document is None else trials.expect_whole(document)
            try:
                if not trials.swap(cell, trials.text(_LARGE, number + 1), version):
                    continue
            except Exception as error:
                if waited > _LOCK_TIMEOUT / 2 or isinstance(error, AssertionError):
                    raise
                time.sleep(0.05)  # the lock of a program that was killed may last for some seconds
                continue
            swapped = time.monotonic()
            os.write(progress, b".")

    def test_a_new_place_has_no_document(self) -> None:
        """`load` returns `None` before the first `swap`."""
        assert trials.load(self.cell())[0] is None, "a place with a new name has a document: load must return None"

    def test_a_document_is_loaded_exactly_as_it_was_written(self) -> None:
        """It is ASCII text of several lines, with everything that JSON escapes."""
        for number in range(3):
            document = b'{"a":"\\u0000 \\\\ \' %s ? :x $1 \\"\\ud83e\\udd86"}\n' * (200 * number + 1)
            trials.write(self.cell(), document)
            trials.expect(self.cell(), document)

    def test_a_document_that_grows_is_loaded_whole_or_refused(self) -> None:
        """Each `swap` writes the whole document, or raises and leaves the old one."""
        cell, before = self.cell(), None
        for size in _SIZES:
            document, version = trials.text(size, size), trials.load(cell)[1]
            try:
                swapped = trials.swap(cell, document, version)
            except AssertionError:
                raise
            except Exception as error:
                if trials.load(self.cell())[0] not in (before, document):
                    message = f"swap raised {type(error).__name__} for {size} bytes, and the old document is gone"
                    raise AssertionError(message) from error
                continue
            assert swapped, f"swap returned False for {size} bytes and the version that load has just returned"
            trials.expect(self.cell(), document)
            before = document

    def test_a_change_needs_the_current_version(self) -> None:
        """`swap` with a version that the place had before returns `False`, and writes nothing."""
        one, other = self.cell(), self.cell()
        versions = []
        for cell, document in ((one, b"1"), (other, b"2")):
            versions.append(trials.load(one)[1])
            assert trials.swap(cell, document, versions[-1]), "swap returned False for the version of the place"
        for version in versions:
            trials.expect_refusal(one, version)
            for cell in (one, other):
                trials.expect(cell, b"2")

    def test_one_of_two_programs_writes_the_first_document(self) -> None:
        """Both have found that there is none."""
        one, other = self.cell(), self.cell()
        versions = trials.load(one)[1], trials.load(other)[1]
        assert trials.swap(one, b"one", versions[0]), "swap returned False for a place without a document"
        trials.expect_refusal(other, versions[1])
        trials.expect(other, b"one")

    def test_threads_that_share_a_cell_lose_no_change(self) -> None:
        """Several threads call one cell at the same time."""
        cell, failures = self.cell(), []

        def work(number: int) -> None:
            try:
                trials.append(cell, number)
            except BaseException as error:  # noqa: BLE001 - the test reports it
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(trials.WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(trials.TIMEOUT)
        if failures:
            raise failures[0]
        trials.expect_all_changes(cell, trials.WRITERS)

    def test_two_processes_lose_no_change(self) -> None:
        """Each has a cell of its own."""
        children = [trials.fork(partial(self.append, number)) for number in range(2)]
        failed = [status for child in children if (status := trials.wait(child))]
        assert not failed, "a process failed: its traceback is above"
        trials.expect_all_changes(self.cell(), 2)

    def test_a_reader_sees_whole_documents_with_their_own_versions(self) -> None:
        """Another process replaces the document meanwhile."""
        cell = self.cell()
        trials.write(cell, trials.text(_LARGE))
        child = trials.fork(self.replace)
        seen: list[tuple[int, Any]] = []
        try:
            while (status := trials.has_ended(child)) is None:
                document, version = trials.load(cell)
                number = trials.expect_whole(document)
                others = [other for other, its_version in seen[-20:] if its_version == version and other != number]
                assert not others, "load returned two documents with one version: load both with one request"
                if seen[-1:] != [(number, version)]:
                    seen.append((number, version))
        except BaseException:
            os.kill(child, signal.SIGKILL)
            trials.wait(child)
            raise
        assert status == 0, "the process that writes failed: its traceback is above"
        trials.expect(cell, trials.text(_LARGE, _REPLACEMENTS - 1))

    def test_a_program_that_is_killed_between_load_and_swap_leaves_no_lock(self) -> None:
        """Others go on, and its change is not made."""

        def load_and_die() -> None:
            trials.load(self.cell())
            os.kill(os.getpid(), signal.SIGKILL)

        trials.write(self.cell(), b"before")
        status = trials.wait(trials.fork(load_and_die))
        assert status == -signal.SIGKILL, "load failed in another process: its traceback is above"
        begun = time.monotonic()
        trials.write(self.cell(), b"after")
        waited = time.monotonic() - begun
        assert waited < trials.TIMEOUT, f"a swap took {waited:.0f} s after a program was killed: load leaves a lock"
        trials.expect(self.cell(), b"after")

    def test_a_program_that_is_killed_inside_swap_leaves_no_lock(self) -> None:
        """Others go on after some seconds, and find a whole document."""
        for kills in range(_KILLS + 1):
            progress, end = os.pipe()
            child = trials.fork(partial(self.replace_until_killed, progress, end))
            os.close(end)
            try:
                _await_swap(progress, kills)
                begun = time.monotonic()
                _await_swap(progress, kills)
                time.sleep(random.uniform(0, time.monotonic() - begun))  # noqa: S311 - no secret
            finally:
                os.close(progress)
                os.kill(child, signal.SIGKILL)
                trials.wait(child)

    def test_a_store_saves_through_a_network_that_loses_answers(self) -> None:
        """The change is made, but its answer is lost. The store finds out, and does not save twice."""
        store = CustomStoreShared(_LosesAnswers(self.cell()))
        for number in range(3):
            store.save_token(_token(number))
        ids = [token.get_id() for token in CustomStoreShared(self.cell()).get_tokens()]
        assert ids == ["1", "2", "3"], f"three saves, whose answers were lost, made the rows {ids}"

    def test_two_stores_see_the_changes_of_each_other(self) -> None:
        """A save, an update, a delete."""
        one, other = CustomStoreShared(self.cell()), CustomStoreShared(self.cell())
        token = _token(1)
        one.save_token(token)
        token.set_access_token("made-up-new")
        other.save_token(token)
        updated = [token.get_access_token() for token in one.get_tokens()] == ["made-up-new"]
        assert updated, "a store does not see the update of another one: load must return the newest document"
        one.delete_token("1")
        assert len(other) == 0, "a store does not see the delete of another one: load must return the newest document"
        other.save_token(_token(2))
        ids = [token.get_id() for token in one.get_tokens()]
        assert ids == ["2"], f"after a delete of the row 1 and a save there are the rows {ids}"

    if sys.platform == "win32":  # no fork, and no SIGKILL
        del test_two_processes_lose_no_change, test_a_reader_sees_whole_documents_with_their_own_versions
        del test_a_program_that_is_killed_between_load_and_swap_leaves_no_lock
        del test_a_program_that_is_killed_inside_swap_leaves_no_lock


def cell_contract(factory: Callable[[str], Cell[Any]]) -> type[CellContract]:
    """Return a class of tests for pytest, which checks that a cell can be used with `CustomStoreShared`.

    Two writers lose no change, a reader sees whole documents, a lost answer is resolved, and a program that is killed
    leaves no lock. The tests expect that `load` and `swap` do not fail, and make some 150 changes. They do not delete
    the places that they make: delete those whose name begins with `contract-`.

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


def _await_swap(progress: int, kills: int) -> None:
    """Wait until a process has made a swap."""
    before = f" after {kills} programs were killed inside swap" if kills else ""
    with selectors.DefaultSelector() as selector:
        selector.register(progress, selectors.EVENT_READ)
        readable = selector.select(_LOCK_TIMEOUT)
    assert readable, f"no swap succeeded in {_LOCK_TIMEOUT} s{before}{': swap leaves a lock' if kills else ''}"
    assert os.read(progress, 1), f"a process failed{before}: its traceback is above"


class _LosesAnswers:
    """A cell whose network loses the answer to each `swap`."""

    def __init__(self, cell: Cell[Any]) -> None:
        self.load, self._cell = cell.load, cell

    def swap(self, document: bytes, version: object) -> bool:
        if self._cell.swap(document, version):
            raise ConnectionError("the answer was lost")
        return False


def _token(number: int) -> OAuthToken:
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken  # noqa: PLC0415 - it takes 0.7 s

    return OAuthToken("1000.CLIENT", "made-up", refresh_token=f"made-up-{number}")
