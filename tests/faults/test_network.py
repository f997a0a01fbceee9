"""A file on a file system that other machines may use: what cannot be promised there is said at the door."""

from __future__ import annotations

import sqlite3

import pytest
from support import login, run_program
from zoho_token_store import CustomStoreSQLite

ON_A_NETWORK = """
import ctypes, logging
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level="WARNING")
ctypes.CDLL(None).faults_filesystem(ctypes.c_long(int(sys.argv[2], 16)))
for user in ("ada@example.com", "bob@example.com"):
    with CustomStoreSQLite(sys.argv[1]) as store:
        store.save_token(login(user, len(user)))
        found = store.find_token(token(user))
        print(found.get_user_signature().get_name(), os.path.exists(sys.argv[1] + "-wal"))
print(len(CustomStoreSQLite(sys.argv[1]).get_tokens()))
"""


def mode(path):
    connection = sqlite3.connect(path)
    [(found,)] = connection.execute("PRAGMA journal_mode").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize(("number", "name"), [("6969", "NFS"), ("FF534D42", "CIFS"), ("65735546", "FUSE")])
def test_a_file_on_a_network_draws_one_warning_and_works_without_wal(shim, path, number, name):
    """Contract 9: where WAL cannot be had the store works in rollback mode; machines share no memory."""
    CustomStoreSQLite(path).close()
    assert mode(path) == "wal"
    warning, *rest = run_program(ON_A_NETWORK, path, number, preload=shim).splitlines()
    assert warning.startswith(f"WARNING {path} is on a file system that more than one machine may use ({name})")
    assert rest == ["ada@example.com False", "bob@example.com False", "2"]
    assert mode(path) == "delete"


def test_a_file_on_a_network_that_is_in_use_in_wal_mode_stays_in_it(shim, path):
    """Contract 7: any number of processes; one that has the file open in WAL mode would not see a change of mode."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("eve@example.com", 3))
        _, *rest = run_program(ON_A_NETWORK, path, "6969", preload=shim).splitlines()
        assert rest == ["ada@example.com True", "bob@example.com True", "3"]
        assert len(store.get_tokens()) == 3
    assert mode(path) == "wal"


def test_a_file_on_a_disk_of_this_machine_draws_none(shim, path):
    """The file systems that a program most likely meets: ext4, tmpfs and overlay."""
    for number in ("EF53", "01021994", "794C7630"):
        assert "WARNING" not in run_program(ON_A_NETWORK, path.with_name(f"{number}.db"), number, preload=shim)
