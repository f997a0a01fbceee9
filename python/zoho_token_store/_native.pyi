"""The documentation of record: what each class and method takes, returns, raises and promises.

"Contract" is `docs/contract.md` in the source distribution: the list of promises, each with a test that runs over every
class.
"""

from collections.abc import Iterable
from datetime import timedelta
from os import PathLike
from typing import Final, Literal, NoReturn, SupportsFloat, SupportsIndex, final

from typing_extensions import Self, disjoint_base
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

__version__: Final[str]
__profile__: Final[str]
"""How it was compiled: `"release"` or `"debug"`."""

class StoreError(Exception):
    """Base of the library's own errors.

    Inside the methods of a store it is the `cause` (and `__cause__`) of the SDK's `SDKException`. Its message says what
    is wrong, with which file or id, what was not lost, and what to do. It never holds a secret.
    """

@final
class LeaseInfo:
    """How often a store had to do with refresh leases in this process since it was made. A snapshot."""

    @property
    def taken(self) -> int:
        """Leases taken: refreshes that this store let the SDK make while others wait."""

    @property
    def waited(self) -> int:
        """Finds that waited for another's refresh, however the wait ended."""

    @property
    def gave_up(self) -> int:
        """Those of them that went on without a fresh token: Zoho was slow, or `refresh_lease` is short."""

    @property
    def longest_wait(self) -> float:
        """The longest wait, in seconds."""

@final
class Finding:
    """Something about a store that is not as it should be. It holds no secret."""

    @property
    def code(self) -> str:
        """What kind it is, for programs.

        Of the file: `"not-a-database"`, `"damaged"`, `"newer-schema"`, `"other-program"`; `"older-schema"`,
        `"permissions"`, `"no-wal"`, `"network-file-system"`. Of rows: `"duplicate"`, `"no-expiry"`, `"far-expiry"`,
        `"unusable"`, `"empty"`.
        """

    @property
    def severity(self) -> Literal["error", "warning"]:
        """How bad it is: the store does not work, or somebody should look."""

    @property
    def ids(self) -> list[str]:
        """The rows concerned; none if it is about the file."""

    @property
    def message(self) -> str:
        """What is wrong."""

    @property
    def cure(self) -> str:
        """What to do."""

