"""The contract, sections 2 to 5 and `purge`, in plain Python: the judge of the model tests.

Written from the contract's text alone, one function per sentence, each quoting the sentence it stands for.
A token is a dict of the ten `FIELDS`. A row is such a dict with two more entries: `saved`, a counter (the
higher, the later it was saved), and `saved_at`, milliseconds since the epoch. Nothing here is fast.
"""

import re
from decimal import Decimal

CREDENTIALS = ("refresh_token", "grant_token", "access_token")
PAIR = ("access_token", "expiry_time")
KEPT_OF_AN_OLD_LOGIN = ("user_name", "client_id", "client_secret", "redirect_url", "api_domain")
FIELDS = ("id", *KEPT_OF_AN_OLD_LOGIN, "refresh_token", "grant_token", *PAIR)

KEYS = (
    ("user_name", ("client_id", "api_domain")),
    ("id", ("user_name", "client_id")),
    ("grant_token", ("user_name", "client_id")),
    ("refresh_token", ("user_name", "client_id")),
    ("access_token", ("user_name", "client_id")),
)


class Refused(Exception):  # noqa: N818 - the contract's word
    """A token that may not be saved."""


def fields(**given):
    """All ten fields, those not given absent."""
    if unknown := given.keys() - set(FIELDS):
        raise TypeError(f"no field of a token: {unknown}")
    return dict.fromkeys(FIELDS) | given


def absent(value):
    """*absent* = `None` or `""`: the two are never told apart."""
    return value is None or value == ""


def taken(token):
    """An `expires_in` given as `int` is taken as its decimal string."""
    given = token["expiry_time"]
    return token | {"expiry_time": str(given)} if isinstance(given, int) else token


def contradicts(token, row, names):
    """Both sides have a value and the values differ. An absent value contradicts nothing."""
    return any(not absent(token[name]) and not absent(row[name]) and token[name] != row[name] for name in names)


def which_row(token, rows):
    """The first row that a key finds, and that does not contradict the token, is the row."""
    for key, names in KEYS:
        found = [
            row
            for row in rows
            if not absent(token[key]) and row[key] == token[key] and not contradicts(token, row, names)
        ]
        if key == "user_name":
            found = among_several(token, found)
        if found:
            return max(found, key=lambda row: row["saved"])  # "for every other key: the one saved last"
    return None


def among_several(token, found):
    """The one with the token's id; else, if it has a client id, those whose client id equals it, if any."""
    with_its_id = [row for row in found if row["id"] == token["id"]]
    with_its_client = [
        row for row in found if not absent(token["client_id"]) and row["client_id"] == token["client_id"]
    ]
    return with_its_id or with_its_client or found


def is_authorised_anew(token, row):
    """A refresh token that is not the row's (or, bringing none, a grant token that is not the row's)."""
    if not absent(token["refresh_token"]):
        return token["refresh_token"] != row["refresh_token"]
    return not absent(token["grant_token"]) and token["grant_token"] != row["grant_token"]


def whole_number(text):
    """An expiry that is no whole number counts as none."""
    if absent(text) or not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text, re.ASCII):
        return None
    return Decimal(text.strip())  # not `int`, which refuses more than 4300 digits


def rows_pair_replaces(token, row):
    """The row has an access token and the token's pair is absent, has no expiry, or expires earlier.

    A row without expiry replaces no pair that has one. An expiry without an access token is no pair.
    """
    if absent(row["access_token"]):
        return False
    tokens, rows = whole_number(token["expiry_time"]), whole_number(row["expiry_time"])
    return absent(token["access_token"]) or tokens is None or (rows is not None and tokens < rows)


