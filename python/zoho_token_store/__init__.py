"""Token stores for the Zoho CRM Python SDK.

    from zoho_token_store import CustomStoreSQLite
    Initializer.initialize(environment=…, token=…, store=CustomStoreSQLite("zohooauth.db"))

Importing this package does not import the SDK, because that takes most of a second. Opening a store does.
"""

from . import (
    _interpreter,  # noqa: F401 - before the native layer, which must not be loaded if it raises
    _refresh,  # noqa: F401 - it adds the method `refresh` to every store
)
from ._environment import data_centre_from_environment, token_from_environment
from ._native import (
    PLAINTEXT,
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreShared,
    CustomStoreSQLite,
    Finding,
    LeaseInfo,
    Refreshed,
    Rekeyed,
    StoreError,
    TokenStoreBase,
    __version__,
    key_environment,
    key_file,
    key_id,
    new_key,
    token_from_dict,
    token_to_dict,
)

# The name of this class in the vendor's sample.
CustomStore = CustomStoreInMemory

__all__ = [
    "PLAINTEXT",
    "CustomStore",
    "CustomStoreInMemory",
    "CustomStoreList",
    "CustomStorePostgreSQL",
    "CustomStoreSQLite",
    "CustomStoreShared",
    "Finding",
    "LeaseInfo",
    "Refreshed",
    "Rekeyed",
    "StoreError",
    "TokenStoreBase",
    "__version__",
    "data_centre_from_environment",
    "key_environment",
    "key_file",
    "key_id",
    "new_key",
    "token_from_dict",
    "token_from_environment",
    "token_to_dict",
]
