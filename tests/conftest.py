"""Fixtures for all tests: paths, stores, and how many faults to try."""

from __future__ import annotations

import os
import random
import secrets
from typing import TYPE_CHECKING

import pytest
import support
from postgres_server import Server
from zoho_token_store import (
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreShared,
    CustomStoreSQLite,
)
from zoho_token_store.cells import FileCell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zoho_token_store._native import TokenStoreBase


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a file that does not exist."""
    return tmp_path / "zohooauth.db"


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The address of the PostgreSQL server of this run.

    `make test` starts one for all tests. Without it, each process of pytest starts its own.
    """
    if dsn := os.environ.get("TEST_POSTGRES_DSN"):
        yield dsn
        return
    with Server() as server:
        yield server.dsn


@pytest.fixture
def schema(dsn: str) -> Iterator[str]:
    """The name of a schema that does not exist. If the test creates it, it is dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    try:
        import psycopg
    except ModuleNotFoundError:  # the environments of the SDK 5 to 7 lack it; a server of the run ends soon
        return
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture(scope="session")
def strict_dsn() -> Iterator[str]:
    """The address of a server that asks the user ada for a password (`support.DATABASE_PASSWORD`)."""
    import psycopg

    with Server() as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(f"CREATE ROLE ada LOGIN PASSWORD '{support.DATABASE_PASSWORD}'")
            admin.execute("GRANT CREATE ON DATABASE postgres TO ada")
            rules = "local all postgres trust\nlocal all all scram-sha-256\n"
            (server.folder / "data" / "pg_hba.conf").write_text(rules, encoding="utf-8")
            admin.execute("SELECT pg_reload_conf()")
        yield server.dsn.replace("postgres@", "ada@", 1)


@pytest.fixture
def empty_database(dsn: str) -> Iterator[dict[str, str]]:
    """The variables (`PGHOST` …) that name an empty database of the server. It is dropped at the end."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    server = conninfo_to_dict(dsn)
    name = f"test_{secrets.token_hex(6)}"
    variables = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        yield {"PGDATABASE": name, **{key: str(server[word]) for key, word in variables.items() if word in server}}
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(
    params=[CustomStoreSQLite, CustomStoreInMemory, CustomStoreList, CustomStorePostgreSQL, CustomStoreShared],
    ids=lambda kind: kind.__name__,
)
def make(request: pytest.FixtureRequest, path: Path) -> Callable[..., TokenStoreBase]:
    """A function that makes a store, with the attributes `kind` and `place`. The tests run with each class."""
    kind, place = request.param, {}
    if kind is CustomStoreSQLite:
        place = {"path": path}
    elif kind is CustomStorePostgreSQL:
        place = {"dsn": request.getfixturevalue("dsn"), "schema": request.getfixturevalue("schema")}
    elif kind is CustomStoreShared:
        place = {"cell": FileCell(path.with_suffix(".jsonl"))}

    def make_store(**options: object) -> TokenStoreBase:
        return kind(**place, **options)

    make_store.kind = kind
    make_store.place = place  # the arguments that say where the rows are
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
