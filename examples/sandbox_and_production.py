"""One user in the sandbox and in production: two rows in one database.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=…
    export ZOHO_GRANT_CODE=… ZOHO_SANDBOX_GRANT_CODE=…    # each is valid for one login
    python sandbox_and_production.py

The rows have different API domains. Neither login overwrites the other, and each row is refreshed separately.
"""

import os

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations


def login(code_variable: str) -> OAuthToken:
    """Return a token with the grant code of this environment variable."""
    return OAuthToken(os.environ["ZOHO_CLIENT_ID"], os.environ["ZOHO_CLIENT_SECRET"], os.environ[code_variable])


def organisation() -> str:
    """Return the id of the current token's organisation, from Zoho."""
    return str(OrgOperations().get_organization().get_object().get_org()[0].get_zgid())


store = CustomStoreSQLite("zohooauth.db")
production, sandbox = login("ZOHO_GRANT_CODE"), login("ZOHO_SANDBOX_GRANT_CODE")

Initializer.initialize(environment=USDataCenter.PRODUCTION(), token=production, store=store)
print(f"production: organisation {organisation()}, row {production.get_id()}")

Initializer.switch_user(environment=USDataCenter.SANDBOX(), token=sandbox)
print(f"sandbox: organisation {organisation()}, row {sandbox.get_id()}")

Initializer.switch_user(environment=USDataCenter.PRODUCTION(), token=production)
print(f"production: organisation {organisation()}, row {production.get_id()}")
