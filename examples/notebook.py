# %% [markdown]
"""Zoho in a notebook: log in once. After a restart of the kernel, run the cells again.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=…
    export ZOHO_GRANT_CODE=…    # of a "self client" of https://api-console.zoho.com; valid for one login

Each `# %%` begins a cell in VS Code, Spyder and Jupyter (with jupytext). `python notebook.py` runs all cells.
"""

# %% Log in, or use the token that is stored in the file
import os

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

store = CustomStoreSQLite("zohooauth.db")
token = OAuthToken(os.environ["ZOHO_CLIENT_ID"], os.environ["ZOHO_CLIENT_SECRET"], os.environ["ZOHO_GRANT_CODE"])
Initializer.initialize(environment=USDataCenter.PRODUCTION(), token=token, store=store)

# %% Show the token's user
print(token.get_user_signature().get_name())

# %% Call Zoho
print(OrgOperations().get_organization().get_object().get_org()[0].get_zgid())
