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

The SDK must know the API domain of a row, which is so with all data centres of Zoho. To try the program against the
stand-in, or another server of your own, name the server at the beginning of `main`:

    store = CustomStoreSQLite("zohooauth.db")
    Initializer.initialize(environment=zoho.environment(), token=store.get_tokens()[0], store=store)

In another process than the stand-in's, the environment is `DataCenter.Environment(url, url + "/oauth/v2/token", url)`.
"""

import argparse
import logging
import random
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from zoho_token_store import CustomStoreSQLite, TokenStoreBase
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException

DATABASE = Path("zohooauth.db")
# More than twice the pause between two rounds. So a token is tried at least twice before it expires.
WITHIN = timedelta(minutes=10)

log = logging.getLogger("keep_fresh")


def run_round(store: TokenStoreBase, timeout: float) -> bool:
    """Refresh what expires soon, and log what was done. Return whether there was no failure."""
    signal.setitimer(signal.ITIMER_REAL, timeout, timeout)
    try:
        result = store.refresh(WITHIN)
    except SDKException as error:
        # No row could be refreshed, such as while Zoho is down. The next round tries again.
        log.error("this round has failed: %s", error.cause or error)  # noqa: TRY400 - the traceback says no more
        return False
    except TimeoutError as error:
        log.error("this round has failed: %s", error)  # noqa: TRY400 - `give_up` may come at any moment
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
    # The result of `refresh` has the reasons, so these two need not log them, too.
    logging.getLogger("SDKLogger").setLevel(logging.CRITICAL)
    logging.getLogger("zoho_token_store").setLevel(logging.ERROR)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, give_up)
    if not DATABASE.is_file():
        # A store would make an empty file, and this program would do nothing without a word.
        sys.exit(f"keep_fresh: there is no token database {DATABASE.absolute()}. Start the program in its folder.")
    with CustomStoreSQLite(DATABASE) as store:
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
