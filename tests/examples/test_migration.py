"""A project with the vendor's sample store migrates to this library by a change of two lines."""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from support import DATA
from zoho_token_store.testing import Client

README = Path(__file__).parents[2] / "README.md"
PROJECT = DATA / "portal"
# The lines that the README changes.
OLD_IMPORT = "from custom_store_sqlite import CustomStoreSQLite\n"
NEW_IMPORT = "from zoho_token_store import CustomStoreSQLite\n"
REQUIREMENT = "zoho-token-store\n"

USERS = [*(f"{number} user{number:02}@example.com" for number in range(1, 7)), "7 None"]
USERS += [f"{number} user{number:02}@example.com" for number in range(8, 11)]
COLUMNS = (
    "id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time, "
    "redirect_url, api_domain"
)


def rows(database):
    """Return the rows by id, with the columns of the sample, as Python's SQLite reads them."""
    with closing(sqlite3.connect(database)) as connection:
        return {row[0]: row for row in connection.execute(f"SELECT {COLUMNS} FROM oauthtoken")}


def issue_credentials(zoho, database, user):
    """Replace the made-up credentials in a row of the vendor's file by credentials that the stand-in issued."""
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
    assert text.count(OLD_IMPORT) == 1
    program.write_text(text.replace(OLD_IMPORT, NEW_IMPORT), encoding="utf-8")
    with requirements.open("a", encoding="utf-8") as file:
        file.write(REQUIREMENT)
    (folder / "custom_store_sqlite.py").unlink()


def test_migration_by_two_lines(workspace, zoho):
    """After the change the project has the same users and rows, makes no login, and refreshes after the expiry."""
    for file in PROJECT.iterdir():
        shutil.copy(file, workspace.folder)
    shutil.copy(DATA / "sample-zohooauth.db", workspace.database)
    user = zoho.add_user("user01@example.com", "1001")
    issue_credentials(zoho, workspace.database, user)
    printed = [*USERS, "user01@example.com: row 1, organisation 1001"]
    program = workspace.folder / "portal.py"
    assert workspace.run(program, user.email) == printed
    before = rows(workspace.database)

    change_two_lines(workspace.folder)
    assert workspace.run(program, user.email) == printed
    assert rows(workspace.database) == before
    assert zoho.token_calls == 0

    workspace.let_an_hour_pass()
    assert workspace.run(program, user.email) == printed
    assert (zoho.refreshes, zoho.token_calls) == (1, 1)
    after = rows(workspace.database)
    old, new = before.pop("1"), after.pop("1")
    assert (new[:5], new[8]) == (old[:5], old[8])
    assert new[5] != old[5]
    assert int(new[7]) > time.time() * 1000
    # The other rows are unchanged, except for the expiry: `let_an_hour_pass` has moved it.
    assert {row[:7] + row[8:] for row in after.values()} == {row[:7] + row[8:] for row in before.values()}


def test_the_readme_has_both_lines():
    """The README contains the new lines exactly as this test writes them."""
    readme = README.read_text(encoding="utf-8")
    assert NEW_IMPORT in readme
    assert f"pip install {REQUIREMENT}" in readme
