"""Many processes save new users at the same moment: each user gets one row, and no id is used twice."""

from __future__ import annotations

import children
import psycopg
import pytest
from own_process import run_in_fork
from support import login
from zoho_token_store import CustomStorePostgreSQL

PROCESSES = 16
EACH = {"direct": 100, "pgbouncer": 20}
THE_SAME = 20


@pytest.fixture(params=["direct", "pgbouncer"])
def address(request, dsn):
    """The address of the server, and that of a pooler in transaction mode."""
    return dsn if request.param == "direct" else request.getfixturevalue("pooler").dsn


@pytest.fixture
def counts(dsn, schema):
    """A function that counts rows, ids and users."""

    def count():
        with psycopg.connect(dsn) as connection:
            statement = f"SELECT count(*), count(DISTINCT id), count(DISTINCT user_name) FROM {schema}.oauthtoken"
            return connection.execute(statement).fetchone()

    return count


def save_new_users(address, schema, each):
    """Each process makes the tables if they are missing, and saves its own users."""

    def work(child):
        with CustomStorePostgreSQL(address, schema=schema, busy_timeout=children.TIMEOUT, connections=1) as store:
            ids = []
            for number in range(each):
                store.save_token(saved := login(f"user{child}.{number}@example.com", each * child + number))
                ids.append(int(saved.get_id()))
            assert ids == sorted(set(ids)), "ids rise"

    children.at_once(PROCESSES, work)


def save_the_same_users(address, schema):
    """All processes save the same users, each in another order."""

    def work(child):
        with CustomStorePostgreSQL(address, schema=schema, busy_timeout=children.TIMEOUT, connections=1) as store:
            for turn in range(THE_SAME):
                number = (turn + child) % THE_SAME
                store.save_token(login(f"user{number}@example.com", number))

    children.at_once(PROCESSES, work)


def test_16_processes_save_new_users_at_once(request, address, schema, counts):
    each = EACH[request.node.callspec.params["address"]]
    run_in_fork(save_new_users, address, schema, each)
    assert counts() == (PROCESSES * each,) * 3


def test_16_processes_save_the_same_users_at_once(address, schema, counts):
    run_in_fork(save_the_same_users, address, schema)
    assert counts() == (THE_SAME,) * 3
