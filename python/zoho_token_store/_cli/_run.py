"""One run of the command line: from arguments to an exit status, whatever happens on the way."""

import os
import sys
from collections.abc import Sequence

import click

from . import _change, _look, _move, _terminal
from ._group import PROGRAM, cli

for _command in (
    _look.list_,
    _look.show,
    _look.check_,
    _change.delete,
    _change.purge,
    _move.import_,
    _move.export,
    _move.backup,
    _move.restore,
):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    try:
        status = cli.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
        _give_up_output()
    except (click.Abort, KeyboardInterrupt):
        return _terminal.INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return _terminal.NOBODY_READS
    return status if isinstance(status, int) else 0


def _give_up_output() -> None:
    """Let nothing of what is left to print fail again, with a traceback, when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
