"""A cell that is a file. Read this one first."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger("zoho_token_store")


class FileCell:
    """A document in a file of this machine, which only its owner can read (POSIX).

    It shows what a cell is. `CustomStoreSQLite` is faster, and does not write all rows for each change.

    Example:
        >>> FileCell("tokens.jsonl").load()
        (None, '')
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file. A lock file with the ending `.lock` is made beside it."""
        self.path = Path(path).absolute()
        self._warned = False

    def load(self) -> tuple[bytes | None, str]:
        """Read the file. The version is a digest of its contents: each document has another mark."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077 and not self._warned:
                    self._warned = True
                    log.warning("%s holds credentials, and other users can read it. Run chmod 600 on it.", self.path)
                document = file.read()
        except FileNotFoundError:
            return None, ""
        return document, hashlib.sha256(document).hexdigest()

    def swap(self, document: bytes, version: str) -> bool:
        """Replace the file under a lock, which no two programs hold."""
        with self._locked():
            if self.load()[1] != version:
                return False
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f"{self.path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(document)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # so that the new name survives a power failure
            finally:
                os.close(folder)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl  # noqa: PLC0415 - Windows has none

        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
