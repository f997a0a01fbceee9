"""Fixtures: a stand-in for Zoho, its users, and a program with each of the stores."""

import pytest
from sdk.program import Program, installed_sdk
from zoho_token_store import new_key
from zoho_token_store.testing import ZohoStandIn

# The store class of the program, and whether a restart of the program is a new process.
STORES = {
    "sqlite": ("CustomStoreSQLite", False),
    "sqlite-new-process": ("CustomStoreSQLite", True),
    "sqlite-encrypted-new-process": ("CustomStoreSQLite", True),
    "postgresql": ("CustomStorePostgreSQL", False),
    "postgresql-new-process": ("CustomStorePostgreSQL", True),
    "postgresql-encrypted-new-process": ("CustomStorePostgreSQL", True),
    "memory": ("CustomStoreInMemory", False),
    "list": ("CustomStoreList", False),
}


class Clock:
    """The clock of the stand-in. A test sets it."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def zoho():
    with ZohoStandIn(clock=Clock()) as standin:
        yield standin


@pytest.fixture
def ada(zoho):
    return zoho.add_user("ada@example.com", "1001")


@pytest.fixture
def bob(zoho):
    return zoho.add_user("bob@example.com", "1002")


@pytest.fixture
def users(ada, bob):
    return ada, bob


@pytest.fixture(params=STORES)
def program(request, zoho, tmp_path):
    store, new_process = STORES[request.param]
    resources = tmp_path / "resources"
    resources.mkdir()
    place = {}
    if store == "CustomStoreSQLite":
        place = {"path": str(tmp_path / "tokens.db")}
    elif store == "CustomStorePostgreSQL":
        place = {"dsn": request.getfixturevalue("dsn"), "schema": request.getfixturevalue("schema")}
    if "encrypted" in request.param:
        place["keys"] = [new_key(), new_key()]
    program = Program(store, place, zoho.environment(), str(resources), new_process=new_process)
    try:
        yield program
    finally:
        program.close()
    # SDK 6 to 8 log what `save_token` raises, and raise nothing themselves.
    assert program.logged == []


# The rules of the lease are the same under each SDK. So SDK 5 to 7 run two tests of many processes, and SDK 8 runs all.
CROWD_TESTS = "test_lease.py"
FOR_EACH_SDK = {"test_32_processes_at_one_expiry", "test_refresh_ahead_in_3_processes_of_16_threads"}
# What a store writes is the same under each SDK, too. So SDK 5 to 7 restart in a new process with a file alone, and in
# the same process with the other stores.
SDK_8_ONLY = {"sqlite", "sqlite-encrypted-new-process", "postgresql-new-process", "postgresql-encrypted-new-process"}


def is_for_sdk_8(item):
    if item.path.name == CROWD_TESTS:
        return item.originalname not in FOR_EACH_SDK
    return hasattr(item, "callspec") and item.callspec.params.get("program") in SDK_8_ONLY


def pytest_collection_modifyitems(config, items):
    if installed_sdk() == 8:
        return
    left_out = [item for item in items if item.path.parent.name == "sdk" and is_for_sdk_8(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
