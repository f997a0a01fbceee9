"""A second implementation of sealed rows, from the format alone. It shares no code with the library.

The tests of the library read the vectors that this program writes, and it reads the rows that the library has sealed.
`python tests/sealed_reference.py` writes the vectors, `tests/data/sealed.json`, again.

    key        32 random bytes K, written "ztsk1_" + 56 characters of lower-case base32 of K || check[0:3]
               check = SHA-256("zoho-token-store key 1" || K)
    prk        HKDF-Extract(SHA-256, salt "zoho-token-store", K)
    key id     HKDF-Expand(prk, "1 id", 16)
    row key    HKDF-Expand(prk, "1 row", 32)
    tag key    HKDF-Expand(prk, "1 lookup", 32)
    seal       "zts1." b64u(key id) "." b64u(nonce:12 || ciphertext || tag:16)      AES-256-GCM-SIV (RFC 8452)
    plaintext  per secret that is present: field number:1 || length:4 LE || UTF-8
    AAD        "zoho-token-store row 1" || b64u(key id) || for each column except client_secret:
               00 if it is absent, else 01 || length:4 LE || the bytes as stored
    tag        "zts1." b64u(HMAC-SHA-256(tag key, field number:1 || UTF-8)[0:16])
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS = Path(__file__).parent / "data" / "sealed.json"

COLUMNS = (
    "id",
    "user_name",
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expiry_time",
    "redirect_url",
    "api_domain",
)
SECRETS = {3: "client_secret", 4: "refresh_token", 5: "access_token", 6: "grant_token"}
TOKENS = {4: "refresh_token", 5: "access_token", 6: "grant_token"}

Row = dict[str, str]


class AlteredError(Exception):
    """A row is not as it was sealed, or was sealed under another key."""


def encode(data: bytes) -> str:
    """Return data as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Return the data of a canonical text in base64url."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", text):
        raise AlteredError
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise AlteredError from None
    if encode(data) != text:
        raise AlteredError
    return data


def key_text(key: bytes) -> str:
    """Return the text of a key."""
    check = hashlib.sha256(b"zoho-token-store key 1" + key).digest()[:3]
    return "ztsk1_" + base64.b32encode(key + check).decode("ascii").lower()


def parse_key(text: str) -> bytes:
    """Return the key that a text stands for."""
    if not re.fullmatch(r"ztsk1_[a-z2-7]{56}", text):
        message = "not the text of a key"
        raise ValueError(message)
    key = base64.b32decode(text.removeprefix("ztsk1_").upper())[:32]
    if key_text(key) != text:
        message = "the checksum is wrong"
        raise ValueError(message)
    return key


class Key:
    """What is derived from a key."""

    def __init__(self, key: bytes) -> None:
        """Derive everything from a key."""

        def derive(info: bytes, length: int) -> bytes:
            return HKDF(SHA256(), length, b"zoho-token-store", info).derive(key)

        self.id = encode(derive(b"1 id", 16))
        self.row_key = derive(b"1 row", 32)
        self.tag_key = derive(b"1 lookup", 32)

    def tag(self, number: int, value: str) -> str:
        """Return the tag of a token."""
        digest = hmac.digest(self.tag_key, bytes([number]) + value.encode(), "sha256")
        return "zts1." + encode(digest[:16])

    def associated_data(self, stored: Row) -> bytes:
        """Return what a seal authenticates beside the secrets."""
        parts = [b"zoho-token-store row 1", self.id.encode("ascii")]
        for column in COLUMNS:
            if column == "client_secret":
                continue
            if column not in stored:
                parts.append(b"\0")
            else:
                value = stored[column].encode()
                parts.append(b"\1" + struct.pack("<I", len(value)) + value)
        return b"".join(parts)

    def seal_plaintext(self, stored: Row, nonce: bytes, plaintext: bytes) -> Row:
        """Return the row with this seal. `stored` has the tags."""
        encrypted = AESGCMSIV(self.row_key).encrypt(nonce, plaintext, self.associated_data(stored))
        return {**stored, "client_secret": f"zts1.{self.id}.{encode(nonce + encrypted)}"}

    def seal(self, row: Row, nonce: bytes) -> Row:
        """Return the row as it is stored."""
        stored = {column: value for column, value in row.items() if column != "client_secret"}
        for number, column in TOKENS.items():
            if column in row:
                stored[column] = self.tag(number, row[column])
        plaintext = b"".join(item(number, row[column]) for number, column in SECRETS.items() if column in row)
        return self.seal_plaintext(stored, nonce, plaintext)

    def open(self, stored: Row) -> Row:
        """Return the row that was sealed."""
        match = re.fullmatch(r"zts1\.(.{22})\.(.*)", stored.get("client_secret", ""), re.DOTALL)
        if not match or match[1] != self.id:
            raise AlteredError
        data = decode(match[2])
        if len(data) < 12 + 16:
            raise AlteredError
        try:
            plaintext = AESGCMSIV(self.row_key).decrypt(data[:12], data[12:], self.associated_data(stored))
        except InvalidTag:
            raise AlteredError from None
        secrets = {SECRETS[number]: value for number, value in items(plaintext)}
        return {column: value for column, value in stored.items() if column not in SECRETS.values()} | secrets


