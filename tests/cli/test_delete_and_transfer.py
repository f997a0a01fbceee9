"""The commands delete, purge, import, export, backup and restore."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat

import pytest
from cli.conftest import EU, US, in_minutes
from support import DATA, PLANTED, login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import _terminal, _transfer


def users(run):
    return [row["user_name"] for row in json.loads(run("list", "--json").stdout)]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("yes", [[], ["-y"], ["--yes"]])
def test_delete(run, yes):
    """`delete` names the row, asks for confirmation, and deletes only this row."""
    done = run("delete", "2", *yes, answer="" if yes else "Y\n")
    assert done.stdout == "Deleted row 2 (bob@example.com, 1000.CLIENT, EU).\n"
    assert done.stderr == ("" if yes else "Delete row 2 (bob@example.com, 1000.CLIENT, EU)? [y/N] \n")
    assert users(run) == ["ada@example.com", "eve@example.com"]


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", [["delete", "1"], ["purge"], ["purge", "--everything"]])
@pytest.mark.parametrize("answer", ["", "n\n", "\n", "1\n"])
def test_nothing_is_deleted_without_a_yes(run, command, answer):
    """Any answer but yes deletes nothing and gives exit status 1. Without any answer, the hint names `--yes`."""
    refused = run(*command, answer=answer, status=1)
    assert ("--yes" in refused.stderr) == (answer == "")
    assert len(users(run)) == 3


@pytest.mark.usefixtures("database")
def test_purge(run):
    """`purge` shows the rows that it is about to delete, and deletes them."""
    done = run("purge", answer="y\n")
    head, eve, last = done.stdout.splitlines()
    assert head.split("  ")[-1] == "LAST SAVED"
    assert eve.split()[:2] == ["3", "eve@example.com"]
    assert done.stderr == "Delete this row? [y/N] \n"
    assert last == "Deleted 1 row."
    assert users(run) == ["ada@example.com", "bob@example.com"]
    assert run("purge").stdout == "Nothing to delete.\n"


def age(database, hours, ids):
    connection = sqlite3.connect(database)
    for row_id in ids:
        connection.execute("UPDATE oauthtoken SET saved_at = saved_at - ? WHERE id = ?", [hours * 3_600_000, row_id])
    connection.commit()
    connection.close()


def test_purge_deletes_idle_rows(run, database):
    """`purge --idle-for` also deletes the rows that were not saved for that long."""
    age(database, 2, "2")
    done = run("purge", "--idle-for", "1h", "--yes")
    assert done.stdout.endswith("Deleted 2 rows.\n")
    assert users(run) == ["ada@example.com"]
    with CustomStoreSQLite(database) as store:
        assert len(store) == 1


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("yes", [[], ["--yes"]])
def test_purge_everything(run, yes):
    """Only `purge --everything` deletes rows that are in use. It asks first, too."""
    done = run("purge", "--everything", *yes, answer="" if yes else "y\n")
    assert done.stdout.endswith("Deleted 3 rows.\n")
    assert done.stderr == ("" if yes else "Delete these 3 rows? [y/N] \n")
    assert users(run) == []


@pytest.mark.parametrize(
    "case",
    [
        (["delete", "2"], "Would delete row 2 (bob@example.com, 1000.CLIENT, EU).", {"deleted": ["2"]}),
        (["purge"], "Would delete 1 row.", {"deleted": ["3"]}),
        (["purge", "--idle-for", "1h"], "Would delete 2 rows.", {"deleted": ["2", "3"]}),
        (["purge", "--everything"], "Would delete 3 rows.", {"deleted": ["1", "2", "3"]}),
        (["restore", "backup.db"], "Would replace all 3 rows of DB with 2 rows from backup.db.", {"restored": 2}),
        (
            ["import", "backup.db"],
            "Would import backup.db (SQLite, 2 rows): 1 new, 0 updated, 1 unchanged, 0 skipped.",
            {"kind": "SQLite", "rows": 2, "new": 1, "updated": 0, "unchanged": 1, "skipped": 0},
        ),
    ],
)
def test_a_dry_run_and_json(run, database, tmp_path, monkeypatch, case):
    """`--dry-run` says what would happen, asks nothing and changes nothing. `--json` says the same for programs."""
    command, shown, as_json = case
    monkeypatch.chdir(tmp_path)
    age(database, 2, "2")
    with CustomStoreSQLite("backup.db") as store:
        store.import_tokens(CustomStoreSQLite(database).get_tokens()[:1])
        store.save_token(login("late@example.com", 9))
    before = rows(database)
    assert run(*command, "--dry-run").stdout.splitlines()[-1] == shown.replace("DB", str(database))
    dry = run(*command, "--dry-run", "--json")
    found = json.loads(dry.stdout)
    assert (found.pop("dry_run"), dry.stderr) == (True, "")
    assert {key: found[key] for key in as_json} == as_json
    assert rows(database) == before
    yes = [] if command[0] == "import" else ["--yes"]
    assert json.loads(run(*command, *yes, "--json").stdout) == {**found, "dry_run": False}
    assert rows(database) != before


def test_a_dry_run_creates_no_database(run, path):
    """`import --dry-run` without a database counts all rows as new, and creates no file."""
    lines = path.with_name("tokens.jsonl")
    lines.write_text('{"refresh_token": "planted-1"}\n', encoding="utf-8")
    assert ": 1 new, 0 updated" in run("import", lines, "--dry-run").stdout
    assert not path.exists()


@pytest.mark.usefixtures("database")
def test_json_with_a_question(run):
    """With `--json` the rows and the question go to stderr, and stdout has only the JSON."""
    done = run("purge", "--json", answer="y\n")
    assert json.loads(done.stdout) == {"deleted": ["3"], "dry_run": False}
    assert "eve@example.com" in done.stderr
    assert done.stderr.endswith("Delete this row? [y/N] \n")
    assert json.loads(run("purge", "--json").stdout) == {"deleted": [], "dry_run": False}


@pytest.mark.usefixtures("database")
def test_json_of_export_and_backup(run, tmp_path):
    """`export --json` and `backup --json` print one object."""
    assert json.loads(run("export", tmp_path / "lines", "--json").stdout) == {"rows": 3}
    assert json.loads(run("backup", tmp_path / "b.db", "--json").stdout) == {"file": str(tmp_path / "b.db")}


@pytest.mark.usefixtures("database")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="it needs named pipes")
def test_a_named_pipe(run, tmp_path):
    """A named pipe is refused, because it could block for ever. The hint names `-`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert re.search(r'use "zoho-token-store --db \S+ import -"', run("import", pipe, status=1).stderr)
    assert re.search(r'use "zoho-token-store --db \S+ export -"', run("export", pipe, "--force", status=1).stderr)


