"""Where the words go: output, colours, questions."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import click

from . import _words

Paint = Callable[[str], str]

INTERRUPTED = 130  # 128 + SIGINT, as a shell has it
NOBODY_READS = 141  # 128 + SIGPIPE


class Failure(click.ClickException):
    """What went wrong, in a sentence for stderr."""

    exit_code = 1

    def show(self, file: Any = None) -> None:  # noqa: ANN401 - as click has it
        """Print the sentence."""
        _put(f"Error: {escaped(self.message)}", file or sys.stderr)


def say(text: str) -> None:
    """Print to stdout."""
    _put(text, sys.stdout)


def note(text: str) -> None:
    """Print to stderr: what is not a command's result."""
    _put(text, sys.stderr)


def give_up_output() -> None:
    """Let nothing of what is left to print fail again, with a traceback, when the interpreter ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _give_up(stream)


def _give_up(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def escaped(text: str) -> str:
    """Escape the unprintable of a text that may have several lines."""
    return "\n".join(_words.visible(line) for line in text.split("\n"))


def colours() -> bool | None:
    """Tell click about colours: `False` for none, `None` to look whether an output is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def width() -> int | None:
    """Return how many columns there are to fill; `None` if stdout is no terminal: then nothing is to be cut."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    # As `shutil.get_terminal_size`, which costs a twentieth of a run to import.
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def errors_are_seen() -> bool:
    """Tell whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def now() -> int:
    """Return the milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def ask(question: str, *, sure: bool) -> None:
    """Go on if the answer is yes, otherwise end with exit status 1.

    An answer may come through a pipe (`yes |`). Not by `click.confirm`: that reads the end of a file as Ctrl-C, and
    prints to stdout, where `--json` may have nothing else.
    """
    if sure:
        return
    _put(f"{escaped(question)} [y/N] ", sys.stderr, end=False)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if sys.stdin is None or not sys.stdin.isatty():
        note("")  # what the Enter key does where there is one
    if not answer:
        raise Failure("nobody is there to answer, so nothing was done. To go ahead without being asked: --yes")
    if answer.strip().lower() not in {"y", "yes"}:
        raise Failure("nothing was done")


def _put(text: str, stream: TextIO | None, *, end: bool = True) -> None:
    if stream is None:  # closed by whoever started us
        return
    click.echo(_words.encodable(text, stream.encoding or "ascii"), file=stream, nl=end)


def bold(text: str) -> str:
    """Make a heading."""
    return click.style(text, bold=True)


def red(text: str) -> str:
    """Make what cannot go on."""
    return click.style(text, fg="red")


def yellow(text: str) -> str:
    """Make what may need a look."""
    return click.style(text, fg="yellow")
