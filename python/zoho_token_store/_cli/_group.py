"""What all commands share: the group with its options, the database, ids, errors."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from zoho_token_store._native import Administration, Record, StoreError, __version__

from . import _terminal

PROGRAM = "zoho-token-store"
_CHECK = "check"
_LONGEST_ID = 24


# A monitor takes exit status 2 of `check` for an error in the database: it has one of its own for "could not look".
class _CouldNotLook(_terminal.Failure):
    exit_code = 3


class _MisusedCheck(click.UsageError):
    exit_code = _CouldNotLook.exit_code


_FAILURES: dict[str | None, type[_terminal.Failure]] = {_CHECK: _CouldNotLook}
_MISUSES: dict[str | None, type[click.UsageError]] = {_CHECK: _MisusedCheck}


class _Group(click.Group):
    """Keeps the commands in the order in which they are declared, and turns failures into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Here click prints the help and the version.
        with _reporting_output(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            with _reporting_output(ctx):
                return super().invoke(ctx)
        except StoreError as error:
            failure = _FAILURES.get(ctx.invoked_subcommand, _terminal.Failure)
            raise failure(str(error)) from None
        except click.UsageError as error:
            misuse = _MISUSES.get(ctx.invoked_subcommand, click.UsageError)
            raise misuse(_hinted(error, ctx), error.ctx) from None


@contextmanager
def _reporting_output(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Not left to click, which takes it for exit status 1: that of `check` has a meaning.
        _terminal.give_up_output()
        ctx.exit(_terminal.NOBODY_READS)
    except OSError as error:
        # The native half reports its own as StoreErrors: what is left is the output.
        failure = _FAILURES.get(ctx.invoked_subcommand, _terminal.Failure)
        raise failure(f"the output cannot be written: {error.strerror}") from None


def _hinted(error: click.UsageError, ctx: click.Context) -> str:
    if isinstance(error, click.NoSuchOption) and error.option_name == "--db":
        return f'--db goes before the command: "{PROGRAM} --db PATH {ctx.invoked_subcommand}".'
    return error.format_message()


@click.group(
    PROGRAM,
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--db",
    metavar="PATH",
    default="zohooauth.db",
    show_default=True,
    envvar="ZOHO_TOKEN_STORE_DB",
    show_envvar=True,
    # Not for click to look at: it would make a file that may not be read a matter of wrong usage, and of exit status 2.
    type=click.Path(readable=False),
    help="The token database.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, db: str) -> None:
    """Look after a token database of the Zoho CRM Python SDK.

    It may be in use: whatever a command does to it, programs that find and save tokens in it go on. Secrets are masked
    everywhere but in `show --reveal` and in the file that `export` writes.

    \b
    Examples:
      zoho-token-store list
      zoho-token-store --db /var/lib/crm/zohooauth.db check
      zoho-token-store import sdk_tokens.txt

    \b
    Exit status: 0 done; 1 failed, or answered "no"; 2 wrong usage; 130 stopped
    by Ctrl-C. That of "check" is another: see there.

    \b
    To complete commands and ids by the Tab key:
      eval "$(_ZOHO_TOKEN_STORE_COMPLETE=bash_source zoho-token-store)"
    and likewise with zsh_source; in fish:
      _ZOHO_TOKEN_STORE_COMPLETE=fish_source zoho-token-store | source
    """  # noqa: D301 - \b is click's sign for lines that stay as they are
    ctx.obj = db
    ctx.color = _terminal.colours()


@contextmanager
def administration(db: str, *, make: bool = False) -> Iterator[Administration]:
    """Open the database for as long as a command needs it."""
    opened = Administration(db, make=make)
    try:
        yield opened
    finally:
        opened.close()


def row(opened: Administration, db: str, wanted: str) -> Record:
    """Return the row with this id, or say where to find the ids that there are."""
    try:
        return opened.record(wanted)
    except StoreError:
        if any(record.id == wanted for record in opened.records()):
            raise
    # Nor is what may be a token in the wrong place repeated by the native half.
    shown = f"the id {wanted}" if len(wanted) <= _LONGEST_ID and "." not in wanted else "that id"
    message = f'{db} has no row with {shown}: "{PROGRAM} list" shows the ids'
    raise _terminal.Failure(message) from None


def _known_ids(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[Any]:
    """Complete an id from the database. Whatever goes wrong there, the shell gets no trouble of it."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only a shell asks for it

    db = ctx.find_root().params.get("db") or os.environ.get("ZOHO_TOKEN_STORE_DB") or "zohooauth.db"
    try:
        with administration(db) as opened:
            return [
                CompletionItem(record.id, help=_terminal.escaped(record.user_name or ""))
                for record in opened.records()
                if record.id.startswith(begun) and record.id.isprintable()
            ]
    except StoreError:
        return []


Command = Callable[..., None]

id_argument: Callable[[Command], Command] = click.argument("wanted", metavar="ID", shell_complete=_known_ids)
json_option: Callable[[Command], Command] = click.option(
    "--json", "in_json", is_flag=True, help="Print JSON, for programs."
)


def yes_option(what: str) -> Callable[[Command], Command]:
    """Make the option that skips the question."""
    return click.option("--yes", "-y", "sure", is_flag=True, help=f"{what} without asking.")