@disjoint_base
class TokenStoreBase:
    """What the store classes have in common: every method. It is made only through one of them.

    A store is a `TokenStore` of the installed SDK (5 to 8) by `isinstance`, serves any number of threads, and works
    in parent and child after a fork (contract 7). It may be subclassed; an `__init__` of the subclass's own has to call
    `super().__init__()`.

    A value of a token is *absent* if it is `None` or `""`; the two are never told apart. Times in a token
    (`expires_in`) are milliseconds since the epoch, as a `str`, as the SDK writes them.

    Every method raises the SDK's `SDKException` with code `"TOKEN_STORE"` if it fails. Its message begins with the
    method's name, its `cause` is a `StoreError`, the logger `zoho_token_store` has it, too, and the store is as it was
    before (contract 6). That covers bad input (an object that is no `OAuthToken`, a field of a wrong type, text without
    a UTF-8 form such as half of a surrogate pair), a closed store, and whatever the file or the disk refuses.
    """

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        """Complete a token from its row.

        The row is the first that one of the token's keys finds and that does not contradict it: user name, id, grant
        token, refresh token, access token, in this order (contract 3). A token without any key names no row.

        Where the SDK's `OAuthToken.get_token` calls, about to refresh, and another thread or process is refreshing
        that row already, it waits for the answer (`refresh_lease`; `docs/lease.md`). It then lets go of the GIL, and a
        signal's handler that raises ends it. Any other caller gets the row at once.

        Args:
            token: Changed in place: every absent field is filled from the row, the id is the row's in any case. Access
                token and expiry are taken together or not at all: the row's if the token has none, or an older one. Of
                a row whose user has authorised anew, that is, whose refresh or grant token is not the token's, neither
                access token nor used-up credentials are taken (contract 4).

        Returns:
            The same object; or `None` if there is no row, and then the token is untouched.

        Raises:
            SDKException: see the class. A file that is locked for longer than `busy_timeout` is such a failure.
        """

    def save_token(self, token: OAuthToken) -> None:
        """Save a token into its row, or into a new one if it has none.

        It returns after the row is durable: a power cut right afterwards loses nothing. Finding the row and writing it
        are one transaction. Present fields replace the row's, absent ones leave them; an access token that comes
        without an expiry clears the row's (contract 5).

        Args:
            token: Carries its row's id afterwards. A new row gets the token's own id if no row has it, otherwise a new
                one: a decimal string, higher than any before, deleted ones included.

        Raises:
            SDKException: see the class; and if the token has neither refresh nor grant nor access token and no row.
                SDK 6 to 8 swallow what this method raises while they refresh, and log it; so does the store.
        """

    def find_token_by_id(self, id: str) -> OAuthToken | None:  # noqa: A002
        """Make a new token from the row with this id. It waits for another's refresh as `find_token` does.

        Args:
            id: The row's id. An absent id (`None`, `""`) is one that is not there.

        Returns:
            A new token; `None` only in a store made with `raise_on_missing_id=False`.

        Raises:
            SDKException: see the class; and if no row has the id, as in every store of the SDK's: SDK 5 to 7 break on
                `None`, and SDK 8 would go on with the caller's copy, so that a logged-out user lives on (contract 2).
        """

    def get_tokens(self) -> list[OAuthToken]:
        """Make a new token of every row, the oldest row first.

        Raises:
            SDKException: see the class.
        """

    def delete_token(self, id: str) -> None:  # noqa: A002
        """Delete the row with this id, and what is left of it on the disk. An id that is not there is no error.

        Raises:
            SDKException: see the class.
        """

    def delete_tokens(self) -> None:
        """Delete all rows, and what is left of them on the disk. Their ids are not given out again.

        Raises:
            SDKException: see the class.
        """

    def purge(self, idle_for: timedelta | SupportsFloat | None = None) -> int:
        """Delete the rows that can never be used again (contract 10).

        They are those with no refresh token and an access token that has expired.

        Args:
            idle_for: With it, the rows that were not saved for that long go, too: a `timedelta` or seconds, from 0 on.
                A row that another program wrote counts from when this library first saw it.

        Returns:
            How many rows were deleted.

        Raises:
            SDKException: see the class.
        """

    def import_tokens(self, tokens: Iterable[OAuthToken]) -> int:
        """Save each of the tokens, in one transaction: all of them or none.

        `store.import_tokens(FileStore("sdk_tokens.txt").get_tokens())` moves another store over. Tokens carry
        their rows' ids afterwards.

        Returns:
            How many tokens were saved.

        Raises:
            SDKException: see the class. What the iterable itself raises passes through.
        """

    def backup(self, path: str | PathLike[str]) -> None:
        """Write a consistent copy into a SQLite file, while others go on writing.

        The file is its owner's alone (0600) and takes its name only once it is whole. A token database of this
        library's that nobody has open (an older backup) is replaced, anything else is not.

        Raises:
            SDKException: see the class.
        """

    def check(self) -> list[Finding]:
        """Look for what is not as it should be, and change nothing. `zoho-token-store check` finds the same.

        - The file: SQLite's integrity check of all of it; a schema that is older, newer or another program's; who may
          read it; whether it is in WAL mode; a file system that other machines may use.
        - The rows: several for one user, client and API domain, or for one refresh token; an access token without an
          expiry, or with one more than a day ahead; rows that can never be used again (what `purge` deletes), or that
          have no credential at all.

        It reads the whole file: seconds for a million rows.

        Raises:
            SDKException: see the class. A damaged file is a finding, not a failure, unless it cannot be read at all.
        """

    def lease_info(self) -> LeaseInfo:
        """Return how often this store had to do with refresh leases, for whoever runs it in production.

        A forked child starts with its parent's numbers. The logger `zoho_token_store` tells each event as it happens:
        a lease taken, a wait that ended, a lease given back without a new token (INFO), a wait in vain (WARNING), the
        rest (DEBUG).
        """

    def close(self) -> None:
        """Close the store, and give back what leases it holds.

        Any later call but `close()` raises an `SDKException`; what was saved in a file stays.
        """

    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...
    def __len__(self) -> int:
        """Return the number of rows."""

    def __bool__(self) -> bool:
        """Return `True`: a store without rows is a store."""

    def __reduce_ex__(self, _protocol: SupportsIndex, /) -> NoReturn:
        """Raise `TypeError`: a store can be neither copied nor pickled."""

