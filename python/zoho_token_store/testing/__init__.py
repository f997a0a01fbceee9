"""A local stand-in for Zoho, for tests and demonstrations.

It needs the extra ``testing``: ``pip install "zoho-token-store[testing]"``.

>>> from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
>>> from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
>>> from zoho_token_store import CustomStoreInMemory
>>> from zoho_token_store.testing import ZohoStandIn
>>> with ZohoStandIn() as zoho:
...     token = OAuthToken(zoho.client_id, zoho.client_secret, zoho.grant_code("ada@example.com"))
...     Initializer.initialize(zoho.environment(), token, store=CustomStoreInMemory())
...     zoho.token_calls
1

The library has a pytest plugin. Its fixture `zoho_stand_in` is a running stand-in; ``pytest --fixtures`` lists the
others.

The stand-in listens on 127.0.0.1 only. It applies Zoho's limits, injects failures on request, and records every call.
Its answers contain the fields that the SDKs 5 to 8 read, not every field of Zoho's answers.

`cell_contract` is the test suite for a cell of `CustomStoreShared`.
"""

try:
    import werkzeug as _werkzeug  # noqa: F401 - fails with a clear message if the extra is not installed
except ImportError as _error:
    raise ImportError('zoho_token_store.testing needs Werkzeug: pip install "zoho-token-store[testing]"') from _error

from ._cell_contract import cell_contract
from ._failures import Failure
from ._records import Call, Client, User
from ._settings import Settings
from ._standin import ZohoStandIn

__all__ = ["Call", "Client", "Failure", "Settings", "User", "ZohoStandIn", "cell_contract"]
