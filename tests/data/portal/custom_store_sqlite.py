"""The project's own token store: plain `sqlite3`, with the table of the vendor's sample."""

import contextlib
import sqlite3

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

FIELDS = (
    "client_id",
    "client_secret",
    "refresh_token",
    "access_token",
    "grant_token",
    "expires_in",
    "redirect_url",
    "api_domain",
)
COLUMNS = ("id", "user_name", *("expiry_time" if field == "expires_in" else field for field in FIELDS))


class CustomStoreSQLite(TokenStore):
    def _execute(self, statement, *values):
        with contextlib.closing(sqlite3.connect("zohooauth.db")) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def _tokens(self, where="", *values):
        for number, user, *fields in self._execute(f"SELECT {', '.join(COLUMNS)} FROM oauthtoken {where}", *values):
            token = OAuthToken(id=number, user_signature=None if user is None else UserSignature(user))
            for field, value in zip(FIELDS, fields, strict=True):
                getattr(token, f"set_{field}")(value)
            yield token

    def get_tokens(self):
        return list(self._tokens())

    def find_token_by_id(self, id):  # noqa: A002
        return next(self._tokens("WHERE id = ?", id))

    def find_token(self, token):
        for found in self._tokens("WHERE user_name = ?", token.get_user_signature().get_name()):
            token.set_id(found.get_id())
            for field in FIELDS:
                getattr(token, f"set_{field}")(getattr(found, f"get_{field}")())
            return token
        return None

    def save_token(self, token):
        values = [getattr(token, f"get_{field}")() for field in FIELDS]
        changes = ", ".join(f"{column} = ?" for column in COLUMNS[2:])
        self._execute(f"UPDATE oauthtoken SET {changes} WHERE id = ?", *values, token.get_id())

    def delete_token(self, id):  # noqa: A002
        self._execute("DELETE FROM oauthtoken WHERE id = ?", id)

    def delete_tokens(self):
        self._execute("DELETE FROM oauthtoken")
