"""The operations that are timed: their arguments, and a check of their results."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from peers import Peer
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
    from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore

Calls = tuple["Callable[[Any], object]", "list[Any]"]


def sync() -> None:
    """Sync all file systems."""
    getattr(os, "sync", lambda: None)()


class Operation(NamedTuple):
    """A method of a store with one kind of argument."""

    name: str
    kind: str  # "find", "save" or "list"
    method: str
    argument: Callable[[LoadedStore, int], Any]  # returns the argument for a row's number


@dataclasses.dataclass
class LoadedStore:
    """A store of a peer, filled with rows."""

    peer: Peer
    store: TokenStore
    home: Path
    rows: int
    ids: list[str] | None = None

    @property
    def name(self) -> str:
        """The peer's name."""
        return self.peer.name

    def id_of(self, number: int) -> str:
        """Return the id of a row."""
        return self.ids[number] if self.ids else str(number + 1)

    def prepare(self, operation: Operation, rng: Random, count: int) -> Calls:
        """Return the function to call and the arguments of its calls, each for a random row."""
        os.chdir(self.home)  # a class from `--peer` may use a relative path
        arguments = [operation.argument(self, rng.randrange(self.rows)) for _ in range(count)]
        call = getattr(self.store, operation.method)
        return (call, arguments) if operation is not GET_TOKENS else ((lambda _: call()), arguments)

    def clean_up(self, operation: Operation, arguments: list[OAuthToken]) -> None:
        """Delete new rows if they would make the table much larger. Sync the files of a store that does not sync.

        Otherwise the next store that syncs would have to wait for them.
        """
        if operation is SAVE_NEW and len(arguments) > self.rows // 20:
            for token in arguments:
                self.store.delete_token(token.get_id())
        if operation.kind == "save" and self.peer.kept == "file" and not self.peer.durable:
            sync()

    def lost(self) -> int:
        """Return the number of lost rows."""
        try:
            return max(0, self.rows - len(self.store.get_tokens()))
        except Exception:
            return self.rows  # the file is damaged and cannot be read

    def check(self, operation: Operation, number: int) -> str:
        """Call once, and return what is wrong with the result, or an empty text."""
        os.chdir(self.home)
        argument = operation.argument(self, number)
        method = getattr(self.store, operation.method)
        result = method() if operation is GET_TOKENS else method(argument)
        if operation is MISS:
            return "" if result is None else "finds a row that does not exist"
        if operation is GET_TOKENS:
            return "" if len(result) >= self.rows else f"returns {len(result)} of {self.rows} rows"
        if operation.kind == "save":
            saved, result = argument, self.store.find_token_by_id(argument.get_id())
            self.clean_up(operation, [argument])
            is_right = result is not None and result.get_access_token() == saved.get_access_token()
            return "" if is_right else "does not find the saved row"
        is_right = result is not None and result.get_refresh_token() == tokens.text("refresh", number)
        return "" if is_right and result.get_access_token() else "finds no row or a wrong row"


FIND_BY_REFRESH_TOKEN = Operation(
    "find by refresh token", "find", "find_token", lambda _, number: tokens.with_refresh_token(number)
)
FIND_BY_USER = Operation("find by user", "find", "find_token", lambda _, number: tokens.with_user(number))
MISS = Operation("find, a miss", "find", "find_token", lambda _, number: tokens.with_refresh_token(-1 - number))
FIND_BY_ID = Operation("find by id", "find", "find_token_by_id", lambda loaded, number: loaded.id_of(number))
GET_TOKENS = Operation("get_tokens", "list", "get_tokens", lambda _stand, _number: None)
SAVE_UPDATE = Operation(
    "save, update", "save", "save_token", lambda loaded, number: tokens.refreshed(number, loaded.id_of(number))
)
SAVE_NEW = Operation("save, new", "save", "save_token", lambda _stand, _number: tokens.login(next(tokens.unused)))

# "save, new" is last because it makes the table larger.
OPERATIONS = (FIND_BY_REFRESH_TOKEN, FIND_BY_USER, MISS, FIND_BY_ID, GET_TOKENS, SAVE_UPDATE, SAVE_NEW)
COLD = (FIND_BY_REFRESH_TOKEN, FIND_BY_USER, FIND_BY_ID, SAVE_UPDATE)