class CustomStoreSQLite(TokenStoreBase):
    """Tokens in a SQLite file, for any number of threads and processes (contract 7, 9).

    A file that the SDK's sample class of this name wrote opens as it is, keeps its rows, and can still be used by the
    sample. A new file is readable by its owner alone (0600); an existing one that others can read draws one warning on
    the logger `zoho_token_store`. So does one on a file system that other machines may use (NFS, SMB, FUSE and the
    like): there the store works without WAL, and promises nothing for two hosts.
    """

    def __init__(
        self,
        path: str | PathLike[str] = "zohooauth.db",
        *,
        refresh_lease: float = 10.0,
        busy_timeout: float = 5.0,
        raise_on_missing_id: bool = True,
    ) -> None:
        """Open the file, or make it.

        Args:
            path: Made absolute once, here. The file is made if it is missing; its folder is not. `":memory:"` is
                refused: that is `CustomStoreInMemory`.
            refresh_lease: How long one refresh may take before others make it themselves, in seconds: then the lease
                that keeps them waiting is over. Zoho answers in well under a second. 0 turns leases off. All who
                use one file should be given the same.
            busy_timeout: Longest wait for other programs and threads that have the file locked, in seconds.
            raise_on_missing_id: What `find_token_by_id` does about an id that is not there: raise, or return `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed; the message names the packages that bring it.
            SDKException: the file cannot be made or opened, is not a SQLite database, is damaged, is another
                program's, or was written by a newer version of this library. It is left untouched.
        """

class CustomStoreInMemory(TokenStoreBase):
    """Tokens in a private SQLite database in memory, gone with the object. Also called `CustomStore`."""

    def __init__(self, *, refresh_lease: float = 10.0, raise_on_missing_id: bool = True) -> None:
        """Make an empty store.

        Args:
            refresh_lease: How long one refresh may take before others make it themselves, in seconds: then the lease
                that keeps them waiting is over. Zoho answers in well under a second. 0 turns leases off. It
                counts among the threads of this process.
            raise_on_missing_id: What `find_token_by_id` does about an id that is not there: raise, or return `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed; the message names the packages that bring it.
            SDKException: an argument is bad input.
        """

class CustomStoreList(TokenStoreBase):
    """Tokens in a plain list in memory, gone with the object."""

    def __init__(self, *, refresh_lease: float = 10.0, raise_on_missing_id: bool = True) -> None:
        """Make an empty store.

        Args:
            refresh_lease: How long one refresh may take before others make it themselves, in seconds: then the lease
                that keeps them waiting is over. Zoho answers in well under a second. 0 turns leases off. It
                counts among the threads of this process.
            raise_on_missing_id: What `find_token_by_id` does about an id that is not there: raise, or return `None`.

        Raises:
            ImportError: no Zoho CRM SDK is installed; the message names the packages that bring it.
            SDKException: an argument is bad input.
        """

@final
class Record:
    """A row without its secrets, for the command line."""

    @property
    def id(self) -> str:
        """The row's id."""

    @property
    def user_name(self) -> str | None:
        """The user, as the SDK writes it (SDK 6 to 8: `email:zgid`)."""

    @property
    def client_id(self) -> str | None:
        """The OAuth client's id."""

    @property
    def redirect_url(self) -> str | None:
        """The OAuth redirect URL."""

    @property
    def api_domain(self) -> str | None:
        """The URL of the user's data centre and environment."""

    @property
    def data_centre(self) -> str | None:
        """What that is called: `"US"`, `"EU sandbox"`; `None` if it is none of Zoho's."""

    @property
    def expiry_time(self) -> str | None:
        """When the access token expires, as it is stored."""

    @property
    def expires_at(self) -> int | None:
        """The same in milliseconds since the epoch, if it can be read."""

    @property
    def last_saved(self) -> int | None:
        """When the row was last saved, in milliseconds since the epoch, if known."""

    @property
    def has_client_secret(self) -> bool:
        """Whether there is a client secret."""

    @property
    def has_refresh_token(self) -> bool:
        """Whether there is a refresh token."""

    @property
    def has_access_token(self) -> bool:
        """Whether there is an access token."""

    @property
    def has_grant_token(self) -> bool:
        """Whether there is a grant token."""

