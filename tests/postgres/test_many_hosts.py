"""The token expires on several hosts at the same moment, and the network of one of them fails.

Each host is a network namespace. The programs use the real SDK. PostgreSQL and the stand-in for Zoho are on a host of
their own.
"""

from __future__ import annotations

import logging
import sys
import threading
import time

import psycopg
import pytest
from postgres.hosts import SERVER, enter
from sdk.crowd import Crowd
from zoho_token_store.testing import ZohoStandIn, _standin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces")

LOG = logging.getLogger(__name__)
WORKERS = 16  # on each host
BUSY_TIMEOUT = 3.0
REFRESH_LEASE = 8.0  # longer than all processes need to start
LONGER_THAN_ANY_TEST = 300.0
# How much longer than in theory something may take: these machines stand still for seconds at times.
SLACK = 8.0
START = 5.0  # seconds until all processes wait for their common start


@pytest.fixture
def server(hosts, start_server):
    return start_server(
        settings={"listen_addresses": hosts.address},
        access=[f"host all all {hosts.network} trust"],
        prefix=hosts.on(SERVER),
    )


@pytest.fixture
def zoho(hosts, monkeypatch):
    """The stand-in, on the server's host. It normally listens on the loopback alone."""
    monkeypatch.setattr(_standin, "HOST", hosts.address)
    standin = ZohoStandIn(latency=0.2)

    def start_there():
        enter(hosts.name(SERVER))
        standin.start()

    thread = threading.Thread(target=start_there)
    thread.start()
    thread.join()
    with_environment = standin.environment()
    assert hosts.address in with_environment.url
    yield standin
    standin.stop()


@pytest.fixture
def row(server, zoho):
    """A token that names a row, whose access token has expired."""
    from sdk.member import expired_token
    from zoho_token_store import CustomStorePostgreSQL

    token = expired_token(
        {
            "client_id": zoho.client_id,
            "client_secret": zoho.client_secret,
            "refresh_token": zoho.refresh_token(zoho.add_user("ada@example.com", "1001")),
            "user": "ada@example.com:1001",
        }
    )
    with CustomStorePostgreSQL(server.dsn) as store:
        store.save_token(token)
    return {"id": token.get_id()}


@pytest.fixture
def start(hosts, zoho, tmp_path, row):
    """A function that starts a program on a host. It runs one method of `Member` with the row."""
    crowds = []

    def start_one(host, method, refresh_lease=LONGER_THAN_ANY_TEST, **arguments):
        setting = {
            "kind": "CustomStorePostgreSQL",
            "arguments": {
                "dsn": f"postgresql://postgres@{hosts.address}/postgres?sslmode=disable",
                "busy_timeout": BUSY_TIMEOUT,
                "refresh_lease": refresh_lease,
            },
            "environment": zoho.environment(),
            "folder": str(tmp_path),
            "host": hosts.name(host),
        }
        crowd = Crowd(setting, method, {"token": row, **arguments})
        crowds.append(crowd)
        return crowd

    yield start_one
    for crowd in crowds:
        crowd.kill()


def served(outcomes):
    """Check that there was no error. Return the access tokens that the requests got, and the longest time of one."""
    answers = [answer for outcome in outcomes for answer in outcome.answers]
    assert [(answer["error"], answer["text"]) for answer in answers if answer["error"]] == []
    return {answer["access"] for answer in answers}, max(answer["seconds"] for answer in answers)


def count_leases(server):
    with psycopg.connect(server.dsn) as connection:
        return connection.execute("SELECT count(*) FROM zoho_token_lease").fetchone()[0]


def test_3_hosts_of_16_workers_at_one_expiry(start, zoho, server):
    """One of them refreshes, all others wait for it: 1 token call."""
    at = time.monotonic() + START
    crowds = [start(host, "at_once", count=WORKERS, at=at) for host in (1, 2, 3)]
    outcomes = [crowd.ends() for crowd in crowds]
    tokens, longest = served(outcomes)
    LOG.info("slowest worker: %.2f s", longest)
    assert zoho.token_calls == 1
    assert len(tokens) == 1
    assert sum(len(outcome.answers) for outcome in outcomes) == 3 * WORKERS
    assert sum(outcome.total("taken") for outcome in outcomes) == 1
    assert count_leases(server) == 0


def test_a_waiting_host_is_cut_off(start, zoho, hosts):
    """The others do not notice. Its requests fail in time."""
    holder = start(1, "hold_before_call")
    holder.until("holds")
    others = [start(host, "at_once", count=WORKERS, at=time.monotonic()) for host in (2, 3)]
    for crowd in others:
        crowd.until("waiting", WORKERS)
    hosts.cut(3)
    released = time.monotonic()
    holder.go_on()
    tokens, _ = served([holder.ends(), others[0].ends()])
    served_after = max(answer["ended"] for answer in others[0].answers) - released
    LOG.info("others served after: %.2f s", served_after)
    assert served_after < SLACK
    assert zoho.token_calls == 1
    assert len(tokens) == 1
    failed = others[1].ends()
    # Without its lease a request goes on with the row as it is (docs/lease.md, rule 8). Then Zoho cannot be reached.
    assert {answer["error"] for answer in failed.answers} <= {"TOKEN_STORE", "Exception in saving tokens"}
    errors_after = max(answer["ended"] for answer in failed.answers) - released
    LOG.info("errors after: %.2f s", errors_after)
    assert errors_after < BUSY_TIMEOUT + SLACK
    assert zoho.token_calls == 1


def test_the_host_that_refreshes_is_cut_off(start, zoho, hosts):
    """After the end of its lease another one refreshes: 2 token calls. The save that is cut off fails in time."""
    holder = start(1, "hold_before_save", refresh_lease=REFRESH_LEASE)
    holder.until("holds")
    held = time.monotonic()
    others = [
        start(host, "at_once", refresh_lease=REFRESH_LEASE, count=WORKERS, at=time.monotonic()) for host in (2, 3)
    ]
    for crowd in others:
        crowd.until("waiting", WORKERS)
    hosts.cut(1)
    holder.go_on()
    tokens, _ = served([crowd.ends() for crowd in others])
    served_after = max(answer["ended"] for crowd in others for answer in crowd.answers) - held
    LOG.info("others served after: %.2f s", served_after)
    assert served_after < REFRESH_LEASE + SLACK
    assert zoho.token_calls == 2
    assert len(tokens) == 1
    [answer] = holder.ends().answers
    [saved] = holder.events("saved")
    LOG.info("save failed after: %.2f s", saved["seconds"])
    assert saved["seconds"] < BUSY_TIMEOUT + SLACK
    assert answer["error"] is None or answer["error"] == "TOKEN_STORE"
    hosts.restore(1)
    again, _ = served([start(1, "at_once", count=1, at=time.monotonic()).ends()])
    assert again == tokens
    assert zoho.token_calls == 2
