"""delete, purge, import, export, backup and restore."""

from __future__ import annotations

import json
import sqlite3
import stat

import pytest
from cli.conftest import EU, US, in_minutes
from support import DATA, PLANTED, login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import _move, _terminal


def users(run):
    return [row["user_name"] for row in json.loads(run("list", "--json").stdout)]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("yes", [[], ["-y"], ["--yes"]])
def test_delete(run, yes):
    """`delete` names the row, asks, and deletes this one."""
    done = run("delete", "2", *yes, answer="" if yes else "Y\n")
    assert done.stdout == "Deleted row 2 (bob@example.com, 1000.CLIENT, EU).\n"
    assert done.stderr == ("" if yes else "Delete row 2 (bob@example.com, 1000.CLIENT, EU)? [y/N] \n")
    assert users(run) == ["ada@example.com", "eve@example.com"]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", [["delete", "1"], ["purge"], ["purge", "--idle-for", "0s"]])
@pytest.mark.parametrize("answer", ["", "n\n", "\n", "1\n"])
def test_nothing_is_deleted_without_a_yes(run, command, answer):
    """Any other answer, or none, deletes nothing and is exit status 1; where nobody can answer, `--yes` is named."""
    refused = run(*command, answer=answer, status=1)
    assert ("--yes" in refused.stderr) == (answer == "")
    assert len(users(run)) == 3


@pytest.mark.usefixtures("database")
def test_purge(run):
    """`purge` shows what will go, and deletes that."""
    done = run("purge", answer="y\n")
    head, eve, last = done.stdout.splitlines()
    assert head.split("  ")[-1] == "LAST SAVED"
    assert eve.split()[:2] == ["3", "eve@example.com"]
    assert done.stderr == "Delete this row? [y/N] \n"
    assert last == "Deleted 1 row."
    assert users(run) == ["ada@example.com", "bob@example.com"]
    assert run("purge").stdout == "Nothing to delete.\n"


@pytest.mark.parametrize(("duration", "left"), [("90s", ["ada@example.com", "bob@example.com"]), ("0s", [])])
def test_purge_of_the_idle(run, database, duration, left):
    """With `--idle-for` those go, too, that were not saved for that long."""
    done = run("purge", "--idle-for", duration, "--yes")
    assert done.stdout.endswith(f"Deleted {'1 row' if left else '3 rows'}.\n")
    assert users(run) == left
    with CustomStoreSQLite(database) as store:
        assert len(store) == len(left)


def test_an_export_comes_back(run, database, tmp_path):
    """`export` writes a private file of JSON Lines, which `import` brings into another database, secrets and all."""
    lines = tmp_path / "tokens.jsonl"
    assert run("export", lines).stdout == f"Wrote 3 rows to {lines}. It holds secrets: delete it after use.\n"
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600
    assert [json.loads(line)["user_name"] for line in lines.read_text(encoding="utf-8").splitlines()] == users(run)
    said = f"{lines} (JSON Lines, 3 rows): "
    assert run("import", lines).stdout == f"{said}0 new, 0 updated, 3 unchanged, 0 skipped.\n"
    before = rows(database)
    database.unlink()
    assert run("import", lines).stdout == f"{said}3 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert rows(database) == before


def test_an_import_keeps_which_of_a_users_rows_was_saved_last(run, path, tmp_path):
    """Of a user in two data centres the name alone means the row saved last, after an export and import as before."""
    with CustomStoreSQLite(path) as store:
        for number, domain in enumerate([US, EU, US]):
            store.save_token(login("ada@example.com", number, refresh_token=f"planted-{domain}", api_domain=domain))
        assert store.find_token(token("ada@example.com")).get_api_domain() == US
    lines, old = tmp_path / "tokens.jsonl", tmp_path / "old.db"
    # Saves within a millisecond have one time.
    connection = sqlite3.connect(path)
    connection.execute("UPDATE oauthtoken SET saved_at = saved_at - 1 WHERE api_domain = ?", [EU])
    connection.commit()
    connection.close()
    run("export", lines)
    path.rename(old)
    for source in (lines, old):
        run("import", source)
        with CustomStoreSQLite(path) as store:
            assert store.find_token(token("ada@example.com")).get_api_domain() == US, source
            assert {each.get_api_domain(): each.get_id() for each in store.get_tokens()} == {US: "1", EU: "2"}
        path.unlink()