def item(number: int, value: str | bytes) -> bytes:
    """Return one secret as a part of the plaintext."""
    data = value.encode() if isinstance(value, str) else value
    return bytes([number]) + struct.pack("<I", len(data)) + data


def items(plaintext: bytes) -> Iterator[tuple[int, str]]:
    """Return the field numbers and values of a plaintext."""
    last = 0
    while plaintext:
        number, length = plaintext[0], int.from_bytes(plaintext[1:5], "little")
        value, plaintext = plaintext[5 : 5 + length], plaintext[5 + length :]
        if number not in SECRETS or number <= last or not value or len(value) < length:
            raise AlteredError
        last = number
        try:
            yield number, value.decode()
        except UnicodeDecodeError:
            raise AlteredError from None


# The vectors.

KEYS = [bytes(range(32)), b"\0" * 32, b"\xff" * 32, hashlib.sha256(b"a made-up key").digest()]

FULL: Row = {
    "id": "17",
    "user_name": "ada@example.com:1001",
    "client_id": "1000.CLIENT",
    "client_secret": "a made-up client secret",
    "refresh_token": "1000.made-up-refresh.0123456789abcdef",
    "access_token": "1000.made-up-access.0123456789abcdef",
    "grant_token": "1000.made-up-grant.0123456789abcdef",
    "expiry_time": "1795300000000",
    "redirect_url": "https://example.com/callback",
    "api_domain": "https://www.zohoapis.eu",
}
ROWS: list[Row] = [
    FULL,
    {"id": "1", "refresh_token": "r"},
    {"id": "2", "access_token": "a", "expiry_time": "0"},
    {"id": "3", "user_name": "u", "grant_token": "g", "client_secret": "s"},
    {
        "id": "mine",
        "user_name": "\u00c5da \U0001f980 e\u0301",
        "refresh_token": "\u2713 \n\0'\"",
        "client_secret": "\u00df",
    },
    {"id": "4", "client_id": "c"},
    {"id": "5", "access_token": "x" * 300},
]

REFUSED_KEYS = [
    "",
    "ztsk1_",
    key_text(KEYS[0]).upper(),
    key_text(KEYS[0])[:-1],
    key_text(KEYS[0]) + "a",
    key_text(KEYS[0]).replace("ztsk1_", "ztsk2_"),
    key_text(KEYS[0])[:-1] + "1",
    key_text(KEYS[0])[:6] + key_text(KEYS[0])[6:].upper(),
    key_text(KEYS[0])[:40] + key_text(KEYS[3])[40:],
    KEYS[0].hex(),
    base64.urlsafe_b64encode(KEYS[0]).decode("ascii"),
    "correct horse battery staple",
]


def nonce_of(number: int) -> bytes:
    """Return the nonce of a vector."""
    return hashlib.sha256(b"a made-up nonce %d" % number).digest()[:12]


