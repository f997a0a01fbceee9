# ruff: noqa: T201 - `wheel_smoke.py` shows its output
"""Save and find a token in each store of the installed wheel."""

import pathlib
import sys
import tempfile

from zoho_token_store import CustomStore, CustomStoreList, CustomStoreSQLite, __version__
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

with tempfile.TemporaryDirectory() as folder:
    for store in (CustomStoreSQLite(pathlib.Path(folder) / "tokens.db"), CustomStore(), CustomStoreList()):
        store.save_token(OAuthToken(client_id="1000.CLIENT", client_secret="made-up", refresh_token="1000.made.up"))
        wanted = OAuthToken(client_id="1000.CLIENT", client_secret="made-up", refresh_token="1000.made.up")
        found = store.find_token(wanted)
        assert (found.get_id(), len(store)) == ("1", 1)
        store.close()
print(f"CPython {sys.version.split()[0]}: zoho-token-store {__version__} works")
