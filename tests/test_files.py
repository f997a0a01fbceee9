"""The file of a store: files of the vendor's sample, file modes, missing permissions (contract 9).

`faults/` has damaged files and files of other programs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from own_process import drop_privileges, run_in_fork, run_in_new_interpreter
from support import DATA, everything, login, rows_seen_elsewhere, run_python, token, values
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._native import Administration, StoreError
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer


def sample_program(path, step, number):
    """Do what the vendor's sample does, with Python's `sqlite3` alone.

    Return the id, user name, expiry and API domain of every row.
    """
    connection = sqlite3.connect(path, timeout=20)
    user = f"sample{number}@example.com"
    if step == "insert":
        connection.execute(
            "insert into oauthtoken(id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,"
            "expiry_time,redirect_url,api_domain) values (?,?,?,?,?,?,?,?,?,?)",
            (str(5000 + number), user, "1000.CLIENT", "planted", f"planted{number}", "planted", None, "1", None, None),
        )
    elif step == "update":
        connection.execute(
            "update oauthtoken set access_token=?, expiry_time=? where user_name=?", ("planted", "2", user)
        )
    elif step == "delete":
        connection.execute("delete from oauthtoken where id=?", (str(number),))
    rows = [(row[0], row[1], row[7], row[9]) for row in connection.execute("select * from oauthtoken")]
    connection.commit()
    connection.close()
    return rows


@pytest.fixture
def sample(tmp_path):
    """A copy of a file that the vendor's sample wrote."""
    path = tmp_path / "zohooauth.db"
    shutil.copyfile(DATA / "sample-zohooauth.db", path)
    path.chmod(0o600)
    return path


def test_a_samples_file_opens_with_its_rows_and_takes_2001_more(sample):
    """Contract 9: a file that a sample wrote opens as it is and keeps all its rows."""
    with CustomStoreSQLite(sample) as store:
        assert [made.get_id() for made in store.get_tokens()] == [str(number) for number in range(1, 11)]
        assert values(store.find_token(token("user03@example.com"))) == {
            "id": "3",
            "user": "user03@example.com",
            "client_id": "1000.CLIENT01",
            "client_secret": "secret-01",
            "refresh_token": "1000.refresh.03",
            "access_token": "1000.access.03",
            "expires_in": "1795300003000",
            "redirect_url": "https://app.example.com/oauth",
            "api_domain": "https://www.zohoapis.eu",
        }
        eleventh = login("user11@example.com", 11)
        store.save_token(eleventh)
        assert eleventh.get_id() == "11"
        store.import_tokens(login(f"more{number}@example.com", number) for number in range(100, 2100))
        assert (len(store), store.get_tokens()[-1].get_id()) == (2011, "2011")


def test_the_sample_reads_and_writes_a_file_that_a_store_has_open(sample):
    """Contract 9: a store sees what the sample writes, and the sample sees what the store writes."""
    with CustomStoreSQLite(sample) as store:
        store.save_token(login("ours@example.com", 1))
        rows = run_in_fork(sample_program, sample, "insert", 1)
        assert rows[0] == ["1", "user01@example.com", "1795300001000", "https://www.zohoapis.com"]
        assert rows[10][:2] == ["11", "ours@example.com"]
        assert len(rows) == 12
        assert store.find_token(token("sample1@example.com")).get_id() == "5001"
        run_in_fork(sample_program, sample, "update", 1)
        assert store.find_token(token("sample1@example.com")).get_expires_in() == "2"
        store.save_token(ours := login("next@example.com", 2))
        assert ours.get_id() == "5002"
        run_in_fork(sample_program, sample, "delete", 5002)
        store.save_token(again := login("again@example.com", 3))
        assert again.get_id() == "5003"
    assert len(run_in_fork(sample_program, sample, "read", 0)) == 13


def keep_a_store_to_the_end(path):
    # The SDK keeps its store like this, until the interpreter ends.
    Initializer.LOCAL.store = Initializer.store = CustomStoreSQLite(path)
    Initializer.store.save_token(login())


