"""The error catalogue as Python sees it: the codes and hints of `StoreError`, and their types in the stub."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support import token
from zoho_token_store import CustomStoreList, StoreError
from zoho_token_store._native import Administration, error_codes
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

STUB = Path(__file__).parent.parent / "python" / "zoho_token_store" / "_native.pyi"


def literal_codes() -> list[str]:
    """Return the values of `_ErrorCode` in the stub, which is the type of `StoreError.code`."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    [alias] = [
        node
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_ErrorCode"
    ]
    assert isinstance(alias.value, ast.Subscript)
    return list(ast.literal_eval(alias.value.slice))


def test_the_stub_lists_exactly_the_codes_of_the_catalogue():
    """The type of `StoreError.code` has every code of the catalogue once, in the same order, and no other."""
    assert literal_codes() == list(error_codes())


def test_every_code_has_a_hint():
    """Each hint is a sentence, so the command line can print it as `Fix: …`."""
    assert [code for code, hint in error_codes().items() if not hint.endswith(".")] == []


def test_a_failure_has_the_code_and_the_hint_of_the_catalogue(tmp_path):
    """`code` and `hint` of a raised `StoreError` are those of the catalogue, and its message ends with the hint."""
    with CustomStoreList() as store:
        failures = {
            "missing-id": lambda: store.find_token_by_id("7"),
            "empty-token": lambda: store.save_token(token("ada@example.com")),
            "invalid-argument": lambda: store.save_token("no token"),
            "is-a-folder": lambda: store.backup(tmp_path),
            "missing-folder": lambda: store.backup(tmp_path / "missing" / "backup.db"),
        }
        causes = {}
        for code, call in failures.items():
            with pytest.raises(SDKException) as caught:
                call()
            causes[code] = caught.value.__cause__
    with pytest.raises(SDKException) as caught:
        store.get_tokens()
    causes["closed"] = caught.value.__cause__
    with pytest.raises(StoreError) as missing:
        Administration(tmp_path / "missing.db")
    causes["missing-file"] = missing.value
    assert {code: (cause.code, cause.hint) for code, cause in causes.items()} == {
        code: (code, error_codes()[code]) for code in causes
    }
    assert [code for code, cause in causes.items() if not str(cause).endswith(cause.hint)] == []


def test_a_store_error_of_a_program_has_a_code_and_a_hint():
    """`StoreError("…")` in Python code has the code for an unexpected error, so the attributes always exist."""
    error = StoreError("made by a program")
    assert (error.code, error.hint) == ("database-error", error_codes()["database-error"])
