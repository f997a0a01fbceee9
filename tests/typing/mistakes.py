"""A user's mistakes: each line is one that mypy and pyright report. Checked by both, never run."""

from datetime import datetime, timezone

from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite, LeaseInfo
from zoho_token_store._native import TokenStoreBase

store = CustomStoreSQLite("zohooauth.db")

CustomStoreSQLite(7)  # expected: a path
CustomStoreSQLite("zohooauth.db", 10.0)  # expected: the rest by name alone
CustomStoreSQLite("zohooauth.db", refresh_lease="10")  # expected: a number
CustomStoreSQLite("zohooauth.db", timeout=5)  # expected: no such argument
CustomStoreInMemory("zohooauth.db")  # expected: no file
CustomStoreList(busy_timeout=5.0)  # expected: nothing to wait for
store.find_token_by_id(1)  # expected: an id is a str
store.delete_token(None)  # expected: an id is a str
store.purge(datetime.now(tz=timezone.utc))  # expected: a time span
store.import_tokens(7)  # expected: an iterable
store.backup()  # expected: where to
store.find_tokens()  # expected: no such method
store.lease_info().taken = 0  # expected: read only
store.find_token_by_id("1").get_id()  # expected: None comes first, with raise_on_missing_id=False
names: list[str] = store.check()  # expected: findings


class Sealed(LeaseInfo):  # expected: final
    """No class to build on."""


class Narrower(CustomStoreList):
    """A method that takes something else."""

    def delete_token(self, id: int) -> None:  # expected: not what the base takes
        """Take what no caller gives."""


base: TokenStoreBase = "a store"  # expected: no store
