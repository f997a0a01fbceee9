"""Fixtures for all tests: paths, stores, and how many faults to try."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import support
from zoho_token_store import CustomStoreInMemory, CustomStoreList, CustomStoreSQLite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zoho_token_store._native import TokenStoreBase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a file that does not exist."""
    return tmp_path / "zohooauth.db"


@pytest.fixture(params=[CustomStoreSQLite, CustomStoreInMemory, CustomStoreList], ids=lambda kind: kind.__name__)
def make(request: pytest.FixtureRequest, path: Path) -> Callable[..., TokenStoreBase]:
    """A function that makes a store. The tests run with each class."""

    def make_store(**options: object) -> TokenStoreBase:
        return request.param(path, **options) if request.param is CustomStoreSQLite else request.param(**options)

    return make_store


@pytest.fixture
def store(make: Callable[..., TokenStoreBase]) -> Iterator[TokenStoreBase]:
    """An empty store of each class."""
    with make() as made:
        yield made


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for `make soak`, which runs the long form of the tests of faults."""
    parser.addoption("--long", action="store_true", help="the long form: more processes, rounds and kinds of faults")
    parser.addoption("--seed", type=int, help="the seed of all random values (default: 0; with --long: random)")


def pytest_configure(config: pytest.Config) -> None:
    """Draw one seed for all workers."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**6) if config.option.long else 0
    if config.option.long:
        support.PROGRAM_TIMEOUT = 300


def pytest_report_header(config: pytest.Config) -> str:
    """Print the options that repeat this run."""
    return f"repeat with: {'--long ' if config.option.long else ''}--seed {config.option.seed}"


class Extent:
    """How much a test of faults tries: little in `make test`, a lot in `make soak`."""

    def __init__(self, config: pytest.Config, test: str) -> None:
        self.is_long: bool = config.option.long
        # Each test has its own sequence, so that it does not depend on which tests run before it.
        self.random = random.Random(f"{config.option.seed} {test}")

    def of(self, short: int, long: int) -> int:
        """Return the count for this run."""
        return long if self.is_long else short


@pytest.fixture
def extent(request: pytest.FixtureRequest) -> Extent:
    """How much to try, and random values that depend on the seed of the run."""
    return Extent(request.config, request.node.nodeid)
