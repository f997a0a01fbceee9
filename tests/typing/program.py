"""A program that uses every public name correctly. mypy and pyright check it; it is never run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from typing_extensions import assert_type
from zoho_token_store import (
    CustomStore,
    CustomStoreList,
    CustomStoreSQLite,
    Finding,
    LeaseInfo,
    StoreError,
    TokenStoreBase,
    __version__,
)
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer


class Notifying(CustomStoreSQLite):
    """A store that calls a function after each save."""

    def __init__(self, path: Path, notify: Callable[[str], None]) -> None:
        """Open the file."""
        super().__init__(path, refresh_lease=5, busy_timeout=timedelta(seconds=1.5), raise_on_missing_id=False)
        self.notify = notify

    def save_token(self, token: OAuthToken) -> None:
        """Save, then notify."""
        super().save_token(token)
        self.notify("saved")


def main(path: Path) -> int:
    """Use every public name."""
    token = OAuthToken(client_id="1000.CLIENT", client_secret="made-up", grant_token="1000.made.up")
    with Notifying(path, print) as store:
        assert_type(store, Notifying)
        Initializer.initialize(environment=USDataCenter.PRODUCTION(), token=token, store=store)
        try:
            found = store.find_token(token)
            by_id = store.find_token_by_id("1")
        except SDKException as error:
            cause = error.__cause__
            return 1 if isinstance(cause, StoreError) and cause.code == "busy" and cause.hint else 2
        if found is None or by_id is None:
            store.save_token(token)
        tokens = store.get_tokens()
        store.delete_token("1")
        store.delete_tokens()
        purged = store.purge() + store.purge(timedelta(days=30)) + store.purge(idle_for=86_400.0)
        imported = store.import_tokens(tokens) + store.import_tokens(token for token in tokens)
        store.backup(path.with_suffix(".backup"))
        store.backup(str(path))
        findings = store.check()
        assert_type(findings, list[Finding])
        codes = [finding.code for finding in findings if finding.severity == "error" and finding.ids and finding.hint]
        info = store.lease_info()
        assert_type(info, LeaseInfo)
        assert_type(info.longest_wait, float)
        store.close()
    assert_type(purged, int)
    stores: list[TokenStoreBase] = [CustomStore(refresh_lease=0), CustomStoreList(refresh_lease=timedelta(seconds=5))]
    return len(codes) + imported + info.taken + len(stores[0]) + len(__version__)
