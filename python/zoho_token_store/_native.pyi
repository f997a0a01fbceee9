"""The documentation of record: what each class and method takes, returns, raises and promises.

Some docstrings name a section of the contract. That is `docs/contract.md` in the source distribution, which lists every
promise of a store. One test suite checks these promises with every store class.

In the examples, `store` is an open store with one row. Its id is `"1"`, and its user is `ada@example.com`. `dsn` is the
address of a PostgreSQL server, and `schema` the name of a schema that does not exist yet. The classes `OAuthToken`,
`UserSignature` and `SDKException` are the SDK's. A test runs every example.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from os import PathLike
from typing import Any, Final, Literal, NoReturn, SupportsFloat, SupportsIndex, TypeAlias, final

from typing_extensions import Self, disjoint_base
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from .cells import Cell as _Cell

__version__: Final[str]
__profile__: Final[str]
"""The build profile: `"release"` or `"debug"`."""

_ErrorCode: TypeAlias = Literal[
    "busy",
    "closed",
    "refresh-failing",
    "unsupported",
    "invalid-argument",
    "invalid-key",
    "keys-unavailable",
    "missing-id",
    "empty-token",
    "token-not-updated",
    "missing-file",
    "missing-folder",
    "is-a-folder",
    "not-a-regular-file",
    "broken-link",
    "second-name",
    "reserved-name",
    "invalid-path",
    "path-too-long",
    "file-exists",
    "same-file",
    "target-is-database",
    "target-not-a-backup",
    "cannot-open",
    "too-many-open-files",
    "permission-denied",
    "read-only",
    "needs-recovery",
    "disk-full",
    "io-error",
    "out-of-memory",
    "value-too-large",
    "unreachable",
    "access-denied",
    "insecure-connection",
    "wrong-database",
    "cell-failed",
    "outcome-unknown",
    "document-too-large",
    "not-a-document",
    "not-a-database",
    "damaged",
    "damaged-row",
    "unknown-key",
    "altered-row",
    "plaintext-row",
    "newer-schema",
    "stray-wal",
    "other-program",
    "unusual-table",
    "unexpected-tables",
    "database-error",
    "not-a-token-file",
    "database-in-stream",
    "no-token-table",
    "invalid-line",
    "unfinished-line",
    "incomplete-export",
    "changed-while-read",
    "not-a-backup",
    "duplicate-ids",
]
"""Every code of a `StoreError`. `error_codes()` returns the same codes, with their hints."""

@final
class Plaintext:
    """The class of `PLAINTEXT`."""

PLAINTEXT: Final[Plaintext]
"""Rows in clear text, as an entry of `keys`.

