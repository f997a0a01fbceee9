"""The SDK's `DBStore` on a local MariaDB server, in a database that is created for the benchmark and then dropped."""

from __future__ import annotations

import dataclasses
import importlib.util
import ipaddress
import socket
from typing import TYPE_CHECKING, Any

from peers import Peer, chunks, in_short, numbered
from zohocrmsdk.src.com.zoho.api.authenticator.store import DBStore, TokenStore

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Database(Peer):
    """The SDK's `DBStore` in the benchmark's database."""

    host: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    database: str = ""

    def connect(self, **more: str) -> Any:  # noqa: ANN401
        """Connect to the server."""
        import mysql.connector

        return mysql.connector.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, connection_timeout=10, **more
        )

    def open(self, home: Path) -> TokenStore:
        """Open the store on a table with the folder's name, created as in the SDK's documentation."""
        table = home.name.replace("-", "_")
        columns = ["user_name", "client_id", "client_secret", "refresh_token", "access_token", "grant_token"]
        with self.connect(database=self.database) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (id varchar(10) NOT NULL, "
                + "".join(f"{column} varchar(255), " for column in columns)
                + "expiry_time varchar(20), redirect_url varchar(255), api_domain varchar(255), PRIMARY KEY (id))"
            )
        return DBStore(self.host, self.database, self.user, self.password, str(self.port), table)

    def fill(self, store: Any, home: Path, rows: int) -> None:  # noqa: ANN401, ARG002
        """Insert the rows in large transactions."""
        with self.connect(database=self.database) as connection, connection.cursor() as cursor:
            for chunk in chunks(numbered(rows), rows):
                marks = ", ".join(["%s"] * len(chunk[0]))
                cursor.executemany(f"INSERT INTO {store.get_table_name()} VALUES ({marks})", chunk)
                connection.commit()

    def close(self, store: Any) -> None:  # noqa: ANN401
        """Keep the table: `drop` deletes it with the database."""

    def create(self) -> str:
        """Create the database and return the server's version."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {self.database}")
            cursor.execute("SELECT version()")
            return str(cursor.fetchone()[0])

    def drop(self) -> None:
        """Drop the database with all its tables."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {self.database}")


def answering(address: str, user: str, password: str, name: str) -> Database | str:
    """Return the SDK's `DBStore` on this server, or the reason why it is left out."""
    host, _, port = address.rpartition(":")
    try:
        if not ipaddress.ip_address(socket.gethostbyname(host)).is_loopback:
            return f"{host} is not this machine"
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return f"no MariaDB answers on {address}"
    if importlib.util.find_spec("mysql") is None:
        return "mysql-connector-python is not installed (make bench installs it)"
    peer = Database("DBStore", "", "server", host=host, port=int(port), user=user, password=password, database=name)
    try:
        version = peer.create()
    except Exception as error:
        return f"{address}: {in_short(error)}"
    return dataclasses.replace(peer, about=f"the SDK's, on {version}")
