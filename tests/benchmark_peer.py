"""A store that `test_benchmark.py` passes to the benchmark with `--peer`.

Like the vendor's sample it has a file with a fixed name and compares ids as texts. Therefore it gives the 11th user an
id that is already taken.
"""

import sqlite3

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken


class AnotherStore:
    def __init__(self):
        self.run("CREATE TABLE IF NOT EXISTS tokens (id TEXT PRIMARY KEY, refresh UNIQUE, access)")

    def run(self, sql, *values):
        with sqlite3.connect("zohooauth.db") as connection:
            rows = connection.execute(sql, values).fetchall()
        connection.close()
        return rows

    def find_token(self, token):
        for row in self.run("SELECT * FROM tokens WHERE refresh = ?", token.get_refresh_token()):
            return self.fill(token, row)
        return None

    def find_token_by_id(self, row_id):
        return self.fill(OAuthToken(id="x"), *self.run("SELECT * FROM tokens WHERE id = ?", row_id))

    def fill(self, token, row):
        row_id, refresh_token, access_token = row
        token.set_id(row_id)
        token.set_refresh_token(refresh_token)
        token.set_access_token(access_token)
        return token

    def save_token(self, token):
        refresh_token, access_token = token.get_refresh_token(), token.get_access_token()
        update = "UPDATE tokens SET access = ? WHERE refresh = ? RETURNING id"
        if not self.run(update, access_token, refresh_token):
            ((last,),) = self.run("SELECT max(id) FROM tokens")  # as text, "9" is higher than "10"
            token.set_id(str(int(last or 0) + 1))
            self.run("INSERT INTO tokens VALUES (?, ?, ?)", token.get_id(), refresh_token, access_token)

    def delete_token(self, row_id):
        self.run("DELETE FROM tokens WHERE id = ?", row_id)

    def get_tokens(self):
        return [self.fill(OAuthToken(id="x"), row) for row in self.run("SELECT * FROM tokens")]
