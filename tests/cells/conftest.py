"""Fixtures: a description of a place of each kind. Servers are started once for each process of pytest."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
from cells import places, services

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a class of the contract has no other way to: fixtures write here, and factories read.
PLACES: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="session")
def redis_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with services.redis_server(tmp_path_factory.mktemp("redis")) as place:
        yield place


@pytest.fixture(scope="session")
def mariadb_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with services.mariadb_server(tmp_path_factory.mktemp("mariadb")) as place:
        yield place


@pytest.fixture(scope="session")
def amazon_place() -> Iterator[dict[str, Any]]:
    with services.amazon() as place:
        places.client(place, "s3").create_bucket(
            Bucket="tokens", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
        places.client(place, "dynamodb").create_table(
            TableName="tokens",
            KeySchema=[{"AttributeName": "name", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "name", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield place


@pytest.fixture(scope="session")
def place_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that returns the place of a kind, or skips the test."""
    made: dict[str, dict[str, Any]] = {}

    def make(kind: str) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind
        if kind == "file":
            return {"kind": kind, "folder": str(tmp_path_factory.mktemp("file"))}
        if kind == "sqlite":
            return {"kind": kind, "path": str(tmp_path_factory.mktemp("sqlite") / "app.db")}
        if kind in {"redis", "redis-text"}:
            return {**request.getfixturevalue("redis_place"), "decode": kind == "redis-text"}
        if kind == "mariadb":
            return request.getfixturevalue("mariadb_place")
        if kind == "sqlalchemy":
            pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
            unix_socket = request.getfixturevalue("mariadb_place")["unix_socket"]
            return {"kind": kind, "url": f"mysql+pymysql://root@/app?unix_socket={unix_socket}&ssl_disabled=true"}
        if kind == "django":
            pytest.importorskip("django", reason="Django is not installed")
            path = str(tmp_path_factory.mktemp("django") / "app.db")
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"timeout": 60}}
            return {"kind": kind, "database": database}
        return {**request.getfixturevalue("amazon_place"), "kind": kind}

    def place(kind: str) -> dict[str, Any]:
        if kind not in made:
            made[kind] = make(kind)
        return made[kind]

    return place


# No request of a client goes to Amazon.
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")

# At DEBUG it logs each document.
logging.getLogger("botocore").setLevel(logging.INFO)
