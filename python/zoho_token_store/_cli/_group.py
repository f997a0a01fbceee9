"""The command group: its own options, and how it reports errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from zoho_token_store._native import StoreError, __version__

from . import _terminal
from ._database import KEY_VARIABLES, PASSWORD_HINT, Database, find_cell, needs_password
from ._options import DB_DEFAULT, DB_VARIABLE, PROGRAM, STREAM, STREAM_PATHS, TIMEOUT_DEFAULT

_CHECK = "check"
_MAX_TIMEOUT_SECONDS = 86400.0
_TIMEOUT_RANGE = "Give a number of seconds from 0 to 86400."


# `check` returns 2 for errors in the database, so "the check could not run" needs a status of its own.
class _CheckFailure(_terminal.Failure):
    exit_code = 3


class _CheckUsageError(click.UsageError):
    exit_code = _CheckFailure.exit_code


class _Group(click.Group):
    """List the commands in the order of their declaration, and report failures without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # click prints the help and the version while it parses.
        with _report_output_errors(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            with _report_output_errors(ctx):
                return super().invoke(ctx)
        except StoreError as error:
            failure = _store_failure(ctx, error)
        except _terminal.Failure as error:
            failure = _terminal.Failure(error.message, error.hint)
        except click.UsageError as error:
            usage_error = _CheckUsageError if ctx.invoked_subcommand == _CHECK else click.UsageError
            raise usage_error(_usage_message(error, ctx), error.ctx) from None
        raise _failure_class(ctx)(failure.message, failure.hint and with_database(ctx, failure.hint))


def for_command_line(hint: str) -> str:
    """Return a hint about keys that names the variables instead of the argument `keys`."""
    return hint.replace("(keys=)", f"({' or '.join(KEY_VARIABLES)})").replace("keys= names", "the variable names")


def with_database(ctx: click.Context, hint: str) -> str:
    """Return a hint whose commands name the database, if the user has named it in an argument."""
    ctx = ctx.find_root()
    store = ctx.params.get("store")
    if PROGRAM not in hint or not (_is_argument(ctx) or store) or not isinstance(ctx.obj, Database):
        return hint
    import re  # noqa: PLC0415 - only a failure or a finding needs them
    import shlex  # noqa: PLC0415

    try:
        option = f"--store {shlex.quote(store)}" if store else f"--db {shlex.quote(ctx.obj.argument)}"
    except (StoreError, _terminal.Failure):  # it is no address, or it contains a password
        return hint
    begin = f"{PROGRAM} {option} "
    return re.sub(rf"\b{PROGRAM} (?=(?:{'|'.join(cli.commands)})\b)", lambda _: begin, hint)


def _is_argument(ctx: click.Context) -> bool:
    return ctx.get_parameter_source("db") is click.core.ParameterSource.COMMANDLINE


def _failure_class(ctx: click.Context) -> type[_terminal.Failure]:
    return _CheckFailure if ctx.invoked_subcommand == _CHECK else _terminal.Failure


def _store_failure(ctx: click.Context, error: StoreError) -> _terminal.Failure:
    # The message of a StoreError ends with its hint. The command line prints the hint on a line of its own.
    message = str(error).removesuffix(f" {error.hint}")
    hint = error.hint
    if error.code == "missing-file" and message.startswith(os.path.join(os.getcwd(), ctx.params["db"])):  # noqa: PTH109, PTH118 - pathlib starts slowly
        hint = f"Name the database with --db PATH before the command, or in {DB_VARIABLE}."
    elif needs_password(error) and "the password file" not in message:
        hint = PASSWORD_HINT
    elif error.code in {"unknown-key", "plaintext-row", "keys-unavailable"}:
        hint = for_command_line(hint)
    elif error.code == "cell-failed":
        hint = (
            "Check the client of the cell, its rights and its network. The text of the exception may hold a secret, so "
            "it is not shown: call load() of the cell in Python to see it."
        )
    elif error.code == "busy":
        hint = hint.replace("raise busy_timeout", "wait longer (--timeout SECONDS, before the command)")
    elif error.code == "not-a-regular-file" and ctx.invoked_subcommand in STREAM_PATHS:
        hint = f'Give the path of a regular file. For a pipe, use "{PROGRAM} {ctx.invoked_subcommand} {STREAM}".'
    return _terminal.Failure(message, hint)


@contextmanager
def _report_output_errors(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # click would exit with status 1, which `check` uses for warnings.
        _terminal.discard_unwritten_output()
        ctx.exit(_terminal.EXIT_BROKEN_PIPE)
    except OSError as error:
        # The native module reports I/O errors as StoreError, so this one comes from the output.
        message = f"The output cannot be written: {error.strerror}."
        raise _failure_class(ctx)(message, "Check the disk or device that the output goes to.") from None


def _usage_message(error: click.UsageError, ctx: click.Context) -> str:
    before = {"--db": "PATH", "--store": "MODULE:FUNCTION", "--timeout": "SECONDS"}
    if isinstance(error, click.NoSuchOption) and error.option_name in before:
        option = error.option_name
        return f'{option} goes before the command: "{PROGRAM} {option} {before[option]} {ctx.invoked_subcommand}".'
    message = error.format_message()
    if "ztsk1_" not in message:
        return message
    import re  # noqa: PLC0415 - only such a mistake needs it

    # click repeats an argument that is not expected. A key must not get into a log.
    return re.sub(r"ztsk1_\w*", "ztsk1_...", message)


def _parse_timeout(_ctx: click.Context, _parameter: click.Parameter, seconds: float) -> float:
    if not 0 <= seconds <= _MAX_TIMEOUT_SECONDS:  # also refuses "nan"
        raise click.BadParameter(_TIMEOUT_RANGE)
    return seconds


@click.group(
    PROGRAM,
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--db",
    metavar="PATH",
    default=DB_DEFAULT,
    show_default=True,
    envvar=DB_VARIABLE,
    show_envvar=True,
    # With `readable=True` click would report an unreadable file as wrong usage, with exit status 2.
    type=click.Path(readable=False),
    help="The token database: a file, or postgresql://USER@HOST:PORT/NAME?schema=NAME.",
)
@click.option(
    "--store",
    metavar="MODULE:FUNCTION",
    help="A function of a Python module that returns a cell, or a CustomStoreShared. Instead of --db.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=float,
    default=TIMEOUT_DEFAULT,
    show_default=True,
    callback=_parse_timeout,
    help="How long to wait for a locked file or for the server.",
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, db: str, store: str | None, timeout: float) -> None:
    """Manage a token database of the Zoho CRM Python SDK.

    Programs can use the database while a command runs. Secrets are masked, except in the output of `show --reveal` and
    of `export`.

    If the database is encrypted, name a file with its keys in ZOHO_TOKEN_STORE_KEY_FILE, or put the keys into
    ZOHO_TOKEN_STORE_KEYS.

    \b
    Examples:
      zoho-token-store list
      zoho-token-store --db /var/lib/crm/zohooauth.db check
      zoho-token-store import sdk_tokens.txt
      zoho-token-store --store app.tokens:make_store list

    \b
    Exit status:
      0    success
      1    failure, or a question was not answered with "yes"
      2    wrong usage
      130  interrupted by Ctrl-C
    "check" has exit statuses of its own: see "zoho-token-store check --help".

    \b
    To complete commands and IDs with the Tab key, run in your shell:
      bash  eval "$(_ZOHO_TOKEN_STORE_COMPLETE=bash_source zoho-token-store)"
      zsh   eval "$(_ZOHO_TOKEN_STORE_COMPLETE=zsh_source zoho-token-store)"
      fish  _ZOHO_TOKEN_STORE_COMPLETE=fish_source zoho-token-store | source
    """  # noqa: D301 - click does not rewrap a paragraph that begins with \b
    # Other users cannot see the environment of a program.
    is_argument = _is_argument(ctx)
    if store is not None and is_argument:
        raise click.UsageError("Give --db or --store, and not both.", ctx)
    ctx.obj = Database(db, timeout, may_have_password=not is_argument, cell=None if store is None else find_cell(store))
    ctx.color = _terminal.color_setting()
