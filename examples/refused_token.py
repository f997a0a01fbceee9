"""Calls of Zoho that survive a refused access token.

Zoho can refuse an access token before it expires: the session was revoked, the password was changed, or fifteen newer
tokens exist. The SDK does not notice, and goes on using it for the rest of the hour. Copy the function `call`.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… ZOHO_REFRESH_TOKEN=…
    python refused_token.py
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from zoho_token_store import CustomStoreSQLite, TokenStoreBase
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.util import APIResponse

WORKERS = 4
ATTEMPTS = 3
UNAUTHORIZED = 401


def call(store: TokenStoreBase, request: Callable[[], APIResponse]) -> APIResponse:
    """Make a request. If Zoho refuses the access token, make it again with a new one.

    All workers that used the refused token may call `refused`: the first one removes it, and one refresh follows.
    """
    for attempt in range(1, ATTEMPTS + 1):
        used = Initializer.get_initializer().token.get_token()
        response = request()
        if response.get_status_code() != UNAUTHORIZED or attempt == ATTEMPTS:
            break
        store.refused(used)
    return response


def main() -> None:
    """Make the same request in each worker."""
    store = CustomStoreSQLite("zohooauth.db")
    token = OAuthToken(
        client_id=os.environ["ZOHO_CLIENT_ID"],
        client_secret=os.environ["ZOHO_CLIENT_SECRET"],
        refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
    )
    Initializer.initialize(environment=USDataCenter.PRODUCTION(), token=token, store=store)

    def organisation(_: int) -> str:
        response = call(store, lambda: OrgOperations().get_organization())
        [organisation] = response.get_object().get_org()
        return f"organisation {organisation.get_zgid()}"

    with ThreadPoolExecutor(WORKERS) as workers:
        print(*workers.map(organisation, range(WORKERS)), sep="\n")


if __name__ == "__main__":
    main()
