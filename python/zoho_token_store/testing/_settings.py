"""The settings of the stand-in, for use before it starts or while it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """The stand-in's settings. Each can be assigned at any time, and applies from the next call on.

    Attributes:
        latency: seconds between the arrival of a token or revoke call and its answer.
        api_latency: seconds between the arrival of a call of the CRM's API and its answer.
        expires_in: lifetime of an access token in seconds. The SDK treats a token with less than 5 s left as expired,
            so it refreshes a token with a lifetime of 1 s at its next use.
        tokens_per_window: maximum number of refreshes with one refresh token within `window`.
        window: length of that period in seconds.
        live_tokens: maximum number of valid access tokens per refresh token. A new one beyond it invalidates the
            oldest.
        clock: a monotonic clock in seconds. A test can replace it to let time pass without waiting.

    """

    latency: float = 0.0
    api_latency: float = 0.0
    expires_in: int = 3600
    tokens_per_window: int = 10
    window: float = 600.0
    live_tokens: int = 15
    clock: Callable[[], float] = time.monotonic
