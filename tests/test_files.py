"""The file: the sample's, whose it is, who may read it, what is refused (contract 9)."""

from __future__ import annotations

import logging
import shutil
import stat

import pytest
from support import (
    DATA,
    IMPORTS,
    UNPRIVILEGED,
    everything,
    login,
    rows_seen_elsewhere,
    run_program,
    run_python,
    token,
    values,
)
from zoho_token_store import CustomStoreSQLite

# What a program does that has never heard of this library: the sample's kind of statements, with Python's sqlite3.
SAMPLE_PROGRAM = """
import sqlite3, sys
path, step, number = sys.argv[1:4]
connection = sqlite3.connect(path, timeout=20)
user = f"sample{number}@example.com"
if step == "insert":
    connection.execute(
        "insert into oauthtoken(id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,"
        "expiry_time,redirect_url,api_domain) values (?,?,?,?,?,?,?,?,?,?)",
        (str(5000 + int(number)), user, "1000.CLIENT", "planted", f"planted{number}", "planted", None, "1", None, None))
elif step == "update":
    connection.execute("update oauthtoken set access_token=?, expiry_time=? where user_name=?", ("planted", "2", user))
elif step == "delete":
    connection.execute("delete from oauthtoken where id=?", (number,))
for row in connection.execute("select * from oauthtoken"):
    print(row[0], row[1], row[7], row[9], sep="|")
connection.commit()
connection.close()
"""


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


def test_the_sample_still_reads_and_writes_a_file_in_use(sample):
    """Contract 9: the file can still be read and written by the sample, while a store has it open."""
    with CustomStoreSQLite(sample) as store:
        store.save_token(login("ours@example.com", 1))
        lines = run_python(SAMPLE_PROGRAM, sample, "insert", 1).splitlines()
        assert lines[0] == "1|user01@example.com|1795300001000|https://www.zohoapis.com"
        assert lines[10].startswith("11|ours@example.com|")
        assert len(lines) == 12
        assert store.find_token(token("sample1@example.com")).get_id() == "5001"
        run_python(SAMPLE_PROGRAM, sample, "update", 1)
        assert store.find_token(token("sample1@example.com")).get_expires_in() == "2"
        ours = login("next@example.com", 2)
        store.save_token(ours)
        assert ours.get_id() == "5002"
        run_python(SAMPLE_PROGRAM, sample, "delete", 5002)
        store.save_token(again := login("again@example.com", 3))
        assert again.get_id() == "5003"
    assert len(run_python(SAMPLE_PROGRAM, sample, "read", 0).splitlines()) == 13


KEPT = """
import atexit
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer as Kept
# As the SDK keeps it: per thread, and nobody drops it before the end.
Kept.LOCAL.store = Kept.store = CustomStoreSQLite(sys.argv[1])
Kept.store.save_token(login())
"""


def test_a_program_that_ends_leaves_one_file_that_is_complete(path):
    """A store that is kept to the end of its program is closed then: who copies the one file copies every row."""
    run_program(KEPT, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    assert rows_seen_elsewhere(copy) == everything(1)


def test_what_a_program_saves_at_its_very_end_is_saved(path):
    """Functions that run at exit may use a store, before it is closed and after."""
    after = "import atexit; atexit.register(lambda: Kept.store.save_token(login('last@example.com', 3)))\n"
    before = "atexit.register(lambda: Kept.store.save_token(login('bob@example.com', 2)))\n"
    run_python(after + IMPORTS + KEPT + before, path)
    assert rows_seen_elsewhere(path) == everything(3)


def test_who_ends_leaves_the_log_to_who_goes_on(path):
    """The end of one program costs another, that has the file open, nothing."""
    with CustomStoreSQLite(path) as store:
        run_program(KEPT, path)
        store.save_token(login("bob@example.com", 2))
        assert rows_seen_elsewhere(path) == everything(2)
    assert rows_seen_elsewhere(path) == everything(2)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_new_files_are_their_owners_alone_whatever_the_umask(tmp_path, umask):
    """Contract 9: a new file, and its `-wal` and `-shm`, are readable by their owner alone (0600); a backup, too."""
    code = f"""
os.umask({umask})
os.chdir(sys.argv[1])
with CustomStoreSQLite() as store:
    store.save_token(login())
    store.backup("backup.db")
    print(sorted((name, oct(os.stat(name).st_mode & 0o777)) for name in os.listdir()))
"""
    names = ["backup.db", "zohooauth.db", "zohooauth.db-shm", "zohooauth.db-wal"]
    assert run_program(code, tmp_path) == f"{[(name, '0o600') for name in names]}\n"


def test_a_file_that_others_can_read_draws_one_warning(sample, caplog):
    """Contract 9: an existing file that others can read draws one warning, and its mode is left alone."""
    sample.chmod(0o640)
    for _ in range(3):
        CustomStoreSQLite(sample).close()
    assert [(line.name, line.levelno) for line in caplog.records] == [("zoho_token_store", logging.WARNING)]
    assert f"{sample} holds credentials and can be read by others than its owner: chmod 600 it" in caplog.text
    assert stat.S_IMODE(sample.stat().st_mode) == 0o640


READ_ONLY = """
store = CustomStoreSQLite(sys.argv[1])
print(len(store), store.find_token(token("ada@example.com")).get_id())
try:
    store.save_token(login("bob@example.com", 2))
except SDKException as error:
    print(error.args[1])
"""


def test_a_read_only_file_in_a_read_only_folder_is_read_and_saves_say_why_not(open_folder):
    """Contract 9: where WAL cannot be had the store works in rollback mode; what cannot be written is a clear error."""
    folder = open_folder / "package"
    folder.mkdir()
    with CustomStoreSQLite(open_folder / "source.db") as store:
        store.save_token(login())
        store.backup(folder / "tokens.db")
    (folder / "tokens.db").chmod(0o444)
    folder.chmod(0o555)
    before = (folder / "tokens.db").read_bytes()
    printed = run_program(UNPRIVILEGED + READ_ONLY, folder / "tokens.db").splitlines()
    assert printed[0] == "1 1"
    assert printed[1].startswith(f"save_token: {folder / 'tokens.db'}: it may not be written")
    assert "nothing stored is lost; give this user write permission on the file and on its folder" in printed[1]
    assert ((folder / "tokens.db").read_bytes(), list(folder.iterdir())) == (before, [folder / "tokens.db"])


def test_a_folder_without_permission_says_so(open_folder):
    """Contract 6: a file that cannot be made says with which file, and what to do."""
    folder = open_folder / "closed"
    folder.mkdir()
    code = """
try:
    CustomStoreSQLite(sys.argv[1])
except SDKException as error:
    print(error.args[1])
"""
    for mode, name in ((0o555, "new.db"), (0o000, "other.db")):
        folder.chmod(mode)
        printed = run_program(UNPRIVILEGED + code, folder / name)
        assert f"CustomStoreSQLite: {folder / name}" in printed
        assert "permission denied" in printed
        assert "give this user" in printed
    folder.chmod(0o755)
    assert list(folder.iterdir()) == []
