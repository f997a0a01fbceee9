"""The database of a command: its address or cell, its keys, and how it is opened."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from zoho_token_store._native import (
    Administration,
    CustomStoreShared,
    Plaintext,
    Source,
    StoreAddress,
    StoreError,
    key_environment,
    key_file,
    read_source,
    schema_version,
)

from . import _format, _terminal

if TYPE_CHECKING:
    from zoho_token_store.cells import Cell

# A file with keys, or the keys themselves. No option takes a key: other users can see the arguments of a program.
KEY_VARIABLES = ("ZOHO_TOKEN_STORE_KEY_FILE", "ZOHO_TOKEN_STORE_KEYS")
PASSWORD_HINT = "Set PGPASSWORD, or write the password into ~/.pgpass (chmod 600). On a terminal, it is asked for."  # noqa: S105
_STORE_HINT = "Name a function without arguments that returns a cell or a CustomStoreShared, as MODULE:FUNCTION."

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
            raise _terminal.Failure(message, PASSWORD_HINT)
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
            if not (needs_password(error) and self.address.lacks_password and _terminal.stdin_is_terminal()):
                raise
        password = _terminal.prompt_secret(f"password for {self.name}", PASSWORD_HINT)
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


def needs_password(error: StoreError) -> bool:
    """Return whether the server wants a password, and none was given."""
    return error.code == "access-denied" and "no password was given" in str(error)


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
