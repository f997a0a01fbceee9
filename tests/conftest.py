"""The stores that the tests run over."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zoho_token_store._native import TokenStoreBase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "zohooauth.db"


@pytest.fixture(params=[CustomStoreSQLite, CustomStoreInMemory, CustomStoreList], ids=lambda kind: kind.__name__)
def make(request: pytest.FixtureRequest, path: Path) -> Callable[..., TokenStoreBase]:
    """Make a store of each class."""

    def make_store(**options: object) -> TokenStoreBase:
        return request.param(path, **options) if request.param is CustomStoreSQLite else request.param(**options)

    return make_store


@pytest.fixture
def store(make: Callable[..., TokenStoreBase]) -> Iterator[TokenStoreBase]:
    """An empty store of each class."""
    with make() as made:
        yield made


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that an unprivileged user can use, wherever pytest's own is."""
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != tmp_path.parents[-1]:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o777)
    return tmp_path
