"""The state that the threads of one stand-in share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ._accounts import Accounts
from ._failures import Failures
from ._records import Call
from ._settings import Settings
from ._state_file import write_state


@dataclass(eq=False, repr=False)
class State:
    """The shared state. Hold `lock` to use any of it except `settings`, `location`, `file` and `others`."""

    settings: Settings
    accounts: Accounts
    location: str = "us"
    file: str | None = None
    failures: Failures = field(default_factory=Failures)
    calls: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # The other data centres. Never hold the locks of two states at once.
    others: "list[State]" = field(default_factory=list)

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold the lock for a change, and write the state file afterwards."""
        with self.lock:
            yield
            if self.file is not None:
                write_state(self.file, self.accounts.dump(time.time()))