@final
class Imported:
    """How many rows of a batch became what, for the command line."""

    @property
    def new(self) -> int:
        """Rows that were not here."""

    @property
    def updated(self) -> int:
        """Rows that were newer than what was here, or had something that it lacked."""

    @property
    def unchanged(self) -> int:
        """Rows that brought nothing."""

    @property
    def skipped(self) -> int:
        """Rows with no refresh, grant or access token."""

@final
class Source:
    """The rows of a file, to be imported or restored by the command line."""

    @property
    def kind(self) -> Literal["FileStore", "SQLite", "JSON Lines"]:
        """Which kind of file it was."""

    def __len__(self) -> int:
        """Return the number of rows."""

@final
class Administration:
    """A token database without the SDK, for the command line. Its methods raise `StoreError` itself (contract 6)."""

    def __new__(cls, path: str | PathLike[str], *, make: bool = False, busy_timeout: float = 5.0) -> Self:
        """Open the database at `path`; one that is missing is made if `make` is given.

        Args:
            path: Made absolute once, here.
            make: Make it if it is missing; otherwise that is an error.
            busy_timeout: Longest wait for other programs that have the file locked, in seconds.

        Raises:
            StoreError: as the constructor of `CustomStoreSQLite`.
        """

    def __len__(self) -> int:
        """Return the number of rows."""

    def records(self) -> list[Record]:
        """Return all rows, the oldest first."""

    def record(self, id: str) -> Record:  # noqa: A002
        """Return the row with this id. One that is not there is an error."""

    def reveal(self, id: str) -> dict[str, str]:  # noqa: A002
        """Return the present values of the row with this id by column, its secrets among them."""

    def delete(self, id: str) -> None:  # noqa: A002
        """Delete the row with this id. One that is not there is an error."""

    def purgeable(self, idle_for: timedelta | SupportsFloat | None = None) -> list[Record]:
        """Return the rows that may be purged (contract 10), the oldest first. `idle_for`: a `timedelta` or seconds."""

    def purge(self, ids: list[str], idle_for: timedelta | SupportsFloat | None = None) -> int:
        """Delete those of the rows with these ids that may still be purged, and return how many they were."""

    def import_rows(self, source: Source, first: int, count: int) -> Imported:
        """Bring `count` rows of a source from number `first` (0 is the first) to this database, in one transaction.

        No row is found by an id of another store's. The newer of two wins: the one whose access token expires later; of
        one that is not newer, only what is missing here is taken. So the same file once more changes nothing.
        """

    def restore(self, source: Source) -> int:
        """Put all rows of a backup in the place of all rows here, in one transaction; return how many they are."""

    def backup(self, path: str | PathLike[str]) -> None:
        """Write a consistent copy, as a store's `backup` does."""

    def export(self, path: str | PathLike[str], *, overwrite: bool = False) -> int:
        """Write all rows as JSON Lines into a file, its owner's alone (0600); return how many they are.

        It takes its name once it is whole. A file that is there is an error without `overwrite`.
        """

    def close(self) -> None:
        """Close the database."""

def read_source(path: str | PathLike[str]) -> Source:
    """Read the rows of a FileStore's CSV file, a SQLite token database, or an export; it stays as it is.

    Raises:
        StoreError: there is no such file, it is damaged, or it is neither of these.
    """

def check(path: str | PathLike[str]) -> list[Finding]:
    """Look for what is not as it should be with the database at `path`, and change nothing; see `TokenStoreBase.check`.

    Raises:
        StoreError: there is no such file, or it cannot be read.
    """
