"""``python -m zoho_token_store.testing``: run the stand-in in a process of its own.

It prints one line of JSON with its URLs, a client and a grant code per user. It then serves until stdin ends or the
time is up.
"""

import argparse
import json
import logging
import os
import sys
import threading

from . import ZohoStandIn

_STDIN = 0
_READ_BYTES = 4096


def _wait_for_stdin_eof(ended: threading.Event) -> None:
    # `sys.stdin.read` would hold a lock that the interpreter acquires when it exits. `os.read` holds none.
    try:
        while os.read(_STDIN, _READ_BYTES):
            pass
    except OSError:
        pass  # stdin is closed
    ended.set()


def main() -> int:
    """Serve, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m zoho_token_store.testing", description=__doc__)
    parser.add_argument("--user", action="append", metavar="EMAIL", help="print a grant code for this user")
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after this time (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each token answer")
    parser.add_argument("--expires-in", type=int, default=3600, help="lifetime of an access token in seconds")
    parser.add_argument("--verbose", action="store_true", help="log each call to stderr")
    options = parser.parse_args()
    if options.verbose:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("zoho_token_store.testing").setLevel(logging.DEBUG)
    with ZohoStandIn(latency=options.latency, expires_in=options.expires_in) as zoho:
        description = {
            "url": zoho.url,
            "accounts_url": zoho.accounts_url,
            "client_id": zoho.client_id,
            "client_secret": zoho.client_secret,
            "grant_codes": {user: zoho.grant_code(user) for user in options.user or ["ada@example.com"]},
        }
        sys.stdout.write(json.dumps(description) + "\n")
        sys.stdout.flush()
        ended = threading.Event()
        threading.Thread(target=_wait_for_stdin_eof, args=(ended,), daemon=True).start()
        try:
            ended.wait(options.seconds)
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
