"""pytest fixtures for programs that use the Zoho CRM Python SDK: log in, expire, throttle and revoke without Zoho.

pytest loads this plugin automatically. The fixtures need the extra ``testing``. ``pytest --fixtures`` lists them, and
``examples/test_with_zoho.py`` in the source distribution is a complete example. They work with pytest 7 and later and
with the SDKs 5 to 8.

pytest imports the plugin in every run where the library is installed. The plugin is a separate package, so this import
does not load ``zoho_token_store`` with its native module. Everything else is imported when a fixture is used.
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

_HOUR_SECONDS = 3600.0


class Login(Protocol):
    """The type of the fixture `zoho_login`."""

    def __call__(
        self, user: User | str = ..., *, store: TokenStoreBase | None = ..., client: Client | None = ...
    ) -> Any:  # noqa: ANN401 - the SDK's `OAuthToken`: the SDK has no types
        """Log a user in and return the token."""


class LetTimePass(Protocol):
    """The type of the fixture `zoho_let_time_pass`."""

    def __call__(self, seconds: float = ..., *, stores: tuple[TokenStoreBase, ...] = ...) -> None:
        """Let this number of seconds pass."""


@contextmanager
def _fail_on_missing_package() -> Iterator[None]:
    # The test fails with one line that names the missing package, without a traceback through the plugin.
    try:
        yield
    except ImportError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def zoho_stand_in() -> Iterator[ZohoStandIn]:
    """A stand-in for Zoho that listens on 127.0.0.1 until the test ends: a `zoho_token_store.testing.ZohoStandIn`.

    ``deny_next()`` throttles, ``revoke_user("ada@example.com")`` revokes a user's tokens, and
    ``fail_next(status=500)`` injects a failure. ``logins``, ``refreshes``, ``denials`` and ``calls`` report the calls
    it received.
    """
    with _fail_on_missing_package():
        from zoho_token_store.testing import ZohoStandIn  # noqa: PLC0415 - see the module's docstring
    with ZohoStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def zoho_store() -> Iterator[CustomStoreInMemory]:
    """An empty store in memory, closed after the test: a `CustomStoreInMemory`.

    `zoho_login` saves into it. To use a store of your own, override this fixture in your ``conftest.py``.
    """
    with _fail_on_missing_package():
        from zoho_token_store import CustomStoreInMemory  # noqa: PLC0415

        store = CustomStoreInMemory()
    with store:
        yield store


@pytest.fixture
def zoho_store_file(tmp_path: Path) -> Iterator[CustomStoreSQLite]:
    """An empty store in the file ``tmp_path / "zohooauth.db"``, closed after the test: a `CustomStoreSQLite`."""
    with _fail_on_missing_package():
        from zoho_token_store import CustomStoreSQLite  # noqa: PLC0415

        store = CustomStoreSQLite(tmp_path / "zohooauth.db")
    with store:
        yield store


@pytest.fixture
def zoho_fresh_sdk() -> Iterator[None]:
    """The SDK in its uninitialized state, in every thread. Its previous state is restored after the test.

    The SDK keeps its environment, store and user in class attributes and thread locals. When a thread initializes
    again, the SDKs 5 to 7 keep using the first ones. With this fixture, tests do not share that state.
    `zoho_environment` and `zoho_login` use it.
    """
    try:
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415 - a slow import
    except ImportError:
        missing = "the fixtures zoho_… need a Zoho CRM SDK: pip install zohocrmsdk8_0"
        raise pytest.fail.Exception(missing, pytrace=False) from None
    before = (Initializer.initializer, Initializer.LOCAL)
    _reset(Initializer)
    yield
    Initializer.initializer, Initializer.LOCAL = before


@pytest.fixture
def zoho_environment(zoho_stand_in: ZohoStandIn, zoho_fresh_sdk: None) -> object:  # noqa: ARG001
    """An environment of the installed SDK with only URLs of `zoho_stand_in`, for ``Initializer.initialize``."""
    return zoho_stand_in.environment()


@pytest.fixture
def zoho_login(
    zoho_stand_in: ZohoStandIn, zoho_environment: object, zoho_store: TokenStoreBase, tmp_path: Path
) -> Login:
    """A function that logs a user in and returns the token.

    Example: ``token = zoho_login("ada@example.com")``.

    Each call initializes the real SDK again. The SDK redeems a grant code of the user at `zoho_stand_in` and saves the
    token into `zoho_store`. From then on it acts for this user, in every thread that does not call ``switch_user``.
    The token is the SDK's `OAuthToken`, and ``token.get_id()`` is the id of its row.

    Args: ``user`` is an e-mail address or a user from ``zoho_stand_in.add_user()``. ``store=`` is a store to use
    instead of `zoho_store`. ``client=`` is a client from ``zoho_stand_in.add_client()`` to use instead of the
    stand-in's own.
    """

    def log_in(
        user: User | str = "ada@example.com", *, store: TokenStoreBase | None = None, client: Client | None = None
    ) -> Any:  # noqa: ANN401
        from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken  # noqa: PLC0415
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415

        _reset(Initializer)
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
            # The SDK caches module metadata in this folder. The default is the current folder.
            resource_path=str(tmp_path),
        )
        return token

    return log_in


@pytest.fixture
def zoho_let_time_pass(request: pytest.FixtureRequest, zoho_stand_in: ZohoStandIn, zoho_fresh_sdk: None) -> LetTimePass:  # noqa: ARG001
    """A function that lets an hour pass, or ``zoho_let_time_pass(seconds)``: access tokens expire, limits start anew.

    It does not wait. It moves the stand-in's clock forward, and the expiry of all stored tokens back by the same time.
    The stores are the SDK's current one, `zoho_store` and `zoho_store_file` if the test uses them, and those in
    ``stores=(…,)``.
    """

    def let_time_pass(seconds: float = _HOUR_SECONDS, *, stores: tuple[TokenStoreBase, ...] = ()) -> None:
        from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer  # noqa: PLC0415

        current = Initializer.get_initializer()
        used = [*stores]
        used += [request.getfixturevalue(name) for name in _STORE_FIXTURES if name in request.fixturenames]
        used += [] if current is None else [current.store]
        clock = zoho_stand_in.clock
        zoho_stand_in.clock = lambda: clock() + seconds
        # The same store can occur several times. Its tokens are changed only once.
        for store in {id(store): store for store in used}.values():
            for token in store.get_tokens():
                if expiry := token.get_expires_in():
                    token.set_expires_in(str(int(expiry) - round(seconds * 1000)))
                    store.save_token(token)

    return let_time_pass


_STORE_FIXTURES = ("zoho_store", "zoho_store_file")


def _reset(initializer: Any) -> None:  # noqa: ANN401 - the SDK has no types
    initializer.initializer = None
    # A new thread-local object has no values in any thread.
    initializer.LOCAL = type(initializer.LOCAL)()
