"""The pooler that other tests use is in transaction mode: what belongs to a session does not last."""

from __future__ import annotations

import psycopg
import pytest
from postgres.pooler import SESSIONS


def test_transactions_of_one_client_get_different_sessions(pooler):
    """While all sessions but one are busy, a client gets the one that is left."""
    clients = [psycopg.connect(pooler.dsn) for _ in range(SESSIONS + 1)]
    *busy, client = clients
    seen = set()
    for left_out in busy:
        for other in busy:
            if other is not left_out:
                other.execute("SELECT 1")  # in a transaction from now on
        seen.add(client.execute("SELECT pg_backend_pid()").fetchone())
        for other in clients:
            other.rollback()
        left_out.execute("SELECT 1")
        left_out.rollback()
    busy[0].execute("SELECT 1")
    seen.add(client.execute("SELECT pg_backend_pid()").fetchone())
    for other in clients:
        other.close()
    assert len(seen) > 1


def test_a_prepared_statement_is_refused_in_another_session(pooler):
    """This is why the store must not prepare a statement."""
    first, second = (psycopg.connect(pooler.dsn) for _ in range(2))
    with first, second:
        first.execute("PREPARE one AS SELECT 1")
        first.commit()
        first.execute("SELECT pg_backend_pid()")
        # The session of `first` is busy, so this is another one.
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            second.execute("EXECUTE one")
        second.rollback()
