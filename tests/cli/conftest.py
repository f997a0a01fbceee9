"""A database with some rows, and a way to run commands on it."""

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

MINUTE = 60_000
US = "https://www.zohoapis.com"
EU = "https://www.zohoapis.eu"


def in_minutes(minutes: float) -> str:
    """Return an expiry, in the middle of a minute: it is still in that minute when a test looks."""
    return str(int(time.time() * 1000 + (minutes + 0.5) * MINUTE))


@pytest.fixture
def database(path: Path) -> Path:
    """A database: Ada and Bob can go on, Eve's access token has expired and she has no other."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("ada@example.com", 1, expires_in=in_minutes(43), api_domain=US))
        store.save_token(login("bob@example.com", 2, expires_in=in_minutes(-200), api_domain=EU))
        store.save_token(token("eve@example.com", access_token="planted-access-3", expires_in=in_minutes(-200)))
    return path


@pytest.fixture
def run(path: Path) -> Callable[..., Result]:
    """Run a command on the database, in this process."""

    def run_command(*arguments: object, answer: str = "", status: int = 0) -> Result:
        result = CliRunner().invoke(
            cli, ["--db", str(path), *map(str, arguments)], prog_name="zoho-token-store", input=answer
        )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, (result.stdout, result.stderr)
        return result

    return run_command
