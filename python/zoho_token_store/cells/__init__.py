"""Cells: places where `CustomStoreShared` keeps its document.

A cell is any object with two methods:

- ``load()`` returns the document and its version. There may be no document yet: then the first value is `None`.
- ``swap(document, version)`` writes the document if the place still has this version, and returns whether it did.

>>> from zoho_token_store import CustomStoreShared
>>> from zoho_token_store.cells import FileCell
>>> store = CustomStoreShared(FileCell("tokens.jsonl"))

The cells of this package are examples, too: each is a few lines over a client that the program already has. None
imports a client. To write another one, read `_file.py` first, and test it with
`zoho_token_store.testing.cell_contract`.
"""

from ._cell import Cell, DocumentTooLarge
from ._dbapi import DBAPICell
from ._file import FileCell
from ._redis import RedisCell
from ._secrets_manager import SecretsManagerCell

__all__ = ["Cell", "DBAPICell", "DocumentTooLarge", "FileCell", "RedisCell", "SecretsManagerCell"]
