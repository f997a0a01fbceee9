"""Fails without any logging configuration, then with a handler. `test_logging.py` runs it and reads what it prints."""

import contextlib
import io
import logging
import sys

from zoho_token_store import CustomStoreList
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException


def fail():
    """Make a store write a WARNING, and return what the process wrote to stderr meanwhile."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr, CustomStoreList() as store:
        with contextlib.suppress(SDKException):
            store.find_token_by_id("7")
        return stderr.getvalue()


sys.stdout.write(f"{fail()!r}\n")
for logger in (logging.getLogger("zoho_token_store"), logging.getLogger()):
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    fail()
    logger.removeHandler(handler)
    sys.stdout.write(lines.getvalue())
