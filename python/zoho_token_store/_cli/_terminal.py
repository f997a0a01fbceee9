"""Output to stdout and stderr, colours, and confirmation prompts."""

import os
import stat
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import click

from . import _format

Style = Callable[[str], str]

# Exit statuses by the shell convention: 128 + the number of the signal.
EXIT_INTERRUPTED = 130  # SIGINT
EXIT_BROKEN_PIPE = 141  # SIGPIPE


class Failure(click.ClickException):
    """A failed command: what failed, and a hint about what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        """Take the message and the hint. Both are complete sentences."""
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:  # noqa: ANN401 - click's signature
        """Print the message and the hint, each on a line of its own."""
        hint = f"\nFix: {self.hint}" if self.hint else ""
        _write(escape_lines(f"Error: {self.message}{hint}"), file or sys.stderr)


def print_result(text: str) -> None:
    """Print a command's result to stdout."""
    _write(text, sys.stdout)


def print_utf8(text: str) -> None:
    """Print complete lines to stdout as UTF-8, whatever the encoding of stdout is."""
    if sys.stdout is not None:
        click.echo(text.encode(), nl=False)


def redraw(text: str) -> None:
    """Print a screen in place of the one before. If stdout is no such terminal, print it below that one."""
    if stdout_is_terminal() and os.environ.get("TERM") != "dumb":
        sys.stdout.write("\x1b[H\x1b[2J")  # click would remove this if there are to be no colours
    print_result(text)


def note(text: str) -> None:
    """Print a message that is not part of the result to stderr."""
    _write(text, sys.stderr)


def flush_stdout() -> None:
    """Flush stdout, before the native module writes to it.

    Raises:
        Failure: The parent process closed stdout. Its number may belong to another file now.

    """
    if sys.stdout is None:
        raise Failure("Standard output is closed. Nothing was written.", "Redirect it, or give the path of a file.")
    sys.stdout.flush()


def stdout_is_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def stdout_is_exposed_file() -> bool:
    """Return whether stdout is a file that other users can read or write."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (AttributeError, OSError):
        return False
    return stat.S_ISREG(mode) and os.name == "posix" and bool(mode & 0o077)


def discard_unwritten_output() -> None:
    """Discard buffered output that cannot be written. Otherwise the interpreter would print a traceback at its exit."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _flush_or_discard(stream)


def _flush_or_discard(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def escape_lines(text: str) -> str:
    """Escape unprintable characters, but keep line breaks."""
    return "\n".join(_format.escape_unprintable(line) for line in text.split("\n"))


def color_setting() -> bool | None:
    """Return click's color setting: `False` for no colours, `None` for colours on a terminal only."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def stdin_is_terminal() -> bool:
    """Return whether stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def stdout_width() -> int | None:
    """Return the width of the terminal, or `None` if stdout is not a terminal and text must not be cut."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    # The rules of `shutil.get_terminal_size`. The import of shutil takes a twentieth of a run's time.
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def stdout_height() -> int | None:
    """Return the height of the terminal, or `None` if stdout is not a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or None
    except OSError:
        return None


def stderr_is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def now_ms() -> int:
    """Return the milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def confirm(question: str, *, assume_yes: bool) -> None:
    """Ask a question, and return if the answer is yes.

    The answer may come through a pipe (`yes |`). `click.confirm` does not fit: it handles the end of stdin like Ctrl-C,
    and it prints the question to stdout, which `--json` reserves for JSON.

    Raises:
        Failure: The answer is not yes, or stdin has no answer.
    """
    if assume_yes:
        return
    _write(f"{escape_lines(question)} [y/N] ", sys.stderr, newline=False)
    is_terminal = stdin_is_terminal()
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not is_terminal:
        note("")  # on a terminal, the Enter key ends the line
    if not answer and not is_terminal:
        raise Failure("Confirmation needed, but stdin is not a terminal. Nothing was changed.", "Pass --yes.")
    if answer.strip().lower() not in {"y", "yes"}:
        raise Failure("Not confirmed. Nothing was changed.")


def prompt_secret(what: str, instead: str) -> str:
    """Ask for a secret on the terminal, without an echo.

    Raises:
        Failure: Stdin is not a terminal, or the answer is empty.
    """
    if not stdin_is_terminal():
        raise Failure(
            f"The {what} is missing, and stdin is not a terminal to ask for it. Nothing was changed.", instead
        )
    import getpass  # noqa: PLC0415 - only here

    try:
        answer = getpass.getpass(f"{what[:1].upper()}{what[1:]}: ").strip()
    except EOFError:
        answer = ""
        note("")
    if not answer:
        raise Failure(f"The {what} is missing. Nothing was changed.", instead)
    return answer


def _write(text: str, stream: TextIO | None, *, newline: bool = True) -> None:
    if stream is None:  # the parent process closed it
        return
    click.echo(_format.encodable(text, stream.encoding or "ascii"), file=stream, nl=newline)


def bold(text: str) -> str:
    """Style a heading."""
    return click.style(text, bold=True)


def red(text: str) -> str:
    """Style an error."""
    return click.style(text, fg="red")


def yellow(text: str) -> str:
    """Style a warning."""
    return click.style(text, fg="yellow")
