"""Token stores for the Zoho CRM Python SDK.

    from zoho_token_store import CustomStoreSQLite
    Initializer.initialize(environment=…, token=…, store=CustomStoreSQLite("zohooauth.db"))

Importing this package does not import the SDK (that costs most of a second); constructing a store does.
"""

from ._native import (
    CustomStoreInMemory,
    CustomStoreList,
    CustomStoreSQLite,
    Finding,
    LeaseInfo,
    StoreError,
    __version__,
)

# The name that the vendor's sample gives it.
CustomStore = CustomStoreInMemory

__all__ = [
    "CustomStore",
    "CustomStoreInMemory",
    "CustomStoreList",
    "CustomStoreSQLite",
    "Finding",
    "LeaseInfo",
    "StoreError",
    "__version__",
]
