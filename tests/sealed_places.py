"""Places of stores with keys, for tests that run with a file and with tables on a server.

A place tells what is stored there, without the keys and without the package.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoho_token_store

if TYPE_CHECKING:
    from collections.abc import Iterator

Position = tuple[str, int, "int | None"]
POSITIONS = "SELECT id, saved_order, saved_at FROM oauthtoken"


class Place:
    """A place: `arguments` of the class `kind` of stores lead there. Backups belong into `folder`."""

    kind: str

    def __init__(self, folder: Path, **arguments: str) -> None:
        self.folder = folder
        self.arguments = arguments

    def store(self, keys: object, **options: object) -> Any:
        """Open a store."""
        return getattr(zoho_token_store, self.kind)(**{**self.arguments, **options}, keys=keys)

    def contents(self) -> Iterator[bytes]:
        """Return all that is stored, and what is in the folder."""
        for file in self.folder.iterdir():
            yield file.read_bytes()

    def positions(self) -> list[Position]:
        """Return id, order and time of each row, sorted by the ids."""
        raise NotImplementedError


class File(Place):
    """A file of SQLite."""

    kind = "CustomStoreSQLite"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.db"
        super().__init__(folder, path=str(self.path))

    def positions(self) -> list[Position]:
        # A copy, because a second SQLite in a process breaks the locks of the first, and would tidy up its WAL.
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(self.folder, copy, dirs_exist_ok=True)
            with closing(sqlite3.connect(Path(copy) / self.path.name)) as connection:
                return sorted(connection.execute(POSITIONS))


class Tables(Place):
    """Tables on a PostgreSQL server."""

    kind = "CustomStorePostgreSQL"

    def __init__(self, folder: Path, dsn: str, schema: str) -> None:
        super().__init__(folder, dsn=dsn, schema=schema)

    def contents(self) -> Iterator[bytes]:
        yield from super().contents()
        yield from self._rows()

    def _rows(self) -> Iterator[bytes]:
        try:
            import psycopg
        except ModuleNotFoundError:  # the environments of the SDK 5 to 7 lack it
            # A backup has the rows as they are stored. A store of clear text seals nothing.
            with tempfile.TemporaryDirectory() as folder, self.store([zoho_token_store.PLAINTEXT]) as store:
                backup = Path(folder) / "backup.db"
                store.backup(backup)
                yield backup.read_bytes()
            return
        with psycopg.connect(self.arguments["dsn"]) as connection:
            named = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
            tables = [table for (table,) in connection.execute(named, [self.arguments["schema"]])]
            assert "oauthtoken" in tables
            for table in tables:
                for (row,) in connection.execute(f"SELECT t::text FROM {self.arguments['schema']}.{table} AS t"):
                    yield row.encode()

    def positions(self) -> list[Position]:
        import psycopg

        with psycopg.connect(self.arguments["dsn"], options=f"-csearch_path={self.arguments['schema']}") as connection:
            return sorted(connection.execute(POSITIONS).fetchall())
