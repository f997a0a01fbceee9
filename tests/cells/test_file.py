"""The file of a `FileCell`: it is private, has one lock under all its names, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
from pathlib import Path

import pytest
from support import login
from zoho_token_store import CustomStoreShared
from zoho_token_store.cells import FileCell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_others_can_read_draws_a_warning_and_a_save_makes_it_private(tmp_path, caplog):
    """One warning for each cell, with the path."""
    path = tmp_path / "tokens.jsonl"
    store = CustomStoreShared(FileCell(path))
    store.save_token(login())
    assert (len(store), mode(path), caplog.messages) == (1, 0o600, [])
    path.chmod(0o640)
    assert (len(store), len(store)) == (1, 1)
    assert caplog.messages == [f"{path} holds credentials, and other users can read it. Run chmod 600 on it."]
    store.save_token(login("bob@example.com", 2))
    assert (len(store), mode(path)) == (2, 0o600)
    assert len(caplog.messages) == 1


def test_a_symbolic_link_stays_and_both_names_have_one_file(tmp_path):
    """The link may lead to a file that is not there yet, in another folder."""
    (tmp_path / "data").mkdir()
    link = tmp_path / "tokens.jsonl"
    link.symlink_to("data/real.jsonl")
    by_link, by_path = (CustomStoreShared(FileCell(path)) for path in (link, tmp_path / "data" / "real.jsonl"))
    by_link.save_token(login())
    by_path.save_token(login("bob@example.com", 2))
    by_link.save_token(login("cy@example.com", 3))
    assert (link.is_symlink(), len(by_link), len(by_path)) == (True, 3, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "tokens.jsonl"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["real.jsonl", "real.jsonl.lock"]


def test_both_names_of_a_file_have_one_lock(tmp_path):
    """A change by the link waits for one by the path."""
    link = tmp_path / "link.jsonl"
    link.symlink_to("real.jsonl")
    one, other = FileCell(tmp_path / "real.jsonl"), FileCell(link)
    waiting = threading.Thread(target=other.swap, args=(b"other", ""))
    with one._locked():
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(30)
    assert one.load()[0] == b"other"


def test_a_link_that_is_changed_while_a_change_waits_is_followed(tmp_path, monkeypatch):
    """The file that it has left is not written."""
    import fcntl

    old, new, link = (tmp_path / name for name in ("old", "new", "link"))
    for path in (old, new):
        path.write_bytes(b"copied")
        path.chmod(0o600)
    link.symlink_to(old)
    cell = FileCell(link)
    before = cell.load()[1]
    swapped, waits, flock = [], threading.Event(), fcntl.flock

    def wait_for_lock(handle, operation):
        waits.set()
        flock(handle, operation)

    waiting = threading.Thread(target=lambda: swapped.append(cell.swap(b"changed", before)))
    with FileCell(old)._locked():
        monkeypatch.setattr(fcntl, "flock", wait_for_lock)
        waiting.start()
        assert waits.wait(30)
        link.unlink()
        link.symlink_to(new)
    waiting.join(30)
    assert (swapped, old.read_bytes(), new.read_bytes()) == ([False], b"copied", b"copied")
    assert cell.swap(b"changed", cell.load()[1]) is True
    assert (old.read_bytes(), new.read_bytes()) == (b"copied", b"changed")


def test_a_program_that_is_killed_before_the_replacement_leaves_one_private_file(tmp_path, monkeypatch):
    """The next save replaces it, whatever it is: another mode, or a link to another file."""
    cell = FileCell(tmp_path / "tokens.jsonl")
    for _ in range(3):
        child = os.fork()
        if not child:
            monkeypatch.setattr(Path, "replace", lambda *_arguments: os.kill(os.getpid(), signal.SIGKILL))
            cell.swap(b"killed", "")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = tmp_path / "tokens.jsonl.tmp"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.jsonl.lock", "tokens.jsonl.tmp"]
    assert (left.read_bytes(), mode(left)) == (b"killed", 0o600)
    left.chmod(0o644)
    assert cell.swap(b"1", "") is True
    assert (cell.load()[0], mode(cell.path), left.exists()) == (b"1", 0o600, False)
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"foreign")
    left.symlink_to(foreign)
    assert cell.swap(b"2", cell.load()[1]) is True
    assert (cell.load()[0], cell.path.is_symlink(), foreign.read_bytes()) == (b"2", False, b"foreign")


def test_a_child_that_is_forked_during_a_change_does_not_keep_the_lock(tmp_path, monkeypatch):
    """It has the descriptor of the lock, and lives longer than the change."""
    cell, children, fsync = FileCell(tmp_path / "tokens.jsonl"), [], os.fsync

    def fork_and_sync(handle):
        if not children:
            children.append(os.fork())
            if not children[0]:
                signal.alarm(60)
                signal.pause()
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fork_and_sync)
    try:
        assert cell.swap(b"1", "") is True
        later = threading.Thread(target=cell.swap, args=(b"2", cell.load()[1]), daemon=True)
        later.start()
        later.join(20)
        assert not later.is_alive()
        assert cell.load()[0] == b"2"
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
