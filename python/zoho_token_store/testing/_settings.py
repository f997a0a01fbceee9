"""What can be set on the stand-in, before it starts or while it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """The stand-in's settings. Each can be assigned to at any time and counts from the next call on.

    Attributes:
        latency: seconds between a token or revoke call's arrival and its answer.
        api_latency: the same for calls of the CRM's API.
        expires_in: seconds an access token lives, from its issue on. The SDK takes one with less than 5 s
            left for expired, so 1 makes tokens that it will refresh at their next use.
        tokens_per_window: access tokens that one refresh token may ask for within `window`.
        window: seconds.
        live_tokens: access tokens of one refresh token that may live at once; one more ends the oldest.
        clock: seconds from any start, never falling. Tests inject one and so need not wait for anything.

    """

    latency: float = 0.0
    api_latency: float = 0.0
    expires_in: int = 3600
    tokens_per_window: int = 10
    window: float = 600.0
    live_tokens: int = 15
    clock: Callable[[], float] = time.monotonic
