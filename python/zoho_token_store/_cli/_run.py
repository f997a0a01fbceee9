"""One run of the command line: from arguments to an exit status, whatever happens on the way."""

from collections.abc import Sequence
from contextlib import suppress

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
        return _told(error)
    except (click.Abort, KeyboardInterrupt):
        return _terminal.INTERRUPTED
    return status if isinstance(status, int) else 0


def _told(error: click.ClickException) -> int:
    # The exit status holds even if nobody can be told: that of `check` has a meaning.
    with suppress(OSError):
        error.show()
    _terminal.give_up_output()
    return error.exit_code
