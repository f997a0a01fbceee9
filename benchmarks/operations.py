"""What is timed: each operation, what it is called with, and whether its answer is right."""

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
    """Bring everything to the disk."""
    getattr(os, "sync", lambda: None)()


class Operation(NamedTuple):
    """One of the store's methods, in one way of calling it."""

    name: str
    kind: str  # "find", "save" or "list"
    method: str
    argument: Callable[[Stand, int], Any]  # for the row with this number


@dataclasses.dataclass
class Stand:
    """A peer's store with so many rows in it, ready to be called."""

    peer: Peer
    store: TokenStore
    home: Path
    rows: int
    ids: list[str] | None = None

    @property
    def name(self) -> str:
        """The peer's."""
        return self.peer.name

    def id_of(self, number: int) -> str:
        """Return the id of a row."""
        return self.ids[number] if self.ids else str(number + 1)

    def prepare(self, operation: Operation, chance: Random, count: int) -> Calls:
        """Make what so many calls need, each of a row drawn by lot."""
        os.chdir(self.home)  # a class that was given may name its file without a folder
        arguments = [operation.argument(self, chance.randrange(self.rows)) for _ in range(count)]
        call = getattr(self.store, operation.method)
        return (call, arguments) if operation is not GET_TOKENS else ((lambda _: call()), arguments)

    def tidy(self, operation: Operation, arguments: list[OAuthToken]) -> None:
        """Delete new rows, where they would make the table a larger one; let nobody else sync what this one did not."""
        if operation is SAVE_NEW and len(arguments) > self.rows // 20:
            for token in arguments:
                self.store.delete_token(token.get_id())
        if operation.kind == "save" and self.peer.kept == "file" and not self.peer.durable:
            sync()

    def lost(self) -> int:
        """Count the rows that are not there any more."""
        try:
            return max(0, self.rows - len(self.store.get_tokens()))
        except Exception:
            return self.rows  # what is left of the file cannot be read

    def check(self, operation: Operation, number: int) -> str:
        """Call once, and say what is wrong with the answer."""
        os.chdir(self.home)
        argument = operation.argument(self, number)
        method = getattr(self.store, operation.method)
        answer = method() if operation is GET_TOKENS else method(argument)
        if operation is MISS:
            return "" if answer is None else "finds a row that is not there"
        if operation is GET_TOKENS:
            return "" if len(answer) >= self.rows else f"returns {len(answer)} of {self.rows} rows"
        if operation.kind == "save":
            saved, answer = argument, self.store.find_token_by_id(argument.get_id())
            self.tidy(operation, [argument])
            right = answer is not None and answer.get_access_token() == saved.get_access_token()
            return "" if right else "what was saved is not found"
        right = answer is not None and answer.get_refresh_token() == tokens.text("refresh", number)
        return "" if right and answer.get_access_token() else "finds nothing, or another's row"


FIND_BY_REFRESH_TOKEN = Operation(
    "find by refresh token", "find", "find_token", lambda _, number: tokens.with_refresh_token(number)
)
FIND_BY_USER = Operation("find by user", "find", "find_token", lambda _, number: tokens.with_user(number))
MISS = Operation("find, a miss", "find", "find_token", lambda _, number: tokens.with_refresh_token(-1 - number))
FIND_BY_ID = Operation("find by id", "find", "find_token_by_id", lambda stand, number: stand.id_of(number))
GET_TOKENS = Operation("get_tokens", "list", "get_tokens", lambda _stand, _number: None)
SAVE_UPDATE = Operation(
    "save, update", "save", "save_token", lambda stand, number: tokens.refreshed(number, stand.id_of(number))
)
SAVE_NEW = Operation("save, new", "save", "save_token", lambda _stand, _number: tokens.login(next(tokens.unused)))

# The one that makes the table larger comes last.
OPERATIONS = (FIND_BY_REFRESH_TOKEN, FIND_BY_USER, MISS, FIND_BY_ID, GET_TOKENS, SAVE_UPDATE, SAVE_NEW)
COLD = (FIND_BY_REFRESH_TOKEN, FIND_BY_USER, FIND_BY_ID, SAVE_UPDATE)
