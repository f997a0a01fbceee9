"""Fixtures for the tests of the command line: a database with three rows, and a function that runs a command on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from support import login, token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli._run import cli

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

MINUTE_MS = 60_000
US = "https://www.zohoapis.com"
EU = "https://www.zohoapis.eu"


def in_minutes(minutes: float) -> str:
    """Return an expiry as it is stored. The half minute keeps the rounded-down distance stable while a test runs."""
    return str(int(time.time() * 1000 + (minutes + 0.5) * MINUTE_MS))


@pytest.fixture
def database(path: Path) -> Path:
    """A database with three rows. Eve's is unusable: no refresh token, and the access token has expired."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com", 1, expires_in=in_minutes(43), api_domain=US))
        store.save_token(login("bob@example.com", 2, expires_in=in_minutes(-200), api_domain=EU))
        store.save_token(token("eve@example.com", access_token="planted-access-3", expires_in=in_minutes(-200)))
    return path


@pytest.fixture
def run(path: Path) -> Callable[..., Result]:
    """A function that runs a command on the database in this process and checks its exit status."""

    def run_command(*arguments: object, answer: str = "", status: int | None = 0) -> Result:
        result = CliRunner().invoke(
            cli, ["--db", str(path), *map(str, arguments)], prog_name="zoho-token-store", input=answer
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert status in (None, result.exit_code), (result.stdout, result.stderr)
        return result

    return run_command
