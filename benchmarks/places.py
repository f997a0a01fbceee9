"""What a find and a save cost over each cell, beside the other stores.

    python benchmarks/places.py [--rows 10 100 500] [--rounds 60]

It starts Redis and MariaDB of this system on this machine. Amazon's services are left out: their time is the network's.
Each figure is a median. The stores take turns, so that a busy machine slows all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from cells import places, services
from zoho_token_store import CustomStoreList, CustomStoreShared, CustomStoreSQLite
from zoho_token_store._native import __profile__
from zoho_token_store.cells import DBAPICell
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoho_token_store import TokenStoreBase

LATER = "4102444800000"


def made(number: int, access: str = "made-up") -> OAuthToken:
    """Make a token as the SDK saves it."""
    token = OAuthToken(
        f"1000.{'C' * 30}",
        "made-up-" + "s" * 34,
        refresh_token=f"made-up-{number:06}-" + "r" * 55,
        redirect_url="https://app.example.com/oauth/callback",
        access_token=f"{access}-{number:06}-" + "a" * 55,
        user_signature=UserSignature(f"user-{number:06}@example.com:6000{number:06}"),
    )
    token.set_expires_in(LATER)
    token.set_api_domain("https://www.zohoapis.com")
    return token


def median_us(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call, in microseconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def measure(stores: dict[str, TokenStoreBase], rows: int, rounds: int) -> None:
    """Print a line for each store."""
    for store in stores.values():
        store.delete_tokens()
        store.import_tokens([made(number) for number in range(rows)])
    finds: dict[str, list[float]] = {name: [] for name in stores}
    saves: dict[str, list[float]] = {name: [] for name in stores}
    for turn in range(5):
        for name, store in stores.items():
            by = OAuthToken("1000.X", "x", refresh_token=made(rows // 2).get_refresh_token())
            by.set_client_id(None)
            by.set_client_secret(None)

            def find(store: TokenStoreBase = store, by: OAuthToken = by) -> None:
                by.set_access_token(None)
                store.find_token(by)

            def save(store: TokenStoreBase = store, turn: int = turn) -> None:
                store.save_token(made(rows // 2, f"new-{turn}"))

            find()
            finds[name].append(median_us(find, rounds))
            saves[name].append(median_us(save, max(rounds // 10, 5)))
    for name in stores:
        find_us, save_us = statistics.median(finds[name]), statistics.median(saves[name])
        print(f"{rows:6} rows  {name:22} find {find_us:10.1f} us   save {save_us:10.1f} us", flush=True)


def main() -> None:
    """Measure all stores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10, 100, 500])
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    print(f"build profile: {__profile__}")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(services.redis_server(folder))
        mariadb = stack.enter_context(services.mariadb_server(folder))
        shared: Callable[..., CustomStoreShared] = places.open_store
        url = f"mysql+pymysql://root@/app?unix_socket={mariadb['unix_socket']}&ssl_disabled=true"
        stores: dict[str, Any] = {
            "list": CustomStoreList(),
            "SQLite": CustomStoreSQLite(folder / "tokens.db"),
            "Redis": shared(redis),
            "Redis, cache_for=60": shared(redis, "cached", cache_for=60),
            "MariaDB": shared(mariadb),
            "MariaDB, SQLAlchemy": shared({"kind": "sqlalchemy", "url": url}, "pool"),
            "SQLite row": CustomStoreShared(DBAPICell(lambda: sqlite3.connect(folder / "app.db"))),
            "file": shared({"kind": "file", "folder": str(folder)}),
        }
        for rows in arguments.rows:
            measure(stores, rows, arguments.rounds)
        document = Path(folder, "tokens.jsonl").read_bytes()
        print(f"bytes per row: {len(document) / max(arguments.rows[-1], 1):.0f}")


if __name__ == "__main__":
    main()
