"""A newcomer moves a project over from the vendor's sample store: two lines, and all goes on as it was."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from support import DATA
from zoho_token_store.testing import Client

README = Path(__file__).parents[2] / "README.md"
PROJECT = DATA / "portal"
# What the README tells, word by word.
THEIR_IMPORT = "from custom_store_sqlite import CustomStoreSQLite\n"
OUR_IMPORT = "from zoho_token_store import CustomStoreSQLite\n"
REQUIREMENT = "zoho-token-store\n"

USERS = [*(f"{number} user{number:02}@example.com" for number in range(1, 7)), "7 None"]
USERS += [f"{number} user{number:02}@example.com" for number in range(8, 11)]
COLUMNS = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, "
    "redirect_url, api_domain"
)


def rows(database):
    """What the file holds in the sample's columns, as Python's SQLite reads it."""
    with closing(sqlite3.connect(database)) as connection:
        return {row[0]: row for row in connection.execute(f"SELECT {COLUMNS} FROM oauthtoken")}


def let_zoho_know(zoho, database, user):
    """Give a row of the vendor's file credentials that the stand-in has issued. The sample's own are made up."""
    client = Client("1000.CLIENT01", "secret-01")
    zoho.know_client(client)
    in_an_hour = str(int((time.time() + 3600) * 1000))
    changed = (zoho.refresh_token(user, client), zoho.access_token(user, client), in_an_hour, user.email)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE oauthtoken SET refresh_token = ?, access_token = ?, expiry_time = ? WHERE user_name = ?", changed
        )


def change_two_lines(folder):
    program, requirements = folder / "portal.py", folder / "requirements.txt"
    text = program.read_text(encoding="utf-8")
    assert text.count(THEIR_IMPORT) == 1
    program.write_text(text.replace(THEIR_IMPORT, OUR_IMPORT), encoding="utf-8")
    with requirements.open("a", encoding="utf-8") as file:
        file.write(REQUIREMENT)
    (folder / "custom_store_sqlite.py").unlink()


def test_two_lines(stage, zoho):
    """After two changed lines the project sees the same users and rows, asks Zoho for nothing new, and refreshes."""
    for file in PROJECT.iterdir():
        shutil.copy(file, stage.folder)
    shutil.copy(DATA / "sample-zohooauth.db", stage.database)
    user = zoho.add_user("user01@example.com", "1001")
    let_zoho_know(zoho, stage.database, user)
    printed = [*USERS, "user01@example.com: row 1, organisation 1001"]
    program = stage.folder / "portal.py"
    assert stage.run(program, user.email) == printed
    before = rows(stage.database)

    change_two_lines(stage.folder)
    assert stage.run(program, user.email) == printed
    assert rows(stage.database) == before
    assert zoho.token_calls == 0

    stage.let_an_hour_pass()
    assert stage.run(program, user.email) == printed
    assert (zoho.refreshes, zoho.token_calls) == (1, 1)
    after = rows(stage.database)
    old, new = before.pop("1"), after.pop("1")
    assert (new[:5], new[8]) == (old[:5], old[8])
    assert new[5] != old[5]
    assert int(new[7]) > time.time() * 1000
    # All else but the expiry is as the sample wrote it; that was moved for the hour.
    assert {row[:7] + row[8:] for row in after.values()} == {row[:7] + row[8:] for row in before.values()}


def test_the_readme_tells_it():
    """The two lines stand in the README as the newcomer types them."""
    readme = README.read_text(encoding="utf-8")
    assert OUR_IMPORT in readme
    assert f"pip install {REQUIREMENT}" in readme