def test_a_program_that_ends_leaves_one_complete_file(path):
    """When a program ends, the library closes its stores. Only the database file is left, and it has every row."""
    run_in_new_interpreter(keep_a_store_to_the_end, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert rows_seen_elsewhere(copy) == everything(1)


def test_an_atexit_function_may_save_before_and_after_the_store_is_closed(path):
    """`programs/save_at_exit.py` saves one user before its store is closed at exit, and one user after."""
    run_python("from programs import save_at_exit", path)
    assert rows_seen_elsewhere(path) == everything(3)


def test_a_program_that_ends_does_not_affect_another_program_on_its_file(path):
    """When a program closes its store at exit, the WAL stays for the stores of other programs."""
    with CustomStoreSQLite(path) as store:
        run_in_new_interpreter(keep_a_store_to_the_end, path)
        store.save_token(login("bob@example.com", 2))
        assert rows_seen_elsewhere(path) == everything(2)
    assert rows_seen_elsewhere(path) == everything(2)


def modes_of_new_files(folder, umask):
    os.umask(umask)
    os.chdir(folder)
    with CustomStoreSQLite() as store:
        store.save_token(login())
        store.backup("backup.db")
        return {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in Path().iterdir()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_a_new_file_whatever_the_umask(tmp_path, umask):
    """Contract 9: a new file, its `-wal`, its `-shm` and a backup have the mode 0600."""
    names = ["backup.db", "zohooauth.db", "zohooauth.db-shm", "zohooauth.db-wal"]
    assert run_in_fork(modes_of_new_files, tmp_path, umask) == dict.fromkeys(names, "0o600")


def test_a_file_that_others_can_read_is_logged_once_as_a_warning(sample, caplog):
    """Contract 9: an existing file that others can read keeps its mode. One warning says how to change it."""
    sample.chmod(0o640)
    for _ in range(3):
        CustomStoreSQLite(sample).close()
    assert [(line.name, line.levelno) for line in caplog.records] == [("zoho_token_store", logging.WARNING)]
    assert f"{sample} holds credentials, and other users can read it. Run chmod 600 on it." in caplog.text
    assert stat.S_IMODE(sample.stat().st_mode) == 0o640


READING = {
    "records": lambda opened, _: [record.id for record in opened.records()],
    "record": lambda opened, _: [opened.record("3").id],
    "reveal": lambda opened, _: [opened.reveal("3")["id"]],
    "purgeable": lambda opened, _: [record.id for record in opened.purgeable()],
    "export": lambda opened, folder: opened.export(folder / "export.jsonl"),
    "backup": lambda opened, folder: opened.backup(folder / "backup.db"),
    "len": lambda opened, _: len(opened),
}


def test_reading_does_not_migrate_a_file_of_the_sample(sample, tmp_path):
    """`list`, `show`, `export`, `backup` and tab completion read such a file as it is. Only a change migrates it."""
    before = (sample.read_bytes(), sorted(sample.parent.iterdir()))
    other = tmp_path / "other"
    other.mkdir()
    found = {}
    for name, read in READING.items():
        with contextlib.closing(Administration(sample)) as opened:
            found[name] = read(opened, other)
    assert (sample.read_bytes(), [file for file in sorted(sample.parent.iterdir()) if file != other]) == before
    assert found["records"] == [str(number) for number in range(1, 11)]
    assert (found["record"], found["reveal"], found["export"], found["len"]) == (["3"], ["3"], 10, 10)
    assert len(CustomStoreSQLite(other / "backup.db")) == 10
    with contextlib.closing(Administration(sample)) as opened:
        with pytest.raises(StoreError, match=rf"{sample} has no token with the id"):
            opened.record("99")
        with pytest.raises(StoreError) as caught:
            opened.backup(sample)
        assert caught.value.code == "target-not-a-backup"
        opened.delete("3")
        assert len(opened) == 9
        opened.close()
        with pytest.raises(StoreError, match="was closed"):
            opened.delete("4")
    assert sample.read_bytes() != before[0]
    with CustomStoreSQLite(sample) as store:
        assert len(store) == 9


def read_and_try_to_save(path):
    drop_privileges()
    store = CustomStoreSQLite(path)
    seen = [len(store), store.find_token(token("ada@example.com")).get_id()]
    try:
        store.save_token(login("bob@example.com", 2))
    except SDKException as error:
        return [*seen, error.cause.code, error.args[1]]


def test_a_read_only_file_in_a_read_only_folder_can_be_read(tmp_path):
    """Contract 9: without write permission the store reads in rollback mode. A save says why it fails."""
    folder = tmp_path / "package"
    folder.mkdir()
    path = folder / "tokens.db"
    with CustomStoreSQLite(tmp_path / "source.db") as store:
        store.save_token(login())
        store.backup(path)
    path.chmod(0o444)
    folder.chmod(0o555)
    before = path.read_bytes()
    count, row_id, code, message = run_in_fork(read_and_try_to_save, path)
    assert (count, row_id, code) == (1, "1", "read-only")
    assert message.startswith(f"save_token: {path} cannot be written")
    assert (path.read_bytes(), list(folder.iterdir())) == (before, [path])


def open_with_free_descriptors(path, free):
    """Open a store while only `free` file descriptors are free, then find and save. Return the codes of the errors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.open("/", os.O_RDONLY)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + free, hard))
    codes, messages = [], []
    try:
        with CustomStoreSQLite(path) as store:
            store.save_token(login())
    except SDKException as error:
        codes.append(error.cause.code)
        messages.append(error.args[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [codes, messages]


@pytest.mark.parametrize("exists", [True, False])
def test_too_many_open_files_are_named(path, exists):
    """Contract 6: at each number of free descriptors, a store works with all its locks, or names the limit."""
    outcomes = {}
    for free in range(13):
        if exists:
            CustomStoreSQLite(path).close()
        codes, messages = run_in_fork(open_with_free_descriptors, path, free)
        assert all("ulimit -n" in message and "close()" in message for message in messages), messages
        outcomes[free] = codes
        path.unlink(missing_ok=True)
    assert (outcomes[12], outcomes[7]) == ([], ["too-many-open-files"])
    assert all(codes in ([], ["too-many-open-files"]) for codes in outcomes.values()), outcomes
    working = [free for free, codes in outcomes.items() if not codes]
    assert working == list(range(working[0], 13)), outcomes


def try_to_open(path):
    drop_privileges()
    try:
        CustomStoreSQLite(path)
    except SDKException as error:
        return [error.cause.code, error.args[1]]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_an_error_names_the_file_that_cannot_be_created(tmp_path, mode):
    """Contract 6: if the folder's permissions forbid a new file, the error has the file's path."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(mode)
    code, message = run_in_fork(try_to_open, folder / "new.db")
    assert code == "permission-denied"
    assert message.startswith(f"CustomStoreSQLite: {folder / 'new.db'} ")
    folder.chmod(0o755)
    assert list(folder.iterdir()) == []
