"""Lower bounds ("floors") for the cost of an operation, measured in the same run.

A find needs at least a point `SELECT` in Rust (`floor.rs`) and ten getters and setters in Python. A durable save needs
at least one append of 4 KiB and one `fdatasync`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from typing import TYPE_CHECKING, Any

import tokens
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from operations import Calls, Operation
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

PAGE = bytes(4096)
NAME, CLIENT, SECRET, REFRESH, ACCESS, GRANT, EXPIRY, REDIRECT, DOMAIN = tokens.row(0)
sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def fill(token: OAuthToken) -> None:
    """Read and write ten fields of a token."""
    token.get_id()
    token.get_user_signature()
    token.get_client_id()
    token.get_client_secret()
    token.get_refresh_token()
    token.get_access_token()
    token.get_grant_token()
    token.get_expires_in()
    token.get_redirect_url()
    token.get_api_domain()
    token.set_id("1")
    token.set_user_signature(UserSignature(NAME))
    token.set_client_id(CLIENT)
    token.set_client_secret(SECRET)
    token.set_refresh_token(REFRESH)
    token.set_access_token(ACCESS)
    token.set_grant_token(GRANT)
    token.set_expires_in(EXPIRY)
    token.set_redirect_url(REDIRECT)
    token.set_api_domain(DOMAIN)


class Fill:
    """Ten getters and setters in Python."""

    name = "floor: ten getters and setters"

    def prepare(self, _operation: Operation, rng: Random, count: int) -> Calls:
        """Prepare a token for each call."""
        return fill, [tokens.with_refresh_token(rng.randrange(100)) for _ in range(count)]

    def clean_up(self, _operation: Operation, _arguments: list) -> None:
        """Do nothing."""


class Append:
    """An append of 4 KiB to a file, and a sync."""

    name = "floor: append and sync"

    def __init__(self, home: Path) -> None:
        """Create the file on the file system of the stores' files."""
        self.file = os.open(home / "appended", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def prepare(self, _operation: Operation, _chance: Random, count: int) -> Calls:
        """Return the same page for each call."""

        def append(page: Any) -> None:  # noqa: ANN401
            os.write(self.file, page)
            sync(self.file)

        return append, [PAGE] * count

    def clean_up(self, _operation: Operation, _arguments: list) -> None:
        """Do nothing: the file grows."""

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


def select(program: Path, file: Path, batches: int, calls: int) -> float:
    """Return the seconds of one point `SELECT` in Rust."""
    done = subprocess.run(
        [program, file, str(batches), str(calls)], capture_output=True, text=True, check=True, timeout=60
    )
    return statistics.median(float(line) for line in done.stdout.split()) * 1e-9
