"""The contract of a cell, over each cell and each recipe, on real services."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from cells import places
from cells.conftest import PLACES
from zoho_token_store.testing import cell_contract

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and file locks of POSIX")


def contract(kind):
    """Return the tests for a kind of place."""
    tests = cell_contract(lambda name: places.cell(PLACES[kind], name))

    @pytest.fixture(autouse=True)
    def use_place(_self, place_of):
        PLACES[kind] = place_of(kind)

    tests.use_place = use_place
    return tests


TestFile = contract("file")
TestSQLite = contract("sqlite")
TestMariaDB = contract("mariadb")
TestSQLAlchemy = contract("sqlalchemy")
TestDjango = contract("django")
TestRedis = contract("redis")
TestRedisOfText = contract("redis-text")
TestSecretsManager = contract("secrets")
TestS3 = contract("s3")
TestDynamoDB = contract("dynamodb")


@pytest.mark.parametrize("name", ["S3Cell", "DynamoDBCell", "django_connection"])
def test_the_recipes_are_what_is_tested(name):
    """The page has the code of `places.py`."""
    page = (Path(__file__).parents[2] / "docs" / "where-to-keep-tokens.md").read_text(encoding="utf-8")
    assert inspect.getsource(getattr(places, name)) in page
