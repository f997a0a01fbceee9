# ruff: noqa: T201 - it reports to the test through stdout
"""A program that saves without pause: `save_until_restored.py DATABASE MARKER`.

It saves a new user and Ada in turn. The test creates the file MARKER after its last restore. The program then makes 40
more saves and ends. It prints the number of saves before the marker and the number of all saves.
"""

import sys
import time
from pathlib import Path

from support import login
from zoho_token_store import CustomStoreSQLite

SAVES_AFTER_MARKER = 40
TIMEOUT_SECONDS = 60

database, marker = sys.argv[1], Path(sys.argv[2])
deadline = time.monotonic() + TIMEOUT_SECONDS
with CustomStoreSQLite(database) as store:
    print("ready", flush=True)
    number = after = 0
    while after < SAVES_AFTER_MARKER and time.monotonic() < deadline:
        number += 1
        after += marker.exists()
        user = "ada@example.com" if number % 2 else f"new-{number}@example.com"
        store.save_token(login(user, number, api_domain="https://www.zohoapis.com"))
print(number - after, number)
