"""Run the examples: each in a process and a folder of its own, with a stand-in for Zoho."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from zoho_token_store import CustomStoreSQLite
from zoho_token_store.testing import ZohoStandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
SITE = Path(__file__).parent / "site"  # its sitecustomize.py replaces Zoho's data centre by the stand-in
TIMEOUT_SECONDS = 60  # for every wait; a test that passes needs much less
HOUR_SECONDS = 3600.0


@pytest.fixture
def zoho() -> Iterator[ZohoStandIn]:
    with ZohoStandIn() as standin:
        yield standin


@pytest.fixture
def ada(zoho: ZohoStandIn) -> object:
    return zoho.add_user("ada@example.com", "1001")


class Workspace:
    """A user's folder and environment variables."""

    def __init__(self, zoho: ZohoStandIn, folder: Path) -> None:
        self.zoho = zoho
        self.folder = folder
        self.database = folder / "zohooauth.db"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(SITE),
            "STAND_IN": zoho.url,
            "ZOHO_CLIENT_ID": zoho.client_id,
            "ZOHO_CLIENT_SECRET": zoho.client_secret,
            "FLASK_SECRET_KEY": "planted-session-key",
            "PYTHONUNBUFFERED": "1",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *command: object, **environment: str) -> list[str]:
        """Run an example, or `-m` and a module, to its end. Return the lines that it printed."""
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout.splitlines()

    def start(self, *command: object, **environment: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a program. Return its process and the file that has what it prints."""
        log = self.folder / f"program-{len(self._started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
        return process, log

    def wait_for(self, process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
        """Wait until a program has printed something. Return it."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (found := re.search(pattern, log.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the program did not print {pattern}\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.02)
        return found[0]

    def serve(self, *command: object, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start a server. Return its process and the URL that it prints."""
        process, log = self.start(*command, **environment)
        return process, self.wait_for(process, log, r"https?://127\.0\.0\.1:\d+")

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a server and the processes that it started."""
        process.terminate()
        try:
            process.wait(TIMEOUT_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(TIMEOUT_SECONDS)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                self.stop(process)

    def let_an_hour_pass(self) -> None:
        """Move the stand-in's clock forward, and all stored expiries back by the same time."""
        clock = self.zoho.clock
        self.zoho.clock = lambda: clock() + HOUR_SECONDS
        with CustomStoreSQLite(self.database) as store:
            for token in store.get_tokens():
                token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR_SECONDS * 1000)))
                store.save_token(token)

    def rows(self) -> list[tuple[str, str]]:
        """Return the id and user name of each row."""
        with CustomStoreSQLite(self.database) as store:
            return [(token.get_id(), token.get_user_signature().get_name()) for token in store.get_tokens()]


@pytest.fixture
def workspace(zoho: ZohoStandIn, tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(zoho, tmp_path)
    yield workspace
    workspace.close()