def test_export_and_import(run, database, tmp_path):
    """`export` writes a private file of JSON Lines. `import` copies it into another database, with the secrets."""
    lines = tmp_path / "tokens.jsonl"
    exported = f"Wrote 3 rows to {lines}. The file contains secrets: delete it after use.\n"
    assert run("export", lines).stdout == exported
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600
    first, *exported_rows = map(json.loads, lines.read_text(encoding="utf-8").splitlines())
    assert first == {"rows": 3}
    assert [row["user_name"] for row in exported_rows] == users(run)
    source = f"{lines} (JSON Lines, 3 rows)"
    assert run("import", lines).stdout == f"{source}: 0 new, 0 updated, 3 unchanged, 0 skipped.\n"
    before = rows(database)
    database.unlink()
    assert run("import", lines).stdout == f"{source}: 3 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert rows(database) == before


def test_import_keeps_the_order_of_saves(run, path, tmp_path):
    """A lookup by a user's name finds the row that was saved last, also after an export and an import."""
    with CustomStoreSQLite(path) as store:
        for number, domain in enumerate([US, EU, US]):
            store.save_token(login("ada@example.com", number, refresh_token=f"planted-{domain}", api_domain=domain))
        assert store.find_token(token("ada@example.com")).get_api_domain() == US
    lines, old = tmp_path / "tokens.jsonl", tmp_path / "old.db"
    # Saves within a millisecond have the same `saved_at`. This makes the EU row the older one.
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


def test_an_unreadable_row_can_be_deleted(run, database):
    """`check` reports a row with invalid UTF-8, and `delete` deletes it."""
    connection = sqlite3.connect(database)
    connection.execute("UPDATE oauthtoken SET user_name = x'FF' WHERE id = '2'")
    connection.commit()
    connection.close()
    assert "not UTF-8 text" in run("list", status=1).stderr
    (finding,) = [each for each in json.loads(run("check", "--json", status=2).stdout) if each["severity"] == "error"]
    assert (finding["code"], finding["ids"]) == ("damaged", ["2"])
    assert run("delete", "2", answer="y\n").stdout == "Deleted row 2.\n"
    assert users(run) == ["ada@example.com", "eve@example.com"]


