"""A refreshed pair cannot be saved, because the file is read-only: one refresh, with each of the SDKs 5 to 8.

The rules are in `docs/lease.md` (16). `tests/faults/test_unsaved.py` has the other faults.
"""

import sys
import time

import pytest
from sdk.program import Program, Raised, installed_sdk
from support import token
from zoho_token_store import CustomStoreSQLite

SDK = installed_sdk()
KEPT = "kept in this process until it can be saved"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permission bits")


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder / "tokens.db"


@pytest.fixture
def start(zoho, tmp_path):
    """A function that starts a program without root's privileges, and lets it use the file."""
    programs = []

    def start_one(path):
        arguments = ("CustomStoreSQLite", {"path": str(tmp_path / "other.db")}, zoho.environment(), str(tmp_path))
        program = Program(*arguments, new_process=True)
        programs.append(program)
        program.lose_privileges()
        program.use_second_store(path=str(path))
        return program

    yield start_one
    for program in programs:
        program.close()


@pytest.fixture
def ada_expired(zoho, ada, path):
    """What ada's programs start with. Her row has an access token that has expired, and the file is read-only."""
    credentials = {
        "client_id": zoho.client_id,
        "client_secret": zoho.client_secret,
        "refresh_token": zoho.refresh_token(ada),
    }
    with CustomStoreSQLite(path) as store:
        store.save_token(token(ada.name, **credentials, access_token="planted-expired", expires_in="1"))
    path.chmod(0o444)
    return {**credentials, "user": ada.name}


def stored(path):
    with CustomStoreSQLite(path) as store:
        return [row.get_access_token() for row in store.get_tokens()]


def token_calls(zoho):
    return [call.kind for call in zoho.calls].count("refresh")


def get_first_token(program, fields):
    """Initialize the SDK and make a call. Return what it has raised, or logged instead."""
    if SDK > 5:
        program.initialize(**fields)
        program.organisation()
        [logged] = program.errors_so_far()
        return logged
    # SDK 5 does not swallow an error of `save_token`. The next request is served.
    with pytest.raises(Raised) as raised:
        program.initialize(**fields)
    program.initialize(**fields)
    return raised.value.message


def test_one_refresh_while_the_file_is_read_only(zoho, ada, path, start, ada_expired):
    """The token call that could not be saved serves all requests. Once the file can be written, the pair is saved."""
    program = start(path)
    assert KEPT in get_first_token(program, ada_expired)
    assert token_calls(zoho) == 1
    for _ in range(20):
        assert program.organisation() == ada.org_id
    assert token_calls(zoho) == 1
    assert stored(path) == ["planted-expired"]
    path.chmod(0o600)
    deadline = time.monotonic() + 5
    while stored(path) == ["planted-expired"] and time.monotonic() < deadline:
        assert program.organisation() == ada.org_id
    # Another program uses it.
    other = start(path)
    other.initialize(**ada_expired)
    assert other.organisation() == program.organisation() == ada.org_id
    assert token_calls(zoho) == 1
    assert other.errors_so_far() == []


def test_a_refused_token_that_could_not_be_saved_is_refreshed(zoho, ada, path, start, ada_expired):
    """`refused` discards the pair, although the file cannot be written, and returns true."""
    program = start(path)
    get_first_token(program, ada_expired)
    assert program.refuse_current() is True
    if SDK == 5:
        with pytest.raises(Raised, match=KEPT):
            program.organisation()
    assert program.organisation() == ada.org_id
    assert token_calls(zoho) == 2
