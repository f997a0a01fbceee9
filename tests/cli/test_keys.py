"""The commands for encryption keys, and the other commands on an encrypted database."""

from __future__ import annotations

import json
import stat

import pytest
from cli.processes import MODULE, Terminal
from support import PLANTED, login, run_python
from zoho_token_store import PLAINTEXT, CustomStorePostgreSQL, CustomStoreSQLite, key_id, new_key

# Gives the row of one user to another one.
MOVE_ROW = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE oauthtoken SET user_name = 'bob@example.com' WHERE id = '1'")
connection.commit()
"""
OLD, NEW = new_key(), new_key()


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("ZOHO_TOKEN_STORE_KEYS", "ZOHO_TOKEN_STORE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def use_keys(monkeypatch):
    """A function that sets the keys of the commands that follow."""
    return lambda *keys: monkeypatch.setenv("ZOHO_TOKEN_STORE_KEYS", " ".join(map(str, keys)))


@pytest.fixture
def sealed(database):
    """The database with three rows, encrypted under the key OLD."""
    with CustomStoreSQLite(database, keys=[OLD, PLAINTEXT]) as store:
        store.rekey()
    return database


def codes(result):
    return {finding["code"]: finding["severity"] for finding in json.loads(result.stdout)}


def test_key_new_writes_a_private_file_and_replaces_none(run, tmp_path):
    """`key new --out` writes one key into a new file with mode 0600. The output has its id, and not the key."""
    file = tmp_path / "tokens.key"
    printed = run("key", "new", "--out", file)
    written = file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert written == f"{written.strip()}\n"
    assert key_id(written) in printed.stdout
    assert written.strip() not in printed.stdout + printed.stderr
    exists = run("key", "new", "--out", file, status=1).stderr
    assert "exists already" in exists
    assert "A file is never replaced" in exists
    assert file.read_text(encoding="utf-8") == written
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.key"]
    other = json.loads(run("key", "new", "--out", tmp_path / "other.key", "--json").stdout)
    assert other == {
        "id": key_id((tmp_path / "other.key").read_text(encoding="utf-8")),
        "file": f"{tmp_path}/other.key",
    }


def test_key_new_prints_into_a_pipe(run):
    """Without `--out` the key is printed. It never goes to stderr."""
    printed = run("key", "new")
    assert len(key_id(printed.stdout)) == 22
    assert printed.stderr == ""
    both = json.loads(run("key", "new", "--json").stdout)
    assert key_id(both["key"]) == both["id"]
    assert run("key", "new", "--out", "x", "--show", status=2).stdout == ""
    assert run("key", "new", "--out", "-", status=2).stdout == ""


def test_a_terminal_shows_a_new_key_only_if_it_is_asked_for():
    """A key on a terminal stays in its scroll-back."""
    with Terminal([*MODULE, "key", "new"]) as terminal:
        output = terminal.read_until(None)
    assert "No key was made" in output
    assert "ztsk1_" not in output
    with Terminal([*MODULE, "key", "new", "--show"]) as terminal:
        assert len(key_id(terminal.read_until(None).strip())) == 22


def test_key_id_shows_no_key(run, tmp_path, use_keys):
    """`key id` prints the ids of a file, of standard input, or of the keys that commands use, in their order."""
    file = tmp_path / "tokens.key"
    file.write_text(f"{NEW}\n{OLD}\nPLAINTEXT\n", encoding="utf-8")
    file.chmod(0o600)
    expected = f"{key_id(NEW)}\n{key_id(OLD)}\nplaintext\n"
    assert run("key", "id", file).stdout == expected
    assert run("key", "id", "-", answer=f"{NEW} {OLD} PLAINTEXT").stdout == expected
    assert "No keys were given" in run("key", "id", status=1).stderr
    use_keys(OLD)
    assert json.loads(run("key", "id", "--json").stdout) == {"ids": [key_id(OLD)]}
    refused = run("key", "id", "-", answer=OLD[:-1], status=1)
    assert OLD[:-1] not in refused.stderr
    file.chmod(0o644)
    for unusable, why in ((file, "chmod 600"), (tmp_path / "missing", "does not exist")):
        refused = run("key", "id", unusable, status=1)
        assert why in refused.stderr
        assert "variable" not in refused.stderr


def test_a_key_is_not_repeated_where_a_path_belongs(run, monkeypatch, tmp_path):
    """It is neither in a message nor the name of a new file."""
    monkeypatch.chdir(tmp_path)
    results = [run("key", "id", OLD, status=1), run("key", "new", "--out", OLD, status=1)]
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEY_FILE", OLD)
    results += [run("key", "id", status=1), run("check", status=3)]
    for result in results:
        assert "and not a key" in result.stderr
        assert OLD not in result.stderr + result.stdout
    assert not list(tmp_path.glob("ztsk1*"))


def test_both_variables_or_an_empty_one_are_an_error(run, database, monkeypatch, tmp_path):
    """A command never guesses which keys are meant, and never works without keys because a variable is empty."""
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEYS", OLD)
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEY_FILE", str(tmp_path / "tokens.key"))
    for command in (["list"], ["check"], ["rekey"], ["import", database]):
        result = run(*command, status=3 if command == ["check"] else 1)
        assert "are both set" in result.stderr
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEYS", "")
    monkeypatch.delenv("ZOHO_TOKEN_STORE_KEY_FILE")
    assert "there is no key" in run("list", status=1).stderr
    monkeypatch.delenv("ZOHO_TOKEN_STORE_KEYS")
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEY_FILE", "")
    assert "is empty" in run("list", status=1).stderr
    monkeypatch.setenv("ZOHO_TOKEN_STORE_KEY_FILE", str(tmp_path / "missing"))
    missing = run("list", status=1).stderr
    assert "does not exist" in missing
    assert "Check what the variable names" in missing


@pytest.mark.usefixtures("sealed")
def test_commands_read_an_encrypted_database_with_its_keys(run, use_keys):
    """With the keys, all commands work as before. Without them, an error names the key and the variables."""
    missing = run("show", "1", "--reveal", "--yes", status=1).stderr
    assert key_id(OLD) in missing
    assert "ZOHO_TOKEN_STORE_KEY_FILE or ZOHO_TOKEN_STORE_KEYS" in missing
    assert PLANTED not in missing
    use_keys(OLD)
    assert [row["id"] for row in json.loads(run("list", "--json").stdout)] == ["1", "2", "3"]
    assert "planted-refresh-1" in run("show", "1", "--reveal", "--yes").stdout
    assert "ada@example.com" in run("status").stdout
    assert json.loads(run("delete", "1", "--yes", "--json").stdout)["deleted"] == ["1"]


def test_rows_that_cannot_be_read_are_listed_with_the_reason(run, sealed, use_keys):
    """`list`, `status` and `show` name the problem of such a row, and show what is in clear text of every row."""
    run_python(MOVE_ROW, sealed)
    unknown = ["unknown-key"] * 3
    for key, problems in ((None, unknown), (NEW, unknown), (OLD, ["altered", None, None])):
        if key is not None:
            use_keys(key)
        listed = run("list", "--json")
        count = f"{len(problems) - problems.count(None)} row"
        assert listed.stderr.startswith(count)
        assert "cannot be read. To see why, run" in listed.stderr
        assert [row["unreadable"] for row in json.loads(listed.stdout)] == problems
        assert [row["unreadable"] for row in json.loads(run("status", "--json").stdout)["rows"]] == problems
        for table in (run("list").stdout, run("status").stdout):
            head, first, *others = table.splitlines()
            assert head.endswith("PROBLEM")
            assert first.endswith(problems[0])
            assert others[0].endswith(problems[1] or "\N{EN DASH}")
            assert "bob@example.com" in first
        shown = run("show", "1")
        assert f"Problem        {problems[0]}" in shown.stdout
        assert shown.stderr.startswith("1 row cannot be read.")
    assert "PROBLEM" not in run("list", "--user", "nemo@example.com").stdout


@pytest.mark.usefixtures("sealed")
def test_check_needs_no_keys_as_far_as_possible(run, use_keys):
    """Without keys it says which are missing. With them it checks the rows, and finds old keys and clear text."""
    # One row has expired, and has no refresh token: that can be seen without keys.
    assert codes(run("check", "--json", status=2)) == {"unknown-key": "error", "unusable": "warning"}
    assert "(ZOHO_TOKEN_STORE_KEY_FILE or ZOHO_TOKEN_STORE_KEYS)" in run("check", status=2).stdout
    use_keys(OLD)
    assert codes(run("check", "--json", status=1)) == {"unusable": "warning"}
    use_keys(NEW, OLD)
    assert codes(run("check", "--json", status=1)) == {"unusable": "warning", "old-key": "warning"}
    use_keys(NEW)
    assert codes(run("check", "--json", status=2)) == {"unknown-key": "error", "unusable": "warning"}


def test_check_finds_clear_text_and_altered_rows(run, database, use_keys):
    """Rows in clear text are a warning if they can be read, and an error if not. An altered row is an error."""
    use_keys(OLD, "PLAINTEXT")
    assert codes(run("check", "--json", status=1))["plaintext"] == "warning"
    use_keys(OLD)
    assert codes(run("check", "--json", status=2))["plaintext"] == "error"
    use_keys(OLD, "PLAINTEXT")
    run("rekey")
    run_python(MOVE_ROW, database)
    assert codes(run("check", "--json", status=2))["altered"] == "error"


def test_rekey_encrypts_rotates_and_decrypts(run, database, use_keys):
    """`rekey` writes all rows under the first key. `--dry-run` says how many, and changes nothing."""
    assert "No keys were given" in run("rekey", status=1).stderr
    before = database.read_bytes()
    use_keys(OLD, "PLAINTEXT")
    report = {"rewritten": 3, "left": 0, "key": key_id(OLD)}
    assert json.loads(run("rekey", "--dry-run", "--json").stdout) == {**report, "dry_run": True}
    assert database.read_bytes() == before
    assert run("rekey").stdout == f"Encrypted 3 rows under the key {key_id(OLD)}.\n"
    assert PLANTED.encode() not in database.read_bytes()
    use_keys(NEW, OLD)
    assert json.loads(run("rekey", "--json").stdout) == {
        "rewritten": 3,
        "left": 0,
        "key": key_id(NEW),
        "dry_run": False,
    }
    use_keys("PLAINTEXT", NEW)
    assert run("rekey", "--dry-run").stdout == "Would decrypt 3 rows.\n"
    assert run("rekey").stdout == "Decrypted 3 rows.\n"
    use_keys(NEW)
    assert PLANTED.encode() in database.read_bytes()


@pytest.mark.usefixtures("sealed")
def test_rekey_reports_rows_that_are_left(run, use_keys):
    """Rows that no key opens are counted, and the exit status is 1."""
    use_keys(NEW)
    for arguments in (["rekey", "--dry-run"], ["rekey"]):
        result = run(*arguments, status=1)
        assert "0 rows under the key" in result.stdout
        assert "3 rows are left" in result.stderr


def test_rekey_leaves_altered_rows(run, sealed, use_keys):
    """An altered row cannot be sealed again. `--dry-run` says the same as the command."""
    run_python(MOVE_ROW, sealed)
    use_keys(NEW, OLD)
    for arguments in (["rekey", "--dry-run"], ["rekey"]):
        result = run(*arguments, status=1)
        assert "2 rows under the key" in result.stdout
        assert "1 row is left" in result.stderr


def test_forget_key_deletes_exactly_the_rows_under_it(run, sealed, use_keys):
    """It counts, asks, and deletes the rows of one lost key. It needs no key, and never repeats what is no id."""
    with CustomStoreSQLite(sealed, keys=[NEW, OLD]) as store:
        store.save_token(login("zoe@example.com", 9))
    lost = key_id(OLD)
    asked = run("forget-key", lost, answer="no\n", status=1)
    assert "Delete the 3 rows under the key" in asked.stderr
    assert "Pass --yes" in run("forget-key", lost, status=1).stderr
    assert run("forget-key", lost, "--yes").stdout == f"Deleted 3 rows under the key {lost}.\n"
    use_keys(NEW)
    assert [row["user_name"] for row in json.loads(run("list", "--json").stdout)] == ["zoe@example.com"]
    assert json.loads(run("forget-key", lost, "--yes", "--json").stdout) == {"deleted": 0}
    for wrong in (OLD, "plaintext", lost[:-1]):
        refused = run("forget-key", wrong, "--yes", status=1)
        assert wrong not in refused.stderr
    assert len(json.loads(run("list", "--json").stdout)) == 1


def test_forget_key_makes_a_miss_certain_again(run, sealed):
    """A database without rows under a lost key still records it. Then a user cannot log in before it is forgotten."""
    with CustomStoreSQLite(sealed, keys=OLD) as store:
        store.delete_tokens()
    run("forget-key", key_id(OLD), "--yes")
    with CustomStoreSQLite(sealed, keys=NEW) as store:
        store.save_token(login(None))


@pytest.mark.usefixtures("sealed")
def test_an_export_says_first_that_it_is_in_clear_text(run, use_keys, tmp_path, capfd):
    """An export has the secrets. The note comes before the file, and is not part of the output."""
    use_keys(OLD)
    for target in (tmp_path / "tokens.jsonl", "-"):
        result = run("export", target)
        assert result.stderr.startswith("An export is in clear text")
    # No report of the tests has a secret.
    assert PLANTED in capfd.readouterr().out
    assert "planted-refresh-1" in (tmp_path / "tokens.jsonl").read_text(encoding="utf-8")
    use_keys(NEW, OLD)
    run("--db", tmp_path / "new.db", "import", tmp_path / "tokens.jsonl")
    assert PLANTED.encode() not in (tmp_path / "new.db").read_bytes()
    with CustomStoreSQLite(tmp_path / "new.db", keys=NEW) as store:
        assert len(store) == 3


def test_a_backup_needs_no_keys_and_a_restore_seals_again(run, sealed, use_keys, tmp_path):
    """A backup is as encrypted as the database. A restore opens it with the keys, and writes under the first one."""
    run("backup", tmp_path / "backup.db")
    assert PLANTED.encode() not in (tmp_path / "backup.db").read_bytes()
    for arguments in (["--dry-run"], ["--yes"]):
        refused = run("restore", tmp_path / "backup.db", *arguments, status=1)
        assert f"needs the key {key_id(OLD)}" in refused.stderr
        assert "ZOHO_TOKEN_STORE_KEY_FILE or ZOHO_TOKEN_STORE_KEYS" in refused.stderr
        assert "forget-key" not in refused.stderr  # the rows are in the backup
    use_keys(NEW, OLD)
    run("restore", tmp_path / "backup.db", "--yes")
    with CustomStoreSQLite(sealed, keys=NEW) as store:
        assert store.key_usage() == {key_id(NEW): 3}


@pytest.mark.parametrize(
    "keys",
    [None, OLD, NEW, f"{NEW} {OLD}", f"{NEW} PLAINTEXT"],
    ids=["no keys", "old", "new", "new old", "new plaintext"],
)
@pytest.mark.parametrize("case", ["import plain", "import sealed", "restore plain", "restore sealed"])
def test_a_dry_run_ends_as_the_command_does(run, database, use_keys, case, keys):
    """It works on a copy of the rows as they are stored, so it fails for the same reason, and counts the same rows."""
    command, kind = case.split()
    other = database.with_name("other.db")
    with CustomStoreSQLite(database) as store:
        store.backup(other)
    if kind == "sealed":
        with CustomStoreSQLite(database, keys=[OLD, PLAINTEXT]) as store:
            store.rekey()
    if keys is not None:
        use_keys(keys)
    before = database.read_bytes()
    tried = run(command, other, "--dry-run", "--json", status=None)
    assert database.read_bytes() == before
    done = run(command, other, "--json", *(["--yes"] if command == "restore" else []), status=None)
    assert (tried.exit_code, tried.stderr.replace("the store in memory", str(database))) == (
        done.exit_code,
        done.stderr,
    )
    assert tried.stdout.replace('"dry_run": true', '"dry_run": false') == done.stdout


def test_a_key_given_as_an_argument_is_not_repeated(run):
    """An argument too many is an error, whose message must not put a key into a log."""
    for arguments in (["rekey", OLD], ["key", "new", OLD], ["key", "id", "file", OLD], ["--db", "x", OLD]):
        refused = run(*arguments, status=None)
        assert refused.exit_code != 0
        assert OLD not in refused.output


@pytest.mark.usefixtures("sealed")
def test_forget_key_refuses_a_key_that_is_there(run, use_keys):
    """Rows under a key that the command has are not lost."""
    use_keys(NEW, OLD)
    refused = run("forget-key", key_id(OLD), "--yes", status=1)
    assert "You have this key" in refused.stderr
    assert len(json.loads(run("list", "--json").stdout)) == 3


def test_an_import_names_the_rows_that_it_cannot_read(run, sealed, use_keys, tmp_path):
    """Rows under a missing key are skipped, with a remark. With the key they are imported, and sealed again."""
    use_keys(NEW)
    skipped = run("--db", tmp_path / "new.db", "import", sealed)
    assert "0 new, 0 updated, 0 unchanged, 3 skipped" in skipped.stdout
    assert "key" in skipped.stderr
    use_keys(NEW, OLD)
    assert "3 new" in run("--db", tmp_path / "new.db", "import", sealed, "--dry-run").stdout
    assert "3 new" in run("--db", tmp_path / "new.db", "import", sealed).stdout
    assert "3 unchanged" in run("--db", tmp_path / "new.db", "import", sealed, "--dry-run").stdout
    with CustomStoreSQLite(tmp_path / "new.db", keys=NEW) as store:
        assert store.key_usage() == {key_id(NEW): 3}


def test_an_encrypted_server_is_imported_and_seals_again(run, use_keys, dsn, schema, tmp_path):
    """The rows of a server's database are read as they are stored, and opened with the keys of the command."""
    address = f"{dsn}&schema={schema}"
    with CustomStorePostgreSQL(dsn, schema=schema, keys=OLD) as store:
        store.save_token(login())
    assert "1 skipped" in run("--db", tmp_path / "new.db", "import", address).stdout
    use_keys(NEW, OLD)
    assert "1 new" in run("--db", tmp_path / "new.db", "import", address).stdout
    with CustomStoreSQLite(tmp_path / "new.db", keys=NEW) as store:
        assert store.key_usage() == {key_id(NEW): 1}
