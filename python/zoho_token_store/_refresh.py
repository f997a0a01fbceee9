"""Refresh tokens ahead of their expiry (`docs/lease.md`, rule 17): in a background thread, or at once for `refresh()`.

The SDK asks Zoho. Its `get_token` runs here with an `Initializer` of its own, whose store is a `_RowStore`.

Modules that the SDK imports, too, are imported inside functions. They would make the import of this package slower.
"""

from __future__ import annotations

import os

from ._native import (
    TokenStoreBase,
    find_to_refresh,
    is_refresh_wanted,
    log_refresh_ahead,
    report_refresh,
    save_refreshed,
    select_to_refresh,
)

TYPE_CHECKING = False  # type checkers take it as true
if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Any, SupportsFloat

    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

    from ._native import Refreshed, RowRefresh

_RETRY_AFTER = 1.0  # seconds from one attempt in the background until the next one for the same row
_MAX_ROWS = 1000  # that wait for the background thread; further ones are refreshed when a request needs it
_MAX_REASON = 300  # characters
_UNKNOWN_DATA_CENTRE = "the SDK does not know the API domain of the row: call Initializer.initialize before"


class _NotNeededError(Exception):
    """No refresh is needed, or it cannot begin. Ends the SDK's `get_token`."""


class _RowStore:
    """What the SDK sees as its store while it refreshes one row."""

    def __init__(self, store: TokenStoreBase, row_id: str, within: timedelta | SupportsFloat) -> None:
        self._store = store
        self._row_id = row_id
        self._within = within
        self._is_begun = False
        self._old_access_token: str | None = None
        self.token: OAuthToken | None = None
        self.refresh: RowRefresh | None = None  # holds the lease
        self.is_refreshed = False
        self.reason: str | None = "the SDK saved no new token"  # why it was not refreshed; `None`: no need
        self.retry_after: float | None = None  # seconds

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the store
        return getattr(self._store, name)

    def find_token_by_id(self, id: str) -> OAuthToken | None:  # noqa: A002 - the SDK's name
        # Greenlets whose `threading.local` is not patched may share this thread's `Initializer` meanwhile.
        if self._is_begun or id != self._row_id:
            return self._store.find_token_by_id(id)
        self._is_begun = True
        token, self.refresh, self.reason, self.retry_after = find_to_refresh(self._store, id, self._within)
        if token is None:
            raise _NotNeededError
        if type(self._store).find_token_by_id is not TokenStoreBase.find_token_by_id:
            # The program has changed what a find returns: it may have encrypted the secrets, for example.
            token = self._store.find_token_by_id(id)
            if token is None:
                raise _NotNeededError
            token.set_expires_in("0")
        self.token = token
        self._old_access_token = token.get_access_token()
        return token

    def save_token(self, token: OAuthToken) -> None:
        if self.refresh is None or token is not self.token:
            self._store.save_token(token)  # of another greenlet
            return
        try:
            self.reason = self._save(token, self.refresh)
        except Exception as error:
            self.reason = _describe(error, self.token)  # SDK 6 to 8 swallow the error
            raise
        self.is_refreshed = self.reason is None

    def _save(self, token: OAuthToken, refresh: RowRefresh) -> str | None:
        """Save the answer of Zoho. Return why it was not saved."""
        if token.get_access_token() in {None, "", self._old_access_token}:
            return "Zoho has sent no new access token"
        if type(self._store).save_token is TokenStoreBase.save_token:
            is_saved = save_refreshed(self._store, token, refresh)
        elif is_saved := is_refresh_wanted(self._store, refresh):
            self._store.save_token(token)
        return None if is_saved else "the user has logged in again, or the row was deleted"


def _refresh_row(
    store: TokenStoreBase,
    row_id: str,
    within: timedelta | SupportsFloat,
    initializer: Any,  # noqa: ANN401 - the SDK's `Initializer`, or `None`
) -> _RowStore:
    """Let the SDK refresh a row. The result says what became of it."""
    from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
    from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
    from zohocrmsdk.src.com.zoho.crm.api.sdk_config import SDKConfig

    rows = _RowStore(store, row_id, within)
    if getattr(initializer, "environment", None) is None and not _is_data_centre_known(store, row_id):
        rows.reason = _UNKNOWN_DATA_CENTRE
        return rows
    # `get_token` changes the environment of the `Initializer` that it finds. So the caller's one is copied.
    own = Initializer()
    if initializer is None:
        own.sdk_config = SDKConfig()
    else:
        vars(own).update(vars(initializer))
    own.store = rows
    # SDK 6 to 8 would also look up the user, of whom the row says nothing.
    looks_user_up = "find_user" in OAuthToken.__init__.__code__.co_varnames
    token = OAuthToken(id=row_id, **({"find_user": False} if looks_user_up else {}))
    before = getattr(Initializer.LOCAL, "init", None)
    Initializer.LOCAL.init = own
    try:
        token.get_token()
    except _NotNeededError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the row stays as it was
        rows.reason = _describe(error, rows.token)
    finally:
        # Another greenlet may have switched its user, where `threading.local` is not patched.
        if getattr(Initializer.LOCAL, "init", None) is own:
            Initializer.LOCAL.init = before
        rows.refresh = None
    return rows


def _is_data_centre_known(store: TokenStoreBase, row_id: str) -> bool:
    from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

    try:
        row = store.find_token_by_id(row_id)
    except Exception:  # noqa: BLE001 - the same happens in the SDK's `get_token`, which reports it
        return True
    return row is None or DataCenter.get(row.get_api_domain() or "") is not None


