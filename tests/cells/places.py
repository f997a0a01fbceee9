"""Cells of each kind, made from a description that another process can read.

`django_connection`, `S3Cell` and `DynamoDBCell` are those of docs/where-to-keep-tokens.md: a test compares them.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from typing import Any

from zoho_token_store import CustomStoreShared
from zoho_token_store.cells import DBAPICell, DocumentTooLarge, FileCell, RedisCell, SecretsManagerCell

CREDENTIALS = {"region_name": "eu-west-1", "aws_access_key_id": "made-up", "aws_secret_access_key": "made-up"}


class S3Cell:
    """A document in an object. S3 compares its ETag (`If-Match`)."""

    def __init__(self, client, bucket, key):
        self.client, self.place = client, {"Bucket": bucket, "Key": key}

    def load(self):
        try:
            found = self.client.get_object(**self.place)
        except self.client.exceptions.NoSuchKey:
            return None, {"IfNoneMatch": "*"}
        return found["Body"].read(), {"IfMatch": found["ETag"]}

    def swap(self, document, version):
        try:
            self.client.put_object(**self.place, Body=document, **version)
        except self.client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise
        return True


class DynamoDBCell:
    """A document in an item, with `boto3.resource("dynamodb").Table(…)`. An item has at most 400 KB."""

    def __init__(self, table, key):
        self.table, self.key = table, key

    def load(self):
        item = self.table.get_item(Key=self.key, ConsistentRead=True).get("Item", {"version": 0})
        return item.get("document") and item["document"].encode(), item["version"]

    def swap(self, document, version):
        if len(document) > 399_000:
            raise DocumentTooLarge("an item has at most 400 KB")
        item = {**self.key, "document": document.decode(), "version": version + 1}
        condition = "attribute_not_exists(version) OR version = :before"
        if version:
            condition = "version = :before"
        try:
            self.table.put_item(
                Item=item, ConditionExpression=condition, ExpressionAttributeValues={":before": version}
            )
        except self.table.meta.client.exceptions.ConditionalCheckFailedException:
            return False
        return True


@functools.cache
def sqlalchemy_engine(url):
    import sqlalchemy

    made = sqlalchemy.create_engine(url, pool_pre_ping=True)
    os.register_at_fork(after_in_child=lambda: made.dispose(close=False))
    return made


def django_connection():
    """Return a connection of Django that is in no transaction of a request."""
    from django.db import connections

    connection = connections.create_connection("default")
    connection.make_debug_cursor = connection.make_cursor  # with DEBUG = True Django logs each document
    connection.set_autocommit(False)
    return connection


def set_up_django(place):
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(DATABASES={"default": place["database"]}, USE_TZ=True)
        django.setup()


def connect_mariadb(place, **options):
    import pymysql

    return pymysql.connect(
        unix_socket=place["unix_socket"], user="root", database="app", read_timeout=30, ssl_disabled=True, **options
    )


def client(place, service):
    import boto3

    return boto3.client(service, endpoint_url=place["endpoint"], **CREDENTIALS)


def cell(place: dict[str, Any], name: str) -> Any:  # noqa: PLR0911 - one for each kind
    """Make a cell on the place with this name."""
    kind = place["kind"]
    if kind == "file":
        return FileCell(f"{place['folder']}/{name}.jsonl")
    if kind == "sqlite":
        return DBAPICell(lambda: sqlite3.connect(place["path"], timeout=60), name=name)
    if kind == "mariadb":
        return DBAPICell(lambda: connect_mariadb(place), name=name)
    if kind == "sqlalchemy":
        return DBAPICell(lambda: sqlalchemy_engine(place["url"]).raw_connection(), name=name)
    if kind == "django":
        set_up_django(place)
        return DBAPICell(django_connection, name=name, paramstyle="format")
    if kind == "redis":
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client_of = redis.Redis(
            host=place["host"],
            port=place["port"],
            socket_timeout=place.get("timeout", 30),
            socket_connect_timeout=place.get("timeout", 30),
            retry=Retry(NoBackoff(), 0),
            decode_responses=bool(place.get("decode")),
        )
        return RedisCell(client_of, name)
    if kind == "secrets":
        return SecretsManagerCell(client(place, "secretsmanager"), name)
    if kind == "s3":
        return S3Cell(client(place, "s3"), "tokens", name)
    if kind == "dynamodb":
        import boto3

        resource = boto3.resource("dynamodb", endpoint_url=place["endpoint"], **CREDENTIALS)
        return DynamoDBCell(resource.Table("tokens"), {"name": name})
    raise AssertionError(kind)


def open_store(place: dict[str, Any], name: str = "tokens", **options: Any) -> CustomStoreShared:
    """Open a store on the place with this name."""
    return CustomStoreShared(cell(place, name), **options)
