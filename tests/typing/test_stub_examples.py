"""The examples in the stub, run as doctests."""

from __future__ import annotations

import ast
import doctest
import sqlite3
from pathlib import Path

import pytest
import zoho_token_store
from support import login
from zoho_token_store import (
    CustomStoreInMemory,
    CustomStoreList,
    CustomStorePostgreSQL,
    CustomStoreShared,
    CustomStoreSQLite,
)
from zoho_token_store._native import (
    Administration,
    StoreAddress,
    StoreAtAddress,
    error_codes,
    init_sql,
    key_environment,
    key_file,
    key_id,
    new_key,
    token_from_dict,
    token_to_dict,
)
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.file_store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

STUB = Path(__file__).parent.parent.parent / "python" / "zoho_token_store" / "_native.pyi"

# What the module's docstring says about the names in the examples, and the classes of this package.
NAMES = {
    "Administration": Administration,
    "CustomStoreInMemory": CustomStoreInMemory,
    "CustomStoreList": CustomStoreList,
    "CustomStorePostgreSQL": CustomStorePostgreSQL,
    "CustomStoreShared": CustomStoreShared,
    "CustomStoreSQLite": CustomStoreSQLite,
    "OAuthToken": OAuthToken,
    "SDKException": SDKException,
    "StoreAddress": StoreAddress,
    "StoreAtAddress": StoreAtAddress,
    "UserSignature": UserSignature,
    "error_codes": error_codes,
    "init_sql": init_sql,
    "key_environment": key_environment,
    "key_file": key_file,
    "key_id": key_id,
    "new_key": new_key,
    "sqlite3": sqlite3,
    "token_from_dict": token_from_dict,
    "token_to_dict": token_to_dict,
}


def docstrings() -> dict[str, str]:
    """Return the docstrings of the stub's classes, functions and methods by their names."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                found[prefix + child.name] = ast.get_docstring(child) or ""
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(STUB.read_text(encoding="utf-8")), "")
    return found


EXAMPLES = {name: text for name, text in docstrings().items() if ">>>" in text}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_gives_the_result_that_it_shows(name, tmp_path, monkeypatch, request):
    """Each example runs on a store with one row, and prints what the docstring shows."""
    monkeypatch.chdir(tmp_path)
    for number in (2, 3):
        FileStore("sdk_tokens.txt").save_token(login(f"user{number}@example.com", number))
    with CustomStoreSQLite("zohooauth.db") as store:
        ada = UserSignature("ada@example.com")
        store.save_token(OAuthToken("1000.CLIENT", "made-up-secret", refresh_token="1000.made.up", user_signature=ada))
        names = {**NAMES, "store": store}
        if "dsn" in EXAMPLES[name]:
            names.update({fixture: request.getfixturevalue(fixture) for fixture in ("dsn", "schema")})
        test = doctest.DocTestParser().get_doctest(EXAMPLES[name], names, name, str(STUB), 0)
        problems: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=problems.append)
    assert "".join(problems) == ""


def test_every_public_class_and_method_has_an_example():
    """Properties and special methods other than the constructors need none."""
    public = {*zoho_token_store.__all__, "error_codes"}
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    needed = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in public:
            needed.add(node.name)
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                is_method = isinstance(member, ast.FunctionDef) and not member.decorator_list
                if is_method and (not member.name.startswith("__") or member.name == "__init__"):
                    needed.add(f"{node.name}.{member.name}")
    assert needed - set(EXAMPLES) == set()
