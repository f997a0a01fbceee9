"""Injected failures: which calls fail next, and how."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

# The token endpoint, the revoke endpoint, and the CRM's API, which includes the user look-ups after a login.
TARGETS = ("token", "revoke", "api")

# Zoho's servers can answer an internal error with an HTML page instead of JSON.
ERROR_PAGE = "<html><body>Made-up server error</body></html>"
ACCESS_DENIED: Mapping[str, object] = {
    "error": "Access Denied",
    "error_description": "Too many access tokens were requested with one refresh token.",
    "status": "failure",
}


@dataclass(frozen=True)
class Failure:
    """How one call fails.

    Attributes:
        status: the HTTP status of the answer.
        body: the body of the answer. A mapping is sent as JSON, a string as HTML.
        drop: close the connection without an answer.
        hang: seconds to wait before the connection is closed without an answer. It implies `drop`. The wait ends
            early when the stand-in stops.

    """

    status: int = 500
    body: Mapping[str, object] | str = ERROR_PAGE
    drop: bool = False
    hang: float = 0.0

    @property
    def outcome(self) -> str:
        """The outcome in the record of the call."""
        if self.hang > 0:
            return "hung"
        if self.drop:
            return "dropped"
        if isinstance(self.body, Mapping) and isinstance(self.body.get("error"), str):
            return str(self.body["error"])
        return f"HTTP {self.status}"


class Failures:
    """A queue of injected failures for each target. Not thread-safe: the caller holds the stand-in's lock."""

    def __init__(self) -> None:
        """Start with empty queues."""
        self._queues: dict[str, deque[Failure]] = {target: deque() for target in TARGETS}

    def inject(self, count: int, failure: Failure, target: str) -> None:
        """Make the next `count` calls of `target` fail, after the failures that are already in the queue.

        Raises:
            ValueError: `count` is below 1, `hang` is negative or `target` is unknown.

        """
        if count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        if failure.hang < 0:
            raise ValueError(f"hang must not be negative: {failure.hang}")
        if target not in self._queues:
            raise ValueError(f"unknown target {target!r}: use one of {', '.join(self._queues)}")
        self._queues[target].extend([failure] * count)

    def pop(self, target: str) -> Failure | None:
        """Remove and return the next failure of `target`, or return `None`."""
        queue = self._queues[target]
        return queue.popleft() if queue else None

    def clear(self) -> None:
        """Remove all failures that have not happened yet."""
        for queue in self._queues.values():
            queue.clear()
