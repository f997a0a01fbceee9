"""Fixtures for suites of programs that use the Zoho CRM Python SDK: log in, expire, throttle and revoke without Zoho.

pytest finds them by itself once the extra ``testing`` is installed; ``pytest --fixtures`` lists them. A worked
example is ``examples/test_with_zoho.py`` in the source distribution. Works with pytest 7 and later, and SDK 5 to 8.

A package of its own, because pytest loads it in every run of whoever has the library installed: inside
``zoho_token_store`` it would load the native module and Werkzeug, too. Here nothing is imported before a fixture is
asked for.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoho_token_store import CustomStoreInMemory, CustomStoreSQLite
    from zoho_token_store._native import TokenStoreBase
    from zoho_token_store.testing import Client, User, ZohoStandIn

_HOUR = 3600.0


class Login(Protocol):
    """What the fixture `zoho_login` is."""

    def __call__(
        self, user: User | str = ..., *, store: TokenStoreBase | None = ..., client: Client | None = ...
    ) -> Any:  # noqa: ANN401 - the SDK's `OAuthToken`: the SDK has no types
        """Log a user in; return their token."""


class LetTimePass(Protocol):
    """What the fixture `zoho_let_time_pass` is."""

    def __call__(self, seconds: float = ..., *, stores: tuple[TokenStoreBase, ...] = ...) -> None:
        """Let so many seconds pass."""


@contextmanager
def _clearly() -> Iterator[None]:
    # What is missing is said in a line, with no frame of the plugin's around it.
    try:
        yield
    except ImportError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def zoho_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZohoStandIn]:
    """A stand-in for Zoho that listens on 127.0.0.1 until the test ends: a `zoho_token_store.testing.ZohoStandIn`.

    ``deny_next()`` throttles, ``revoke_user("ada@example.com")`` revokes, ``fail_next(status=500)`` fails;
    ``logins``, ``refreshes``, ``denials`` and ``calls`` tell what it was asked for.
    """
    with _clearly():
        from zoho_token_store.testing import ZohoStandIn  # noqa: PLC0415 - see the module
    # Whatever proxy the environment names, it is not meant for this machine.
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1", prepend=",")
    with ZohoStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def zoho_store() -> Iterator[CustomStoreInMemory]:
    """An empty store in memory, closed at the end: a `CustomStoreInMemory`.

    `zoho_login` saves into it. Override it in your ``conftest.py`` to use a store of your own.
    """
    with _clearly():
        from zoho_token_store import CustomStoreInMemory  # noqa: PLC0415

        made = CustomStoreInMemory()
    with made:
        yield made


@pytest.fixture
def zoho_store_file(tmp_path: Path) -> Iterator[CustomStoreSQLite]:
    """An empty store in the file ``tmp_path / "zohooauth.db"``, closed at the end: a `CustomStoreSQLite`."""
    with _clearly():
        from zoho_token_store import CustomStoreSQLite  # noqa: PLC0415

        made = CustomStoreSQLite(tmp_path / "zohooauth.db")
    with made:
        yield made


@pytest.fixture
def zoho_fresh_sdk() -> Iterator[None]:
    """The SDK as if it had never been initialized, in every thread; afterwards as it was before the test.

    The SDK keeps its environment, store and user in class attributes and thread locals, and the SDKs 5 to 7 go on with
    the first ones when a thread initializes again. With this, one test sees nothing of another's. `zoho_environment`
    and `zoho_login` bring it.
    """
    try:
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415 - it is slow
    except ImportError:
        missing = "the fixtures zoho_… need a Zoho CRM SDK: pip install zohocrmsdk8_0"
        raise pytest.fail.Exception(missing, pytrace=False) from None
    before = (Initializer.initializer, Initializer.LOCAL)
    _forget(Initializer)
    yield
    Initializer.initializer, Initializer.LOCAL = before


@pytest.fixture
def zoho_environment(zoho_stand_in: ZohoStandIn, zoho_fresh_sdk: None) -> object:  # noqa: ARG001
    """An environment of the installed SDK that points at `zoho_stand_in` alone, for ``Initializer.initialize``."""
    return zoho_stand_in.environment()


@pytest.fixture
def zoho_login(
    zoho_stand_in: ZohoStandIn, zoho_environment: object, zoho_store: TokenStoreBase, tmp_path: Path
) -> Login:
    """Log users in, each by a call.

    ``token = zoho_login("ada@example.com")``: the real SDK is initialized anew, redeems a grant code of this user's at
    `zoho_stand_in`, and saves into `zoho_store`. From then on it works as this user, in every thread that does not
    ``switch_user``. Returns the SDK's `OAuthToken`: ``token.get_id()`` is the row's id.

    Args: ``user``, an e-mail address or what ``zoho_stand_in.add_user`` returned; ``store=``, another store;
    ``client=``, another client than the stand-in's own, from ``zoho_stand_in.add_client()``.
    """

    def log_in(
        user: User | str = "ada@example.com", *, store: TokenStoreBase | None = None, client: Client | None = None
    ) -> Any:  # noqa: ANN401
        from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415

        _forget(Initializer)
        token = OAuthToken(
            client_id=zoho_stand_in.client_id if client is None else client.id,
            client_secret=zoho_stand_in.client_secret if client is None else client.secret,
            grant_token=zoho_stand_in.grant_code(user, client),
            redirect_url=None if client is None else client.redirect_url,
        )
        Initializer.initialize(
            environment=zoho_environment,
            token=token,
            store=zoho_store if store is None else store,
            # Where the SDK keeps what it learns about modules; otherwise in the folder that pytest runs in.
            resource_path=str(tmp_path),
        )
        return token

    return log_in


@pytest.fixture
def zoho_let_time_pass(request: pytest.FixtureRequest, zoho_stand_in: ZohoStandIn, zoho_fresh_sdk: None) -> LetTimePass:  # noqa: ARG001
    """Let an hour pass, or ``zoho_let_time_pass(seconds)``: access tokens expire, and Zoho's limits start anew.

    Nothing waits: the stand-in's clock is put forward, and what the stores hold expires sooner by as much. These are
    the SDK's present store, `zoho_store` and `zoho_store_file` where the test uses them, and ``stores=(…,)``.
    """

    def let_time_pass(seconds: float = _HOUR, *, stores: tuple[TokenStoreBase, ...] = ()) -> None:
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415

        present = Initializer.get_initializer()
        used = [*stores]
        used += [request.getfixturevalue(name) for name in _STORES if name in request.fixturenames]
        used += [] if present is None else [present.store]
        clock = zoho_stand_in.clock
        zoho_stand_in.clock = lambda: clock() + seconds
        # By identity, each once.
        for store in {id(store): store for store in used}.values():
            for token in store.get_tokens():
                if expiry := token.get_expires_in():
                    token.set_expires_in(str(int(expiry) - round(seconds * 1000)))
                    store.save_token(token)

    return let_time_pass


_STORES = ("zoho_store", "zoho_store_file")


def _forget(initializer: Any) -> None:  # noqa: ANN401 - the SDK has no types
    initializer.initializer = None
    # A new object of the same kind: what each thread has put into the old one is out of the SDK's sight.
    initializer.LOCAL = type(initializer.LOCAL)()
