"""Run the command line once and turn every outcome into an exit status."""

from collections.abc import Sequence
from contextlib import suppress

import click

from . import _delete, _init, _inspect, _keys, _login, _logout, _refresh, _status, _terminal, _transfer
from ._group import cli
from ._options import PROGRAM

# The help lists the commands in this order.
for _command in (
    _inspect.list_,
    _inspect.show,
    _inspect.check_,
    _status.status,
    _login.login,
    _logout.logout,
    _refresh.refresh,
    _delete.delete,
    _delete.purge,
    _init.init,
    _transfer.import_,
    _transfer.export,
    _transfer.backup,
    _transfer.restore,
    _keys.key,
    _keys.rekey,
    _keys.forget_key,
):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    try:
        status = cli.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        return _report(error)
    except (click.Abort, KeyboardInterrupt):
        return _terminal.EXIT_INTERRUPTED
    return status if isinstance(status, int) else 0


def _report(error: click.ClickException) -> int:
    # A failing stderr does not change the exit status: monitors rely on that of `check`.
    with suppress(OSError):
        error.show()
    _terminal.discard_unwritten_output()
    return error.exit_code