At the end of `keys`, rows in clear text can be read, and `rekey` seals them. As the first entry, rows are written in
clear text, and `rekey` opens the sealed ones (contract, section 13).
"""

_Keys: TypeAlias = str | bytes | Sequence[str | bytes | Plaintext]
_KeysOrFunction: TypeAlias = _Keys | Callable[[], _Keys]
"""The type of the argument `keys`."""

class StoreError(Exception):
    """An error of a token store, with a code for programs and a hint for people.

    A method of a store raises the SDK's `SDKException`. The `StoreError` is its `cause`, and also its `__cause__`. The
    class `Administration` and the functions of this module, which need no SDK, raise the `StoreError` itself.

    The message says what failed, with which file or id, what happened to the data, and what to do. It never contains a
    secret. `docs/troubleshooting.md` explains every code.

    Example:
        >>> try:
        ...     store.find_token_by_id("99")
        ... except SDKException as error:
        ...     print(error.cause.code)
        ...     print(error.cause.hint)
        missing-id
        Check that it is the right store, and list its tokens. After a logout, the user has to log in again.
    """

    code: _ErrorCode
    """The kind of the failure, for programs."""

    hint: str
    """What to do about the failure. The message ends with it."""

def token_to_dict(token: OAuthToken) -> dict[str, str]:
    """Return the values of a token as a dictionary. It holds secrets.

    Args:
        token: The token. It is not changed.

    Returns:
        The values that are present. The keys are the columns: `id`, `user_name`, `client_id`, `client_secret`,
        `refresh_token`, `access_token`, `grant_token`, `expiry_time` (milliseconds since the epoch), `redirect_url` and
        `api_domain`.

    Raises:
        ImportError: no Zoho CRM SDK is installed.
        StoreError: `"invalid-argument"`: the object is not an `OAuthToken`, or one of its values is not text.

    Example:
        >>> token = OAuthToken("1000.CLIENT", "made-up", refresh_token="1000.made.up")
        >>> token_to_dict(token)
        {'client_id': '1000.CLIENT', 'client_secret': 'made-up', 'refresh_token': '1000.made.up'}
    """

def token_from_dict(values: Mapping[str, str | int | None]) -> OAuthToken:
    """Make a token from a dictionary.

    Args:
        values: The columns that `token_to_dict` returns, in any order. `None` and a missing key are the same. The
            `expiry_time` may be an `int`.

    Returns:
        A new token. It is not saved.

    Raises:
        ImportError: no Zoho CRM SDK is installed.
        StoreError: `"invalid-argument"`: `values` is not a mapping, a key is not one of the columns, or a value has
            another type. The message shows no key and no value.
        SDKException: the SDK's constructor needs an id, a refresh token, a grant token, an access token or a user name.

    Example:
        >>> token_from_dict({"id": "1", "expiry_time": 1795300001000}).get_expires_in()
        '1795300001000'
    """

def new_key() -> str:
    """Make a new key, and return its text. Nothing is stored.

    Write it to where secrets are kept, apart from the store and its backups. Without the key, the rows under it are
    lost. `zoho-token-store key new --out FILE` writes a key into a file.

    Returns:
        `ztsk1_` and 56 letters and digits: 32 bytes from the operating system, and a checksum.

    Raises:
        StoreError: `"io-error"`: the operating system gives no random bytes.

    Example:
        >>> key = new_key()
        >>> key[:6], len(key)
        ('ztsk1_', 62)
    """

def key_id(key: str | bytes) -> str:
    """Return the id of a key. Rows and messages name the key by it.

    It is derived from the key. It is no secret, and the key cannot be computed from it.

    Args:
        key: The text of a key.

    Returns:
        22 letters, digits, `-` and `_`.

    Raises:
        StoreError: `"invalid-key"`: the text is not that of a key. The message does not repeat it.

    Example:
        >>> len(key_id(new_key()))
        22
    """

def key_file(path: str | PathLike[str]) -> Callable[[], list[str | Plaintext]]:
    """Return a function that reads keys from a file, one per line, each time it is called.

    A line `PLAINTEXT` stands for rows in clear text. Empty lines do not count. A store that has it as `keys` reads the
    file when it is made, and again when a row needs a key that was not there. So keys are rotated without a restart.
    The keys do not become Python objects then. If a program calls the function itself, they do.

    The file is refused if other users can read or write it, or its group can. If another user owns the file, such as
    root, its group may read it: this is how a service gets a mounted secret.

    Args:
        path: The file. A relative path is made absolute here. Nothing is read yet. A key is refused, and not repeated.

    Returns:
        The function, to be given as `keys`.

    Raises:
        StoreError: `"invalid-argument"`: it is not the path of a file.

    Example:
        >>> import os
        >>> with open("tokens.key", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        ...     print(new_key(), file=file)
        >>> with CustomStoreSQLite("sealed.db", keys=key_file("tokens.key")) as store:
        ...     len(store)
        0
    """

def key_environment(name: str = "ZOHO_TOKEN_STORE_KEYS") -> Callable[[], list[str | Plaintext]]:
    """Return a function that reads keys from an environment variable each time it is called.

    Blanks, commas or line breaks separate the keys. `PLAINTEXT` stands for rows in clear text. A variable that is
    missing is an error, and so is an empty one. A child process inherits the variable, and so does each program that it
    runs: a file is better.

    Args:
        name: The name of the variable. Nothing is read yet.

    Returns:
        The function, to be given as `keys`.

    Raises:
        StoreError: `"invalid-argument"`: it is not the name of a variable.

    Example:
        >>> import os
        >>> os.environ["MADE_UP_KEYS"] = new_key()
        >>> with CustomStoreSQLite("sealed.db", keys=key_environment("MADE_UP_KEYS")) as store:
        ...     len(store)
        0
    """

def write_new_key(path: str | PathLike[str]) -> str:
    """Make a new key in a new file that only its owner can read, and return the id of the key.

    For the command line. The key does not become a Python object.

    Raises:
        StoreError: `"file-exists"`: there is a file already. It is never replaced. `"missing-folder"`, `"disk-full"`.
    """

def key_names(keys: _KeysOrFunction) -> list[str]:
    """Return the names under which a list of keys reads rows, in their order: the ids of keys, and `"plaintext"`.

    Args:
        keys: As for the constructor of a store.

    Raises:
        StoreError: with the codes of the constructor.
    """

def error_codes() -> dict[str, str]:
    """Return every code that a `StoreError` can have, with its hint.

    Example:
        >>> error_codes()["closed"]
        'Open another store.'
    """

@final
class LeaseInfo:
    """How often a store acquired refresh leases and waited for them, in this process, since it was opened.

    A requester is a call of the SDK's `get_token` that needs a new access token. The object is a snapshot: its numbers
    do not change later.

    Example:
        >>> info = store.lease_info()
        >>> info.taken, info.waited, info.failed_refreshes
        (0, 0, 0)
    """

    @property
    def taken(self) -> int:
        """The leases that this store acquired. Each one let the SDK make one refresh, while other requesters waited."""

    @property
    def waited(self) -> int:
        """The finds that waited for the refresh of another requester, however the wait ended."""

    @property
    def gave_up(self) -> int:
        """The waits that ended without a fresh token: Zoho was slow, or `refresh_lease` is too short."""

    @property
    def longest_wait(self) -> float:
        """The longest wait, in seconds."""

    @property
    def failed_saves(self) -> int:
        """The calls of `save_token` that failed. The SDK swallows their errors while it refreshes."""

    @property
    def failed_refreshes(self) -> int:
        """The refreshes that ended without a fresh token, of those that this store acquired a lease for."""

    @property
    def backed_off(self) -> int:
        """The finds that failed at once, because refreshes had failed before (`refresh_backoff`)."""

    @property
    def taken_ahead(self) -> int:
        """Those of the acquired leases that were for a refresh ahead of expiry.

        They are those of `refresh_ahead` and of `refresh`.
        """

@final
class Refreshed:
    """What `refresh` did with the rows.

    Example:
        >>> bob = OAuthToken(refresh_token="1000.r.made.up", access_token="1000.made.up")
        >>> bob.set_expires_in("9999999999999")
        >>> store.save_token(bob)
        >>> store.refresh(within=600, ids=["2"])
        Refreshed(refreshed=[], skipped=['2'], failed={})
    """

    @property
    def refreshed(self) -> list[str]:
        """The ids of the rows that have a new access token."""

    @property
    def skipped(self) -> list[str]:
        """The ids of the rows that are valid for long enough, or that another thread or process is refreshing."""

    @property
    def failed(self) -> dict[str, str]:
        """The ids of the rows that could not be refreshed, each with the reason, which contains no secret."""

@final
class Rekeyed:
    """What `rekey` did with the rows.

    Example:
        >>> with CustomStoreInMemory(keys=new_key()) as store:
        ...     store.rekey()
        Rekeyed(rewritten=0, left=0)
    """

    @property
    def rewritten(self) -> int:
        """The number of rows that were sealed under the first key."""

    @property
    def left(self) -> int:
        """The number of rows that are not under the first key, or were altered after they were sealed.

        Their key is missing, or another program has saved them under another key meanwhile. `check` names them.
        """

    def __eq__(self, other: object, /) -> bool:
        """Compare both numbers."""

@final
class Finding:
    """A problem of a store, and what to do about it. It contains no secret.

    Example:
        >>> bob = OAuthToken(refresh_token="1000.r.made.up", access_token="1000.made.up")
        >>> bob.set_expires_in("9999999999999")
        >>> store.save_token(bob)
        >>> [finding] = store.check()
        >>> finding.code, finding.severity, finding.ids
        ('far-expiry', 'warning', ['2'])
        >>> finding.hint
        'Set the clocks of the machines, and have these users log in again.'
    """

    @property
    def code(self) -> str:
        """The kind of the problem, for programs.

        - Problems of the file, with severity `"error"`: `"not-a-database"`, `"damaged"`, `"newer-schema"`,
          `"other-program"`.
        - Problems of the file, with severity `"warning"`: `"older-schema"`, `"permissions"`, `"no-wal"`,
          `"network-file-system"`.
        - Problems of a database on a server, with severity `"error"`: `"wrong-database"`, `"missing-tables"`,
          `"changed-tables"`, `"newer-schema"`.
        - Problems of a server, with severity `"warning"`: `"clock-off"`, `"no-tls"`, `"read-only-server"`,
          `"no-synchronous-commit"`, `"older-schema"`, `"missing-rights"`, `"other-owner"`.
        - A problem of this process, with severity `"warning"`: `"failed-saves"`.
        - Problems of sealed rows, with severity `"error"`: `"unknown-key"`, `"altered"`. With severity `"warning"`:
          `"old-key"`, `"unfinished-rekey"`, `"plaintext"` (an error if rows in clear text cannot be read).
        - Problems of rows, with severity `"warning"`: `"duplicate"`, `"no-expiry"`, `"unreadable-expiry"`,
          `"far-expiry"`, `"no-refresh-token"`, `"refresh-failing"`, `"unusable"`, `"empty"`.
        """

    @property
    def severity(self) -> Literal["error", "warning"]:
        """How severe the problem is.

        `"error"` means that the store does not work. `"warning"` means that it works, but that it needs attention.
        """

    @property
    def ids(self) -> list[str]:
        """The ids of the rows that have the problem. Empty if the problem is about the file."""

    @property
    def message(self) -> str:
        """What is wrong."""

    @property
    def hint(self) -> str:
        """What to do."""

    @property
    def cure(self) -> str:
        """The old name of `hint`."""

@disjoint_base
class TokenStoreBase:
    """The base class of all stores, with every method. Use it for `isinstance` and type hints.

    A store is an object of a subclass, such as `CustomStoreSQLite`. The base class itself cannot be instantiated.

    - A store is a `TokenStore` of the installed SDK (5 to 8): `isinstance(store, TokenStore)` is true.
    - Any number of threads can use one store.
    - A store that was made before a fork works in the parent and in the child (contract, section 7).
    - A program can subclass a store. If the subclass has its own `__init__`, it must call `super().__init__()`.

    A value of a token is *absent* if it is `None` or `""`. A store never distinguishes the two. The expiry of a token
    (`expires_in`) is a `str`: milliseconds since the epoch, as the SDK writes it.

    Every method that fails raises the SDK's `SDKException` with the code `"TOKEN_STORE"`. Its message begins with the
    name of the method, and its `cause` is a `StoreError`. The store writes the same message to the logger
    `zoho_token_store`. A failed call changes nothing in the store (contract, section 6). The only exception is
    `"token-not-updated"`: see `save_token`.

    Any method can fail with these values of `StoreError.code`:

    - `"invalid-argument"`: an argument has the wrong type or value. Examples are an object that is not an `OAuthToken`,
      a field that is not a `str`, and text without a UTF-8 form, such as half of a surrogate pair.
    - `"closed"`: the store was closed.
    - `"busy"`: another program or thread used the store for longer than `busy_timeout`.
    - `"refresh-failing"`, in a find of the SDK's `get_token`: the last refreshes have failed, and the next one may not
      begin yet (`refresh_backoff`). The stored tokens are not lost.
    - `"disk-full"`, `"read-only"`, `"permission-denied"`, `"io-error"`: the operating system or the disk refused an
      operation.
    - `"damaged"`, `"not-a-database"`: the file was damaged or replaced after it was opened.
    - `"unknown-key"`, `"altered-row"`, `"plaintext-row"`: a row cannot be read with the `keys` of the store, was
      changed without its key, or is in clear text although it must not be (contract, section 13). It is never "not
      found", and no second row is inserted.

    An exception that ends a program, such as `KeyboardInterrupt`, passes through unchanged.

    Example:
        >>> from zoho_token_store import TokenStoreBase
        >>> isinstance(store, TokenStoreBase)
        True
    """

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Complete a token from its row.

        A token names its row by one of its keys. The keys are tried in this order: user name, id, grant token, refresh
        token, access token. The row is the first one that a key finds and that does not contradict the token. A row
        contradicts a token if both have a value for the same field, and the values differ. Section 3 of the contract
        says which fields are compared. A token without any key names no row.

        If the token needs a refresh, this method may wait. It waits only if the caller is the SDK's
        `OAuthToken.get_token` and another thread or process is refreshing the same row. Then it completes the token
        from the refreshed row. `refresh_lease` limits the wait (see `docs/lease.md`). While it waits, other Python
        threads can run, and an exception of a signal handler ends the wait. Every other caller gets the row at once.

        Args:
            token: It is changed in place. Every absent field is filled in from the row. The id is always set to the id
                of the row. Access token and expiry belong together: both are taken from the row, or neither is. They
                are taken if the row has an access token, and the token has none, one without an expiry, or one that
                expires earlier. If the token has another refresh token than the row, its user has authorised again. The
                same is true if it has no refresh token, and another grant token. Then the row's access token and its
                old credentials are not taken (contract, section 4).

        Returns:
            The same object, or `None` if there is no row. In that case the token is unchanged.

        Raises:
            SDKException: as described at the class. `"busy"` means that the file was locked for longer than
                `busy_timeout`. `"token-not-updated"` means that a setter of the token raised an exception.

        Example:
            >>> token = OAuthToken(user_signature=UserSignature("ada@example.com"))
            >>> store.find_token(token) is token
            True
            >>> token.get_id(), token.get_refresh_token()
            ('1', '1000.made.up')
        """

    def save_token(self, token: OAuthToken) -> None:
        """Save a token into its row, or into a new row if it has none.

        The row is the one that `find_token` finds. Finding it and writing it are one transaction. When the method
        returns, a row in a file is durable: a power cut cannot lose it.

        A present field of the token replaces the value in the row. An absent field leaves the value as it is. An access
        token without an expiry clears the expiry of the row (contract, section 5).

        If the store cannot save the token of a refresh, for example because the disk is full, this method raises. But
        the store keeps the new access token in this process, finds return it, and it is saved later (lease, rule 16).

        Args:
            token: Afterwards it has the id of its row. A new row gets the id of the token if no row has that id.
                Otherwise it gets a new id: a decimal number that is higher than every earlier one, deleted ones
                included.

        Raises:
            SDKException: as described at the class. `"empty-token"` means that the token names no row, and has no
                refresh token, grant token or access token. `"token-not-updated"` means that the row was saved, but that
                the id could not be set. While SDK 6 to 8 refresh a token, they catch and log what this method raises.
                The store logs it, too.

        Example:
            >>> bob = UserSignature("bob@example.com")
            >>> token = OAuthToken("1000.CLIENT", "made-up-secret", refresh_token="1000.made.up.2", user_signature=bob)
            >>> store.save_token(token)
            >>> token.get_id()
            '2'
        """

    def find_token_by_id(self, id: str) -> OAuthToken | None:  # noqa: A002
        """Make a new token from the row with this id.

        It waits for the refresh of another requester in the same way as `find_token`.

        Args:
            id: The id of the row. No row has an absent id (`None` or `""`).

        Returns:
            A new token. `None` if no row has the id and the store was made with `raise_on_missing_id=False`.

        Raises:
            SDKException: as described at the class. `"missing-id"` means that no row has the id. The SDK's own stores
                raise in this case, too, because of what the SDK does with `None`. SDK 5 to 7 fail on it. SDK 8 goes on
                with the caller's copy of the token, so a deleted user would stay logged in (contract, section 2).

        Example:
            >>> store.find_token_by_id("1").get_user_signature().get_name()
            'ada@example.com'
        """

    def refresh(self, within: timedelta | SupportsFloat, *, ids: Iterable[str] | None = None) -> Refreshed:
        """Refresh the rows that expire soon, and return what was done with each row.

        It is for a job that runs every few minutes, such as cron or Celery beat. The SDK asks Zoho, for one row after
        the other. Each refresh holds the lease of its row, so no other thread or process makes the same one. A row that
        is being refreshed elsewhere is skipped, not waited for (lease, rule 17).

        The SDK takes the accounts URL from the API domain of the row. For a domain that it does not know, such as that
        of a test server, it takes the environment of `Initializer.initialize`.

        Args:
            within: Refresh the rows with less than this left: a `timedelta` or a number of seconds, not negative. Rows
                that have expired already are among them.
            ids: The ids of the rows. `None`: all rows.

        Returns:
            The ids of the rows that were refreshed, skipped, and that failed. A row without a refresh token fails once
            it has expired. So does an id that no row has.

        Raises:
            SDKException: as described at the class. `"refresh-failing"` means that every refresh that was tried has
                failed. The message has the first reason.

        Example:
            >>> from datetime import timedelta
            >>> bob = OAuthToken(refresh_token="1000.r.made.up", access_token="1000.made.up")
            >>> bob.set_expires_in("9999999999999")
            >>> store.save_token(bob)
            >>> store.refresh(within=timedelta(minutes=10), ids=["2"]).skipped
            ['2']
        """

    def refused(self, token: OAuthToken | str) -> bool:
        """Remove an access token that Zoho has refused, so that the next `get_token` refreshes.

        Zoho can refuse an access token before it expires: the session was revoked, the password was changed, or too
        many newer ones exist. The SDK does not notice, and goes on using it. Call this when Zoho has answered
        `INVALID_TOKEN`, and try again (lease, rule 14).

        Only a row that still holds exactly this access token is changed, in one transaction. So any number of threads
        and processes can report the same token, and it is refreshed once. A row that can never be refreshed stays as it
        is.

        Args:
            token: The token whose access token was refused, or the access token itself. An `OAuthToken` loses its
                access token and expiry, so that it is not used again.

        Returns:
            Whether a row was changed, or an access token forgotten that could not be saved (lease, rule 16). `False`:
                the access token has been replaced meanwhile, or no row has it.

        Raises:
            SDKException: as described at the class. `"invalid-argument"`: the argument is neither a token nor text.

        Example:
            >>> token = store.find_token_by_id("1")
            >>> token.set_access_token("1000.made.up.access")
            >>> store.save_token(token)
            >>> store.refused(token)
            True
            >>> store.refused("1000.made.up.access")
            False
        """

    def get_tokens(self) -> list[OAuthToken]:
        """Make a new token from every row, the oldest row first.

        Raises:
            SDKException: as described at the class.

        Example:
            >>> [token.get_id() for token in store.get_tokens()]
            ['1']
        """

    def delete_token(self, id: str) -> None:  # noqa: A002
        """Delete the row with this id, and scrub its secrets from the file.

        If no row has the id, nothing happens. Section 9 of the contract says when deleted secrets can no longer be read
        in the file. A store in memory has no file.

        Args:
            id: The id of the row. No row has an absent id (`None` or `""`).

        Raises:
            SDKException: as described at the class.

        Example:
            >>> store.delete_token("1")
            >>> len(store)
            0
        """

    def delete_tokens(self) -> None:
        """Delete all rows, and scrub their secrets from the file.

        New rows do not get the ids of deleted rows.

        Raises:
            SDKException: as described at the class.

        Example:
            >>> store.delete_tokens()
            >>> len(store)
            0
        """

    def purge(self, idle_for: timedelta | SupportsFloat | None = None) -> int:
        """Delete the rows that can never be used again.

        These rows have no refresh token, and their access token has expired (contract, section 10).

        Args:
            idle_for: A `timedelta` or a number of seconds, at least a millisecond. If it is given, the rows that were
                not saved for that long are deleted, too. If another program wrote a row, the time counts from the
                moment when this library first saw the row. If that moment is not known, the row is kept.

        Returns:
            The number of deleted rows.

        Raises:
            SDKException: as described at the class.

        Example:
            >>> from datetime import timedelta
            >>> store.purge()
            0
            >>> store.purge(idle_for=timedelta(days=90))
            0
        """

    def import_tokens(self, tokens: Iterable[OAuthToken]) -> int:
        """Save all tokens in one transaction.

        Each token is saved as by `save_token`. If one of them cannot be saved, none is.

        Args:
            tokens: An iterable of tokens. Afterwards each token has the id of its row.

        Returns:
            The number of saved tokens.

        Raises:
            SDKException: as described at the class, and at `save_token`. An exception of the iterable itself passes
                through unchanged.

        Example:
            >>> from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
            >>> store.import_tokens(FileStore("sdk_tokens.txt").get_tokens())
            2
        """

    def backup(self, path: str | PathLike[str]) -> None:
        """Write a consistent copy into a SQLite file, while other callers go on writing.

        Only its owner can read the file (mode 0600). It appears under its name when it is complete. An existing file is
        replaced only if it is a token database of this library that no program has open, such as an older backup.

        Args:
            path: The file to write. Its folder must exist.

        Raises:
            SDKException: as described at the class. `"target-not-a-backup"` means that the existing file is not a token
                database, or that it is in use. `"missing-folder"`, `"is-a-folder"` and `"disk-full"` are about `path`.

        Example:
            >>> store.backup("backup.db")
            >>> with CustomStoreSQLite("backup.db") as copy:
            ...     len(copy)
            1
        """

    def check(self) -> list[Finding]:
        """Return the problems of the store, and change nothing.

        `zoho-token-store check` finds the same problems. The check reads all rows. With a million rows this takes
        seconds.

        It checks these properties of the file:

        - Does the whole file pass SQLite's integrity check?
        - Is the schema older, newer, or of another program?
        - Who can read the file?
        - Is the file in WAL mode?
        - Is it on a file system that other machines may use?

        It checks these properties of a database on a server:

        - Are all tables there, and do they have the columns that they should have?
        - Is the database in UTF-8? Can it be written? Does `synchronous_commit` wait for the disk?
        - Does the user have all rights that a store needs, and do the tables belong to no other user?
        - Does the connection to another machine use TLS?
        - Does the clock of this machine differ from the server's?

        It finds these problems of rows:

        - Several rows have the same user, client and API domain, or the same refresh token.
        - An access token has no expiry, or one that is more than a day ahead.
        - A row can never be used again. `purge` deletes such rows.
        - A row has no refresh token, no grant token and no access token.

        Returns:
            One finding for each kind of problem. An empty list means that no problem was found. A damaged file is a
            finding, unless the file cannot be read at all.

        Raises:
            SDKException: as described at the class.

        Example:
            >>> store.check()
            []
        """

    def rekey(self) -> Rekeyed:
        """Seal every row under the first key, while other callers go on.

        Rows that can be read under another key, or in clear text if `PLAINTEXT` is among the keys, are sealed under the
        first one. If `PLAINTEXT` is the first entry, the sealed rows are opened. Ids, order and times stay. A function
        that returns the keys is asked first.

        It works in batches of 50 rows. After each batch it pauses for as long as the batch took, so that others can
        save. It releases the GIL, and an exception of a signal handler ends it between two batches. It can be
        interrupted or killed at any time, run again, and run in several processes at once. At the end, if no row is in
        clear text, what the rows were before is removed from the file (contract, section 13).

        Returns:
            How many rows were sealed, and how many are left: they are not under the first key, or were altered.

        Raises:
            SDKException: as described at the class. The batches before stay sealed, and the message says so if there
                may be some. `"keys-unavailable"`, `"invalid-key"`: `keys` is a function, which is asked first, and it
                failed. An altered row raises nothing: it stays as it is, and `check` names it.

        Example:
            >>> old, new = new_key(), new_key()
            >>> with CustomStoreSQLite("sealed.db", keys=old) as store:
            ...     store.save_token(OAuthToken("1000.CLIENT", "made-up", refresh_token="1000.made.up"))
            >>> with CustomStoreSQLite("sealed.db", keys=[new, old]) as store:
            ...     store.rekey()
            Rekeyed(rewritten=1, left=0)
        """

    def key_usage(self) -> dict[str, int]:
        """Return the number of rows under each key.

        A key without rows can be dropped, once no program writes under it. No key is needed for this.

        Returns:
            The numbers, by the id of the key. Rows in clear text have the name `"plaintext"`.

        Raises:
            SDKException: as described at the class.

        Example:
            >>> store.key_usage()
            {'plaintext': 1}
        """

    def lease_info(self) -> LeaseInfo:
        """Return how often this store acquired refresh leases and waited for them.

        Use it to monitor a program in production. A forked child begins with the numbers of its parent.

        The logger `zoho_token_store` reports each event when it happens. INFO: a lease was acquired, a wait ended, a
        lease was released without a new token. WARNING: a wait ended without a fresh token. DEBUG: everything else.

        Example:
            >>> info = store.lease_info()
            >>> info.waited, info.gave_up
            (0, 0)
        """

    def close(self) -> None:
        """Close the store, and release its leases.

        Every later operation raises an `SDKException`, and the code of its cause is `"closed"`. A second `close()` does
        nothing. The rows in a file stay there. An access token that could not be saved is tried once more, within about
        a second (lease, rule 16).

        Example:
            >>> store.close()
        """

    def __enter__(self) -> Self:
        """Return the store itself.

        Example:
            >>> with CustomStoreSQLite("zohooauth.db") as store:
            ...     len(store)
            1
        """

    def __exit__(self, *_exception: object) -> None:
        """Close the store."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __bool__(self) -> bool:
        """Return `True`, even if the store has no rows."""

    def __reduce_ex__(self, _protocol: SupportsIndex, /) -> NoReturn:
        """Raise `TypeError`: a store can be neither copied nor pickled."""

class CustomStoreSQLite(TokenStoreBase):
    """Tokens in a SQLite file, for any number of threads and processes.

    - It can open a file that the SDK's sample class of the same name wrote. The rows stay. Without `keys`, the sample
      can still use the file (contract, section 9).
    - Only its owner can read a new file (mode 0600). If other users can read an existing file, the store writes one
      warning to the logger `zoho_token_store`.
    - If the file is on a file system that other machines may use (for example NFS, SMB or FUSE), the store works
      without WAL and writes one warning. It then promises nothing for two machines that use the file at the same time.

    Example:
        >>> with CustomStoreSQLite("zohooauth.db") as store:
        ...     len(store)
        1
    """

    def __init__(
        self,
        path: str | PathLike[str] = "zohooauth.db",
        *,
        keys: _KeysOrFunction = ...,
        refresh_lease: timedelta | SupportsFloat = 10.0,
        refresh_ahead: timedelta | SupportsFloat = 0.0,
        refresh_backoff: timedelta | SupportsFloat = 30.0,
        busy_timeout: timedelta | SupportsFloat = 5.0,
        raise_on_missing_id: bool = True,
    ) -> None:
        """Open the file. Create it if it is missing.

        Args:
            path: The file. A relative path is made absolute here, so a later `chdir` does not matter. A missing file is
                created, but not a missing folder. `":memory:"` is refused: use `CustomStoreInMemory`.
            keys: Encrypts the secrets of the rows: the text of a key (`str` or `bytes`), a sequence of keys, or a
                function without arguments that returns one of the two. Rows are sealed under the first key, and read
                under each. `PLAINTEXT` in the sequence stands for rows in clear text. A function is called here, and
                again when a row needs another key, before some saves, and before `rekey` (contract, section 13). No
                lock and no transaction is held meanwhile. Without `keys`, nothing is encrypted. `None` and an empty
                sequence are errors, so that a missing variable cannot turn encryption off.
            refresh_lease: How long a refresh lease lasts: a `timedelta` or a number of seconds, not negative. While one
                requester refreshes a token, the others wait. If the refresh takes longer than the lease, the others
                refresh the token themselves. Zoho answers in well under a second. `0` turns leases off. All programs
                that use one file should use the same value.
            refresh_ahead: How much of a token's life is left when it is refreshed ahead of its expiry: a `timedelta` or
                a number of seconds from 0 to 1800. `0`: there are no such refreshes. If a request of the SDK finds a
                valid token with less than this left, it gets the token at once, and a background thread refreshes the
                row. The SDK itself refreshes in the last 5 seconds, so a value up to 5 changes nothing (lease, rule
                17).
            refresh_backoff: The longest time between two refreshes of one token while they fail: a `timedelta` or a
                number of seconds, not negative. From the second failure on, `get_token` raises `"refresh-failing"` for
                1, 2, 4, … seconds at most this long, instead of asking Zoho. `0` turns this off (lease, rule 15).
            busy_timeout: The longest wait for other programs and threads that have locked the file: a `timedelta` or a
                number of seconds, not negative.
            raise_on_missing_id: Whether `find_token_by_id` raises if no row has the id. Otherwise it returns `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed. The message names the packages that provide one.
            SDKException: the store cannot be opened. `"missing-folder"`, `"is-a-folder"`, `"invalid-path"`,
                `"permission-denied"`: the path cannot be used. `"not-a-database"`, `"damaged"`, `"newer-schema"`,
                `"other-program"`: the file is not a token database that this version can use. It is left untouched.
                `"invalid-key"`: `keys` has a text that is not a key, is
                `None` or empty. The message has the position of the text, and never the text. `"keys-unavailable"`: the
                file, the variable or the function of `keys` gives no keys. An exception of the function is the
                `__cause__` of the `StoreError`.

        Example:
            >>> from datetime import timedelta
            >>> CustomStoreSQLite("zohooauth.db", refresh_lease=timedelta(seconds=15), busy_timeout=2.5).close()
        """

class CustomStorePostgreSQL(TokenStoreBase):
    """Tokens in a PostgreSQL database, for programs on any number of machines.

    - One refresh per expiry holds across machines: the lease is a row of the database, and its end is judged by the
      server's clock alone (lease, rules 4 to 9). All programs that use one schema should have the same `refresh_lease`.
    - `save_token` returns after the server's commit. What a standby server has by then is up to the server (contract,
      section 5).
    - No find is answered from memory. So a token that one machine deletes is gone on all others at once.
    - It needs PostgreSQL 13 or later, and works through a pooler such as pgbouncer in transaction mode: it uses no
      prepared statements and no state of a session.
    - An id has at most 1000 bytes (contract, section 12). Every other value may have a megabyte.
    - If the clock of this machine is more than 2 s off the server's, the store writes one warning to the logger
      `zoho_token_store`, and `check` reports `"clock-off"`: the SDK decides by the clock of its machine whether a token
      has expired.
    - The SDK's `TokenStore` has no asynchronous methods: a call blocks its thread, for at most `busy_timeout`. It
      releases the GIL meanwhile.

    A method can fail with these values of `StoreError.code`, besides those of `TokenStoreBase`:

    - `"unreachable"`: the server could not be reached until `busy_timeout` was over. The message has the last cause.
      If a change was sent and its answer was lost, the message says that it is not known whether the change was made.
      Repeating it does no harm.
    - `"access-denied"`: a wrong password, or missing rights. The message names the rights.
    - `"insecure-connection"`: TLS or the certificate of the server is not what `sslmode` asks for.
    - `"wrong-database"`: the database or the schema does not exist, its tables are missing or not ours, or it is not in
      UTF-8.
    - `"read-only"`: the server is a standby, or its transactions are read-only. Finds go on.

    Example:
        >>> with CustomStorePostgreSQL(dsn, schema=schema) as store:
        ...     store.save_token(OAuthToken("1000.CLIENT", "made-up", refresh_token="1000.made.up"))
        ...     len(store)
        1
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        connections: int = 4,
        create: bool = True,
        keys: _KeysOrFunction = ...,
        refresh_lease: timedelta | SupportsFloat = 10.0,
        refresh_ahead: timedelta | SupportsFloat = 0.0,
        refresh_backoff: timedelta | SupportsFloat = 30.0,
        busy_timeout: timedelta | SupportsFloat = 5.0,
        raise_on_missing_id: bool = True,
        password: str | Callable[[], str] | None = None,
        **libpq: str | int | None,
    ) -> None:
        """Connect to the database. Create the tables if they are missing.

        Args:
            dsn: A URL (`postgresql://user@host:port/database?sslmode=…`) or keywords (`"host=… dbname=…"`), as for
                psql. A URL may also have `schema`. What it lacks comes from the environment (`PGHOST`, `PGUSER` …), and
                the password from `PGPASSWORD` or from the password file (`~/.pgpass`).
            schema: The schema with the tables. It is created with them. `None`: the first one of the user's search
                path, which is `public` unless the server says otherwise.
            connections: The most connections of a process: an `int`, at least 1. They are opened when they are needed.
                A thread that finds none free waits for one.
            create: Whether to create missing tables, and to migrate those of an older version. If the user may not
                create tables, an administrator runs what `zoho-token-store init --sql` prints. With `False` nothing is
                created or migrated.
            keys: Encrypts the secrets of the rows: the text of a key (`str` or `bytes`), a sequence of keys, or a
                function without arguments that returns one of the two. Rows are sealed under the first key, and read
                under each. `PLAINTEXT` in the sequence stands for rows in clear text. A function is called here, and
                again when a row needs another key, before some saves, and before `rekey` (contract, section 13). No
                lock and no transaction is held meanwhile. Without `keys`, nothing is encrypted. `None` and an empty
                sequence are errors, so that a missing variable cannot turn encryption off.
            refresh_lease: How long a refresh lease lasts: a `timedelta` or a number of seconds, not negative. While one
                requester refreshes a token, the others wait, on all machines. If the refresh takes longer than the
                lease, the others refresh the token themselves. Zoho answers in well under a second. `0` turns leases
                off.
            refresh_ahead: How much of a token's life is left when it is refreshed ahead of its expiry: a `timedelta` or
                a number of seconds from 0 to 1800. `0`: there are no such refreshes. If a request of the SDK finds a
                valid token with less than this left, it gets the token at once, and a background thread refreshes the
                row. The SDK itself refreshes in the last 5 seconds, so a value up to 5 changes nothing (lease, rule
                17).
            refresh_backoff: The longest time between two refreshes of one token while they fail: a `timedelta` or a
                number of seconds, not negative. From the second failure on, `get_token` raises `"refresh-failing"` for
                1, 2, 4, … seconds at most this long, instead of asking Zoho. `0` turns this off (lease, rule 15).
            busy_timeout: How long a call may take: a `timedelta` or a number of seconds, not negative. It covers the
                wait for a free connection, connecting, and all attempts. A server that is down, restarts or fails over
                is tried again until then. `0` counts as 1 s, because a call over a network takes some time. The time of
                a function for the password does not count.
            raise_on_missing_id: Whether `find_token_by_id` raises if no row has the id. Otherwise it returns `None`.
            password: The password, or a function without arguments that returns it. The function is called for each
                new connection, in the thread that needs it, for passwords that expire, but at most once in a call. It
                must not use this store. A call takes longer than `busy_timeout` by the time of the function. The
                message of its exception is not shown, because it may hold the password: the cause of the `SDKException`
                (`"access-denied"`) has its name.
            **libpq: Other connection parameters of libpq, such as `host`, `port`, `dbname`, `user`, `sslmode`,
                `sslrootcert`, `target_session_attrs` or `connect_timeout`: a `str` or an `int`. They override `dsn`.
                `None` counts as not given. Unlike libpq, `sslmode` is `"verify-full"` by default for a host that is not
                this machine. `service` is not supported, and neither is its variable `PGSERVICE`: unset it.

        Raises:
            ImportError: no Zoho CRM SDK is installed. The message names the packages that provide one.
            SDKException: the store cannot be opened. `"invalid-argument"`: an argument has the wrong type or value, or
                is not a connection parameter. The message names it, and repeats no value. `"unreachable"`,
                `"access-denied"`, `"insecure-connection"`, `"wrong-database"`: see above. `"newer-schema"`: a newer
                version of this library made the tables. They are left untouched.
                `"invalid-key"`: `keys` has a text that is not a key, is
                `None` or empty. The message has the position of the text, and never the text. `"keys-unavailable"`: the
                file, the variable or the function of `keys` gives no keys. An exception of the function is the
                `__cause__` of the `StoreError`.

        Example:
            >>> import os
            >>> def read_password() -> str:
            ...     return os.environ.get("MADE_UP_PASSWORD", "made-up")
            >>> CustomStorePostgreSQL(dsn, schema=schema, password=read_password, connect_timeout=2).close()
        """

class CustomStoreInMemory(TokenStoreBase):
    """Tokens in a private SQLite database in memory, lost with the object. Also called `CustomStore`.

    Example:
        >>> with CustomStoreInMemory() as store:
        ...     len(store)
        0
    """

    def __init__(
        self,
        *,
        keys: _KeysOrFunction = ...,
        refresh_lease: timedelta | SupportsFloat = 10.0,
        refresh_ahead: timedelta | SupportsFloat = 0.0,
        refresh_backoff: timedelta | SupportsFloat = 30.0,
        raise_on_missing_id: bool = True,
    ) -> None:
        """Make an empty store.

        Args:
            keys: Encrypts the secrets of the rows: the text of a key (`str` or `bytes`), a sequence of keys, or a
                function without arguments that returns one of the two. Rows are sealed under the first key, and read
                under each. `PLAINTEXT` in the sequence stands for rows in clear text. A function is called here, and
                again when a row needs another key, before some saves, and before `rekey` (contract, section 13). No
                lock and no transaction is held meanwhile. Without `keys`, nothing is encrypted. `None` and an empty
                sequence are errors, so that a missing variable cannot turn encryption off.
            refresh_lease: How long a refresh lease lasts: a `timedelta` or a number of seconds, not negative. While one
                thread refreshes a token, the others wait. If the refresh takes longer than the lease, the others
                refresh the token themselves. Zoho answers in well under a second. `0` turns leases off.
            refresh_ahead: How much of a token's life is left when it is refreshed ahead of its expiry: a `timedelta` or
                a number of seconds from 0 to 1800. `0`: there are no such refreshes. If a request of the SDK finds a
                valid token with less than this left, it gets the token at once, and a background thread refreshes the
                row. The SDK itself refreshes in the last 5 seconds, so a value up to 5 changes nothing (lease, rule
                17).
            refresh_backoff: The longest time between two refreshes of one token while they fail: a `timedelta` or a
                number of seconds, not negative. From the second failure on, `get_token` raises `"refresh-failing"` for
                1, 2, 4, … seconds at most this long, instead of asking Zoho. `0` turns this off (lease, rule 15).
            raise_on_missing_id: Whether `find_token_by_id` raises if no row has the id. Otherwise it returns `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed. The message names the packages that provide one.
            SDKException: `"invalid-argument"`: an argument has the wrong type or value.
                `"invalid-key"`: `keys` has a text that is not a key, is
                `None` or empty. The message has the position of the text, and never the text. `"keys-unavailable"`: the
                file, the variable or the function of `keys` gives no keys. An exception of the function is the
                `__cause__` of the `StoreError`.

        Example:
            >>> CustomStoreInMemory(refresh_lease=0, raise_on_missing_id=False).find_token_by_id("99")
        """

class CustomStoreList(TokenStoreBase):
    """Tokens in a plain list in memory, lost with the object.

    Example:
        >>> with CustomStoreList() as store:
        ...     len(store)
        0
    """

    def __init__(
        self,
        *,
        keys: _KeysOrFunction = ...,
        refresh_lease: timedelta | SupportsFloat = 10.0,
        refresh_ahead: timedelta | SupportsFloat = 0.0,
        refresh_backoff: timedelta | SupportsFloat = 30.0,
        raise_on_missing_id: bool = True,
    ) -> None:
        """Make an empty store.

        Args:
            keys: Encrypts the secrets of the rows: the text of a key (`str` or `bytes`), a sequence of keys, or a
                function without arguments that returns one of the two. Rows are sealed under the first key, and read
                under each. `PLAINTEXT` in the sequence stands for rows in clear text. A function is called here, and
                again when a row needs another key, before some saves, and before `rekey` (contract, section 13). No
                lock and no transaction is held meanwhile. Without `keys`, nothing is encrypted. `None` and an empty
                sequence are errors, so that a missing variable cannot turn encryption off.
            refresh_lease: How long a refresh lease lasts: a `timedelta` or a number of seconds, not negative. While one
                thread refreshes a token, the others wait. If the refresh takes longer than the lease, the others
                refresh the token themselves. Zoho answers in well under a second. `0` turns leases off.
            refresh_ahead: How much of a token's life is left when it is refreshed ahead of its expiry: a `timedelta` or
                a number of seconds from 0 to 1800. `0`: there are no such refreshes. If a request of the SDK finds a
                valid token with less than this left, it gets the token at once, and a background thread refreshes the
                row. The SDK itself refreshes in the last 5 seconds, so a value up to 5 changes nothing (lease, rule
                17).
            refresh_backoff: The longest time between two refreshes of one token while they fail: a `timedelta` or a
                number of seconds, not negative. From the second failure on, `get_token` raises `"refresh-failing"` for
                1, 2, 4, … seconds at most this long, instead of asking Zoho. `0` turns this off (lease, rule 15).
            raise_on_missing_id: Whether `find_token_by_id` raises if no row has the id. Otherwise it returns `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed. The message names the packages that provide one.
            SDKException: `"invalid-argument"`: an argument has the wrong type or value.
                `"invalid-key"`: `keys` has a text that is not a key, is
                `None` or empty. The message has the position of the text, and never the text. `"keys-unavailable"`: the
                file, the variable or the function of `keys` gives no keys. An exception of the function is the
                `__cause__` of the `StoreError`.

        Example:
            >>> CustomStoreList(refresh_lease=0, raise_on_missing_id=False).find_token_by_id("99")
        """

@disjoint_base
class CustomStoreShared(TokenStoreBase):
    """Tokens in any place that has compare-and-swap: a row of a database, a key of Redis, an object, a secret.

    The place is a *cell*: any object with the methods `load` and `swap` (`zoho_token_store.cells.Cell`). The module
    `zoho_token_store.cells` has cells for a file, a database, Redis and AWS Secrets Manager.

    - All rows and leases are one document. A read loads it, and a change loads and writes it. So a find costs one
      request, a save two, and a place is good for some hundred users (`docs/where-to-keep-tokens.md` has figures).
    - A change starts over if another program came first. So no change is lost, on any number of machines.
    - A refresh lease does not depend on the clocks of the machines. Each one measures the length of a lease on its own
      clock, from when it first saw the lease.

    Example:
        >>> from zoho_token_store.cells import FileCell
        >>> with CustomStoreShared(FileCell("tokens.jsonl")) as store:
        ...     len(store)
        0
    """

    def __init__(
        self,
        cell: _Cell[Any],
        *,
        cache_for: timedelta | SupportsFloat = 0.0,
        keys: _KeysOrFunction = ...,
        refresh_lease: timedelta | SupportsFloat = 10.0,
        refresh_ahead: timedelta | SupportsFloat = 0.0,
        refresh_backoff: timedelta | SupportsFloat = 30.0,
        busy_timeout: timedelta | SupportsFloat = 5.0,
        raise_on_missing_id: bool = True,
    ) -> None:
        """Use the cell. Nothing is loaded before the first call.

        Args:
            cell: The place. Its methods are called from any thread that calls the store, and they hold no lock of it.
            cache_for: How long a document that was loaded answers finds of fresh tokens: a `timedelta` or a number of
                seconds, not negative. `0`: every find loads. A find that needs more, a refresh and a change always
                load. A logout, a delete or a new login in another process is seen after this time at the latest.
            keys: Encrypts the secrets of the rows: the text of a key (`str` or `bytes`), a sequence of keys, or a
                function without arguments that returns one of the two. Rows are sealed under the first key, and read
                under each. `PLAINTEXT` in the sequence stands for rows in clear text. A function is called here, and
                again when a row needs another key, before some saves, and before `rekey` (contract, section 13). No
                lock and no transaction is held meanwhile. Without `keys`, nothing is encrypted. `None` and an empty
                sequence are errors, so that a missing variable cannot turn encryption off.
            refresh_lease: How long a refresh lease lasts: a `timedelta` or a number of seconds, not negative. While one
                requester refreshes a token, the others wait, and look every 250 ms. If the refresh takes longer than
                the lease, the others refresh the token themselves. Zoho answers in well under a second. `0` turns
                leases off. All programs that use one cell should use the same value.
            refresh_ahead: How much of a token's life is left when it is refreshed ahead of its expiry: a `timedelta` or
                a number of seconds from 0 to 1800. `0`: there are no such refreshes. If a request of the SDK finds a
                valid token with less than this left, it gets the token at once, and a background thread refreshes the
                row. The SDK itself refreshes in the last 5 seconds, so a value up to 5 changes nothing (lease, rule
                17).
            refresh_backoff: The longest time between two refreshes of one token while they fail: a `timedelta` or a
                number of seconds, not negative. From the second failure on, `get_token` raises `"refresh-failing"` for
                1, 2, 4, … seconds at most this long, instead of asking Zoho. `0` turns this off (lease, rule 15).
            busy_timeout: How long a change starts over while other programs come first: a `timedelta` or a number of
                seconds, not negative. It does not bound a single `load` or `swap`: give the client of the cell a
                timeout of its own.
            raise_on_missing_id: Whether `find_token_by_id` raises if no row has the id. Otherwise it returns `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed. The message names the packages that provide one.
            SDKException: `"invalid-argument"`: an argument has the wrong type or value. The methods of the store raise
                `"cell-failed"` if the cell raises, `"outcome-unknown"`, `"document-too-large"`, `"not-a-document"`,
                and `"newer-schema"` if a newer version of this library has written the document.

        Example:
            >>> from zoho_token_store.cells import DBAPICell
            >>> cell = DBAPICell(lambda: sqlite3.connect("app.db"))
            >>> CustomStoreShared(cell, cache_for=30).close()
        """

    @property
    def cell(self) -> _Cell[Any] | None:
        """The cell, or `None` before `__init__` has run."""

@final
class Record:
    """A row without its secrets, for the command line."""

    @property
    def id(self) -> str:
        """The row's id."""

    @property
    def user_name(self) -> str | None:
        """The user name, as the SDK writes it (SDK 6 to 8: `email:zgid`)."""

    @property
    def client_id(self) -> str | None:
        """The id of the OAuth client."""

    @property
    def redirect_url(self) -> str | None:
        """The redirect URL of the OAuth client."""

    @property
    def api_domain(self) -> str | None:
        """The URL of the user's data centre and environment."""

    @property
    def data_centre(self) -> str | None:
        """The name of the API domain, such as `"US"` or `"EU sandbox"`. `None` if the domain is not one of Zoho's."""

    @property
    def expiry_time(self) -> str | None:
        """When the access token expires, as text, as it is stored."""

    @property
    def expires_at(self) -> int | None:
        """When the access token expires, in milliseconds since the epoch. `None` if `expiry_time` cannot be read."""

    @property
    def last_saved(self) -> int | None:
        """When the row was last saved, in milliseconds since the epoch. `None` if that is not known."""

    @property
    def has_client_secret(self) -> bool:
        """Whether the row has a client secret."""

    @property
    def has_refresh_token(self) -> bool:
        """Whether the row has a refresh token."""

    @property
    def has_access_token(self) -> bool:
        """Whether the row has an access token."""

    @property
    def has_grant_token(self) -> bool:
        """Whether the row has a grant token."""

    @property
    def unreadable(self) -> Literal["unknown-key", "altered", "plaintext"] | None:
        """Why the row cannot be read: `"unknown-key"`, `"altered"` or `"plaintext"`. `None` if it can be read.

        The other values are as they are stored. They may have been altered.
        """

@final
class RefreshState:
    """Who refreshes a row, and how often that has failed, for the command line."""

    @property
    def held_by(self) -> str | None:
        """The id of the process that holds the refresh lease."""

    @property
    def failures(self) -> int:
        """How many refreshes have failed since the last one that succeeded."""

    @property
    def failing_since(self) -> int | None:
        """When the first of them failed, in milliseconds since the epoch."""

@final
class Imported:
    """The result of an import, for the command line."""

    @property
    def rows(self) -> int:
        """How many rows were read."""

    @property
    def new(self) -> int:
        """Rows that were not in the database before."""

    @property
    def updated(self) -> int:
        """Rows that were newer than the row in the database, or had a value that it lacked."""

    @property
    def unchanged(self) -> int:
        """Rows that had nothing new."""

    @property
    def skipped(self) -> int:
        """Rows that were not imported. The remarks say why."""

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """What the user should know about rows: each remark, and the position of its row in the file."""

@final
class Source:
    """The rows of a file, to import or to restore, for the command line."""

    @property
    def kind(self) -> Literal["FileStore", "SQLite", "PostgreSQL", "JSON Lines"]:
        """The kind of the file."""

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """What the user should know about rows, besides what an import says."""

    def __len__(self) -> int:
        """Return the number of rows."""

@final
class RowRefresh:
    """The refresh of one row, which holds the lease until this is dropped, unless a save has released it before.

    A part of `TokenStoreBase.refresh`.
    """

def find_to_refresh(
    store: TokenStoreBase, row_id: str, within: timedelta | SupportsFloat
) -> tuple[OAuthToken | None, RowRefresh | None, str | None, float | None]:
    """Acquire the lease of a row with less than `within` left, and return its token as an expired one.

    A part of `TokenStoreBase.refresh`, to be called within the SDK's `get_token` alone.

    Returns:
        The token and its refresh. Or the reason why there is none, and the number of seconds until the next attempt.
        Four times `None`: no refresh is needed.
    """

def save_refreshed(store: TokenStoreBase, token: OAuthToken, refresh: RowRefresh) -> bool:
    """Save the answer of Zoho, and return whether it was saved: not if the row is gone, or has another login now.

    A part of `TokenStoreBase.refresh`.
    """

def is_refresh_wanted(store: TokenStoreBase, refresh: RowRefresh) -> bool:
    """Return whether the row still has the login that is being refreshed.

    A part of `TokenStoreBase.refresh`, for stores that override `save_token`.
    """

def select_to_refresh(
    store: TokenStoreBase, within: timedelta | SupportsFloat, ids: Iterable[str] | None
) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Select the rows with less than `within` left, of `ids` or of all.

    A part of `TokenStoreBase.refresh`.

    Returns:
        The ids of the rows to refresh, of those that are valid for long enough, and of those that cannot be refreshed,
        each with the reason.
    """

def report_refresh(
    store: TokenStoreBase, refreshed: list[str], skipped: list[str], failed: dict[str, str]
) -> Refreshed:
    """Make the result of `refresh`. If all that was tried has failed, raise instead.

    A part of `TokenStoreBase.refresh`.
    """

def log_refresh_ahead(store: TokenStoreBase, row_id: str, reason: str | None) -> None:
    """Write what became of a refresh in the background. `reason` is given if it failed."""

@final
class StoreAddress:
    """Where a store is: the path of a file, or the address of a database on a server.

    Example:
        >>> address = StoreAddress("zohooauth.db")
        >>> address.is_file, address.has_password
        (True, False)
    """

    def __new__(cls, address: str | PathLike[str] | _Cell[Any]) -> Self:
        """Read an address. Nothing is opened.

        Args:
            address: A cell, the path of a file, which is made absolute, or a text that begins with `postgresql://` or
                `postgres://`. Such an address may end with `?schema=NAME`, and takes what it lacks from the environment
                (`PGHOST`, `PGPASSWORD` …).

        Raises:
            StoreError: `"invalid-argument"`: it is neither. `"unsupported"`: this build has no such stores.
        """

    @property
    def is_file(self) -> bool:
        """Whether it is the path of a file."""

    @property
    def name(self) -> str:
        """What messages call it. It contains no secret."""

    @property
    def schema(self) -> str | None:
        """The schema that the address of a server names (`?schema=NAME`)."""

    @property
    def has_password(self) -> bool:
        """Whether the address itself contains a password."""

    @property
    def lacks_password(self) -> bool:
        """Whether no password is known: neither the address, nor the environment, nor `.pgpass` has one."""

    def with_password(self, password: str) -> StoreAddress:
        """Return the same address with this password."""

class StoreAtAddress(TokenStoreBase):
    """Tokens at any address, for the command line.

    Example:
        >>> with StoreAtAddress(StoreAddress("zohooauth.db")) as store:
        ...     len(store)
        1
    """

    def __init__(
        self,
        address: str | PathLike[str] | StoreAddress,
        *,
        keys: _KeysOrFunction = ...,
        busy_timeout: timedelta | SupportsFloat = 5.0,
    ) -> None:
        """Open the store. Create it if it is missing.

        Args:
            address: As for `StoreAddress`.
            keys: As for `CustomStoreSQLite`.
            busy_timeout: The longest wait for other programs: a `timedelta` or a number of seconds, not negative.

        Raises:
            ImportError: no Zoho CRM SDK is installed.
            SDKException: the store cannot be opened, with the codes of the class for this kind of address.
        """

@final
class Administration:
    """A token database without the SDK, for the command line.

    Its methods raise `StoreError` itself, because no SDK is needed (contract, section 6). Every method can fail with
    the codes that `TokenStoreBase` lists.

    A method that only reads does not change the file, not even if the vendor's sample or an older version wrote it. A
    method that changes rows migrates such a file first.

    Example:
        >>> database = Administration("zohooauth.db")
        >>> [(record.id, record.user_name) for record in database.records()]
        [('1', 'ada@example.com')]
        >>> database.reveal("1")["refresh_token"]
        '1000.made.up'
        >>> database.export("tokens.jsonl")
        1
        >>> database.close()
    """

    def __new__(
        cls,
        address: str | PathLike[str] | StoreAddress,
        *,
        make: bool = False,
        keys: _KeysOrFunction = ...,
        busy_timeout: timedelta | SupportsFloat = 5.0,
    ) -> Self:
        """Open the database at `address`.

        Args:
            address: As for `StoreAddress`.
            make: Whether to create the file, or the tables on the server, if they are missing.
            keys: As for `CustomStoreSQLite`.
            busy_timeout: The longest wait for other programs that have locked the database: a `timedelta` or a number
                of seconds, not negative.

        Raises:
            StoreError: with the codes of the constructors of `CustomStoreSQLite` and `CustomStorePostgreSQL`.
                `"missing-file"` means that there is no file and that `make` is false.
        """

    @staticmethod
    def rehearsal(source: Source | None = None, *, keys: _KeysOrFunction = ...) -> Administration:
        """Return a copy in memory, for a trial: what is done to it changes no file. Without a source it is empty.

        Args:
            source: The rows, as `read_source` returns them for a database. Sealed rows stay sealed.
            keys: As for `CustomStoreSQLite`.
        """

    def __len__(self) -> int:
        """Return the number of rows."""

    def records(self) -> list[Record]:
        """Return all rows, the oldest row first, also those that cannot be read."""

    def refresh_states(self) -> list[tuple[Record, RefreshState]]:
        """Return all rows, as `records` does, each with who refreshes it. They are of one snapshot."""

    def record(self, id: str) -> Record:  # noqa: A002
        """Return the row with this id, also if it cannot be read.

        Raises:
            StoreError: `"missing-id"`: no row has the id.
        """

    def reveal(self, id: str) -> dict[str, str]:  # noqa: A002
        """Return the values of the row with this id, its secrets included.

        Returns:
            The present values by the names of their columns.

        Raises:
            StoreError: `"missing-id"`: no row has the id.
        """

    def try_to_write(self) -> None:
        """Write without changing anything. Fails where a save would fail.

        Raises:
            StoreError: `"read-only"`, `"disk-full"`, `"busy"`, and the other codes of a save.
        """

    def delete(self, id: str) -> None:  # noqa: A002
        """Delete the row with this id, and scrub its secrets from the file.

        Raises:
            StoreError: `"missing-id"`: no row has the id.
        """

    def purgeable(self, idle_for: timedelta | SupportsFloat | None = None) -> list[Record]:
        """Return the rows that `purge` may delete, the oldest row first.

        Args:
            idle_for: As for `TokenStoreBase.purge`.
        """

    def purge(self, ids: list[str], idle_for: timedelta | SupportsFloat | None = None) -> int:
        """Purge the rows with these ids, and return how many were deleted.

        A row that may no longer be purged is kept.

        Args:
            ids: The ids of rows that `purgeable` returned.
            idle_for: As for `TokenStoreBase.purge`.
        """

    def delete_rows(self, ids: list[str]) -> int:
        """Delete the rows with these ids, whatever their age, and return how many were deleted.

        Args:
            ids: The ids of the rows. An id that no row has is ignored.
        """

    def import_rows(self, source: Source, first: int, count: int) -> Imported:
        """Import rows of a source, beginning with row number `first`, in one transaction.

        Others wait for the transaction, so it ends after about a second. It reads at least one row.

        An id of another store means nothing here, so no row is found by its id. If a row is here already, the newer of
        the two wins. The newer one is the one whose access token expires later. An imported row that is not newer only
        fills in values that are missing here. So a second import of the same file changes nothing.

        Args:
            source: The rows.
            first: The number of the first row to import. Rows are counted from 0.
            count: The most rows to import. The result says how many were read.

        Raises:
            StoreError: `"same-file"`: the source is this database.
        """

    def restore(self, source: Source) -> int:
        """Replace all rows by the rows of a backup, in one transaction. Return their number.

        Raises:
            StoreError: `"not-a-backup"`: the source is not a database. `"duplicate-ids"`: several rows have the same
                id. `"same-file"`: the source is this database. `"unknown-key"`, `"altered-row"`: the source has a row
                that the keys of this database do not open. Nothing was replaced.
        """

    def backup(self, path: str | PathLike[str]) -> None:
        """Write a consistent copy into a SQLite file, like the `backup` of a store."""

    def export(self, path: str | PathLike[str], *, overwrite: bool = False) -> int:
        """Write all rows into a file as JSON Lines, and return their number.

        Only its owner can read the file (mode 0600). It appears under its name when it is complete.

        Args:
            path: The file to write.
            overwrite: Whether to replace an existing file. A database is never replaced.

        Raises:
            StoreError: `"file-exists"`: there is a file, and `overwrite` is false. `"same-file"`,
                `"target-is-database"`: the path is a database.
        """

    def export_to_stdout(self) -> int:
        """Write all rows to standard output as JSON Lines, and return their number.

        The secrets do not become Python objects. Flush `sys.stdout` first.

        Raises:
            OSError: standard output cannot be written. `BrokenPipeError` if its reader has closed it.
        """

    def rekey(self) -> Rekeyed:
        """Seal every row under the first key, while programs go on."""

    def rekey_preview(self) -> Rekeyed:
        """Return what `rekey` would do with the rows as they are now. Nothing is changed."""

    def key_usage(self) -> dict[str, int]:
        """Return the number of rows under each key."""

    def forget_key(self, key_id: str) -> int:
        """Delete the rows under the key with this id, and return their number. The key itself is not needed.

        Rows in clear text, and rows under other keys, stay.

        Args:
            key_id: The id of the key, as `key_usage` returns it.
        """

    def close(self) -> None:
        """Close the database."""

def read_source(
    address: str | PathLike[str] | StoreAddress, *, busy_timeout: timedelta | SupportsFloat = 5.0
) -> Source:
    """Read the rows of a file or of a server's database, to import or to restore them. Nothing is changed.

    A file is a CSV file of an SDK's `FileStore`, a SQLite token database, or an export of this library.

    Args:
        address: As for `StoreAddress`.
        busy_timeout: The longest wait for a server: a `timedelta` or a number of seconds, not negative.

    Raises:
        StoreError: `"missing-file"`: there is no file. `"not-a-token-file"`, `"no-token-table"`, `"other-program"`: the
            file is of another kind. `"invalid-line"`, `"unfinished-line"`, `"incomplete-export"`, `"damaged"`: its
            contents are wrong. `"changed-while-read"`: another program wrote the file meanwhile. For a server, the
            codes of the constructor of `CustomStorePostgreSQL`.
    """

def read_stdin() -> Source:
    """Read the rows of standard input, to import them.

    The input is the text of a `FileStore` or of an export.

    Raises:
        StoreError: `"not-a-token-file"`, `"database-in-stream"`: the input is of another kind. `"invalid-line"`: its
            contents are wrong.
    """

def init_sql() -> str:
    """Return the statements that make the tables of a store on a server.

    They are for a user who may create tables, if the user of the programs may not.

    Raises:
        StoreError: `"unsupported"`: this build has no stores on a server.

    Example:
        >>> "CREATE TABLE" in init_sql()
        True
    """

def check(
    address: str | PathLike[str] | StoreAddress,
    *,
    keys: _KeysOrFunction = ...,
    busy_timeout: timedelta | SupportsFloat = 5.0,
) -> list[Finding]:
    """Return the problems of the database at `address`, and change nothing.

    `TokenStoreBase.check` describes the problems. This function also checks a database that cannot be opened as a
    store.

    Args:
        address: As for `StoreAddress`.
        keys: As for `CustomStoreSQLite`. Without them, a sealed row is reported as `"unknown-key"`, and nothing else is
            known about it.
        busy_timeout: The longest wait for a server: a `timedelta` or a number of seconds, not negative.

    Raises:
        StoreError: `"missing-file"`: there is no file. `"permission-denied"`, `"io-error"`: it cannot be read.
    """

def schema_version(
    address: str | PathLike[str] | StoreAddress, *, busy_timeout: timedelta | SupportsFloat = 5.0
) -> int:
    """Return the version of the schema of the database at `address`, and change nothing.

    It is 0 for a file of the vendor's sample, and for an empty file.

    Args:
        address: As for `StoreAddress`.
        busy_timeout: The longest wait for a server: a `timedelta` or a number of seconds, not negative.

    Raises:
        StoreError: with the codes of the constructors of `CustomStoreSQLite` and `CustomStorePostgreSQL`.
    """
