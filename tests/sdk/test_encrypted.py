"""The real SDK with an encrypted store whose keys are rotated while the program runs."""

import pytest
from sdk.program import Program
from sdk.test_flows import credentials, kinds, let_tokens_expire, login, refreshed_once
from zoho_token_store import CustomStoreSQLite, key_id, new_key

OLD, NEW = new_key(), new_key()
SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")


class Folder:
    """A file with its keys. `secrets` looks into all files for the secrets of the rows."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "tokens.db"
        self.keys = folder.with_name("keys")
        self.seen = set()
        self.write_keys(OLD)

    def write_keys(self, *keys):
        self.keys.touch(0o600)
        self.keys.write_text("\n".join(keys), encoding="utf-8")

    def secrets(self, rows):
        """Return the secrets of these rows, and of those before, that are in a file."""
        self.seen |= {row[name] for row in rows for name in SECRETS if row.get(name)}
        assert self.seen
        texts = [file.read_bytes() for file in self.folder.iterdir()]
        assert texts
        return {secret for secret in self.seen if any(secret.encode() in text for text in texts)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "database").mkdir()
    return Folder(tmp_path / "database")


@pytest.fixture
def program(folder, zoho, tmp_path):
    place = {"path": str(folder.path), "key_file": str(folder.keys)}
    program = Program("CustomStoreSQLite", place, zoho.environment(), str(tmp_path), new_process=True)
    yield program
    program.close()
    assert program.logged == []


def test_no_file_has_a_secret_after_login_restart_and_refresh(program, folder, zoho, ada):
    """The SDK logs in, starts again and refreshes as with a plain store, and no file ever has a secret."""
    zoho.expires_in = 1
    first = program.initialize(**login(zoho, ada))
    assert folder.secrets(program.rows()) == set()
    let_tokens_expire(zoho)
    zoho.clear_calls()
    program.restart()
    program.initialize(**credentials(zoho, refresh_token=first["refresh_token"]))
    assert kinds(zoho) == ["refresh"]
    [row] = program.rows()
    assert row["access_token"] != first["access_token"]
    assert folder.secrets([row]) == set()
    assert program.organisation() == ada.org_id


def test_a_running_program_picks_up_a_rotated_key(program, folder, zoho, ada):
    """Its file of keys is read again when a row needs a new key. So a rotation needs no restart (rule 16)."""
    zoho.expires_in = 1
    program.initialize(**login(zoho, ada))
    folder.write_keys(OLD, NEW)
    with CustomStoreSQLite(folder.path, keys=[NEW, OLD]) as store:
        store.rekey()
    let_tokens_expire(zoho)
    row = refreshed_once(program, zoho, ada)
    assert folder.secrets([row]) == set()
    # Its first key is still the old one, so the refresh has written under that one.
    with CustomStoreSQLite(folder.path, keys=[NEW, OLD]) as store:
        assert store.key_usage() == {key_id(OLD): 1}
        store.rekey()
        assert store.key_usage() == {key_id(NEW): 1}
    folder.write_keys(NEW)
    zoho.clear_calls()
    program.restart()
    program.initialize(**credentials(zoho, refresh_token=row["refresh_token"]))
    assert kinds(zoho) == []
    assert program.organisation() == ada.org_id
