"""Failures to order: which calls fail next, and how."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

# The token endpoint, the revoke endpoint, and the CRM's API with the look-ups after a login.
TARGETS = ("token", "revoke", "api")

# Zoho's servers, when in trouble, answer with a page and no JSON: the SDK must survive that, too.
ERROR_PAGE = "<html><body>Made-up trouble</body></html>"
ACCESS_DENIED: Mapping[str, object] = {
    "error": "Access Denied",
    "error_description": "Too many access tokens were asked for with one refresh token.",
    "status": "failure",
}


@dataclass(frozen=True)
class Failure:
    """How one call fails.

    Attributes:
        status: the HTTP status of the answer.
        body: the answer: a mapping is sent as JSON, a string as HTML.
        drop: close the connection without an answer instead.
        hang: seconds of silence before that (they end early when the stand-in stops); implies `drop`.

    """

    status: int = 500
    body: Mapping[str, object] | str = ERROR_PAGE
    drop: bool = False
    hang: float = 0.0

    @property
    def outcome(self) -> str:
        """What the record of the call says."""
        if self.hang > 0:
            return "hung"
        if self.drop:
            return "dropped"
        if isinstance(self.body, Mapping) and isinstance(self.body.get("error"), str):
            return str(self.body["error"])
        return f"HTTP {self.status}"


class Failures:
    """What is still to fail, first ordered first. Not thread-safe: the stand-in's lock is held around it."""

    def __init__(self) -> None:
        """Nothing fails until it is ordered to."""
        self._next: dict[str, deque[Failure]] = {target: deque() for target in TARGETS}

    def order(self, count: int, failure: Failure, target: str) -> None:
        """Let the next `count` calls of `target` fail, after those ordered before.

        Raises:
            ValueError: `count` is below 1, `hang` is negative or `target` is unknown.

        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        if failure.hang < 0:
            raise ValueError(f"hang must not be negative: {failure.hang}")
        if target not in self._next:
            raise ValueError(f"no such target: {target!r}; there are {', '.join(self._next)}")
        self._next[target].extend([failure] * count)

    def take(self, target: str) -> Failure | None:
        """Use up the next failure of `target`, if there is one."""
        queue = self._next[target]
        return queue.popleft() if queue else None

    def clear(self) -> None:
        """Forget what was ordered and has not happened yet."""
        for queue in self._next.values():
            queue.clear()
