"""Lower bounds ("floors") for the cost of an operation, measured in the same run.

A find needs at least a point `SELECT` in Rust (`floor.rs`) and ten getters and setters in Python. A durable save needs
at least one overwrite of 4 KiB and one `fdatasync`. (An append takes longer, because the file system also writes the
file's new size. SQLite overwrites the WAL of a file in use.)
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
PAGES = 256
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


class Overwrite:
    """An overwrite of 4 KiB in a file, and a sync."""

    name = "floor: overwrite and sync"

    def __init__(self, home: Path) -> None:
        """Write the file once, on the file system of the stores' files."""
        self.file = os.open(home / "overwritten", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(self.file, PAGE * PAGES)
        os.fsync(self.file)

    def prepare(self, _operation: Operation, rng: Random, count: int) -> Calls:
        """Return the position of a random page for each call."""

        def overwrite(position: Any) -> None:  # noqa: ANN401
            os.lseek(self.file, position, os.SEEK_SET)
            os.write(self.file, PAGE)
            sync(self.file)

        return overwrite, [rng.randrange(PAGES) * len(PAGE) for _ in range(count)]

    def clean_up(self, _operation: Operation, _arguments: list) -> None:
        """Do nothing: the file keeps its size."""

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)


def select(program: Path, file: Path, batches: int, calls: int) -> float:
    """Return the seconds of one point `SELECT` in Rust."""
    done = subprocess.run(
        [program, file, str(batches), str(calls)], capture_output=True, text=True, check=True, timeout=60
    )
    return statistics.median(float(line) for line in done.stdout.split()) * 1e-9
