-- Runs in the transaction that writes the first sealed row, and again whenever the recorded keys change. The file then
-- has version 2, so that an older version of this library refuses it: it would take a tag for a token, and send it to
-- Zoho. `schema.rs` undoes this when all rows are in clear text again.

-- The ids of the keys under which there may be rows, and "plaintext" if there may be rows in clear text.
CREATE TABLE IF NOT EXISTS zoho_token_key (id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;

-- An older version that has opened the file before does not look at the version again. It would write a row that mixes a
-- seal and tokens in clear text, for example when it saves a refreshed token. Without the name "plaintext", rows in clear
-- text are refused, too.
CREATE TRIGGER IF NOT EXISTS zoho_token_store_insert_sealed BEFORE INSERT ON oauthtoken
WHEN CASE
    WHEN substr(CAST(NEW.client_secret AS TEXT), 1, 5) IS 'zts1.' THEN
        substr(CAST(nullif(NEW.refresh_token, '') AS TEXT), 1, 5) <> 'zts1.'
        OR substr(CAST(nullif(NEW.access_token, '') AS TEXT), 1, 5) <> 'zts1.'
        OR substr(CAST(nullif(NEW.grant_token, '') AS TEXT), 1, 5) <> 'zts1.'
    ELSE
        substr(CAST(NEW.refresh_token AS TEXT), 1, 5) IS 'zts1.'
        OR substr(CAST(NEW.access_token AS TEXT), 1, 5) IS 'zts1.'
        OR substr(CAST(NEW.grant_token AS TEXT), 1, 5) IS 'zts1.'
        OR NOT EXISTS (SELECT 1 FROM zoho_token_key WHERE id = 'plaintext')
    END
BEGIN
    SELECT RAISE(ABORT, 'the token store is encrypted');
END;

CREATE TRIGGER IF NOT EXISTS zoho_token_store_update_sealed
BEFORE UPDATE OF client_secret, refresh_token, access_token, grant_token ON oauthtoken
WHEN CASE
    WHEN substr(CAST(NEW.client_secret AS TEXT), 1, 5) IS 'zts1.' THEN
        substr(CAST(nullif(NEW.refresh_token, '') AS TEXT), 1, 5) <> 'zts1.'
        OR substr(CAST(nullif(NEW.access_token, '') AS TEXT), 1, 5) <> 'zts1.'
        OR substr(CAST(nullif(NEW.grant_token, '') AS TEXT), 1, 5) <> 'zts1.'
    ELSE
        substr(CAST(NEW.refresh_token AS TEXT), 1, 5) IS 'zts1.'
        OR substr(CAST(NEW.access_token AS TEXT), 1, 5) IS 'zts1.'
        OR substr(CAST(NEW.grant_token AS TEXT), 1, 5) IS 'zts1.'
        OR NOT EXISTS (SELECT 1 FROM zoho_token_key WHERE id = 'plaintext')
    END
BEGIN
    SELECT RAISE(ABORT, 'the token store is encrypted');
END;

PRAGMA user_version = 2;
