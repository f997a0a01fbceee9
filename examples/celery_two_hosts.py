"""Celery workers on several hosts that share their users' tokens in PostgreSQL.

    pip install celery zohocrmsdk8_0 "zoho-token-store[cli]"
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… CELERY_BROKER_URL=… CELERY_RESULT_BACKEND=…
    export PGHOST=db.example.com PGDATABASE=tokens PGUSER=crm PGPASSWORD=…
    export ZOHO_TOKEN_STORE_DB=postgresql://
    zoho-token-store login --data-centre us --grant CODE
    celery --app celery_two_hosts worker

`login` saves the first tokens of a user, once for all hosts, and prints the user's name. (The extra `cli` is for this
command alone.) Start the last line on each host. Any program queues tasks:
`organisation.delay("ada@example.com:1001")`. A task gets the name of a user, not a token: otherwise the broker would
store the token with all its secrets.

When a user's access token expires, one worker of one host refreshes it, and the workers of all hosts use the result.
"""

import os
from functools import cache

from celery import Celery
from zoho_token_store import CustomStorePostgreSQL
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

app = Celery()  # it reads CELERY_BROKER_URL and CELERY_RESULT_BACKEND


@cache
def store() -> CustomStorePostgreSQL:
    """Open the store at the first task of a worker process, so that an import does not connect to the server.

    A worker process runs one task at a time, so one connection is enough.
    """
    return CustomStorePostgreSQL(connections=1)


@app.task
def organisation(user: str) -> str:
    """Return the id of the user's organisation."""
    Initializer.initialize(
        environment=USDataCenter.PRODUCTION(),
        token=OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            user_signature=UserSignature(user),
        ),
        store=store(),
    )
    [found] = OrgOperations().get_organization().get_object().get_org()
    return str(found.get_zgid())
