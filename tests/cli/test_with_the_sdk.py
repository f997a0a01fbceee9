"""The command line beside the real SDK: moving over from its FileStore, and a restore under a program that saves."""

from __future__ import annotations

import csv
import json

import pytest
from support import PLANTED, login, rows_seen_elsewhere, run_forked, start, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore

USERS = ["ada@example.com:1001", 'O\'Brien, "Bob" <bob@example.com>', "zoë@例え.jp"]


@pytest.fixture
def filestore(tmp_path):
    """A file that the SDK's own FileStore wrote."""
    file = tmp_path / "sdk_tokens.txt"
    store = FileStore(str(file))
    for number, user in enumerate(USERS):
        store.save_token(
            login(user, number, api_domain="https://www.zohoapis.com", redirect_url="https://app.example.com/?a=1,2")
        )
    return file


def without_the_last_column(file):
    # As the SDK's versions write it that know no API domain.
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(row[:9] for row in rows)


@pytest.mark.parametrize("columns", [10, 9])
def test_the_sdks_file_moves_over(run, path, filestore, columns):
    """What the SDK's FileStore wrote is found by a store after `import`: all fields, each row once."""
    if columns == 9:
        without_the_last_column(filestore)
    written = filestore.read_bytes()
    assert len(written.splitlines()[0].split(b",")) == columns
    said = f"{filestore} (FileStore, 3 rows): "
    assert run("import", filestore).stdout == f"{said}3 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert run("import", filestore).stdout == f"{said}0 new, 0 updated, 3 unchanged, 0 skipped.\n"
    assert filestore.read_bytes() == written
    with CustomStoreSQLite(path) as store:
        assert len(store) == 3
        for number, user in enumerate(USERS):
            moved = values(store.find_token(token(user)))
            assert moved.pop("id") == str(number + 1)
            assert moved == {
                "user": user,
                "client_id": "1000.CLIENT",
                "client_secret": f"{PLANTED}-client-secret",
                "refresh_token": f"{PLANTED}-refresh-{number}",
                "access_token": f"{PLANTED}-access-{number}",
                "expires_in": str(1_795_300_000_000 + number),
                "redirect_url": "https://app.example.com/?a=1,2",
                **({"api_domain": "https://www.zohoapis.com"} if columns == 10 else {}),
            }


MOVE = """
from zoho_token_store.testing import ZohoStandIn
from zoho_token_store._cli import run
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature
os.chdir(sys.argv[1])
with ZohoStandIn() as zoho:
    code = zoho.grant_code(zoho.add_user("ada@example.com"))
    first = token(None, client_id=zoho.client_id, client_secret=zoho.client_secret, grant_token=code)
    Initializer.initialize(environment=zoho.environment(), token=first, store=FileStore("sdk_tokens.txt"))
    user = first.get_user_signature().get_name()
    assert run(["import", "sdk_tokens.txt"]) == 0
    os.remove("sdk_tokens.txt")
    with CustomStoreSQLite() as store:
        again = token(user)
        Initializer.initialize(environment=zoho.environment(), token=again, store=store)
        again.get_token()
        assert again.get_access_token() == first.get_access_token()
        print(zoho.token_calls, len(store))
"""


def test_a_login_moves_over(tmp_path):
    """A program that logged in with the SDK's FileStore goes on after `import` without a call to Zoho."""
    assert run_forked(MOVE, tmp_path).splitlines()[-1] == "1 1"


# Saves without pause, a new user and Ada in turn; and some more once it sees that the last restore is over.
SAVER = """
from pathlib import Path
path, restored = sys.argv[1], Path(sys.argv[2])
end = time.monotonic() + 60
with CustomStoreSQLite(path) as store:
    print("ready", flush=True)
    number = after = 0
    while after < 40 and time.monotonic() < end:
        number += 1
        after += restored.exists()
        store.save_token(login("ada@example.com" if number % 2 else f"new-{number}@example.com", number,
                               api_domain="https://www.zohoapis.com"))
print(number - after, number)
"""


def test_restore_under_a_program_that_saves(run, database, tmp_path):
    """While another process saves, `restore` fails nobody: a row is the backup's or saved afterwards."""
    copy, restored = tmp_path / "backup.db", tmp_path / "restored"
    run("backup", copy)
    saver = start(SAVER, database, restored)
    try:
        for _ in range(10):
            run("restore", copy, "--yes")
        restored.touch()
        printed, _ = saver.communicate(timeout=90)
    finally:
        saver.kill()
        saver.wait(30)
    assert saver.returncode == 0
    before, last = map(int, printed.split())
    assert last - before == 40
    assert rows_seen_elsewhere(database)[1] == "ok"
    rows = json.loads(run("list", "--json").stdout)
    users = {row["user_name"] for row in rows}
    assert len(users) == len(rows) == len({row["id"] for row in rows})
    saved = {f"new-{number}@example.com" for number in range(2, last + 1, 2)}
    assert {f"new-{number}@example.com" for number in range(2, last + 1, 2) if number > before} <= users
    assert {"ada@example.com", "bob@example.com", "eve@example.com"} <= users
    assert users - saved == {"ada@example.com", "bob@example.com", "eve@example.com"}
    with CustomStoreSQLite(database) as store:
        newest = last if last % 2 else last - 1
        found = store.find_token(token("ada@example.com", api_domain="https://www.zohoapis.com"))
        assert found.get_access_token() == f"{PLANTED}-access-{newest}"
        assert store.find_token(token("bob@example.com")).get_access_token() == f"{PLANTED}-access-2"
