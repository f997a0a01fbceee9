"""The command line together with the real SDK: importing its FileStore, and a restore while a program saves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from support import PLANTED, login, rows_seen_elsewhere, run_forked, start, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore

HERE = Path(__file__).parent
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


def remove_api_domain_column(file):
    # Older versions of the SDK write no API domain.
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(row[:9] for row in rows)


@pytest.mark.parametrize("columns", [10, 9])
def test_import_of_a_filestore_file(run, path, filestore, columns):
    """After `import` of the FileStore's file, a store finds each of its rows once and with all fields."""
    if columns == 9:
        remove_api_domain_column(filestore)
    content = filestore.read_bytes()
    assert len(content.splitlines()[0].split(b",")) == columns
    source = f"{filestore} (FileStore, 3 rows)"
    assert run("import", filestore).stdout == f"{source}: 3 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert run("import", filestore).stdout == f"{source}: 0 new, 0 updated, 3 unchanged, 0 skipped.\n"
    assert filestore.read_bytes() == content
    with CustomStoreSQLite(path) as store:
        assert len(store) == 3
        for number, user in enumerate(USERS):
            found = values(store.find_token(token(user)))
            assert found.pop("id") == str(number + 1)
            assert found == {
                "user": user,
                "client_id": "1000.CLIENT",
                "client_secret": f"{PLANTED}-client-secret",
                "refresh_token": f"{PLANTED}-refresh-{number}",
                "access_token": f"{PLANTED}-access-{number}",
                "expires_in": str(1_795_300_000_000 + number),
                "redirect_url": "https://app.example.com/?a=1,2",
                **({"api_domain": "https://www.zohoapis.com"} if columns == 10 else {}),
            }


def test_a_login_is_kept_after_an_import(tmp_path):
    """A program that logged in with the SDK's FileStore makes no further token call after `import`."""
    program = (HERE / "move_from_filestore.py").read_text(encoding="utf-8")
    assert run_forked(program, tmp_path).splitlines()[-1] == "1 1"


def test_a_row_without_a_client_secret_is_refreshed_with_that_of_the_program(tmp_path):
    """The first SDKs saved no client secret. If the program gives it, a refresh works, and saves it into the row."""
    program = (HERE / "refresh_without_secret.py").read_text(encoding="utf-8")
    assert run_forked(program, tmp_path).splitlines()[-1] == "True True 1"


def test_restore_while_another_process_saves(run, database, tmp_path):
    """While another process saves, `restore` and all saves succeed. Each row is the backup's or was saved later."""
    copy, marker = tmp_path / "backup.db", tmp_path / "restored"
    run("backup", copy)
    saver = start((HERE / "save_until_restored.py").read_text(encoding="utf-8"), database, marker, imports="")
    try:
        for _ in range(10):
            run("restore", copy, "--yes")
        marker.touch()
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
