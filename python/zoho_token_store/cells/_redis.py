"""A cell that is a key of Redis."""

from __future__ import annotations

import uuid
from typing import Any

# One command compares and writes. Scripts of Redis are atomic.
_SWAP = """
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'document', ARGV[3])
return 1
"""


class RedisCell:
    """A document in a hash of Redis or Valkey, with the client of the package `redis` or `valkey`.

    The server must not evict the key (`maxmemory-policy noeviction`), and keeps the last saves after a crash only with
    `appendfsync always`.

    Example:
        >>> cell = RedisCell(redis.Redis(socket_timeout=2), "zoho-tokens")
        >>> cell.load()
        (None, '')
    """

    def __init__(self, client: Any, key: str) -> None:
        """Name the key.

        Args:
            client: A client with timeouts: `redis.Redis(socket_timeout=2, socket_connect_timeout=2)`.
            key: The key. Each store has a key of its own.
        """
        self.client, self.key = client, key

    def load(self) -> tuple[bytes | None, str]:
        """Read both fields of the hash. The version is a random text."""
        document, version = self.client.hmget(self.key, ["document", "version"])
        if document is None and version is None:
            return None, ""
        if document is None or version is None:
            raise ValueError(f"the key {self.key!r} holds something else: it needs the fields document and version")
        return _bytes(document), _bytes(version).decode("ascii")

    def swap(self, document: bytes, version: str) -> bool:
        """Write both fields if the version is still the same."""
        return bool(self.client.eval(_SWAP, 1, self.key, version, uuid.uuid4().hex, document))


def _bytes(value: bytes | str) -> bytes:
    """Return bytes. A client with `decode_responses=True` returns text."""
    return value.encode() if isinstance(value, str) else value
