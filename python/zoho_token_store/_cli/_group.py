"""The command group, and what the commands share: options, opening the database, error reports."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zoho_token_store._native import (
    Administration,
    CustomStoreShared,
    Plaintext,
    Record,
    Source,
    StoreAddress,
    StoreError,
    __version__,
    key_environment,
    key_file,
    read_source,
    schema_version,
)

from . import _format, _tables, _terminal

if TYPE_CHECKING:
    from zoho_token_store.cells import Cell

PROGRAM = "zoho-token-store"
_DB_VARIABLE = "ZOHO_TOKEN_STORE_DB"
_DB_DEFAULT = "zohooauth.db"
# A file with keys, or the keys themselves. No option takes a key: other users can see the arguments of a program.
KEY_VARIABLES = ("ZOHO_TOKEN_STORE_KEY_FILE", "ZOHO_TOKEN_STORE_KEYS")
_PASSWORD_HINT = "Set PGPASSWORD, or write the password into ~/.pgpass (chmod 600). On a terminal, it is asked for."  # noqa: S105
_STORE_HINT = "Name a function without arguments that returns a cell or a CustomStoreShared, as MODULE:FUNCTION."
_CHECK = "check"
_TIMEOUT_DEFAULT = 5.0
_MAX_TIMEOUT_SECONDS = 86400.0
_TIMEOUT_RANGE = "Give a number of seconds from 0 to 86400."
_MAX_LISTED_ROWS = 20
STREAM = "-"  # standard input or standard output
_STREAM_PATHS = {
    "import": ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"),
    "export": ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"),
}


_Opened = TypeVar("_Opened")
KeySource = Callable[[], list[str | Plaintext]]


def key_source() -> KeySource | None:
    """Return where the keys of encrypted rows come from. `None`: the user has given none.

    Raises:
        Failure: Both variables are set, or the name of the file is empty.

    """
    file_variable, keys_variable = KEY_VARIABLES
    path, keys = map(os.environ.get, KEY_VARIABLES)
    if path is not None and keys is not None:
        raise _terminal.Failure(
            f"{file_variable} and {keys_variable} are both set. Nothing was changed.", "Keep one of them."
        )
    if path is not None:
        if not path:
            # Not as if it were missing: then rows would be written in clear text.
            raise _terminal.Failure(f"{file_variable} is empty. Nothing was changed.", "Name the file with the keys.")
        return key_file(path)
    return None if keys is None else key_environment(keys_variable)


def key_arguments() -> dict[str, Any]:
    """Return the argument `keys` of the native layer, if the user has given keys."""
    source = key_source()
    return {} if source is None else {"keys": source}


class Database:
    """A token database: a file, or a database on a server."""

    def __init__(
        self, given: str, timeout: float, *, may_have_password: bool = False, cell: "Cell[Any] | None" = None
    ) -> None:
        """Take an address as the user gave it, or a cell, and how long to wait for other programs, in seconds."""
        self._given = given
        self._cell = cell
        self.timeout = timeout
        self._may_have_password = may_have_password

    @cached_property
    def address(self) -> StoreAddress:
        """The address.

        Raises:
            Failure: It contains a password, and other users of the machine can see it.
            StoreError: It is not an address.

        """
        address = StoreAddress(self._given if self._cell is None else self._cell)
        if address.has_password and not self._may_have_password:
            message = (
                f"The address of {address.name} contains a password, and other users can see the arguments of a "
                "program (ps). Nothing was changed."
            )
            raise _terminal.Failure(message, _PASSWORD_HINT)
        return address

    @property
    def argument(self) -> str:
        """The address as the user gave it. It contains no password if it was an argument.

        Raises:
            Failure: It contains a password.
            StoreError: It is not an address.

        """
        return self._given if self.address else ""

    @property
    def path(self) -> str | None:
        """The path of the file. `None` if it is a database on a server."""
        return self._given if self.address.is_file else None

    @property
    def name(self) -> str:
        """What messages call it. It contains no secret."""
        return self._given if self.address.is_file else self.address.name

    @property
    def printable_name(self) -> str:
        """The name on one line."""
        return _format.escape_unprintable(self.name)

    def open(self, action: Callable[[StoreAddress], _Opened]) -> _Opened:
        """Return the result of `action`, which connects to the address. If that needs a password, ask for it.

        Only a terminal is asked, and only once: the address has the password from then on.

        Raises:
            StoreError: It cannot be opened.

        """
        try:
            return action(self.address)
        except StoreError as error:
            if not (_needs_password(error) and self.address.lacks_password and _terminal.stdin_is_terminal()):
                raise
        password = _terminal.prompt_secret(f"password for {self.name}", _PASSWORD_HINT)
        self.address = self.address.with_password(password)
        return action(self.address)

    def schema_version(self) -> int:
        """Return the version of the schema."""
        return self.open(lambda address: schema_version(address, busy_timeout=self.timeout))

    def has_tables(self) -> bool:
        """Return whether a database on a server has the tables of a store."""
        return self.schema_version() > 0

    def read(self) -> Source:
        """Read all rows."""
        return self.open(lambda address: read_source(address, busy_timeout=self.timeout))


def _needs_password(error: StoreError) -> bool:
    return error.code == "access-denied" and "no password was given" in str(error)


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
        hint = f"Name the database with --db PATH before the command, or in {_DB_VARIABLE}."
    elif _needs_password(error) and "the password file" not in message:
        hint = _PASSWORD_HINT
    elif error.code in {"unknown-key", "plaintext-row", "keys-unavailable"}:
        hint = for_command_line(hint)
    elif error.code == "cell-failed":
        hint = (
            "Check the client of the cell, its rights and its network. The text of the exception may hold a secret, so "
            "it is not shown: call load() of the cell in Python to see it."
        )
    elif error.code == "busy":
        hint = hint.replace("raise busy_timeout", "wait longer (--timeout SECONDS, before the command)")
    elif error.code == "not-a-regular-file" and ctx.invoked_subcommand in _STREAM_PATHS:
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
    default=_DB_DEFAULT,
    show_default=True,
    envvar=_DB_VARIABLE,
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
    default=_TIMEOUT_DEFAULT,
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


def find_cell(store: str) -> "Cell[Any]":
    """Return the cell of a function, which is named as `module:function`.

    Raises:
        Failure: There is no such function, or it returns something else.

    """
    module, _, function = store.partition(":")
    if not function or "" in module.split("."):
        raise _unusable(store, "is not MODULE:FUNCTION")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        make = getattr(importlib.import_module(module), function)
        if not callable(make):
            raise _unusable(store, f"is no function, but an object of type {type(make).__name__}")
        if _needs_arguments(make):
            raise _unusable(store, "needs arguments")
        found = make()
    except (ImportError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _unusable(store, f"cannot be used ({reason})") from error
    if isinstance(found, CustomStoreShared):
        found = found.cell
    if not hasattr(found, "load") or not hasattr(found, "swap"):
        raise _unusable(store, f"returns an object of type {type(found).__name__}")
    cell: Cell[Any] = found
    return cell


def _unusable(store: str, reason: str) -> _terminal.Failure:
    return _terminal.Failure(f"{_format.escape_unprintable(f'{store} {reason}')}. Nothing was changed.", _STORE_HINT)


def _needs_arguments(function: Callable[..., object]) -> bool:
    import inspect  # noqa: PLC0415 - only this option needs it

    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a function of C that does not tell
        return False
    return False


@contextmanager
def administration(database: Database, *, make: bool = False) -> Iterator[Administration]:
    """Open the database for the duration of a command."""
    keys = key_arguments()
    opened = database.open(lambda address: Administration(address, make=make, busy_timeout=database.timeout, **keys))
    try:
        yield opened
    finally:
        opened.close()


def belongs_to(record: Record, user: str) -> bool:
    """Return whether a row is that of a user: the user's name, or its e-mail address in `email:organisation`."""
    name = record.user_name or ""
    return bool(user) and user in (name, name.rpartition(":")[0])