def _describe(error: BaseException, token: OAuthToken | None) -> str:
    """Describe an error in one line, without a secret."""
    code, cause = getattr(error, "code", None), getattr(error, "cause", None)
    if code == "TOKEN_STORE" and cause is not None:
        text = str(cause)  # the store's own error, which begins with the name of the method
    elif code is not None and cause is not None:
        # The text of another library's error may have the URL of a proxy, with its password. A request that fails
        # raises an `OSError`. An answer that is not JSON raises one that is also a `ValueError`.
        is_unreachable = isinstance(cause, OSError) and not isinstance(cause, ValueError)
        what = "cannot be reached" if is_unreachable else "has not answered as it should"
        text = f"Zoho {what} ({type(cause).__name__})"
    elif code is not None:
        text = f"{code} - {getattr(error, 'error_message', '')}"  # Zoho's answer
    else:
        text = type(error).__name__
    if token is not None:
        for secret in (
            token.get_client_secret(),
            token.get_refresh_token(),
            token.get_access_token(),
            token.get_grant_token(),
        ):
            text = text.replace(secret, "…") if secret and isinstance(secret, str) else text
    return " ".join(text.split())[:_MAX_REASON]


def refresh_rows(
    store: TokenStoreBase, within: timedelta | SupportsFloat, ids: Iterable[str] | None
) -> tuple[list[str], list[str], dict[str, str]]:
    """Refresh the rows that expire soon. Return the ids of those refreshed and skipped, and the reasons of failures."""
    from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

    due, skipped, unusable = select_to_refresh(store, within, ids)
    refreshed = []
    failed = dict(unusable)
    initializer = Initializer.get_initializer()
    for row_id in due:
        row = _refresh_row(store, row_id, within, initializer)
        if row.is_refreshed:
            refreshed.append(row_id)
        elif row.reason is None:
            skipped.append(row_id)
        else:
            failed[row_id] = row.reason
    return refreshed, skipped, failed


def _refresh(self: TokenStoreBase, within: timedelta | SupportsFloat, *, ids: Iterable[str] | None = None) -> Refreshed:
    """Refresh the rows that expire soon, and return what was done with each row."""
    return report_refresh(self, *refresh_rows(self, within, ids))


# A method in Python: below one in Rust, a daemon thread could be terminated while the SDK waits for Zoho.
_refresh.__name__, _refresh.__qualname__ = "refresh", "TokenStoreBase.refresh"
_refresh.__module__ = TokenStoreBase.__module__
TokenStoreBase.refresh = _refresh  # type: ignore[method-assign]


class _Background:
    """The background thread of this process. It runs while there is work."""

    def __init__(self) -> None:
        from threading import RLock

        # A finalizer or a signal handler may call a store while this thread holds the lock.
        self._lock = RLock()
        # A store, the id of a row, how much of its token's life is left, and the SDK's `Initializer`.
        self._queue: list[tuple[TokenStoreBase, str, timedelta, Any]] = []
        self._is_running = False
        # When a row may be queued again: never while it is in the queue or in work, and not at once afterwards.
        self._not_before: dict[tuple[int, str], float] = {}

    def add(self, store: TokenStoreBase, row_id: str, ahead: timedelta, initializer: Any) -> None:  # noqa: ANN401
        from threading import Thread
        from time import monotonic

        key, now = (id(store), row_id), monotonic()
        with self._lock:
            if self._not_before.get(key, 0.0) > now or len(self._queue) >= _MAX_ROWS:
                return
            self._not_before = {known: until for known, until in self._not_before.items() if until > now}
            self._not_before[key] = float("inf")
            self._queue.append((store, row_id, ahead, initializer))
            if self._is_running:
                return
            self._is_running = True
        thread = Thread(target=self._run, name="zoho-token-store-refresh", daemon=True)
        try:
            thread.start()
        except BaseException:
            # No thread can be started now, and a later request tries again. Or a signal handler has raised meanwhile.
            if not thread.is_alive():
                self._stop()
            raise

    def _run(self) -> None:
        from time import monotonic

        try:
            while True:
                with self._lock:
                    if not self._queue:
                        # Under the lock: work that is added from here on starts another thread.
                        self._is_running = False
                        return
                    store, row_id, ahead, initializer = self._queue.pop(0)
                row = _refresh_row(store, row_id, ahead, initializer)
                # Where back-off lets no attempt begin, there is nothing new to say.
                if row.is_refreshed or (row.reason and row.retry_after is None):
                    log_refresh_ahead(store, row_id, row.reason)
                with self._lock:
                    self._not_before[id(store), row_id] = monotonic() + max(_RETRY_AFTER, row.retry_after or 0.0)
                del store, initializer, row
        except BaseException:
            # Such as gevent's `GreenletExit`.
            self._stop()
            raise

    def _stop(self) -> None:
        with self._lock:
            self._is_running = False
            self._queue.clear()
            self._not_before.clear()


_of_this_process: dict[str, _Background] = {}


def schedule(store: TokenStoreBase, row_id: str, ahead: timedelta) -> None:
    """Have a row refreshed in the background. The native layer calls this in a find of the SDK's `get_token`."""
    from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

    background = _of_this_process.get("background") or _of_this_process.setdefault("background", _Background())
    background.add(store, row_id, ahead, Initializer.get_initializer())


# A forked child has no background thread, and its parent may have held the lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_this_process.clear)
