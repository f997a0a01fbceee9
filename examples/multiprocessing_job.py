"""A job in several processes that share one token.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… ZOHO_REFRESH_TOKEN=…
    python multiprocessing_job.py

Each process initializes the SDK itself. This works with every start method of `multiprocessing`. When the access token
expires, one process refreshes it and the others wait for the result.

In a Celery worker, decorate `start` with `@celery.signals.worker_process_init.connect`. With forked workers this is
optional: a store that was opened before a fork can be used in the child.
"""

import multiprocessing
import os

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations

WORKERS = 4
TASKS = 12


def start(**_signal: object) -> None:
    """Initialize the SDK, once in each process."""
    Initializer.initialize(
        environment=USDataCenter.PRODUCTION(),
        token=OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
        ),
        store=CustomStoreSQLite("zohooauth.db"),
    )


def work(task: int) -> str:
    """Do one task."""
    [organisation] = OrgOperations().get_organization().get_object().get_org()
    return f"task {task}: organisation {organisation.get_zgid()}, process {os.getpid()}"


if __name__ == "__main__":
    with multiprocessing.Pool(WORKERS, initializer=start) as pool:
        for done in pool.imap(work, range(TASKS)):
            print(done)
