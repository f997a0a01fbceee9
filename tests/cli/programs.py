"""The command line in processes of its own: in pipes, and in a terminal."""

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

SCRIPT = [str(Path(sys.executable).parent / "zoho-token-store")]
MODULE = [sys.executable, "-m", "zoho_token_store"]

# What stands at the beginning of a program in which these modules are not installed.
WITHOUT = """
import sys
blocked = sys.argv.pop(1).split(",")
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from zoho_token_store.__main__ import main
status = main()
assert not [name for name in sys.modules if name.partition(".")[0] in blocked]
sys.exit(status)
"""


def environment(**variables: str | None) -> dict[str, str]:
    """Return the environment without what would change how things look, but with these variables."""
    neutral = {"NO_COLOR", "TERM", "COLUMNS", "LINES", "ZOHO_TOKEN_STORE_DB", "PYTHONIOENCODING", "LC_ALL", "LANG"}
    neutral |= {"PYTHONUNBUFFERED", "PYTHONUTF8"}  # unbuffered, Python itself does not notice that nobody reads
    kept = {name: value for name, value in os.environ.items() if name not in neutral}
    given = {"TERM": "xterm", **variables}
    return kept | {name: value for name, value in given.items() if value is not None}


def finish(command: list[str], *, answer: str = "", **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run a command in pipes."""
    return subprocess.run(
        command,
        input=answer,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(**variables),
        encoding="utf-8",
    )


class Terminal:
    """A command in a terminal."""

    def __init__(self, command: list[str], *, columns: int = 80, **variables: str | None) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # In a session of its own, which has the terminal: so Ctrl-C reaches it, and it alone. It is not ignored there,
        # though it may be where the tests run: what a shell starts in the background ignores it.
        take_over = (
            "import os, fcntl, signal, sys, termios; os.setsid(); signal.signal(signal.SIGINT, signal.SIG_DFL);"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", take_over, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(**variables),
        )
        os.close(theirs)
        self.shown = ""
        self._end = time.monotonic() + 60

    def read_until(self, what: str | None) -> str:
        """Wait for a text on the screen, or for the end; return all that was shown."""
        while what is None or what not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(self._end - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"{what!r} was not shown in time: {self.shown!r}")
            try:
                got = os.read(self._ours, 4096)
            except OSError as error:
                if error.errno != errno.EIO:  # so a terminal ends
                    raise
                got = b""
            if not got:
                if what is not None:
                    raise AssertionError(f"{what!r} was not shown: {self.shown!r}")
                break
            self.shown += got.decode()
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.wait(60)
        os.close(self._ours)

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return exit status and all that was shown."""
        self.read_until(None)
        return self._process.wait(60), self.shown.replace("\r\n", "\n")
