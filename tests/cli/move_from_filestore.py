# ruff: noqa: T201 - it reports to the test through stdout
"""A program logs in with the SDK's FileStore and goes on with a SQLite store after `zoho-token-store import`.

Its argument is the folder to work in. The last line that it prints has the number of token calls and of rows.
"""

import os
import sys

from support import token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import run
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

os.chdir(sys.argv[1])
with ZohoStandIn() as zoho:
    code = zoho.grant_code(zoho.add_user("ada@example.com"))
    first = token(None, client_id=zoho.client_id, client_secret=zoho.client_secret, grant_token=code)
    Initializer.initialize(environment=zoho.environment(), token=first, store=FileStore("sdk_tokens.txt"))
    user = first.get_user_signature().get_name()
    assert run(["import", "sdk_tokens.txt"]) == 0
    os.remove("sdk_tokens.txt")  # noqa: PTH107
    with CustomStoreSQLite() as store:
        second = token(user)
        Initializer.initialize(environment=zoho.environment(), token=second, store=store)
        second.get_token()
        assert second.get_access_token() == first.get_access_token()
        print(zoho.token_calls, len(store))