def test_restore_replaces_unreadable_rows(run, database, tmp_path):
    """`restore` works even if the rows that it replaces cannot be read."""
    copy = tmp_path / "backup.db"
    run("backup", copy)
    connection = sqlite3.connect(database)
    connection.execute("UPDATE oauthtoken SET user_name = x'FF'")
    connection.commit()
    connection.close()
    assert "The database had 3 rows before." in run("restore", copy, "--yes").stdout
    assert len(users(run)) == 3


def test_a_database_is_not_restored_from_itself(run, database):
    """`restore` refuses the database itself as the backup, before it asks for confirmation."""
    refused = run("restore", database, status=1)
    assert refused.stderr == (
        f"Error: {database} is the token database itself. Nothing was changed.\nFix: Give the path of another file.\n"
    )


def rows(database):
    # No other connection of this process is open, so reading through Python's SQLite drops no lock.
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        columns = "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time"
        return connection.execute(f"SELECT {columns}, redirect_url, api_domain FROM oauthtoken ORDER BY id").fetchall()
    finally:
        connection.close()


@pytest.mark.usefixtures("database")
def test_export_overwrites_only_with_force(run, tmp_path):
    """`export` overwrites an existing file only with `--force`."""
    lines = tmp_path / "tokens.jsonl"
    lines.write_text("precious\n", encoding="utf-8")
    refused = f"Error: {lines} exists already. Nothing was changed.\nFix: Pass --force to overwrite it.\n"
    assert run("export", lines, status=1).stderr == refused
    assert lines.read_text(encoding="utf-8") == "precious\n"
    run("export", lines, "--force")
    assert len(lines.read_text(encoding="utf-8").splitlines()) == 1 + 3
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("file", "kind", "count"), [("filestore-sdk_tokens.txt", "FileStore", 41), ("sample-zohooauth.db", "SQLite", None)]
)
def test_import_of_other_stores(run, file, kind, count):
    """`import` reads files of the SDK's FileStore and of the vendor's sample. A second import adds nothing."""
    source = DATA / file
    before = source.read_bytes()
    done = run("import", source).stdout
    assert done.startswith(f"{source} ({kind}, {count or ''}")
    assert ": 0 new" not in done
    first = users(run)
    second = run("import", source).stdout
    assert ": 0 new, 0 updated, " in second
    assert users(run) == first
    assert source.read_bytes() == before


def test_import_keeps_the_newer_row(run, database, tmp_path):
    """`import` replaces the access token of an existing row only by one with a later expiry."""
    other = tmp_path / "other.db"
    with CustomStoreSQLite(other) as store:
        store.save_token(login("ada@example.com", 7, expires_in=in_minutes(-90), api_domain="https://www.zohoapis.com"))
        store.save_token(login("bob@example.com", 8, expires_in=in_minutes(50), api_domain="https://www.zohoapis.eu"))
    done = run("import", other)
    assert done.stdout == f"{other} (SQLite, 2 rows): 0 new, 1 updated, 0 unchanged, 1 skipped.\n"
    assert done.stderr.startswith("Row 1: the refresh token was not imported: this user has another login here, ")
    assert len(done.stderr.splitlines()) == 1
    found = {row[1]: row[5] for row in rows(database)}
    assert found["ada@example.com"] == f"{PLANTED}-access-1"
    assert found["bob@example.com"] == f"{PLANTED}-access-8"


def test_import_remarks_name_the_lines(run, tmp_path):
    """`import` says on stderr which rows it did not import as they are, and names twenty lines for each reason."""
    source = tmp_path / "oauthtoken.csv"
    rows = [rf"{n},\N,1000.CLIENT,s,{PLANTED}-{n},NULL,NULL" for n in range(1, 25)]
    header = "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token"
    source.write_text("\n".join([header, *rows, r"25,ada,,,\N,,", ""]), encoding="utf-8")
    done = run("import", source)
    assert done.stdout == f"{source} (FileStore, 25 rows): 24 new, 0 updated, 0 unchanged, 1 skipped.\n"
    first = ", ".join(map(str, range(2, 22)))
    assert done.stderr.splitlines() == [
        rf"Lines {first} and 5 more: a placeholder such as NULL or \N counts as an absent value.",
        "Line 26: not imported: there is no refresh token, grant token or access token.",
    ]
    assert PLANTED not in done.output
    assert [remark["positions"] for remark in json.loads(run("import", source, "--json").stdout)["remarks"]] == [
        [f"line {n}" for n in range(2, 27)],
        ["line 26"],
    ]


@pytest.mark.parametrize("content", [b"", b"neither\n", b"SQLite format 3\0", b"{}\n{\n"])
def test_import_refuses_other_files(run, path, tmp_path, content):
    """`import` of a file of another kind fails and creates no database."""
    file = tmp_path / "something"
    file.write_bytes(content)
    assert str(file) in run("import", file, status=1).stderr
    assert not path.exists()


