"""Run the command line in processes of its own: with pipes, or on a terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

HERE = Path(__file__).parent
SCRIPT = [str(Path(sys.executable).parent / "zoho-token-store")]
MODULE = [sys.executable, "-m", "zoho_token_store"]
TIMEOUT_SECONDS = 60


def without_modules(*modules: str) -> list[str]:
    """Return the command line for an environment in which these modules are not installed."""
    return [sys.executable, str(HERE / "without_modules.py"), ",".join(modules)]


def environment(**variables: str | None) -> dict[str, str]:
    """Return the environment with these variables, and without others that would change the output."""
    removed = {"NO_COLOR", "TERM", "COLUMNS", "LINES", "ZOHO_TOKEN_STORE_DB", "PYTHONIOENCODING", "LC_ALL", "LANG"}
    # Unbuffered Python handles a broken pipe differently.
    removed |= {"PYTHONUNBUFFERED", "PYTHONUTF8"}
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    given = {"TERM": "xterm", **variables}
    return kept | {name: value for name, value in given.items() if value is not None}


def run_process(command: list[str], *, answer: str = "", **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command with pipes as its standard streams, and wait for its end."""
    return subprocess.run(
        command,
        input=answer,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        env=environment(**variables),
        encoding="utf-8",
    )


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, command: list[str], *, columns: int = 80, **variables: str | None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, HERE / "take_terminal.py", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**variables),
        )
        os.close(slave)
        self.output = ""
        self._deadline = time.monotonic() + TIMEOUT_SECONDS

    def read_until(self, text: str | None) -> str:
        """Wait for a text on the screen, or for the end of the command. Return the whole output."""
        while text is None or text not in self.output:
            ready, _, _ = select.select([self._master], [], [], max(self._deadline - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"timeout: {text!r} is not in the output: {self.output!r}")
            try:
                data = os.read(self._master, 4096)
            except OSError as error:
                if error.errno != errno.EIO:  # Linux reports EIO when the command has closed the terminal
                    raise
                data = b""
            if not data:
                if text is not None:
                    raise AssertionError(f"the command has ended, and {text!r} is not in the output: {self.output!r}")
                break
            self.output += data.decode()
        return self.output

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)
        os.close(self._master)

    def wait(self) -> tuple[int, str]:
        """Wait for the end of the command. Return its exit status and the whole output."""
        self.read_until(None)
        return self._process.wait(TIMEOUT_SECONDS), self.output.replace("\r\n", "\n")
