"""Keep calls to a stand-in away from a proxy of the environment (`HTTP_PROXY`): it listens on this machine only."""

import os
import threading

# The lower-case name wins (`urllib.request.getproxies_environment`), so both get the hosts of both.
_NAMES = ("no_proxy", "NO_PROXY")
_lock = threading.Lock()
_running = 0
_before: dict[str, str | None] = {}
_bypassing: dict[str, str] = {}


def bypass_proxies(host: str) -> None:
    """Let this process and its children call `host` without a proxy, until `restore_proxies` was called as often."""
    global _running  # noqa: PLW0603 - the environment belongs to the process, too
    with _lock:
        _running += 1
        if _running > 1:
            return
        _before.clear()
        _bypassing.clear()
        _before.update((name, os.environ.get(name)) for name in _NAMES)
        for name in _NAMES:
            hosts = _before[name] or next(filter(None, _before.values()), "")
            # "*" turns proxies off only if it stands alone.
            _bypassing[name] = hosts if hosts.strip() == "*" else f"{host},{hosts}".rstrip(",")
        os.environ.update(_bypassing)


def restore_proxies() -> None:
    """Restore the environment at the last call. A variable that the program has set meanwhile stays."""
    global _running  # noqa: PLW0603
    with _lock:
        _running -= 1
        if _running > 0:
            return
        ours = [name for name in _NAMES if os.environ.get(name) == _bypassing[name]]
        for name in ours:
            before = _before[name]
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
