"""Fixtures: servers that a test may stop, and what can be between a program and the server of the run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from postgres.fault_proxy import FaultProxy
from postgres.hosts import Hosts, HostsUnavailableError
from postgres.pooler import Pooler, PoolerUnavailableError
from postgres_server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """A function that starts a server for one test. The test may stop or kill it."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server(**options))


@pytest.fixture
def proxy(dsn: str) -> Iterator[FaultProxy]:
    """A proxy that injects faults, in front of the server."""
    with FaultProxy(dsn) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def pooler(dsn: str) -> Iterator[Pooler]:
    """pgbouncer in transaction mode, in front of the server."""
    try:
        with Pooler(dsn) as pooler:
            yield pooler
    except PoolerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def start_pooler() -> Iterator[Callable[[str], Pooler]]:
    """A function that starts a pooler for one test, in front of a server. The test may stop it."""
    with ExitStack() as stack:

        def start(upstream: str) -> Pooler:
            try:
                return stack.enter_context(Pooler(upstream))
            except PoolerUnavailableError as error:
                pytest.skip(str(error))

        yield start


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Three hosts and a server in a network of their own."""
    try:
        with Hosts() as hosts:
            yield hosts
    except HostsUnavailableError as error:
        pytest.skip(str(error))
