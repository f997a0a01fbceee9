"""The flows' surroundings: a stand-in for Zoho, and a program over each of the stores."""

import pytest
from sdk.program import Program
from zoho_token_store.testing import ZohoStandIn

# Each store class, and what a restart of the program leaves of it.
STORES = {
    "sqlite": ("CustomStoreSQLite", False),
    "sqlite-new-process": ("CustomStoreSQLite", True),
    "memory": ("CustomStoreInMemory", False),
    "list": ("CustomStoreList", False),
}


class Clock:
    """The stand-in's time: it passes when a test says so."""

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
    program = Program(store, str(tmp_path / "tokens.db"), zoho.environment(), str(resources), new_process=new_process)
    try:
        yield program
    finally:
        program.close()
    # What `save_token` raises the SDKs 6 to 8 only log.
    assert program.logged == []
