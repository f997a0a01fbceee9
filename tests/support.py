"""What the tests share: tokens, and programs that run in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

DATA = Path(__file__).parent / "data"

FIELDS = (
    "id",
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expires_in",
    "redirect_url",
    "api_domain",
)

# In every secret of these tests. `make test` looks for it in all that a test run puts out.
PLANTED = "planted"


def token(user: str | None = None, **values: object) -> OAuthToken:
    """Make a token of the SDK's with these values, through its constructor and setters."""
    made = OAuthToken(id="x", user_signature=None if user is None else UserSignature(user))
    made.set_id(None)
    for field, value in values.items():
        getattr(made, f"set_{field}")(value)
    return made


def login(user: str | None = "ada@example.com", number: int = 1, **values: object) -> OAuthToken:
    """Make a token as it is after a login."""
    return token(
        user,
        **{
            "client_id": "1000.CLIENT",
            "client_secret": f"{PLANTED}-client-secret",
            "refresh_token": f"{PLANTED}-refresh-{number}",
            "access_token": f"{PLANTED}-access-{number}",
            "expires_in": str(1_795_300_000_000 + number),
            **values,
        },
    )


def values(made: OAuthToken) -> dict[str, object]:
    """Return the present values of a token."""
    signature = made.get_user_signature()
    found = {field: getattr(made, f"get_{field}")() for field in FIELDS}
    found["user"] = None if signature is None else signature.get_name()
    return {field: value for field, value in found.items() if value not in (None, "")}


def run_python(code: str, *arguments: object, timeout: float = 60, check: bool = True) -> str:
    """Run a program in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=Path(__file__).parent,
    )
    if check and done.returncode != 0:
        pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


# What these programs have imported: these helpers, the SDK and the package.
IMPORTS = """
import os, sys, threading, time
sys.path.insert(0, ".")
from support import login, token, values
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite
"""


def run_program(code: str, *arguments: object, timeout: float = 90) -> str:
    """Run a program that has these helpers, the SDK and the package imported, and return what it printed."""
    return run_python(IMPORTS + code, *arguments, timeout=timeout)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start such a program and wait for its first line, "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTS + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert process.stdout is not None
    if (line := process.stdout.readline()) != "ready\n":
        process.kill()
        process.communicate()
        pytest.fail(f"the program did not begin: {line!r}")
    return process


# What a program begins with to go on as a user that permissions apply to: they do not to root.
UNPRIVILEGED = """
if os.name == "posix" and os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
