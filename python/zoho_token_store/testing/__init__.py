"""A stand-in for Zoho on this machine, for tests and demonstrations.

Needs the extra: ``pip install "zoho-token-store[testing]"``.

>>> from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
>>> from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
>>> from zoho_token_store import CustomStoreInMemory
>>> from zoho_token_store.testing import ZohoStandIn
>>> with ZohoStandIn() as zoho:
...     token = OAuthToken(zoho.client_id, zoho.client_secret, zoho.grant_code("ada@example.com"))
...     Initializer.initialize(zoho.environment(), token, store=CustomStoreInMemory())
...     zoho.token_calls
1

pytest has it as the fixture `zoho_stand_in`, beside others (``pytest --fixtures``): the plugin comes with the library.

It listens on 127.0.0.1 alone, knows Zoho's limits, fails when told to, and keeps a record of every call.
What it answers is what the SDKs 5 to 8 read, not all that Zoho answers.
"""

try:
    import werkzeug as _werkzeug  # noqa: F401 - only to say early, and clearly, what is missing
except ImportError as _error:
    raise ImportError('zoho_token_store.testing needs Werkzeug: pip install "zoho-token-store[testing]"') from _error

from ._failures import Failure
from ._records import Call, Client, User
from ._settings import Settings
from ._standin import ZohoStandIn

__all__ = ["Call", "Client", "Failure", "Settings", "User", "ZohoStandIn"]
