-- Values are compared byte by byte ("C"), and are found by hash indexes, because a B-tree rejects values of more than
-- 2704 bytes. An id is the exception: it has at most 1000 bytes. NUL is written as U+001A and 0, U+001A as two of it.

-- Every save has a higher number than the saves before it. The sequence is the only source of these numbers.
CREATE SEQUENCE zoho_token_order;

-- The names under which there may be rows: the ids of the keys that rows are sealed under, and "plaintext" for rows in
-- clear text. A search for a token has to know of all of them (`store/sealed.rs`).
CREATE TABLE zoho_token_key (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY
);
INSERT INTO zoho_token_key (id) VALUES ('plaintext');

-- The ten columns of the vendor's sample stores come first.
CREATE TABLE oauthtoken (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    user_name     TEXT COLLATE "C",
    client_id     TEXT COLLATE "C",
    client_secret TEXT COLLATE "C",
    refresh_token TEXT COLLATE "C",
    access_token  TEXT COLLATE "C",
    grant_token   TEXT COLLATE "C",
    expiry_time   TEXT COLLATE "C",
    redirect_url  TEXT COLLATE "C",
    api_domain    TEXT COLLATE "C",
    -- The number of the last save, and its time in milliseconds since the epoch.
    saved_order   BIGINT NOT NULL DEFAULT pg_catalog.nextval(CAST('zoho_token_order' AS pg_catalog.regclass)),
    saved_at      BIGINT,
    -- The position among all rows. An older row has a lower one.
    position      BIGINT NOT NULL DEFAULT pg_catalog.nextval(CAST('zoho_token_order' AS pg_catalog.regclass)),
    -- The name under which the row is stored. So the database takes no row under a name that is not recorded, and forgets
    -- no name that a row has. Once no row is in clear text, it takes none.
    key_id        TEXT COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        CASE WHEN pg_catalog.left(client_secret, 5) = 'zts1.' THEN pg_catalog.substr(client_secret, 6, 22)
        ELSE 'plaintext' END
    ) STORED REFERENCES zoho_token_key (id),
    -- A row with a seal has tags, and a row without one has tokens.
    CONSTRAINT zoho_token_form CHECK (
        CASE WHEN pg_catalog.left(coalesce(client_secret, ''), 5) = 'zts1.' THEN
            pg_catalog.left(coalesce(refresh_token, 'zts1.'), 5) = 'zts1.'
            AND pg_catalog.left(coalesce(access_token, 'zts1.'), 5) = 'zts1.'
            AND pg_catalog.left(coalesce(grant_token, 'zts1.'), 5) = 'zts1.'
        ELSE
            pg_catalog.left(coalesce(refresh_token, ''), 5) <> 'zts1.'
            AND pg_catalog.left(coalesce(access_token, ''), 5) <> 'zts1.'
            AND pg_catalog.left(coalesce(grant_token, ''), 5) <> 'zts1.'
        END
    )
);

CREATE INDEX zoho_token_user_name ON oauthtoken USING hash (user_name);
CREATE INDEX zoho_token_grant_token ON oauthtoken USING hash (grant_token);
CREATE INDEX zoho_token_refresh_token ON oauthtoken USING hash (refresh_token);
CREATE INDEX zoho_token_access_token ON oauthtoken USING hash (access_token);

-- One row. An id is never given out again, so the highest one is recorded. `change` counts the changes of the set of
-- rows and of their keys: a save that relies on a row being absent checks that it has not moved.
CREATE TABLE zoho_token_store (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    version BIGINT NOT NULL,
    last_id BIGINT NOT NULL,
    change  BIGINT NOT NULL
);
INSERT INTO zoho_token_store (one, version, last_id, change) VALUES (1, 1, 0, 0);

-- Who refreshes a token now. Times are in milliseconds since the epoch, by the clock of the server.
CREATE TABLE zoho_token_lease (
    key   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    until BIGINT NOT NULL
);

-- Refreshes that have failed one after the other.
CREATE TABLE zoho_token_failure (
    key         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    count       BIGINT NOT NULL,
    since       BIGINT NOT NULL,
    last        BIGINT NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL
);
