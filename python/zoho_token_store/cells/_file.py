"""A cell that is a file. Read this one first."""

from __future__ import annotations

import hashlib
import logging
import os
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
        """Name the file. A lock (`.lock`) is made beside it, and during a save the new document (`.tmp`).

        The path may be a symbolic link: then the file that it leads to is replaced. Do not use hard links, because a
        save leaves the old document under the other names.
        """
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
        with self._locked() as path:
            if path != self._real_path() or self.load()[1] != version:
                return False
            # One name: a program that is killed before the replacement leaves one file, which the next save replaces.
            temporary = Path(f"{path}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(document)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # so that the new name survives a power failure
            finally:
                os.close(folder)
        return True

    def _real_path(self) -> Path:
        return Path(os.path.realpath(self.path))

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        """Hold the lock of the file that the path leads to now, also through symbolic links."""
        import fcntl  # noqa: PLC0415 - Windows has none

        path = self._real_path()
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield path
        finally:
            # Closing is not enough: a child that was forked meanwhile has the descriptor, too.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)
