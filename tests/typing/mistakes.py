"""Typing errors that mypy and pyright report, one on each marked line. Both check this file; it is never run."""

from datetime import datetime, timezone

from zoho_token_store import (
    CustomStoreInMemory,
    CustomStoreList,
    CustomStoreSQLite,
    LeaseInfo,
    StoreError,
    TokenStoreBase,
)

store = CustomStoreSQLite("zohooauth.db")

CustomStoreSQLite(7)  # expected: not a path
CustomStoreSQLite("zohooauth.db", 10.0)  # expected: keyword-only argument
CustomStoreSQLite("zohooauth.db", refresh_lease="10")  # expected: not a number
CustomStoreSQLite("zohooauth.db", timeout=5)  # expected: unknown argument
CustomStoreInMemory("zohooauth.db")  # expected: it takes no path
CustomStoreList(busy_timeout=5.0)  # expected: unknown argument
store.find_token_by_id(1)  # expected: not a str
store.delete_token(None)  # expected: not a str
store.purge(datetime.now(tz=timezone.utc))  # expected: not a timedelta or a number
store.import_tokens(7)  # expected: not iterable
store.backup()  # expected: missing argument
store.find_tokens()  # expected: unknown method
store.lease_info().taken = 0  # expected: read-only attribute
store.find_token_by_id("1").get_id()  # expected: the result may be None, with raise_on_missing_id=False
number: int = StoreError("made up").code  # expected: not an int
names: list[str] = store.check()  # expected: not a list of str


class Subclass(LeaseInfo):  # expected: LeaseInfo is final
    """A subclass of a final class."""


class Narrower(CustomStoreList):
    """A subclass with an incompatible method."""

    def delete_token(self, id: int) -> None:  # expected: incompatible with the base class
        """Accept only another type of id."""


base: TokenStoreBase = "a store"  # expected: not a store
