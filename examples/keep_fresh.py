"""A scheduler that refreshes tokens before they expire, so that no request of your programs waits for Zoho.

It runs beside a web server or other programs that use the same token database, on the same machine:

    pip install zohocrmsdk8_0 zoho-token-store
    python keep_fresh.py            # every 4 minutes, until SIGTERM or Ctrl-C
    python keep_fresh.py --once     # one round, for a systemd timer; the status is 1 if a refresh has failed

As a systemd service:

    [Service]
    User=app
    WorkingDirectory=/srv/app
    ExecStart=/srv/app/venv/bin/python keep_fresh.py
    Restart=on-failure

In a container: `CMD ["python", "keep_fresh.py"]`, with the folder of the token database as a volume. Without a shell
around it, the program gets the SIGTERM of `docker stop`.

It needs no client and no refresh token: they are in the rows, and so is the API domain, which tells the SDK the data
centre. A program that makes requests all the time can do without a scheduler: `refresh_ahead=300`. With cron, the
command `zoho-token-store refresh --within 10m` is enough.
"""

import argparse
import logging
import random
import signal
import sys
import time
from datetime import timedelta

from zoho_token_store import CustomStoreSQLite, TokenStoreBase

# More than twice the pause between two rounds. So a token is tried at least twice before it expires.
WITHIN = timedelta(minutes=10)

log = logging.getLogger("keep_fresh")


def run_round(store: TokenStoreBase, timeout: float) -> bool:
    """Refresh what expires soon, and log what was done. Return whether there was no failure."""
    signal.setitimer(signal.ITIMER_REAL, timeout, timeout)
    try:
        result = store.refresh(WITHIN)
    except Exception:
        # Such as: Zoho is down, or the disk is full. The next round tries again.
        log.exception("this round has failed")
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    log.info("%d refreshed, %d skipped, %d failed", len(result.refreshed), len(result.skipped), len(result.failed))
    for row_id, reason in result.failed.items():
        log.warning("row %s: %s", row_id, reason)
    return not result.failed


def stop(_number: int, _frame: object) -> None:
    """End the program at once, also while Zoho does not answer. The store keeps its rows as they are."""
    raise SystemExit(0)


def give_up(_number: int, _frame: object) -> None:
    """End the refresh of one row: Zoho may never answer, and the SDK sets no timeout."""
    raise TimeoutError("Zoho has not answered in time")


def main() -> None:
    """Run one round, or one round after the other."""
    parser = argparse.ArgumentParser(description="Refresh Zoho tokens before they expire.")
    parser.add_argument("--once", action="store_true", help="run one round")
    parser.add_argument("--every", type=float, default=240, metavar="SECONDS", help="pause (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="(default: %(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("SDKLogger").setLevel(logging.CRITICAL)  # the result of `refresh` has the reasons
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, give_up)
    with CustomStoreSQLite("zohooauth.db") as store:
        if options.once:
            sys.exit(not run_round(store, options.timeout))
        log.info("started")
        try:
            while True:
                run_round(store, options.timeout)
                # With jitter, the schedulers of several programs do not ask Zoho at the same moment.
                time.sleep(options.every * random.uniform(0.8, 1.2))  # noqa: S311 - no secret
        finally:
            log.info("stopped")


if __name__ == "__main__":
    main()
