"""What the tests expect of a store's errors."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from zoho_token_store import StoreError
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def raises(code: str, match: str | None = None) -> Iterator[pytest.ExceptionInfo[SDKException]]:
    """Expect an `SDKException` that is caused by a `StoreError` with this code."""
    with pytest.raises(SDKException, match=match) as caught:
        yield caught
    assert caught.value.code == "TOKEN_STORE"
    assert isinstance(caught.value.cause, StoreError)
    assert caught.value.cause.code == code
