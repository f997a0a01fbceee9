# ruff: noqa: T201 - it reports to the test through stdout
"""A file of the first SDKs has no client secret. After `import`, a program that gives the secret refreshes the token.

Its argument is the folder to work in. It prints whether the row has the client secret, before and after the refresh.
"""

import os
import sys
from pathlib import Path

from support import token
from zoho_token_store import CustomStoreSQLite
from zoho_token_store._cli import run
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

HEADER = "user_mail,client_id,refresh_token,access_token,grant_token,expiry_time"

os.chdir(sys.argv[1])
with ZohoStandIn() as zoho:
    user = zoho.add_user("ada@example.com")
    row = f"{user.name},{zoho.client_id},{zoho.refresh_token(user)},1000.made.up,,1"
    Path("sdk_tokens.txt").write_text(f"{HEADER}\r\n{row}\r\n", encoding="utf-8")
    assert run(["import", "sdk_tokens.txt"]) == 0
    with CustomStoreSQLite() as store:
        before = [row.get_client_secret() for row in store.get_tokens()]
        given = token(user.name, client_id=zoho.client_id, client_secret=zoho.client_secret)
        Initializer.initialize(environment=zoho.environment(), token=given, store=store)
        given.get_token()
        after = [row.get_client_secret() for row in store.get_tokens()]
    print(before == [None], after == [zoho.client_secret], zoho.token_calls)
