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
from collections.abc import Sequence
from contextlib import ExitStack

from . import Client, ZohoStandIn

_STDIN = 0
_READ_BYTES = 4096
_EPILOG = """\
Proxies: the stand-in listens on this machine only. If HTTP_PROXY or HTTPS_PROXY is set for your program, start it with
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1.

Data centres: with --data-centre us --data-centre eu there are two addresses. A user of either can log in on each
consent page. The callback gets location and accounts-server, as from Zoho. --user eu:bob@example.com is a user of eu.
"""


def _wait_for_stdin_eof(ended: threading.Event) -> None:
    # `sys.stdin.read` would hold a lock that the interpreter acquires when it exits. `os.read` holds none.
    try:
        while os.read(_STDIN, _READ_BYTES):
            pass
    except OSError:
        pass  # stdin is closed
    ended.set()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m zoho_token_store.testing",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--user", action="append", metavar="[DC:]EMAIL", help="print a grant code for this user (ada@example.com)"
    )
    parser.add_argument(
        "--data-centre", action="append", metavar="DC", help="the location of a data centre; can be repeated (us)"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="listen on this port; each further data centre uses the next one"
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        help="keep clients, users and tokens in FILE for the next start; a further data centre uses FILE.DC",
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="stop after this time (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each token answer")
    parser.add_argument("--expires-in", type=int, default=3600, help="lifetime of an access token in seconds")
    parser.add_argument("--verbose", action="store_true", help="log each call to stderr")
    options = parser.parse_args(arguments)
    options.data_centre = options.data_centre or ["us"]
    options.user = options.user or ["ada@example.com"]
    if len({*options.data_centre}) < len(options.data_centre):
        parser.error("each data centre needs a name of its own")
    unknown = [user for user in options.user if ":" in user and user.partition(":")[0] not in options.data_centre]
    if unknown:
        parser.error(f"argument --user: there is no data centre for {unknown[0]}")
    return options


def _start(options: argparse.Namespace, stack: ExitStack) -> dict[str, ZohoStandIn]:
    """Start one stand-in per data centre, and return them by their locations."""
    started: dict[str, ZohoStandIn] = {}
    for number, location in enumerate(options.data_centre):
        zoho = ZohoStandIn(
            port=options.port + number if options.port else 0,
            location=location,
            state_file=options.state if not options.state or number == 0 else f"{options.state}.{location}",
            latency=options.latency,
            expires_in=options.expires_in,
        )
        for other in started.values():
            zoho.know_data_centre(other)
        started[location] = stack.enter_context(zoho)
    return started


def _describe(centres: dict[str, ZohoStandIn], users: Sequence[str]) -> dict[str, object]:
    zoho = next(iter(centres.values()))
    client = Client(zoho.client_id, zoho.client_secret)  # all data centres know it
    codes = {}
    for user in users:
        location, _, email = user.rpartition(":")
        codes[user] = centres.get(location, zoho).grant_code(email, client)
    return {
        "url": zoho.url,
        "accounts_url": zoho.accounts_url,
        "consent_url": zoho.consent_url,
        "client_id": zoho.client_id,
        "client_secret": zoho.client_secret,
        "grant_codes": codes,
        "data_centres": {
            location: {"url": centre.url, "accounts_url": centre.accounts_url} for location, centre in centres.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, and return the exit status."""
    options = _parse(arguments)
    if options.verbose:
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        logging.getLogger("zoho_token_store.testing").setLevel(logging.DEBUG)
    with ExitStack() as stack:
        try:
            centres = _start(options, stack)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
        sys.stdout.write(json.dumps(_describe(centres, options.user)) + "\n")
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
