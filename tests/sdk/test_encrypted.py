"""The real SDK with an encrypted store whose keys are rotated while the program runs."""

import pytest
from sdk.program import Program
from sdk.test_flows import credentials, kinds, let_tokens_expire, login, refreshed_once
from sealed_places import File, Tables
from zoho_token_store import key_id, new_key

OLD, NEW = new_key(), new_key()
SECRETS = ("client_secret", "refresh_token", "access_token", "grant_token")


class Keys:
    """A place of tokens, and a file with its keys. `secrets` searches all that is stored for secrets of the rows."""

    def __init__(self, place, path):
        self.place = place
        self.path = path
        self.seen = set()
        self.write(OLD)

    def write(self, *keys):
        self.path.touch(0o600)
        self.path.write_text("\n".join(keys), encoding="utf-8")

    def secrets(self, rows):
        """Return the secrets of these rows, and of those before, that are stored in clear text."""
        self.seen |= {row[name] for row in rows for name in SECRETS if row.get(name)}
        assert self.seen
        texts = list(self.place.contents())
        assert texts
        return {secret for secret in self.seen if any(secret.encode() in text for text in texts)}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    folder = tmp_path / "database"
    folder.mkdir()
    if request.param == "sqlite":
        return File(folder)
    return Tables(folder, request.getfixturevalue("dsn"), request.getfixturevalue("schema"))


@pytest.fixture
def keys(place, tmp_path):
    return Keys(place, tmp_path / "keys")


@pytest.fixture
def program(place, keys, zoho, tmp_path):
    arguments = {**place.arguments, "key_file": str(keys.path)}
    program = Program(place.kind, arguments, zoho.environment(), str(tmp_path), new_process=True)
    yield program
    program.close()
    assert program.logged == []


def test_no_secret_is_stored_after_login_restart_and_refresh(program, keys, zoho, ada):
    """The SDK logs in, starts again and refreshes as with a plain store, and no secret is ever stored."""
    zoho.expires_in = 1
    first = program.initialize(**login(zoho, ada))
    assert keys.secrets(program.rows()) == set()
    let_tokens_expire(zoho)
    zoho.clear_calls()
    program.restart()
    program.initialize(**credentials(zoho, refresh_token=first["refresh_token"]))
    assert kinds(zoho) == ["refresh"]
    [row] = program.rows()
    assert row["access_token"] != first["access_token"]
    assert keys.secrets([row]) == set()
    assert program.organisation() == ada.org_id


def test_a_running_program_picks_up_a_rotated_key(program, place, keys, zoho, ada):
    """Its file of keys is read again when a row needs a new key. So a rotation needs no restart (rule 16)."""
    zoho.expires_in = 1
    program.initialize(**login(zoho, ada))
    keys.write(OLD, NEW)
    with place.store([NEW, OLD]) as store:
        store.rekey()
    let_tokens_expire(zoho)
    row = refreshed_once(program, zoho, ada)
    assert keys.secrets([row]) == set()
    # Its first key is still the old one, so the refresh has written under that one.
    with place.store([NEW, OLD]) as store:
        assert store.key_usage() == {key_id(OLD): 1}
        store.rekey()
        assert store.key_usage() == {key_id(NEW): 1}
    keys.write(NEW)
    zoho.clear_calls()
    program.restart()
    program.initialize(**credentials(zoho, refresh_token=row["refresh_token"]))
    assert kinds(zoho) == []
    assert program.organisation() == ada.org_id