def test_a_row_that_cannot_be_read_can_be_deleted(run, database):
    """`check` names a row with bytes that are no text, and `delete` takes it though nothing can be said of it."""
    connection = sqlite3.connect(database)
    connection.execute("UPDATE oauthtoken SET user_name = x'FF' WHERE id = '2'")
    connection.commit()
    connection.close()
    assert "not UTF-8 text" in run("list", status=1).stderr
    (finding,) = [each for each in json.loads(run("check", "--json", status=2).stdout) if each["severity"] == "error"]
    assert (finding["code"], finding["ids"]) == ("damaged", ["2"])
    assert run("delete", "2", answer="y\n").stdout == "Deleted row 2.\n"
    assert users(run) == ["ada@example.com", "eve@example.com"]


def test_a_restore_goes_over_a_row_that_cannot_be_read(run, database, tmp_path):
    """What is to be replaced need not be readable."""
    copy = tmp_path / "backup.db"
    run("backup", copy)
    connection = sqlite3.connect(database)
    connection.execute("UPDATE oauthtoken SET user_name = x'FF'")
    connection.commit()
    connection.close()
    assert "there were 3 before" in run("restore", copy, "--yes").stdout
    assert len(users(run)) == 3


def test_a_database_is_not_restored_from_itself(run, database):
    """That is said before anything is asked."""
    refused = run("restore", database, status=1)
    assert refused.stderr == "Error: the file to read is the token database itself; nothing was changed\n"


def rows(database):
    # Read in this process: nobody else has the file open.
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        columns = "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time"
        return connection.execute(f"SELECT {columns}, redirect_url, api_domain FROM oauthtoken ORDER BY id").fetchall()
    finally:
        connection.close()


@pytest.mark.usefixtures("database")
def test_export_overwrites_only_when_told(run, tmp_path):
    """A file that is there is overwritten with `--force` alone."""
    lines = tmp_path / "tokens.jsonl"
    lines.write_text("precious\n", encoding="utf-8")
    assert run("export", lines, status=1).stderr == f"Error: {lines} exists. To overwrite it: --force\n"
    assert lines.read_text(encoding="utf-8") == "precious\n"
    run("export", lines, "--force")
    assert len(lines.read_text(encoding="utf-8").splitlines()) == 3
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("file", "kind", "count"), [("filestore-sdk_tokens.txt", "FileStore", 41), ("sample-zohooauth.db", "SQLite", None)]
)
def test_import_of_other_stores(run, file, kind, count):
    """What the SDK's FileStore and the vendor's sample wrote comes in, once, and stays as it was."""
    source = DATA / file
    before = source.read_bytes()
    done = run("import", source).stdout
    assert done.startswith(f"{source} ({kind}, {count or ''}")
    assert ": 0 new" not in done
    first = users(run)
    again = run("import", source).stdout
    assert ": 0 new, 0 updated, " in again
    assert users(run) == first
    assert source.read_bytes() == before


def test_import_takes_the_newer(run, database, tmp_path):
    """A row that is there is replaced by a newer one alone."""
    other = tmp_path / "other.db"
    with CustomStoreSQLite(other) as store:
        store.save_token(login("ada@example.com", 7, expires_in=in_minutes(-90), api_domain="https://www.zohoapis.com"))
        store.save_token(login("bob@example.com", 8, expires_in=in_minutes(50), api_domain="https://www.zohoapis.eu"))
    done = run("import", other).stdout
    assert done == f"{other} (SQLite, 2 rows): 0 new, 1 updated, 1 unchanged, 0 skipped.\n"
    found = {row[1]: row[5] for row in rows(database)}
    assert found["ada@example.com"] == f"{PLANTED}-access-1"
    assert found["bob@example.com"] == f"{PLANTED}-access-8"


@pytest.mark.parametrize("content", [b"", b"neither\n", b"SQLite format 3\0", b"{}\n{\n"])
def test_import_of_something_else(run, path, tmp_path, content):
    """What is no such file is an error; no database is made for it."""
    file = tmp_path / "something"
    file.write_bytes(content)
    assert str(file) in run("import", file, status=1).stderr
    assert not path.exists()