@pytest.fixture
def many(tmp_path):
    """A database with more rows than `import` copies in one batch."""
    other = tmp_path / "many.db"
    with CustomStoreSQLite(other) as store:
        store.import_tokens(login(f"user-{n}@example.com", n) for n in range(2100))
    return other


@pytest.mark.parametrize("terminal", [True, False])
def test_import_of_many_rows(run, many, monkeypatch, terminal):
    """`import` shows its progress on stderr, and only on a terminal."""
    monkeypatch.setattr(_terminal, "stderr_is_terminal", lambda: terminal)
    done = run("import", many)
    assert done.stdout == f"{many} (SQLite, 2100 rows): 2100 new, 0 updated, 0 unchanged, 0 skipped.\n"
    assert ("Importing" in done.stderr) == terminal
    assert len(users(run)) == 2100


def test_an_interrupted_import_can_be_repeated(run, many, monkeypatch):
    """An interrupted import keeps the imported rows. A second run imports the rest."""
    outcomes = iter([None, None, KeyboardInterrupt])

    class Interrupted:
        def __init__(self, opened):
            self.opened = opened

        def import_rows(self, *arguments):
            if next(outcomes) is not None:
                raise KeyboardInterrupt
            return self.opened.import_rows(*arguments)

    in_batches = _transfer._import_in_batches
    with monkeypatch.context() as patched:
        patched.setattr(_transfer, "_import_in_batches", lambda opened, source: in_batches(Interrupted(opened), source))
        stopped = run("import", many, status=1)  # a process has 130: see test_process.py
    assert "Imported rows are kept. Run it again to import the rest." in stopped.stderr
    assert len(users(run)) == 1000
    assert ": 1100 new, 0 updated, 1000 unchanged, 0 skipped." in run("import", many).stdout


def test_backup_and_restore(run, database, tmp_path):
    """`restore` shows both numbers of rows, asks for confirmation, and replaces all rows by those of the backup."""
    copy = tmp_path / "backup.db"
    assert run("backup", copy).stdout == f"Backed up {database} to {copy}.\n"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = rows(database)
    with CustomStoreSQLite(database) as store:
        store.save_token(login("late@example.com", 9))
        store.delete_token("1")
        store.save_token(login("later@example.com", 10))
    done = run("restore", copy, answer="y\n")
    assert done.stderr == f"Replace all 4 rows of {database} with 3 rows from {copy}? [y/N] \n"
    assert done.stdout == f"Restored 3 rows from {copy}. The database had 4 rows before.\n"
    assert rows(database) == before


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("answer", ["", "n\n"])
def test_nothing_is_restored_without_a_yes(run, tmp_path, answer):
    """Any answer but yes restores nothing."""
    run("backup", tmp_path / "backup.db")
    run("delete", "3", "--yes")
    refused = run("restore", tmp_path / "backup.db", answer=answer, status=1)
    assert ("--yes" in refused.stderr) == (answer == "")
    assert users(run) == ["ada@example.com", "bob@example.com"]


def test_restore_creates_a_missing_database(run, database, tmp_path):
    """`restore` creates a missing database without a confirmation: no row is lost."""
    copy = tmp_path / "backup.db"
    run("backup", copy)
    before = rows(database)
    database.unlink()
    assert run("restore", copy).stdout == f"Restored 3 rows from {copy}. The database had 0 rows before.\n"
    assert rows(database) == before


def test_restore_refuses_an_export(run, database, tmp_path):
    """`restore` accepts only a backup. For a file of `export` its hint is to use `import`."""
    exported = tmp_path / "tokens.jsonl"
    run("export", exported)
    before = rows(database)
    assert run("restore", exported, "--yes", status=1).stderr == (
        f"Error: {exported} is not a backup, so it cannot be restored. It was left untouched.\n"
        "Fix: Import it. An import keeps the rows that are already there.\n"
    )
    assert rows(database) == before


@pytest.mark.usefixtures("database")
def test_backup_replaces_no_other_file(run, tmp_path):
    """`backup` does not overwrite a file that is not a backup."""
    other = tmp_path / "precious.txt"
    other.write_text("precious\n", encoding="utf-8")
    assert str(other) in run("backup", other, status=1).stderr
    assert other.read_text(encoding="utf-8") == "precious\n"


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("command", ["backup", "export"])
def test_a_missing_folder_is_an_error(run, tmp_path, command):
    """The error for a missing folder names the folder."""
    assert "nowhere" in run(command, tmp_path / "nowhere" / "file", status=1).stderr