def complete(token, row):
    """Every absent field of the token is filled from the row. The id is the row's in any case.

    Of a row with older credentials only the id, user name, client id and secret, redirect URL and API domain.
    What was absent and stays so keeps its form, `None` or `""`.
    """
    anew = is_authorised_anew(token, row)
    filled = KEPT_OF_AN_OLD_LOGIN if anew else (*KEPT_OF_AN_OLD_LOGIN, "refresh_token", "grant_token")
    taken = [name for name in filled if absent(token[name])]
    if not anew and rows_pair_replaces(token, row):
        taken += PAIR
    both_absent = [name for name in taken if absent(token[name]) and absent(row[name])]
    return token | {name: row[name] or None for name in ("id", *taken) if name not in both_absent}


def update(token, row):
    """Each present field of the token replaces the row's; an absent one leaves it.

    An access token that comes without an expiry clears the row's expiry. The row's id stays.
    """
    result = row | {name: token[name] for name in FIELDS if name != "id" and not absent(token[name])}
    if not absent(token["access_token"]) and absent(token["expiry_time"]):
        result["expiry_time"] = None
    return result


def is_used_up(row, saved_at, now, idle_for=None):
    """No refresh token, and an access token that has expired.

    With `idle_for` those not saved for that long, too; not a row of unknown age.
    """
    expiry = whole_number(row["expiry_time"])
    expired = not absent(row["access_token"]) and expiry is not None and expiry <= now
    idle = idle_for is not None and saved_at is not None and saved_at <= now - idle_for
    return (absent(row["refresh_token"]) and expired) or idle


class Oracle:
    """What a store must hold, and answer, after the same calls. Times in milliseconds."""

    def __init__(self):
        self.rows = []  # "oldest row first"
        self.saves = 0
        self.highest_id = 0

    def row(self, row_id):
        return next((row for row in self.rows if row["id"] == row_id), None)

    def contents(self):
        """What `get_tokens` returns: all rows, oldest first."""
        return [{name: row[name] or None for name in FIELDS} for row in self.rows]

    def find(self, token):
        """The token as it is afterwards, or `None`: with no row the token is left untouched."""
        row = which_row(token, self.rows)
        return None if row is None else complete(token, row)

    def refuses(self, token):
        """A token without a refresh, grant and access token is refused (it is inserted, not updated)."""
        return which_row(token, self.rows) is None and all(absent(token[name]) for name in CREDENTIALS)

    def save(self, token, now, new_id):
        """The row's id. `new_id` is what the store under test chose, should it have had to choose one."""
        if self.refuses(token):
            raise Refused
        row = which_row(token, self.rows)
        if row is not None:
            row.update(update(token, row))
        elif not absent(token["id"]) and self.row(token["id"]) is None:
            row = self.insert(token)  # "with the token's id if it carries one that no row has"
        else:
            if not self.may_issue(new_id):
                raise AssertionError(f"{new_id!r} is no new id above {self.highest_id} for {self.rows}")
            row = self.insert(token | {"id": new_id})
            self.highest_id = int(new_id)
        self.touch(row, now)
        return row["id"]

    def insert(self, token):
        self.rows.append({name: token[name] or None for name in FIELDS})
        if re.fullmatch(r"[0-9]{1,18}", token["id"], re.ASCII):  # one that a rising number could come to
            self.highest_id = max(self.highest_id, int(token["id"]))
        return self.rows[-1]

    def touch(self, row, now):
        self.saves += 1
        row.update(saved=self.saves, saved_at=now)

    def may_issue(self, new_id):
        """New ids are decimal strings, rising, and never used twice, not even after deletes."""
        return (
            isinstance(new_id, str)
            and re.fullmatch(r"[1-9][0-9]*", new_id, re.ASCII) is not None
            and int(new_id) > self.highest_id
            and self.row(new_id) is None
        )

    def delete(self, row_id):
        """An id that is not there is no error."""
        self.rows = [row for row in self.rows if row["id"] != row_id]

    def delete_all(self):
        self.rows = []

    def purge(self, now, idle_for=None):
        """Returns how many."""
        before = len(self.rows)
        self.rows = [row for row in self.rows if not is_used_up(row, row["saved_at"], now, idle_for)]
        return before - len(self.rows)
