"""The logger `zoho_token_store` in a program with and without a logging configuration."""

from __future__ import annotations

import logging
import logging.config
import re
from pathlib import Path

import pytest
from own_process import in_own_process
from support import login, run_python, token
from zoho_token_store import CustomStoreInMemory
from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

TROUBLESHOOTING = Path(__file__).parent.parent / "docs" / "troubleshooting.md"


def test_a_library_does_not_write_to_stderr_by_itself():
    """Without a configuration nothing is printed. A handler of the logger, or of the root logger, gets the lines."""
    silent, of_the_logger, of_the_root = run_python("from programs import log_lines").splitlines()
    assert silent == "''"
    assert of_the_logger.startswith("WARNING zoho_token_store find_token_by_id: ")
    assert of_the_root == of_the_logger


@in_own_process
def test_failed_saves_are_counted_when_the_log_is_off():
    """`dictConfig` silences the logger of a store that exists. The SDK swallows the error itself while it refreshes."""
    store = CustomStoreInMemory()
    lines = []
    handler = logging.Handler()
    handler.emit = lines.append
    logging.getLogger("zoho_token_store").addHandler(handler)
    logging.config.dictConfig({"version": 1})
    store.save_token(login())
    assert (store.lease_info().failed_saves, store.check()) == (0, [])
    for _ in range(2):
        with pytest.raises(SDKException):
            store.save_token(token("bob@example.com"))
    with pytest.raises(SDKException):
        store.save_token("no token")
    assert lines == []
    assert store.lease_info().failed_saves == 3
    [finding] = store.check()
    assert (finding.code, finding.severity, finding.ids) == ("failed-saves", "warning", [])
    assert finding.message.startswith("3 saves failed")
    assert finding.message.endswith("the last one with invalid-argument")


class UnableToSave(CustomStoreInMemory):
    def save_token(self, _token):
        raise OSError("planted: the save fails")


@in_own_process
def test_the_filter_that_repairs_a_log_call_of_the_sdk():
    """The SDK logs a failed save with an argument too many. A filter that reads the text then fails the request."""
    lines = []
    handler = logging.Handler()
    handler.addFilter(lambda record: lines.append(record.getMessage()) or True)
    handler.emit = lambda _: None
    logging.getLogger().addHandler(handler)
    _, chapter = TROUBLESHOOTING.read_text(encoding="utf-8").split("### A broken log call of the SDK")
    [repair] = re.findall(r"^```python\n(.*?)^```$", chapter, re.DOTALL | re.MULTILINE)
    with ZohoStandIn() as zoho:

        def initialize():
            user = OAuthToken(zoho.client_id, zoho.client_secret, refresh_token=zoho.refresh_token("ada@example.com"))
            Initializer.initialize(zoho.environment(), user, store=UnableToSave())

        with pytest.raises(TypeError, match="not all arguments converted"):
            initialize()
        exec(repair, {"logging": logging})
        initialize()
    assert "Exception in saving tokens: planted: the save fails" in lines


def test_an_id_that_no_row_has_leaves_a_line(caplog):
    """A program that uses the ids of another store deletes nothing. The line does not show a user name."""
    store = CustomStoreInMemory(raise_on_missing_id=False)
    store.save_token(login())
    caplog.clear()
    caplog.set_level(logging.DEBUG, "zoho_token_store")
    store.delete_token("ada@example.com")
    store.delete_token(None)
    assert store.find_token_by_id("7") is None
    assert store.find_token_by_id("1") is not None
    store.delete_token("1")
    assert [(record.levelname, record.getMessage().split(": ", 1)[1]) for record in caplog.records] == [
        ("DEBUG", "delete_token: no row has that id (15 characters)"),
        ("DEBUG", "delete_token: no row has an absent id"),
        ("DEBUG", 'find_token_by_id: no row has the id "7"'),
    ]
