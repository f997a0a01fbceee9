"""A WSGI application that saves a token and finds it again. `uwsgi_mounts.py` mounts it twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoho_token_store import CustomStoreInMemory
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

store = CustomStoreInMemory()


def application(_environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    store.save_token(OAuthToken("1000.CLIENT", "made-up", refresh_token="1000.made.up"))
    found = store.find_token(OAuthToken("1000.CLIENT", "made-up", refresh_token="1000.made.up"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"row {found.get_id()} of {len(store)}".encode()]
