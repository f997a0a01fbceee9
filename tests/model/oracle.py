"""The contract, sections 2 to 5 and `purge`, in plain Python. The model tests compare the stores with it.

It is written from the text of the contract alone. Each function implements one sentence, and quotes it. A token is a
dict of the ten `FIELDS`. A row is such a dict with two more entries: `saved` is a counter of saves, and `saved_at` is
the time of the last save in milliseconds since the epoch. Nothing here is optimized.
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
    """The store refuses this token."""


def fields(**given):
    """Return all ten fields. Those that are not given are absent."""
    if unknown := given.keys() - set(FIELDS):
        raise TypeError(f"no field of a token: {unknown}")
    return dict.fromkeys(FIELDS) | given


def absent(value):
    """*Absent*: a value that is `None` or `""`. A store never distinguishes the two."""
    return value is None or value == ""


def taken(token):
    """An `expires_in` given as an `int` is accepted as its decimal string."""
    given = token["expiry_time"]
    return token | {"expiry_time": str(given)} if isinstance(given, int) else token


def contradicts(token, row, names):
    """*Contradicts*: both sides have a value and the values differ. An absent value contradicts nothing."""
    spelled = {name: what_counts if name == "api_domain" else str for name in names}
    return any(
        not absent(token[name]) and not absent(row[name]) and spelled[name](token[name]) != spelled[name](row[name])
        for name in names
    )


def what_counts(api_domain):
    """Blanks around the URL, slashes at its end, the case of scheme and host, and the default port do not count."""
    text = api_domain.strip(" \t\n\f\r")
    url = re.fullmatch(r"(.*?)://([^/]*)(.*?)/*", text, re.DOTALL)
    if url is None:
        return text
    scheme, host, path = url[1].lower(), url[2].lower(), url[3]
    return scheme, host.removesuffix({"https": ":443", "http": ":80"}.get(scheme, "")), path


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
            return max(found, key=lambda row: row["saved"])  # "the row is also the one that was saved last"
    return None


def among_several(token, found):
    """If one of them has the token's id, it is the row. Otherwise, if some have its client id, only these count."""
    with_its_id = [row for row in found if row["id"] == token["id"]]
    with_its_client = [
        row for row in found if not absent(token["client_id"]) and row["client_id"] == token["client_id"]
    ]
    return with_its_id or with_its_client or found


def is_authorised_anew(token, row):
    """The token brings a refresh token that is not the row's, or else a grant token that is not the row's."""
    if not absent(token["refresh_token"]):
        return token["refresh_token"] != row["refresh_token"]
    return not absent(token["grant_token"]) and token["grant_token"] != row["grant_token"]


def whole_number(text):
    """An expiry that is not a whole number counts as no expiry."""
    if absent(text) or not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text, re.ASCII):
        return None
    return Decimal(text.strip())  # `int` refuses more than 4300 digits


def handed_out(token):
    """The SDK gets a whole number of up to 64 bits as expiry. Any other text counts as expired, if there is a refresh
    token, and otherwise as absent.
    """
    expiry = token["expiry_time"]
    number = whole_number(expiry)
    if absent(expiry) or (number is not None and abs(number) < 2**63):
        return token
    return token | {"expiry_time": None if absent(token["refresh_token"]) else "0"}


def rows_pair_replaces(token, row):
    """The row has an access token, and the token's pair is absent, has no expiry, or expires earlier.

    A row's pair without expiry never replaces a pair that has one. An expiry without an access token is not a pair.
    """
    if absent(row["access_token"]):
        return False
    tokens, rows = whole_number(token["expiry_time"]), whole_number(row["expiry_time"])
    return absent(token["access_token"]) or tokens is None or (rows is not None and tokens < rows)


def complete(token, row):
    """Every absent field of the token is filled from the row. The id is always the row's.

    If the token has newer credentials, only the id, user name, client id and secret, redirect URL and API domain are
    filled. A field that stays absent keeps its form, `None` or `""`.
    """
    anew = is_authorised_anew(token, row)
    filled = KEPT_OF_AN_OLD_LOGIN if anew else (*KEPT_OF_AN_OLD_LOGIN, "refresh_token", "grant_token")
    taken = [name for name in filled if absent(token[name])]
    if not anew and rows_pair_replaces(token, row):
        taken += PAIR
    both_absent = [name for name in taken if absent(token[name]) and absent(row[name])]
    return token | {name: row[name] or None for name in ("id", *taken) if name not in both_absent}


