"""``python -m zoho_token_store.testing``: the stand-in for another process, until stdin ends or time is up.

It prints one line of JSON, with its URLs, a client and a grant code per user, and then serves.
"""

import argparse
import json
import logging
import os
import sys
import threading

from . import ZohoStandIn

_STDIN = 0
_BLOCK = 4096


def _wait_for_the_end_of_stdin(ended: threading.Event) -> None:
    # Below Python's buffers: a thread that still reads at exit must hold no lock of theirs.
    try:
        while os.read(_STDIN, _BLOCK):
            pass
    except OSError:
        pass  # closed, or never there: an end as well
    ended.set()


def main() -> int:
    """Serve; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m zoho_token_store.testing", description=__doc__)
    parser.add_argument("--user", action="append", metavar="EMAIL", help="a user to print a grant code for")
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after so long (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer about tokens")
    parser.add_argument("--expires-in", type=int, default=3600, help="seconds an access token lives")
    parser.add_argument("--verbose", action="store_true", help="log each call to stderr")
    options = parser.parse_args()
    if options.verbose:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("zoho_token_store.testing").setLevel(logging.DEBUG)
    with ZohoStandIn(latency=options.latency, expires_in=options.expires_in) as zoho:
        about = {
            "url": zoho.url,
            "accounts_url": zoho.accounts_url,
            "client_id": zoho.client_id,
            "client_secret": zoho.client_secret,
            "grant_codes": {user: zoho.grant_code(user) for user in options.user or ["ada@example.com"]},
        }
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
        ended = threading.Event()
        threading.Thread(target=_wait_for_the_end_of_stdin, args=(ended,), daemon=True).start()
        try:
            ended.wait(options.seconds)
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