def altered() -> Iterator[tuple[str, Row]]:
    """Return rows that the first key must not open, and why."""
    key, other = Key(KEYS[0]), Key(KEYS[3])
    good = key.seal(FULL, nonce_of(0))
    seal = good["client_secret"]
    start, encoded = seal[:28], seal[28:]
    data = decode(encoded)
    assert "-" in encoded or "_" in encoded, "the two kinds of base64 do not differ"

    def with_seal(seal: str) -> Row:
        return {**good, "client_secret": seal}

    def with_plaintext(plaintext: bytes) -> Row:
        stored = {column: value for column, value in good.items() if column != "client_secret"}
        return key.seal_plaintext(stored, nonce_of(0), plaintext)

    yield "the seal is of another key", {**good, "client_secret": other.seal(FULL, nonce_of(0))["client_secret"]}
    yield "the key id is another", with_seal(f"zts1.{other.id}.{encoded}")
    yield "there is padding", with_seal(seal + "=")
    yield "standard base64", with_seal(start + base64.b64encode(data).decode("ascii"))
    yield "a line break at the end", with_seal(seal + "\n")
    yield "bits that are not used", with_seal(seal[:-1] + spare_bits(seal))
    yield "cut short by a byte", with_seal(start + encode(data[:-1]))
    yield "one byte more", with_seal(start + encode(data + b"\0"))
    yield "no tag", with_seal(start + encode(data[:12]))
    yield "shorter than a nonce", with_seal(start + encode(data[:11]))
    yield "nothing behind the key id", with_seal(start)
    yield "no seal", {column: value for column, value in good.items() if column != "client_secret"}
    yield "another version", with_seal(seal.replace("zts1.", "zts2."))
    for column in COLUMNS:
        if column != "client_secret":
            yield f"another {column}", {**good, column: good[column] + "x"}
            yield f"no {column}", {name: value for name, value in good.items() if name != column}
    yield (
        "two tokens changed places",
        {
            **good,
            "refresh_token": good["access_token"],
            "access_token": good["refresh_token"],
        },
    )
    yield "a token in clear text", {**good, "access_token": FULL["access_token"]}
    yield "a field twice", with_plaintext(item(4, "r") + item(4, "r"))
    yield "a wrong order", with_plaintext(item(4, "r") + item(3, "s"))
    yield "a field that is no secret", with_plaintext(item(2, "c"))
    yield "a field behind the secrets", with_plaintext(item(6, "g") + item(7, "1"))
    yield "an empty value", with_plaintext(item(4, ""))
    yield "a value that is not UTF-8", with_plaintext(item(4, b"\xff"))
    yield "a value that is cut short", with_plaintext(item(4, "refresh")[:-1])
    yield "a length that is cut short", with_plaintext(item(4, "r") + b"\5\1\0")


def spare_bits(text: str) -> str:
    """Return the last character of a text in base64, with a bit set that stands for nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text[28:]) % 4, "all bits of the last character are used"
    return alphabet[alphabet.index(text[-1]) | 1]


def vectors() -> dict[str, Any]:
    """Return all vectors."""
    keys = [Key(key) for key in KEYS]
    pairs = [(number, row) for number in range(len(KEYS)) for row in ROWS]
    return {
        "keys": [{"text": key_text(bytes_), "id": key.id} for bytes_, key in zip(KEYS, keys, strict=True)],
        "refused_keys": REFUSED_KEYS,
        "tags": [
            {"key": number, "field": column, "value": value, "tag": key.tag(field, value)}
            for number, key in enumerate(keys)
            for field, column in TOKENS.items()
            for value in ("r", "1000.made-up.0123456789abcdef", "\u00df \U0001f980")
        ],
        "rows": [
            {"key": key, "nonce": nonce_of(number).hex(), "row": row, "stored": keys[key].seal(row, nonce_of(number))}
            for number, (key, row) in enumerate(pairs)
        ],
        "altered": [{"why": why, "stored": stored} for why, stored in altered()],
    }


def main() -> int:
    """Write the vectors."""
    VECTORS.write_text(json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
