"""The contract of a cell fails for cells that lose changes."""

from __future__ import annotations

import sys

import pytest
from zoho_token_store.cells import FileCell
from zoho_token_store.testing import cell_contract

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


def outcome(tests, name):
    """Run one test of the contract, and return whether it has passed."""
    test = tests()
    test.setup_method()
    try:
        getattr(test, name)()
    except Exception:  # noqa: BLE001 - any failure
        return False
    return True


NAMES = [name for name in dir(cell_contract(FileCell)) if name.startswith("test_")]
SINGLE = [name for name in NAMES if "thread" not in name and "process" not in name and "killed" not in name]


@pytest.mark.parametrize(
    ("kind", "fails"),
    [
        (NoCompare, "test_a_change_needs_the_current_version"),
        (Lies, "test_one_of_two_programs_writes_the_first_document"),
        (AppliesAndRaises, "test_a_document_is_loaded_exactly_as_it_was_written"),
        (ReturnsNothing, "test_a_document_is_loaded_exactly_as_it_was_written"),
        (Changes, "test_a_document_is_loaded_exactly_as_it_was_written"),
        (IsLate, "test_a_document_is_loaded_exactly_as_it_was_written"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_cell_fails(kind, fails, tmp_path):
    """Each mistake is found by a test that needs no luck."""
    tests = cell_contract(lambda name: kind(tmp_path / name))
    assert not outcome(tests, fails)


def test_a_cell_that_is_not_atomic_fails(tmp_path):
    """Threads or processes show it, in one of a few rounds."""
    tests = cell_contract(lambda name: NotAtomic(tmp_path / name))
    names = ["test_threads_that_share_a_cell_lose_no_change", "test_two_processes_lose_no_change"]
    assert not all(outcome(tests, name) for _ in range(10) for name in names)


def test_a_correct_cell_passes(tmp_path):
    """The same tests, without a mistake."""
    tests = cell_contract(lambda name: FileCell(tmp_path / name))
    assert [name for name in SINGLE if not outcome(tests, name)] == []
