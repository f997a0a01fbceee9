"""A web service with several worker processes that share one token.

    pip install gunicorn zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… ZOHO_REFRESH_TOKEN=…
    gunicorn --workers 4 --preload gunicorn_app:app

With `--preload` this module is imported once, before the workers are forked. All workers use the store that it opens.
When the access token expires, one worker refreshes it and the others wait for the result.
"""

import os
from collections.abc import Callable, Iterable

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

Initializer.initialize(
    environment=USDataCenter.PRODUCTION(),
    token=OAuthToken(
        client_id=os.environ["ZOHO_CLIENT_ID"],
        client_secret=os.environ["ZOHO_CLIENT_SECRET"],
        refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
    ),
    store=CustomStoreSQLite("zohooauth.db"),
)


def app(_environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with the token's organisation and the process id of the worker."""
    [organisation] = OrgOperations().get_organization().get_object().get_org()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"organisation {organisation.get_zgid()}, worker {os.getpid()}\n".encode()]
