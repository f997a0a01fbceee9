"""The file of a `FileCell` is private."""

from __future__ import annotations

import stat
import sys

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