def update(token, row):
    """Each present field of the token replaces the row's. An absent field leaves the row's value.

    An access token that comes without an expiry clears the row's expiry. The id of the row does not change.
    """
    result = row | {name: token[name] for name in FIELDS if name != "id" and not absent(token[name])}
    if not absent(token["access_token"]) and absent(token["expiry_time"]):
        result["expiry_time"] = None
    return result


def is_used_up(row, saved_at, now, idle_for=None):
    """The row has no refresh token, and its access token has expired.

    With `idle_for`, also a row that was not saved for that long. A row whose age is unknown does not count as idle.
    """
    expiry = whole_number(row["expiry_time"])
    expired = not absent(row["access_token"]) and expiry is not None and expiry <= now
    idle = idle_for is not None and saved_at is not None and saved_at <= now - idle_for
    return (absent(row["refresh_token"]) and expired) or idle


class Oracle:
    """The rows that a store must have after the same calls, and what it must return. Times are in milliseconds."""

    def __init__(self):
        self.rows = []  # the oldest row first
        self.saves = 0
        self.highest_id = 0

    def row(self, row_id):
        return next((row for row in self.rows if row["id"] == row_id), None)

    def contents(self):
        """Return what `get_tokens` returns: all rows, the oldest first."""
        return [handed_out({name: row[name] or None for name in FIELDS}) for row in self.rows]

    def find(self, token):
        """Return the completed token. If there is no row, return `None`: the token is left unchanged."""
        row = which_row(token, self.rows)
        if row is None:
            return None
        found = handed_out(complete(token, row))
        # A field that stays absent keeps its form.
        both_absent = absent(found["expiry_time"]) and absent(token["expiry_time"])
        return found | {"expiry_time": token["expiry_time"]} if both_absent else found

    def refuses(self, token):
        """A token that has no refresh, grant or access token is refused, if it names no row."""
        return which_row(token, self.rows) is None and all(absent(token[name]) for name in CREDENTIALS)

    def save(self, token, now, new_id):
        """Save a token, and return the id of its row. `new_id` is the id that the tested store has chosen, if any."""
        if self.refuses(token):
            raise Refused
        row = which_row(token, self.rows)
        if row is not None:
            row.update(update(token, row))
        elif not absent(token["id"]) and self.row(token["id"]) is None:
            row = self.insert(token)  # "the token's id if the token carries one that no row has"
        else:
            if not self.may_issue(new_id):
                raise AssertionError(f"{new_id!r} is no new id above {self.highest_id} for {self.rows}")
            row = self.insert(token | {"id": new_id})
            self.highest_id = int(new_id)
        self.touch(row, now)
        return row["id"]

    def insert(self, token):
        self.rows.append({name: token[name] or None for name in FIELDS})
        if re.fullmatch(r"[0-9]{1,18}", token["id"], re.ASCII):  # an id that a counter of ids can reach
            self.highest_id = max(self.highest_id, int(token["id"]))
        return self.rows[-1]

    def touch(self, row, now):
        self.saves += 1
        row.update(saved=self.saves, saved_at=now)

    def may_issue(self, new_id):
        """New ids are decimal strings. They rise, and none is used twice, not even after deletes."""
        return (
            isinstance(new_id, str)
            and re.fullmatch(r"[1-9][0-9]*", new_id, re.ASCII) is not None
            and int(new_id) > self.highest_id
            and self.row(new_id) is None
        )

    def delete(self, row_id):
        """An id that no row has is not an error."""
        self.rows = [row for row in self.rows if row["id"] != row_id]

    def delete_all(self):
        self.rows = []

    def purge(self, now, idle_for=None):
        """Return the number of deleted rows."""
        before = len(self.rows)
        self.rows = [row for row in self.rows if not is_used_up(row, row["saved_at"], now, idle_for)]
        return before - len(self.rows)
