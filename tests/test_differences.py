"""Where the stores differ from the vendor's samples: a test for each row of contract 11, named after it."""

from __future__ import annotations

import sqlite3

import pytest
from support import PLANTED, login, run_program, run_python, token, values
from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


def test_the_11th_user_and_those_after_are_saved(store):
    """Contract 11, "new id = `max(id) + 1` over text": rising numeric ids, never reused."""
    for number in range(1, 102):
        saved = login(f"user{number}@example.com", number)
        store.save_token(saved)
        assert saved.get_id() == str(number)
    store.delete_token("101")
    saved = login("another@example.com", 102)
    store.save_token(saved)
    assert saved.get_id() == "102"


def test_a_find_by_id_alone_or_by_access_token_finds_that_row_or_none(store):
    """Contract 11, "`find_token` with an id alone …": looked up by that key, else `None`."""
    for number in (1, 2, 3):
        store.save_token(login(f"user{number}@example.com", number))
    assert values(store.find_token(token(id="2")))["user"] == "user2@example.com"
    client = {"client_id": "1000.CLIENT", "client_secret": f"{PLANTED}-client-secret"}
    found = store.find_token(token(access_token=f"{PLANTED}-access-3", **client))
    assert values(found)["user"] == "user3@example.com"
    assert store.find_token(token(id="7")) is None
    assert store.find_token(token(access_token=f"{PLANTED}-access-7", **client)) is None
    assert store.find_token(token(**client)) is None


def test_values_are_bound_and_never_become_sql(store):
    """Contract 11, "SQL by concatenation": bound parameters."""
    awkward = [
        "O'Brien",
        "' or 1=1 --",
        '"',
        "a\0b",
        "line\nline",
        "🦀",
        "\\",
        "%_",
        "x'); drop table oauthtoken; --",
    ]
    for number, name in enumerate(awkward):
        store.save_token(login(name, number))
    for number, name in enumerate(awkward):
        assert store.find_token(token(name)).get_refresh_token() == f"{PLANTED}-refresh-{number}"
    store.delete_token("1 or 1=1")
    store.delete_token("' or ''='")
    assert len(store) == len(awkward)


def test_delete_tokens_deletes_all(store):
    """Contract 11, "`delete_tokens`": works."""
    for number in (1, 2, 3):
        store.save_token(login(f"user{number}@example.com", number))
    store.delete_tokens()
    assert (store.get_tokens(), len(store)) == ([], 0)


def test_a_store_is_constructed_any_number_of_times_on_an_empty_table(path):
    """Contract 11, "constructed twice on an empty table": opens it."""
    stores = [CustomStoreSQLite(path) for _ in range(3)]
    stores[0].save_token(login())
    assert [len(store) for store in stores] == [1, 1, 1]


def test_an_update_needs_no_special_build_of_sqlite(store):
    """Contract 11, "`UPDATE … LIMIT`": not used; the bundled SQLite would refuse it."""
    store.save_token(login())
    store.save_token(login(access_token=f"{PLANTED}-renewed"))
    assert [made.get_access_token() for made in store.get_tokens()] == [f"{PLANTED}-renewed"]


def test_one_user_has_a_row_for_each_client_and_each_environment(store):
    """Contract 11, "key = user name alone": user, client and API domain."""
    domain = "https://www.zohoapis.com"
    rows = [
        {"client_id": "1000.ONE", "api_domain": domain},
        {"client_id": "1000.TWO", "api_domain": domain},
        {"client_id": "1000.ONE", "api_domain": "https://sandbox.zohoapis.com"},
        {"client_id": "1000.ONE", "api_domain": "https://www.zohoapis.eu"},
    ]
    for number, row in enumerate(rows):
        store.save_token(login(number=number, **row))
    assert len(store) == len(rows)
    for number, row in enumerate(rows):
        assert store.find_token(token("ada@example.com", **row)).get_access_token() == f"{PLANTED}-access-{number}"


def test_newer_credentials_of_a_known_user_are_asked_with_and_saved(store):
    """Contract 11, "a new refresh token for a known user": asked with, and saved into the same row."""
    store.save_token(login())
    anew = store.find_token(token("ada@example.com", refresh_token=f"{PLANTED}-refresh-new"))
    assert (anew.get_access_token(), anew.get_expires_in(), anew.get_id()) == (None, None, "1")
    anew.set_access_token(f"{PLANTED}-access-new")
    store.save_token(anew)
    assert [made.get_refresh_token() for made in store.get_tokens()] == [f"{PLANTED}-refresh-new"]
    code = store.find_token(token("ada@example.com", grant_token=f"{PLANTED}-grant-new"))
    assert (code.get_access_token(), code.get_refresh_token(), code.get_id()) == (None, None, "1")


def test_16_processes_that_start_on_an_empty_file_all_work(path):
    """Contract 11, "16 processes start on an empty file": all work; and on a missing one, too."""
    code = """
import children

def start(number):
    with CustomStoreSQLite(sys.argv[1]) as store:
        store.save_token(login(f"user{number}@example.com", number))

children.at_once(16, start)
"""
    path.touch()
    for file in (path, path.with_name("missing.db")):
        run_program(code, file)
        with CustomStoreSQLite(file) as store:
            assert sorted(made.get_id() for made in store.get_tokens()) == sorted(map(str, range(1, 17)))


def test_the_file_is_its_owners_alone_and_deleted_secrets_are_gone(path):
    """Contract 11, "file mode, deleted secrets": 0600, gone."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        files = list(path.parent.iterdir())
        assert {file.name for file in files} == {"zohooauth.db", "zohooauth.db-wal", "zohooauth.db-shm"}
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert any(PLANTED.encode() in file.read_bytes() for file in files)
        store.delete_token("1")
        assert not any(PLANTED.encode() in file.read_bytes() for file in path.parent.iterdir())


def test_what_is_no_token_is_an_error_and_not_silence(store):
    """Contract 11, "a token that is no `OAuthToken`": an error."""
    for method in (store.save_token, store.find_token):
        with pytest.raises(SDKException, match="an OAuthToken of the Zoho CRM SDK is needed"):
            method({"refresh_token": f"{PLANTED}-refresh"})


def test_the_module_of_python_still_reads_the_file(path):
    """Contract 9: the file is a plain SQLite database."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login())
        code = """
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("select user_name from oauthtoken").fetchall())
"""
        assert run_python(code, path) == "[('ada@example.com',)]\n"
    assert sqlite3.sqlite_version_info >= (3, 7), "WAL can be read by every SQLite that any supported Python has"
