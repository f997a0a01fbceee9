"""A place that holds something else than a document: a clear error, and nothing is written."""

from __future__ import annotations

import pytest
from cells import places
from cells.test_shared import failure
from support import login


@pytest.mark.parametrize("field", ["document", "version"])
@pytest.mark.parametrize("kind", ["redis", "redis-text"])
def test_a_hash_of_redis_without_one_of_the_fields(kind, field, place_of):
    """Another program has made it."""
    name = f"foreign-{kind}-{field}"
    client = places.cell(place_of(kind), name).client
    client.hset(name, field, "something")
    store = places.open_store(place_of(kind), name)
    for call in (store.get_tokens, lambda: store.save_token(login())):
        cause = failure(call)
        assert (cause.code, "holds something else" in str(cause.__cause__)) == ("cell-failed", True)
    assert client.hlen(name) == 1


def test_a_secret_with_bytes(place_of):
    """It has a `SecretBinary`, and no `SecretString`."""
    place = place_of("secrets")
    client = places.client(place, "secretsmanager")
    client.create_secret(Name="bytes", SecretBinary=b"something")
    store = places.open_store(place, "bytes")
    for call in (store.get_tokens, lambda: store.save_token(login())):
        cause = failure(call)
        assert (cause.code, "holds something else" in str(cause.__cause__)) == ("cell-failed", True)
    assert client.get_secret_value(SecretId="bytes")["SecretBinary"] == b"something"


@pytest.mark.parametrize("kind", ["redis-text", "sqlite", "secrets"])
def test_a_text_that_is_not_ascii(kind, place_of):
    """The store says what it is, and not the encoding."""
    name, text = f"text-{kind}", "{'password': 'größer'}"
    place = place_of(kind)
    cell = places.cell(place, name)
    if kind == "redis-text":
        cell.client.hset(name, mapping={"document": text, "version": "1"})
    elif kind == "secrets":
        cell.client.create_secret(Name=name, SecretString=text)
    else:
        assert cell.swap(b"", cell.load()[1]) is True
        with cell.connect() as connection:
            connection.execute("UPDATE zoho_token_cell SET document = ? WHERE name = ?", (text, name))
    assert failure(places.open_store(place, name).get_tokens).code == "not-a-document"