@pytest.fixture
def many(tmp_path):
    """A database with more rows than come in at once."""
    other = tmp_path / "many.db"
    with CustomStoreSQLite(other) as store:
        store.import_tokens(login(f"user-{n}@example.com", n) for n in range(2100))
    return other


@pytest.mark.parametrize("terminal", [True, False])
def test_import_of_many(run, many, monkeypatch, terminal):
    """Many rows come in some at a time; how far it is shows on a terminal alone, and never on stdout."""
    monkeypatch.setattr(_terminal, "errors_are_seen", lambda: terminal)
    done = run("import", many)
    assert done.stdout == f"{many} (SQLite, 2100 rows): 2100 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert ("Importing" in done.stderr) == terminal
    assert len(users(run)) == 2100


def test_import_that_is_stopped_can_go_on(run, many, monkeypatch):
    """Of an import that is stopped, what is in stays in; run again, it brings the rest."""
    asked = iter([None, None, KeyboardInterrupt])

    class Interrupted:
        def __init__(self, opened):
            self.opened = opened

        def import_rows(self, *arguments):
            if next(asked) is not None:
                raise KeyboardInterrupt
            return self.opened.import_rows(*arguments)

    in_batches = _move._import_in_batches
    with monkeypatch.context() as patched:
        patched.setattr(_move, "_import_in_batches", lambda opened, source: in_batches(Interrupted(opened), source))
        stopped = run("import", many, status=1)  # 130 where a process ends: see the tests of processes
    assert "Stopped on the way. What is imported stays; to go on, run it again." in stopped.stderr
    assert len(users(run)) == 1000
    assert ": 1100 new, 0 updated, 1000 unchanged, 0 skipped." in run("import", many).stdout


def test_backup_and_restore(run, database, tmp_path):
    """`restore` says how many rows go and come, asks, and puts a backup's rows in the place of all."""
    copy = tmp_path / "backup.db"
    assert run("backup", copy).stdout == f"Backed up {database} to {copy}.\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = rows(database)
    with CustomStoreSQLite(database) as store:
        store.save_token(login("late@example.com", 9))
        store.delete_token("1")
        store.save_token(login("later@example.com", 10))
    done = run("restore", copy, answer="y\n")
    assert done.stderr == f"Replace all 4 rows of {database} with 3 rows of {copy}? [y/N] \n"
    assert done.stdout == f"Restored 3 rows from {copy}; there were 4 before.\n"
    assert rows(database) == before


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("answer", ["", "n\n"])
def test_nothing_is_restored_without_a_yes(run, tmp_path, answer):
    """Any other answer, or none, restores nothing."""
    run("backup", tmp_path / "backup.db")
    run("delete", "3", "--yes")
    refused = run("restore", tmp_path / "backup.db", answer=answer, status=1)
    assert ("--yes" in refused.stderr) == (answer == "")
    assert users(run) == ["ada@example.com", "bob@example.com"]


def test_restore_where_nothing_is(run, database, tmp_path):
    """A database that is missing is made; there is nothing to ask, since nothing is lost."""
    copy = tmp_path / "backup.db"
    run("backup", copy)
    before = rows(database)
    database.unlink()
    assert run("restore", copy).stdout == f"Restored 3 rows from {copy}; there were 0 before.\n"
    assert rows(database) == before


def test_restore_of_no_backup(run, database, tmp_path):
    """What `export` wrote is no backup: a restore would lose what it has not."""
    run("export", tmp_path / "tokens.jsonl")
    before = rows(database)
    assert '"import" brings in' in run("restore", tmp_path / "tokens.jsonl", "--yes", status=1).stderr
    assert rows(database) == before


@pytest.mark.usefixtures("database")
def test_backup_replaces_no_other_file(run, tmp_path):
    """A file that is no backup stays."""
    other = tmp_path / "precious.txt"
    other.write_text("precious\n", encoding="utf-8")
    assert str(other) in run("backup", other, status=1).stderr
    assert other.read_text(encoding="utf-8") == "precious\n"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", ["backup", "export"])
def test_where_nothing_can_be_written(run, tmp_path, command):
    """A folder that is not there is an error that names it."""
    assert "nowhere" in run(command, tmp_path / "nowhere" / "file", status=1).stderr
