-- In a file of the vendor's sample this table exists already. Its ten columns keep their names and positions, so that
-- the sample can still read and write the file. Our columns come after them.
CREATE TABLE IF NOT EXISTS oauthtoken (
    id            varchar(10) NOT NULL,
    user_name     varchar(255),
    client_id     varchar(255),
    client_secret varchar(255),
    refresh_token varchar(255),
    access_token  varchar(255),
    grant_token   varchar(255),
    expiry_time   varchar(20),
    redirect_url  varchar(255),
    api_domain    varchar(255),
    PRIMARY KEY (id)
);

-- The position of the row's last save among all saves, and its time in milliseconds since the epoch.
ALTER TABLE oauthtoken ADD COLUMN saved_order INTEGER;
ALTER TABLE oauthtoken ADD COLUMN saved_at INTEGER;

-- A row that exists already counts as saved now.
UPDATE oauthtoken
SET saved_order = rowid, saved_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);

-- An id is never given out again, not even after a delete. So the highest one is recorded. An id counts if it has 1 to
-- 18 digits and nothing else.
CREATE TABLE zoho_token_store (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    last_id    INTEGER NOT NULL,
    last_order INTEGER NOT NULL
);
INSERT INTO zoho_token_store
SELECT 1, coalesce(max(CAST(counted.id AS INTEGER)), 0), (SELECT coalesce(max(rowid), 0) FROM oauthtoken)
FROM (
    SELECT id FROM oauthtoken
    WHERE length(CAST(id AS BLOB)) BETWEEN 1 AND 18
        AND length(id) = length(CAST(id AS BLOB)) AND id NOT GLOB '*[^0-9]*'
) AS counted;

-- Created after the rows were changed: filling an index row by row takes several times longer.
CREATE INDEX zoho_token_store_user_name ON oauthtoken (user_name);
CREATE INDEX zoho_token_store_grant_token ON oauthtoken (grant_token);
CREATE INDEX zoho_token_store_refresh_token ON oauthtoken (refresh_token);
CREATE INDEX zoho_token_store_access_token ON oauthtoken (access_token);

CREATE TRIGGER zoho_token_store_inserted AFTER INSERT ON oauthtoken
WHEN length(CAST(NEW.id AS BLOB)) BETWEEN 1 AND 18
    AND length(NEW.id) = length(CAST(NEW.id AS BLOB)) AND NEW.id NOT GLOB '*[^0-9]*'
BEGIN
    UPDATE zoho_token_store SET last_id = CAST(NEW.id AS INTEGER) WHERE last_id < CAST(NEW.id AS INTEGER);
END;

-- Other programs, such as the sample, do not write our columns. This library always writes saved_order.
CREATE TRIGGER zoho_token_store_inserted_elsewhere AFTER INSERT ON oauthtoken
WHEN NEW.saved_order IS NULL
BEGIN
    UPDATE zoho_token_store SET last_order = last_order + 1;
    UPDATE oauthtoken
    SET saved_order = (SELECT last_order FROM zoho_token_store),
        saved_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    WHERE id = NEW.id;
END;

CREATE TRIGGER zoho_token_store_updated_elsewhere
AFTER UPDATE OF user_name, client_id, client_secret, refresh_token, access_token, grant_token, expiry_time,
    redirect_url, api_domain ON oauthtoken
WHEN NEW.saved_order IS OLD.saved_order
BEGIN
    UPDATE zoho_token_store SET last_order = last_order + 1;
    UPDATE oauthtoken
    SET saved_order = (SELECT last_order FROM zoho_token_store),
        saved_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
    WHERE id = NEW.id;
END;

PRAGMA application_id = 1515482955; -- 0x5A546F4B, "ZToK"
