"""Compare encrypted stores with a plain one, interleaved in one process: `make bench-keys`.

It times finds by refresh token in a file with 10 rows, and saves of a new access token: without keys, with one key, and
with two keys. Each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from zoho_token_store import CustomStoreSQLite, new_key
from zoho_token_store._native import __profile__
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

ROWS = 10
FINDS, SAVES = 1_000, 10  # consecutive calls of one store, before the next store's


def stored(number: int, turn: int = 0) -> OAuthToken:
    """Make a token of a user, with values as long as Zoho's."""
    token = OAuthToken(
        "1000." + "C" * 30,
        "s" * 42,
        refresh_token=f"1000.{number:032}.{'r' * 32}",
        access_token=f"1000.{turn:032}.{'a' * 32}",
        user_signature=UserSignature(f"user{number}@example.com:1001"),
    )
    token.set_expires_in("9999999999999")
    return token


def without_user(token: OAuthToken) -> OAuthToken:
    """Make a token that is found by its refresh token."""
    return OAuthToken(token.get_client_id(), token.get_client_secret(), refresh_token=token.get_refresh_token())


def timed(store: CustomStoreSQLite, method: str, tokens: list[OAuthToken]) -> float:
    """Return the seconds per call."""
    call = getattr(store, method)
    begun = time.perf_counter()
    for token in tokens:
        call(token)
    return (time.perf_counter() - begun) / len(tokens)


def main() -> None:
    """Print one line per store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="how often each store has its turn (%(default)s)")
    parser.add_argument("--folder", type=Path, help="folder for the files, on a real disk")
    options = parser.parse_args()
    if __profile__ != "release":
        sys.stderr.write("This is a debug build. Its figures say nothing.\n")
    first, second = new_key(), new_key()
    kinds = {"without keys": {}, "one key": {"keys": first}, "two keys": {"keys": [first, second]}}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stores = {name: CustomStoreSQLite(Path(folder, f"{name}.db"), **keys) for name, keys in kinds.items()}
        for store in stores.values():
            store.import_tokens([stored(number) for number in range(ROWS)])
        figures: dict[str, dict[str, list[float]]] = {name: {"find_token": [], "save_token": []} for name in stores}
        for turn in range(options.rounds):
            for name, store in stores.items():
                sought = [without_user(stored(n % ROWS)) for n in range(FINDS)]
                figures[name]["find_token"].append(timed(store, "find_token", sought))
                saved = [stored(n % ROWS, 1 + turn * SAVES + n) for n in range(SAVES)]
                figures[name]["save_token"].append(timed(store, "save_token", saved))
        for name, store in stores.items():
            find, save = (statistics.median(figures[name][method]) * 1e6 for method in ("find_token", "save_token"))
            store.close()
            size = os.path.getsize(Path(folder, f"{name}.db"))  # noqa: PTH202 - one number
            sys.stdout.write(f"{name:14}find {find:8.1f} µs   save {save:9.1f} µs   file {size:7} bytes\n")


if __name__ == "__main__":
    main()
