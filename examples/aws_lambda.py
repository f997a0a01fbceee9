"""A function for AWS Lambda, or for any host with a read-only package folder and a writable `/tmp`.

    pip install --target package zohocrmsdk8_0 zoho-token-store && cp aws_lambda.py package/
    # handler: aws_lambda.handler
    # environment variables: ZOHO_CLIENT_ID, ZOHO_CLIENT_SECRET, ZOHO_REFRESH_TOKEN

A warm start reads its access token from `/tmp`. A cold start has an empty `/tmp` and requests a token from Zoho. Zoho
issues at most 10 tokens in 10 minutes for one refresh token, so limit the function's concurrency accordingly. Do not
share the file on EFS: SQLite's locks are not reliable on a network file system.
"""

import functools
import os
import tempfile
from pathlib import Path

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

FOLDER = tempfile.gettempdir()


@functools.cache
def start() -> None:
    """Initialize the SDK, once in each instance."""
    Initializer.initialize(
        environment=USDataCenter.PRODUCTION(),
        token=OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
        ),
        store=CustomStoreSQLite(Path(FOLDER, "zohooauth.db")),
        # The SDK caches module metadata in this folder. The default is in the package folder, which is read-only.
        resource_path=FOLDER,
    )


def handler(_event: dict[str, object], _context: object) -> dict[str, object]:
    """Handle one event."""
    start()
    [organisation] = OrgOperations().get_organization().get_object().get_org()
    return {"organisation": organisation.get_zgid()}
