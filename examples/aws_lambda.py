"""A function of AWS Lambda, or of any host that has a read-only package folder and room in `/tmp`.

    pip install --target package zohocrmsdk8_0 zoho-token-store && cp aws_lambda.py package/
    # handler: aws_lambda.handler
    # environment variables: ZOHO_CLIENT_ID, ZOHO_CLIENT_SECRET, ZOHO_REFRESH_TOKEN

A warm start finds its access token in `/tmp`. A cold one has an empty `/tmp` and asks Zoho for a token. Zoho grants 10
of them in 10 minutes for one refresh token: bound the function's concurrency by that. A file on EFS is no way out, for
SQLite's locks cannot be relied on there.
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
    """Begin, once in each instance."""
    Initializer.initialize(
        environment=USDataCenter.PRODUCTION(),
        token=OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
        ),
        store=CustomStoreSQLite(Path(FOLDER, "zohooauth.db")),
        # What the SDK learns about modules; otherwise it would write into the package folder.
        resource_path=FOLDER,
    )


def handler(_event: dict[str, object], _context: object) -> dict[str, object]:
    """Answer one event."""
    start()
    [organisation] = OrgOperations().get_organization().get_object().get_org()
    return {"organisation": organisation.get_zgid()}
