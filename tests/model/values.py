"""The values of the steps: a few plain ones, so that keys are equal often, and unusual ones that can break a store."""

import itertools
from datetime import timedelta

from hypothesis import strategies as st
from model.oracle import FIELDS
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

# Placeholders, so that the report of a failure stays short. `written_out` replaces them when a token is made.
LONG = {"<a megabyte>": "m" * 2**20, "<5000 nines>": "9" * 5000, "<5000 eights>": "8" * 5000}
# fmt: off
AWKWARD = [
    "O'Brien", '"', "`", "\\", "%", "_", "NULL", "None", "?", ":id", "' or 1=1 --", "1 or 1=1", "'); --",
    "nul\0a", "nul\0b", "\0", "line\nbreak", "\r\n", "\t", " ", " ada", "ada ", "ADA", "Ada",
    "\u00e9", "e\u0301", "\u00df", "ss", "\u0130", "i\u0307", "\ufeff", "\u200b", "\ufffd", "\uffff",
    "\U0001f980", "\U0001f468\u200d\U0001f469", "\U0010ffff", "\u0661", "\x7f", "\x80", "<a megabyte>",
]
IDS = [
    "0", "007", "01", "-1", "+1", "1.0", "1e1", " 1", "1 ", "\uff11", "0x1", "x", "10",
    "9" * 17, "9" * 18, "1" + "0" * 18, "9223372036854775807", "9" * 40, "<5000 nines>",
]
EXPIRIES = [
    "09", " 7\n", "+8", "-9", "0", "-0", 0, 1, -1, 99999999999998, 10**30,
    "9" * 19, "9" * 40, "1" + "0" * 40, "<5000 nines>", "<5000 eights>", "-<5000 nines>",
    "soon", "1e20", "99999999999999.5", "1_0", "0x10", "--1", "+ 1", "+", " ", "\uff18", "\u00a08", "8\0",
]
# fmt: on
DOMAINS = [
    "https://www.zohoapis.com",
    "https://sandbox.zohoapis.com",
    "https://www.zohoapis.eu",
    "HTTPS://www.ZohoAPIs.eu:443/",  # the same as the one before
]
VALUES = {
    "id": (["1", "2", "3", "4", "7", "99"], [*IDS, *AWKWARD]),
    "user_name": (["ada", "bob"], AWKWARD),
    "client_id": (["1000.C1", "1000.C2"], AWKWARD),
    "client_secret": (["s1", "s2"], AWKWARD),
    "refresh_token": (["1000.r1", "1000.r2", "1000.r3"], AWKWARD),
    "grant_token": (["1000.g1", "1000.g2"], AWKWARD),
    "access_token": (["1000.a1", "1000.a2", "1000.a3"], AWKWARD),
    "expiry_time": (["1", "5000", "99999999999998", "99999999999999", 5001], EXPIRIES),
    "redirect_url": (["https://a.example", "https://b.example"], AWKWARD),
    "api_domain": (DOMAINS, AWKWARD),
}


def written_out(value):
    if isinstance(value, str) and "<" in value:
        for name, long in LONG.items():
            value = value.replace(name, long)
    return value


def one_of_ten(plain, awkward, *, present):
    """Draw a value with one draw. Of ten values, `present` are not absent. Of these, one in ten is awkward."""

    def pick(n):
        absences = 400 * (10 - present)
        if n < absences:
            return "" if n % 3 == 2 else None
        return plain[n % len(plain)] if n % 10 else awkward[n // 10 % len(awkward)]

    return st.integers(0, 3999).map(pick)


def tokens_of(chosen=None, **present):
    return st.fixed_dictionaries(
        {name: one_of_ten(*VALUES[name], present=present.get(name, 5)) for name in FIELDS} | (chosen or {})
    ).map(lambda given: {name: value for name, value in given.items() if value is not None})


TOKENS = tokens_of(id=3, user_name=6, client_id=6, grant_token=3, access_token=7, expiry_time=6)
# Few users with several clients and domains.
ROWS = tokens_of(
    {
        "user_name": st.sampled_from([None, "ada", "ada", "ada", "ada", "bob"]),
        "client_id": st.sampled_from([None, "1000.C1", "1000.C2"]),
        "api_domain": st.sampled_from([None, *DOMAINS, *DOMAINS, *DOMAINS]),
    },
    id=2,
    refresh_token=3,
    grant_token=2,
    access_token=4,
)
POPULATION = st.integers(0, 3).flatmap(lambda n: st.lists(ROWS, min_size=n and 4, max_size=n and 9))
CHANGES = st.lists(st.sampled_from(FIELDS), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: one_of_ten(*VALUES[name], present=7) for name in names})
)
BY_ID = one_of_ten(*VALUES["id"], present=9)
NEW_IDS = st.sampled_from(["", "5", "0" * 17 + "8", "9" * 18, "1" + "0" * 18, "1" + "0" * 17 + "1"])
TEXTS = st.sampled_from([text for text in AWKWARD if text not in LONG])

EVERY_EXPIRY = [None, "", *VALUES["expiry_time"][0], *EXPIRIES]
EXPIRY = st.sampled_from(EVERY_EXPIRY)
LOGINS = [
    {"access_token": "1000.a1"},
    {"access_token": "1000.a1", "grant_token": "1000.g1"},
    {"grant_token": "1000.g1"},
    {"access_token": "1000.a1", "refresh_token": "1000.r1"},
]
NO_TIME = [0, 0.0, timedelta(0)]
YEARS = [10**9, 1e9, timedelta(days=36500), timedelta.max]
IDLE_FOR = st.sampled_from([None, *YEARS] * 2 + NO_TIME)  # zero is refused

# All combinations of plain values to look for.
PROBES = [
    {"user_name": user, "id": row_id, "client_id": client, "api_domain": domain} | credentials
    for user, row_id, client, domain, credentials in itertools.product(
        [None, "ada", "bob"],
        [None, "1", "2"],
        [None, "1000.C1", "1000.C2"],
        [None, *DOMAINS[:2]],
        [
            {},
            {"grant_token": "1000.g1"},
            {"refresh_token": "1000.r1"},
            {"access_token": "1000.a1"},
            {"grant_token": "1000.g1", "refresh_token": "1000.r1"},
            {"refresh_token": "1000.r2", "access_token": "1000.a2"},
        ],
    )
]

# Bad input
NOT_TEXT = [0, 1, 0.0, b"", b"ada", [], {}, ("ada",), object(), True, False]
NO_UTF8 = ["\ud800", "\udfff ", "a\udcffb", "\ud83e\udd80"]
BAD_IDS = NOT_TEXT + NO_UTF8
BAD_FIELDS = [
    *itertools.product([name for name in FIELDS if name != "expiry_time"], BAD_IDS),
    *itertools.product(["expiry_time"], [one for one in BAD_IDS if type(one) is not int]),
    *itertools.product(["signature"], ["", "ada", 0, False, {}, object()]),
]
NOT_A_TOKEN = [None, 5, "token", b"", {}, object(), OAuthToken, UserSignature("ada")]
