"""A suite that `test_plugin.py` runs: the plugin imports a package only when a test needs it, and reports
each missing package in one line."""

import sys


def test_nothing_is_imported_early():
    assert "pytest_zoho_token_store" in sys.modules
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert loaded.isdisjoint({"zoho_token_store", "zohocrmsdk", "werkzeug", "requests", "sqlite3"})


def test_without_the_extra(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "werkzeug", None)
    request.getfixturevalue("zoho_stand_in")


def test_a_store_without_an_sdk(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "zohocrmsdk", None)
    request.getfixturevalue("zoho_store")


def test_a_fresh_sdk_without_an_sdk(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "zohocrmsdk", None)
    request.getfixturevalue("zoho_fresh_sdk")
