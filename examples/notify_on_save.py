"""A store that sends a notification after each save: a subclass of a store of this library.

    pip install zohocrmsdk8_0 zoho-token-store
    export ZOHO_CLIENT_ID=… ZOHO_CLIENT_SECRET=… ZOHO_REFRESH_TOKEN=…
    python notify_on_save.py

Here the notification is a printed line. It could be a metric, a message in a queue or a line in an audit log. Send the
row's id, never the token.
"""

import logging
import os
from collections.abc import Callable

from zoho_token_store import CustomStoreSQLite
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer


class NotifyingStore(CustomStoreSQLite):
    """A SQLite store that calls a function with the row's id and user after each save."""

    def __init__(self, path: str, notify: Callable[[str, str | None], object]) -> None:
        """Open the file."""
        super().__init__(path)
        self._notify = notify

    def save_token(self, token: OAuthToken) -> None:
        """Save, then notify. A failed notification is not a failed save: the row is already durable."""
        super().save_token(token)
        user = token.get_user_signature()
        try:
            self._notify(token.get_id(), None if user is None else user.get_name())
        except Exception:
            logging.getLogger(__name__).exception("row %s was saved, but the notification failed", token.get_id())


if __name__ == "__main__":
    Initializer.initialize(
        environment=USDataCenter.PRODUCTION(),
        token=OAuthToken(
            client_id=os.environ["ZOHO_CLIENT_ID"],
            client_secret=os.environ["ZOHO_CLIENT_SECRET"],
            refresh_token=os.environ["ZOHO_REFRESH_TOKEN"],
        ),
        store=NotifyingStore("zohooauth.db", lambda row, user: print(f"saved row {row} of {user}")),
    )
