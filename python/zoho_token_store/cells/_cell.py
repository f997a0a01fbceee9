"""What a cell is."""

from __future__ import annotations

from typing import Protocol, TypeVar

Version = TypeVar("Version")


class DocumentTooLarge(Exception):  # noqa: N818 - named after the error code `document-too-large`
    """The place does not take a document of this size. `swap` raises it, and has written nothing.

    Example:
        >>> raise DocumentTooLarge("a secret of AWS has at most 65536 bytes")
        Traceback (most recent call last):
        zoho_token_store.cells.DocumentTooLarge: a secret of AWS has at most 65536 bytes
    """


DocumentTooLarge.__module__ = "zoho_token_store.cells"


class Cell(Protocol[Version]):
    """A place that holds one document, and replaces it only if it has not changed.

    The document is ASCII text. It holds secrets: only the program should be able to read it.

    Several threads may call a cell at the same time. What a method raises becomes the cause of the store's error, and
    nothing counts as saved. If `swap` raises, the store loads again to see whether the document was written.

    Example:
        >>> class DictCell:
        ...     place: ClassVar[dict[str, object]] = {"document": None, "version": 0}
        ...     lock = threading.Lock()
        ...     def load(self) -> tuple[bytes | None, int]:
        ...         with self.lock:
        ...             return self.place["document"], self.place["version"]
        ...     def swap(self, document: bytes, version: int) -> bool:
        ...         with self.lock:
        ...             if self.place["version"] != version:
        ...                 return False
        ...             self.place.update(document=document, version=version + 1)
        ...             return True
    """

    def load(self) -> tuple[bytes | None, Version]:
        """Return the document, or `None` if there is none yet, and the version of the place."""
        ...

    def swap(self, document: bytes, version: Version, /) -> bool:
        """Write the document if the place still has this version, and return whether it did.

        Comparing and writing are one step: no other writer comes in between. An old version is no error: return
        `False`. An exception means that it is not known whether the document was written.
        """
        ...
