"""The state that the threads of one stand-in share."""

import threading
from dataclasses import dataclass, field

from ._accounts import Accounts
from ._failures import Failures
from ._records import Call
from ._settings import Settings


@dataclass(eq=False, repr=False)
class State:
    """The shared state. Hold `lock` to use any of it except `settings`."""

    settings: Settings
    accounts: Accounts
    failures: Failures = field(default_factory=Failures)
    calls: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