def find_row(opened: Administration, database: Database, token: str) -> Record:
    """Return the row with this ID, or the only row of the user with this name.

    Raises:
        StoreError: There is no such row, or it cannot be read.
        Failure: The user has several rows.

    """
    try:
        return opened.record(token)
    except StoreError as error:
        if error.code != "missing-id" or not token:
            raise
        # An ID wins: otherwise a row with that ID could not be named any more.
        records = [record for record in opened.records() if belongs_to(record, token)]
        if not records:
            raise _unknown_token(error) from None
    if len(records) == 1:
        return records[0]
    message = f"{database.printable_name} has {len(records)} tokens of this user. Nothing was changed."
    raise _terminal.Failure(message + _list_rows(records), "Give the id of one of them.")


def _unknown_token(error: StoreError) -> _terminal.Failure:
    # The message of a `StoreError` decides whether the text may be printed: it may be a secret.
    message = str(error).removesuffix(f" {error.hint}").replace("with the id ", "with the id or user ", 1)
    return _terminal.Failure(message, f'Run "{PROGRAM} list" to see the ids and the users.')


def _list_rows(records: list[Record]) -> str:
    lines = [_tables.label(record) for record in records[:_MAX_LISTED_ROWS]]
    if len(records) > _MAX_LISTED_ROWS:
        lines.append(f"and {len(records) - _MAX_LISTED_ROWS} more")
    return "".join(f"\n  {line}" for line in lines)


def names_stream(ctx: click.Context, file: str) -> bool:
    """Return whether FILE is "-", or another name of the stream that the command uses."""
    return file == STREAM or file in _STREAM_PATHS.get(ctx.info_name or "", ())


def complete_id(ctx: click.Context, _parameter: click.Parameter, prefix: str) -> list[Any]:
    """Complete an ID from the database. After any failure there are no completions and no error message."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only shell completion needs it

    db = ctx.find_root().params.get("db") or os.environ.get(_DB_VARIABLE) or _DB_DEFAULT
    try:
        with administration(Database(db, _TIMEOUT_DEFAULT)) as opened:
            return [
                CompletionItem(record.id, help=_terminal.escape_lines(record.user_name or ""))
                for record in opened.records()
                if record.id.startswith(prefix) and record.id.isprintable()
            ]
    except (StoreError, _terminal.Failure):
        return []


Command = Callable[..., None]

token_argument: Callable[[Command], Command] = click.argument("token", metavar="TOKEN", shell_complete=complete_id)
json_option: Callable[[Command], Command] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run_option: Callable[[Command], Command] = click.option(
    "--dry-run", is_flag=True, help="Print what the command would do, and change nothing."
)


def yes_option(action: str) -> Callable[[Command], Command]:
    """Return the option `--yes`, which skips the confirmation prompt."""
    return click.option("--yes", "-y", "assume_yes", is_flag=True, help=f"{action} without asking.")
