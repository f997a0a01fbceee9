"""The contract of a cell fails for cells that lose changes, and says in words what is wrong."""

from __future__ import annotations

import os
import sys
import time

import pytest
from zoho_token_store.cells import FileCell
from zoho_token_store.testing import _cell_contract, cell_contract

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and file locks of POSIX")


class NoCompare(FileCell):
    """Writes whatever the version is."""

    def swap(self, document, version):  # noqa: ARG002 - the mistake
        return super().swap(document, self.load()[1])


class NotAtomic(FileCell):
    """Compares, and writes later."""

    def swap(self, document, version):
        if self.load()[1] != version:
            return False
        self.path.write_bytes(document)
        return True


class Lies(FileCell):
    """Says that it has written, although another writer came first."""

    def swap(self, document, version):
        super().swap(document, version)
        return True


class AppliesAndRaises(FileCell):
    """Writes, and fails."""

    def swap(self, document, version):
        super().swap(document, version)
        raise ConnectionError


class ReturnsNothing(FileCell):
    """Forgets to return what happened."""

    def swap(self, document, version):
        super().swap(document, version)


class Changes(FileCell):
    """Changes the text, like a column that strips blanks and line breaks at the end."""

    def swap(self, document, version):
        return super().swap(document.strip(), version)


class IsLate(FileCell):
    """Answers from a copy, like a replica."""

    copies: dict = {}  # noqa: RUF012 - shared by the cells of a program

    def load(self):
        return self.copies.setdefault(self.path, super().load())

    def swap(self, document, version):
        before = self.copies.pop(self.path, None)
        swapped = super().swap(document, version)
        if before:
            self.copies[self.path] = before
        return swapped


class Cuts(FileCell):
    """Writes the beginning of a document, like a TEXT of MySQL."""

    def swap(self, document, version):
        return super().swap(document[:65_535], version)


class Refuses(FileCell):
    """Raises for the same documents, and leaves the old one. That is no mistake."""

    def swap(self, document, version):
        if len(document) > 65_535:
            raise OSError
        return super().swap(document, version)


class LosesTheOldOne(FileCell):
    """Raises for the same documents, and has deleted the old one."""

    def swap(self, document, version):
        if len(document) > 65_535:
            self.path.unlink()
            raise OSError
        return super().swap(document, version)


class RaisesForAConflict(FileCell):
    """Has an exception for what is no error."""

    def swap(self, document, version):
        if not super().swap(document, version):
            raise LookupError
        return True


class WritesInPlace(FileCell):
    """Compares and writes under a lock, and loads without it."""

    def swap(self, document, version):
        with self._locked():
            if self.load()[1] != version:
                return False
            self.path.write_bytes(document)
            return True


class TwoRequests(FileCell):
    """Loads the version after the document."""

    def load(self):
        document = super().load()[0]
        return document, super().load()[1]


class LeavesALock(FileCell):
    """Its lock is a file, which a program that is killed does not delete."""

    def swap(self, document, version):
        lock = self.path.with_suffix(".locked")
        while True:
            try:
                os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                time.sleep(0.001)
        try:
            return super().swap(document, version)
        finally:
            lock.unlink()


def message(tests, name):
    """Run one test of the contract. Return why it has failed, or nothing."""
    test = tests()
    test.setup_method()
    try:
        getattr(test, name)()
    except Exception as error:  # noqa: BLE001 - any failure
        return f"{type(error).__name__}: {error}"
    return ""


NAMES = [name for name in dir(cell_contract(FileCell)) if name.startswith("test_")]
SINGLE = [name for name in NAMES if "thread" not in name and "process" not in name and "killed" not in name]
OLD = "test_a_change_needs_the_current_version"
FIRST = "test_one_of_two_programs_writes_the_first_document"
EXACT = "test_a_document_is_loaded_exactly_as_it_was_written"
GROWS = "test_a_document_that_grows_is_loaded_whole_or_refused"
READS = "test_a_reader_sees_whole_documents_with_their_own_versions"
KILLED = "test_a_program_that_is_killed_inside_swap_leaves_no_lock"
CASES = [
    (NoCompare, OLD, "swap returned True for a version that the place no longer has: compare and write in one step"),
    (Lies, FIRST, "swap returned True for a version that the place no longer has"),
    (AppliesAndRaises, EXACT, "ConnectionError"),
    (ReturnsNothing, EXACT, "swap returned an object of type NoneType: it must return True or False"),
    (Changes, EXACT, "load returned 45 bytes, which differ from the 46 bytes that were written from byte 45 on"),
    (IsLate, EXACT, "load returned no document, after 46 bytes were written"),
    (Cuts, GROWS, "load returned 65535 bytes, which differ from the 70000 bytes"),
    (LosesTheOldOne, GROWS, "swap raised OSError for 70000 bytes, and the old document is gone"),
    (RaisesForAConflict, OLD, "swap raised LookupError for an old version: it must return False"),
    (RaisesForAConflict, FIRST, "swap raised LookupError for an old version: it must return False"),
]


@pytest.mark.parametrize(("kind", "name", "text"), CASES, ids=[f"{kind.__name__}-{name}" for kind, name, _ in CASES])
def test_a_broken_cell_fails(kind, name, text, tmp_path):
    """Each mistake is found by a test that needs no luck."""
    tests = cell_contract(lambda place: kind(tmp_path / place))
    assert text in message(tests, name)


@pytest.mark.parametrize(
    ("kind", "names", "text"),
    [
        (
            NotAtomic,
            ["test_threads_that_share_a_cell_lose_no_change", "test_two_processes_lose_no_change"],
            "changes were lost: comparing and writing are two steps",
        ),
        (WritesInPlace, [READS], "load returned parts of two documents"),
        (TwoRequests, [READS], "load returned two documents with one version: load both with one request"),
        (LeavesALock, [KILLED], "killed inside swap: swap leaves a lock"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_cell_whose_mistake_needs_another_program_fails(kind, names, text, tmp_path, monkeypatch):
    """It is found in one of a few rounds."""
    monkeypatch.setattr(_cell_contract, "_LOCK_TIMEOUT", 3)
    tests = cell_contract(lambda place: kind(tmp_path / place))
    assert any(text in message(tests, name) for _ in range(10) for name in names)


def test_the_lock_of_a_killed_program_may_last_for_some_time(tmp_path):
    """As a lease does. Until then `swap` may raise."""

    class HasALease(LeavesALock):
        def swap(self, document, version):
            lock = self.path.with_suffix(".locked")
            if lock.exists():
                if time.time() - lock.stat().st_mtime < 0.2:
                    raise BlockingIOError
                lock.unlink()
            return super().swap(document, version)

    assert message(cell_contract(lambda place: HasALease(tmp_path / place)), KILLED) == ""


@pytest.mark.parametrize("kind", [FileCell, Refuses])
def test_a_correct_cell_passes(kind, tmp_path):
    """The same tests, without a mistake."""
    tests = cell_contract(lambda name: kind(tmp_path / name))
    assert [message(tests, name) for name in (*SINGLE, KILLED)] == [""] * (len(SINGLE) + 1)
