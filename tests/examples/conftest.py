"""What runs the examples: each in a process of its own and in a folder of its own, against a stand-in for Zoho."""

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
STAGE = Path(__file__).parent / "stage"
WITHIN = 60  # seconds: the bound of every wait, far more than any needs
HOUR = 3600.0


@pytest.fixture
def zoho() -> Iterator[ZohoStandIn]:
    with ZohoStandIn() as standin:
        yield standin


@pytest.fixture
def ada(zoho: ZohoStandIn) -> object:
    return zoho.add_user("ada@example.com", "1001")


class Stage:
    """A user's folder, and what they have set in their environment."""

    def __init__(self, zoho: ZohoStandIn, folder: Path) -> None:
        self.zoho = zoho
        self.folder = folder
        self.database = folder / "zohooauth.db"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(STAGE),
            "STAND_IN": zoho.url,
            "ZOHO_CLIENT_ID": zoho.client_id,
            "ZOHO_CLIENT_SECRET": zoho.client_secret,
            "FLASK_SECRET_KEY": "planted-session-key",
            "PYTHONUNBUFFERED": "1",
            # Whatever proxy the environment names, it is not meant for this machine.
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *command: object, **environment: str) -> list[str]:
        """Run an example, or `-m` and a module, to its end; return the lines it printed."""
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout.splitlines()

    def serve(self, *command: object, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start a server; return its process and the URL that it says it listens at."""
        log = self.folder / f"server-{len(self._started)}.log"
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
        until = time.monotonic() + WITHIN
        while (said := re.search(r"https?://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server did not begin\n{log.read_text(encoding='utf-8')}")
            time.sleep(0.02)
        return process, said[0]

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop a server and all that it has started."""
        process.terminate()
        try:
            process.wait(WITHIN)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(WITHIN)

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                self.end(process)

    def let_an_hour_pass(self) -> None:
        """Turn the stand-in's clock and the stored expiries, the two places that time is kept in."""
        clock = self.zoho.clock
        self.zoho.clock = lambda: clock() + HOUR
        with CustomStoreSQLite(self.database) as store:
            for token in store.get_tokens():
                token.set_expires_in(str(int(token.get_expires_in()) - int(HOUR * 1000)))
                store.save_token(token)

    def rows(self) -> list[tuple[str, str]]:
        """Return each row's id and user."""
        with CustomStoreSQLite(self.database) as store:
            return [(token.get_id(), token.get_user_signature().get_name()) for token in store.get_tokens()]


@pytest.fixture
def stage(zoho: ZohoStandIn, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(zoho, tmp_path)
    yield made
    made.close()
