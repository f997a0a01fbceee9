"""The stores that the tests run over."""

from __future__ import annotations

import os
import random
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make soak` asks for the long form of what `make test` does in short."""
    parser.addoption("--long", action="store_true", help="the long form: more processes, rounds and ways to fail")
    parser.addoption("--seed", type=int, help="what all chance begins with, to repeat a run (default: 0, long: random)")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed once, for all workers."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**6) if config.option.long else 0


def pytest_report_header(config: pytest.Config) -> str:
    """Print what repeats this run."""
    return f"repeat with: {'--long ' if config.option.long else ''}--seed {config.option.seed}"


class Extent:
    """How much of a fault a run tries: a little in `make test`, a lot in `make soak`."""

    def __init__(self, config: pytest.Config, test: str) -> None:
        self.is_long: bool = config.option.long
        # Of the test's own, so that it is the same whichever tests run before it.
        self.random = random.Random(f"{config.option.seed} {test}")

    def of(self, short: int, long: int) -> int:
        """Return a count for the form that is run."""
        return long if self.is_long else short


@pytest.fixture
def extent(request: pytest.FixtureRequest) -> Extent:
    """Tell how much of a fault to try, and draw lots by the run's seed."""
    return Extent(request.config, request.node.nodeid)
