//! All SQL statements on rows and leases. Values are bound, never part of a statement. Nothing is decided here.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params_from_iter};

use super::error::{damaged, from_sqlite};
use super::schema::{self, Contents};
use super::waiting::SCRUB_TIMEOUT;
use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::Lease;
use crate::domain::{Field, Key, Row, Token};
use crate::store::backend::{Location, SeenLease, Snapshot, Transaction};
use crate::store::error::{Code, Error, Result};

macro_rules! columns {
    () => {
        "stored.id, stored.user_name, stored.client_id, stored.client_secret, stored.refresh_token, \
         stored.access_token, stored.grant_token, stored.expiry_time, stored.redirect_url, stored.api_domain, \
         stored.saved_order, stored.saved_at"
    };
}

/// The index finds the number of a row, and the row itself says whether it has the value. Without that, SQLite would
/// trust a damaged index, and a caller would get the tokens of another user (`tests/faults/test_damage.py`).
///
/// `COLLATE BINARY`, because a table of another program may ignore the case of letters. It is the default collation, so
/// for every other table an index is used.
macro_rules! select_by {
    ($column:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            ", stored.",
            $column,
            " = ?1 COLLATE BINARY FROM oauthtoken AS found LEFT JOIN oauthtoken AS stored \
             ON stored.rowid = found.rowid WHERE found.",
            $column,
            " = ?1 COLLATE BINARY"
        )
    };
}

const fn by_key(key: Key) -> &'static str {
    match key {
        Key::UserName => select_by!("user_name"),
        Key::Id => select_by!("id"),
        Key::GrantToken => select_by!("grant_token"),
        Key::RefreshToken => select_by!("refresh_token"),
        Key::AccessToken => select_by!("access_token"),
    }
}

const EACH: &str = concat!("SELECT ", columns!(), " FROM oauthtoken AS stored ORDER BY rowid");
/// The same in a file that does not have our own columns yet. A row without an id gets one when it is imported.
const EACH_OF_SAMPLE: &str = "SELECT ifnull(id, ''), user_name, client_id, client_secret, refresh_token, access_token, \
     grant_token, expiry_time, redirect_url, api_domain, rowid, NULL FROM oauthtoken ORDER BY rowid";
/// The same for a view, or a table that is `WITHOUT ROWID`.
const EACH_WITHOUT_ROWID: &str = "SELECT ifnull(id, ''), user_name, client_id, client_secret, refresh_token, \
     access_token, grant_token, expiry_time, redirect_url, api_domain, row_number() OVER (), NULL FROM oauthtoken";
/// SQLite ignores the case of names.
const HAS_TOKENS: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'oauthtoken' COLLATE NOCASE";
const COUNT: &str = "SELECT count(*) FROM oauthtoken";
const LAST_ID: &str = "SELECT last_id FROM zoho_token_store";
const LAST_ORDER: &str = "SELECT last_order FROM zoho_token_store";
const RAISE_LAST_ID: &str = "UPDATE zoho_token_store SET last_id = max(last_id, ?1)";
const RAISE_ORDER: &str = "UPDATE zoho_token_store SET last_order = max(last_order, ?1)";
const INSERT: &str = "INSERT INTO oauthtoken (id, user_name, client_id, client_secret, refresh_token, access_token, \
     grant_token, expiry_time, redirect_url, api_domain, saved_order, saved_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
/// The condition includes `saved_order`, which is in no index: a damaged index of the ids cannot redirect the write to
/// another user's row.
const UPDATE: &str = "UPDATE oauthtoken SET user_name = ?2, client_id = ?3, client_secret = ?4, refresh_token = ?5, \
     access_token = ?6, grant_token = ?7, expiry_time = ?8, redirect_url = ?9, api_domain = ?10, saved_order = ?11, \
     saved_at = ?12 WHERE id = ?1 COLLATE BINARY AND ifnull(saved_order, 0) = ?13";
/// For a row of which only the access token and its expiry change. SQLite does not write the indexes of other columns. A
/// sealed row has its seal in `client_secret`, and each save makes a new seal. No index has this column.
const REFRESH: &str = "UPDATE oauthtoken SET client_secret = ?2, access_token = ?3, expiry_time = ?4, saved_order = ?5, \
     saved_at = ?6 WHERE id = ?1 COLLATE BINARY AND ifnull(saved_order, 0) = ?7";
/// The second step of [`Transaction::rewrite`]. The first one, [`UPDATE`], sets `saved_order` to another number: otherwise
/// the trigger for other programs would count it as a save.
const RESTORE_ORDER: &str =
    "UPDATE oauthtoken SET saved_order = -1 - saved_order WHERE id = ?1 COLLATE BINARY AND saved_order = ?2";
const DELETE: &str = "DELETE FROM oauthtoken WHERE id = ?1 COLLATE BINARY";
const DELETE_ALL: &str = "DELETE FROM oauthtoken";

// Leases and failed refreshes have tables of their own. They are created with the first lease, and may be dropped at
// any time. Version 0.1.0 creates the first one alone, and does not know the second one.
const LEASE: &str = "SELECT owner, until FROM zoho_token_lease WHERE key = ?1";
const FAILURES: &str = "SELECT count, since, last, fingerprint FROM zoho_token_failure WHERE key = ?1";
const HAS_LEASES: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'zoho_token_lease'";
const CREATE_LEASE_TABLES: &str = "CREATE TABLE IF NOT EXISTS zoho_token_lease \
     (key TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID; \
     CREATE TABLE IF NOT EXISTS zoho_token_failure (key TEXT NOT NULL PRIMARY KEY, count INTEGER NOT NULL, \
     since INTEGER NOT NULL, last INTEGER NOT NULL, fingerprint TEXT NOT NULL) WITHOUT ROWID";
const ACQUIRE_LEASE: &str = "INSERT OR REPLACE INTO zoho_token_lease (key, owner, until) VALUES (?1, ?2, ?3)";
const RELEASE_LEASE: &str = "DELETE FROM zoho_token_lease WHERE key = ?1 AND owner = ?2";
const RECORD_FAILURES: &str = "INSERT OR REPLACE INTO zoho_token_failure (key, count, since, last, fingerprint) \
     VALUES (?1, ?2, ?3, ?4, ?5)";
const SWEEP_FAILURES: &str = "DELETE FROM zoho_token_failure WHERE last < ?1";
/// Removes leases that were never released, long after their end: by the clock of another machine they may still be
/// valid.
const SWEEP_LEASES: &str = "DELETE FROM zoho_token_lease WHERE until < ?1";
/// How long after its end a lease is removed, and how long after the last failure its record: a day, in milliseconds.
const LEASE_SWEEP_DELAY_MS: i64 = 86_400_000;

// The keys under which there may be rows. The table exists in a sealed file alone.
const KEY_NAMES: &str = "SELECT id FROM zoho_token_key";
const DELETE_KEY_NAMES: &str = "DELETE FROM zoho_token_key";
const INSERT_KEY_NAME: &str = "INSERT INTO zoho_token_key (id) VALUES (?1)";

/// Is there a tag in a column of tokens ([`crate::domain::seal`])? Each of the three is one search in an index.
const HAS_TAGS: &str = "SELECT EXISTS (SELECT 1 FROM oauthtoken WHERE refresh_token >= 'zts1.' COLLATE BINARY \
     AND refresh_token < 'zts1/' COLLATE BINARY) \
     OR EXISTS (SELECT 1 FROM oauthtoken WHERE access_token >= 'zts1.' COLLATE BINARY \
     AND access_token < 'zts1/' COLLATE BINARY) \
     OR EXISTS (SELECT 1 FROM oauthtoken WHERE grant_token >= 'zts1.' COLLATE BINARY \
     AND grant_token < 'zts1/' COLLATE BINARY)";

/// The size of the statement cache. It holds every statement above, so each is compiled once per connection.
pub(super) const STATEMENT_CACHE_SIZE: usize = 34;

/// The rows that a connection sees. Within a transaction they are a snapshot.
pub(super) struct Sql<'c> {
    connection: &'c Connection,
    location: &'c Location,
    /// If the change leaves residue that has to be scrubbed: how long it waits for readers after the commit.
    pub(super) scrub_timeout: Cell<Option<Duration>>,
    /// The `saved_order` of this change's last save, if there was one.
    last_order: Cell<Option<i64>>,
}

impl<'c> Sql<'c> {
    pub(super) const fn new(connection: &'c Connection, location: &'c Location) -> Self {
        Self { connection, location, scrub_timeout: Cell::new(None), last_order: Cell::new(None) }
    }

    /// Returns the `saved_order` of the next save. [`Self::end`] writes the last one, once for the whole change.
    fn next_order(&self) -> Result<i64> {
        let last = self.last_order.get().map_or_else(|| self.number(LAST_ORDER), Ok)?;
        let order = last.saturating_add(1);
        self.last_order.set(Some(order));
        Ok(order)
    }

    /// May the file have sealed rows that a lookup by a token does not find?
    pub(super) fn is_sealed(&self) -> Result<bool> {
        Ok(self.says_sealed()? || self.has_tags()?)
    }

    /// Does the file say that it has sealed rows?
    fn says_sealed(&self) -> Result<bool> {
        schema::is_sealed(self.connection).map_err(|error| from_sqlite(self.location, &error))
    }

    /// Has a row a tag? Another program may have copied sealed rows into a file that does not say so.
    fn has_tags(&self) -> Result<bool> {
        Ok(self.number(HAS_TAGS)? > 0)
    }

    /// Must be called after the change, before the commit.
    pub(super) fn end(&self) -> Result<()> {
        self.last_order.take().map_or(Ok(()), |order| self.raise(RAISE_ORDER, order))
    }

    fn raise(&self, sql: &str, to: i64) -> Result<()> {
        self.prepare(sql)?.execute([to]).map_err(|error| from_sqlite(self.location, &error))?;
        Ok(())
    }

    fn prepare(&self, sql: &str) -> Result<CachedStatement<'c>> {
        self.connection.prepare_cached(sql).map_err(|error| from_sqlite(self.location, &error))
    }

    fn number(&self, sql: &str) -> Result<i64> {
        self.prepare(sql)?.query_row([], |row| row.get(0)).map_err(|error| from_sqlite(self.location, &error))
    }

    /// Binds one row, executes, and returns the number of rows changed. `before` is the row's previous `saved_order`,
    /// for [`UPDATE`].
    fn bind_row(
        &self,
        sql: &str,
        token: Token<'_>,
        order: i64,
        saved_at: Option<i64>,
        before: Option<i64>,
    ) -> Result<usize> {
        let mut statement = self.prepare(sql)?;
        let mut bind = || -> rusqlite::Result<usize> {
            for field in Field::ALL {
                statement.raw_bind_parameter(field as usize + 1, token.get(field))?;
            }
            statement.raw_bind_parameter(Field::COUNT + 1, order)?;
            statement.raw_bind_parameter(Field::COUNT + 2, saved_at)?;
            if before.is_some() {
                statement.raw_bind_parameter(Field::COUNT + 3, before)?;
            }
            statement.raw_execute()
        };
        bind().map_err(|error| from_sqlite(self.location, &error))
    }

    /// Fails if the index of the ids leads to another row, which a delete would then remove.
    fn require_safe_delete(&self, id: &str) -> Result<()> {
        self.each_by_key(Key::Id, id, |_| Ok(()))
    }

    /// Returns whether a row was deleted.
    fn delete_with(&self, sql: &str, id: Option<&str>) -> Result<bool> {
        let mut statement = self.prepare(sql)?;
        let deleted = statement.execute(params_from_iter(id)).map_err(|error| from_sqlite(self.location, &error))?;
        if deleted > 0 {
            self.scrub_timeout.set(Some(SCRUB_TIMEOUT));
        }
        Ok(deleted > 0)
    }

    /// Is there a table of tokens?
    pub(super) fn has_tokens(&self) -> Result<bool> {
        Ok(self.number(HAS_TOKENS)? > 0)
    }

    /// [`Snapshot::each`] in a file that may be older than this version.
    pub(super) fn each_of(&self, contents: Contents, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        match contents {
            Contents::Current => self.each_by(EACH, visit),
            Contents::Older if !self.has_tokens()? => Ok(()),
            Contents::Older if self.connection.prepare_cached(EACH_OF_SAMPLE).is_err() => {
                self.each_by(EACH_WITHOUT_ROWID, visit)
            }
            Contents::Older => self.each_by(EACH_OF_SAMPLE, visit),
        }
    }

    fn each_by(&self, sql: &str, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let mut statement = self.prepare(sql)?;
        let mut rows = statement.query([]).map_err(|error| from_sqlite(self.location, &error))?;
        while let Some(row) = rows.next().map_err(|error| from_sqlite(self.location, &error))? {
            visit(self.read(row)?)?;
        }
        Ok(())
    }

    fn each_by_key(
        &self,
        key: Key,
        value: &str,
        mut visit: impl FnMut(&rusqlite::Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.prepare(by_key(key))?;
        let mut found = statement.query([value]).map_err(|error| from_sqlite(self.location, &error))?;
        while let Some(row) = found.next().map_err(|error| from_sqlite(self.location, &error))? {
            if row.get(Field::COUNT + 2) != Ok(Some(true)) {
                return Err(damaged(self.location, "an index leads to another row"));
            }
            visit(row)?;
        }
        Ok(())
    }

    fn read(&self, row: &rusqlite::Row<'_>) -> Result<Row> {
        let mut values = [const { None }; Field::COUNT];
        for field in Field::ALL {
            values[field as usize] = self.text(field, row)?;
        }
        if values[Field::Id as usize].is_none() {
            // The table has no such rows. A part of the WAL is missing, and its page is read as zeros
            // (`tests/faults/test_damage.py`).
            return Err(damaged(self.location, "a row without an id"));
        }
        let token = Token::from_fn(|field| values[field as usize].as_deref());
        let number = |column| row.get::<_, Option<i64>>(column).map_err(|error| from_sqlite(self.location, &error));
        Ok(Row::new(token, number(Field::COUNT)?.unwrap_or(0), number(Field::COUNT + 1)?))
    }

    /// A value as text. Another program may have written numbers, or text as bytes.
    fn text<'r>(&self, field: Field, row: &'r rusqlite::Row<'_>) -> Result<Option<Cow<'r, str>>> {
        match row.get_ref(field as usize).map_err(|error| from_sqlite(self.location, &error))? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(Cow::Owned(number.to_string()))),
            ValueRef::Real(number) => Ok(Some(Cow::Owned(number.to_string()))),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                std::str::from_utf8(bytes).map(|text| Some(Cow::Borrowed(text))).map_err(|_| {
                    let id = id_of(row);
                    let what = format!("the {} of the row with the id {id} is not UTF-8 text", field.name());
                    Error::new(Code::DamagedRow, self.location).with(what).in_row(id)
                })
            }
        }
    }
}

/// The fields that [`REFRESH`] writes.
const REFRESHED: [Field; 3] = [Field::ClientSecret, Field::AccessToken, Field::ExpiryTime];

/// Do the two differ at most in the fields that [`REFRESH`] writes?
fn is_refresh(before: Token<'_>, after: Token<'_>) -> bool {
    REFRESHED.into_iter().fold(before, |row, field| row.with(field, after.get(field))) == after
}

fn id_of(row: &rusqlite::Row<'_>) -> String {
    row.get_ref(Field::Id as usize).ok().and_then(|id| id.as_str().ok()).unwrap_or("unknown").to_owned()
}

impl Snapshot for Sql<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.each_by_key(key, value, |row| {
            rows.push(self.read(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.each_by(EACH, visit)
    }

    fn count(&self) -> Result<usize> {
        Ok(usize::try_from(self.number(COUNT)?).unwrap_or_default())
    }

    fn last_id(&self) -> Result<i64> {
        self.number(LAST_ID)
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        let look = || -> rusqlite::Result<Option<Lease>> {
            let mut statement = self.connection.prepare_cached(LEASE)?;
            statement.query_row([key], |row| Ok(Lease { owner: row.get(0)?, until: row.get(1)? })).optional()
        };
        let lease = match look() {
            Err(_) if self.number(HAS_LEASES)? == 0 => None,
            lease => lease.map_err(|error| from_sqlite(self.location, &error))?,
        };
        // Failures that cannot be read are none: leases must not depend on them.
        let failures = || -> rusqlite::Result<Option<RefreshFailures>> {
            let mut statement = self.connection.prepare_cached(FAILURES)?;
            let read = |row: &rusqlite::Row<'_>| {
                let (count, since, last, fingerprint) = row.try_into()?;
                Ok(RefreshFailures { count, since, last, fingerprint })
            };
            statement.query_row([key], read).optional()
        };
        Ok(SeenLease { lease, failures: failures().unwrap_or_default(), now: None })
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        if !self.says_sealed()? {
            return Ok(if self.has_tags()? { None } else { Some(BTreeSet::new()) });
        }
        let look = || -> rusqlite::Result<BTreeSet<String>> {
            let mut statement = self.connection.prepare_cached(KEY_NAMES)?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        // A sealed file has at least one name. Otherwise another program has removed them.
        Ok(look().ok().filter(|names| !names.is_empty()))
    }
}

impl Transaction for Sql<'_> {
    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.raise(RAISE_LAST_ID, number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.bind_row(INSERT, token, self.next_order()?, Some(now), None)?;
        Ok(())
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        let order = self.next_order()?;
        let updated = if is_refresh(row.token(), token) {
            let [secret, access, expiry] = REFRESHED.map(|field| token.get(field));
            let values = (row.id(), secret, access, expiry, order, now, row.saved_order);
            self.prepare(REFRESH)?.execute(values).map_err(|error| from_sqlite(self.location, &error))?
        } else {
            self.bind_row(UPDATE, token, order, Some(now), Some(row.saved_order))?
        };
        if updated == 1 { Ok(()) } else { Err(damaged(self.location, "an index leads to another row")) }
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        let other_order = -1 - row.saved_order;
        let updated = self.bind_row(UPDATE, token, other_order, row.saved_at, Some(row.saved_order))?;
        let mut restore = self.prepare(RESTORE_ORDER)?;
        let restored = restore.execute((row.id(), other_order)).map_err(|error| from_sqlite(self.location, &error))?;
        if (updated, restored) == (1, 1) {
            Ok(())
        } else {
            Err(damaged(self.location, "an index leads to another row"))
        }
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        let set = || -> rusqlite::Result<()> {
            schema::set_sealed(self.connection, !names.is_empty())?;
            if names.is_empty() {
                return Ok(());
            }
            self.connection.prepare_cached(DELETE_KEY_NAMES)?.execute([])?;
            let mut insert = self.connection.prepare_cached(INSERT_KEY_NAME)?;
            names.iter().try_for_each(|name| insert.execute([name]).map(drop))
        };
        set().map_err(|error| from_sqlite(self.location, &error))
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.bind_row(INSERT, row.token(), row.saved_order, row.saved_at, None)?;
        let last = self.last_order.get().map_or_else(|| self.number(LAST_ORDER), Ok)?;
        self.last_order.set(Some(last.max(row.saved_order)));
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        self.require_safe_delete(id)?;
        self.delete_with(DELETE, Some(id))
    }

    fn delete_all(&mut self) -> Result<()> {
        self.delete_with(DELETE_ALL, None).map(drop)
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        let acquire = || -> rusqlite::Result<()> {
            self.connection.execute_batch(CREATE_LEASE_TABLES)?;
            self.connection
                .prepare_cached(SWEEP_LEASES)?
                .execute([lease.until.saturating_sub(LEASE_SWEEP_DELAY_MS)])?;
            self.connection.prepare_cached(ACQUIRE_LEASE)?.execute((key, &lease.owner, lease.until))?;
            Ok(())
        };
        acquire().map_err(|error| from_sqlite(self.location, &error))
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        let mut statement = self.prepare(RELEASE_LEASE)?;
        statement.execute([key, owner]).map_err(|error| from_sqlite(self.location, &error))?;
        Ok(())
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        let RefreshFailures { count, since, last, fingerprint } = failures;
        let record = || -> rusqlite::Result<()> {
            self.connection.execute_batch(CREATE_LEASE_TABLES)?;
            self.connection.prepare_cached(SWEEP_FAILURES)?.execute([last.saturating_sub(LEASE_SWEEP_DELAY_MS)])?;
            self.connection.prepare_cached(RECORD_FAILURES)?.execute((key, count, since, last, fingerprint))?;
            Ok(())
        };
        record().map_err(|error| from_sqlite(self.location, &error))
    }

    fn scrub_replaced(&mut self) {
        self.scrub_timeout.set(Some(SCRUB_TIMEOUT));
    }

    fn scrub_replaced_later(&mut self) {
        self.scrub_timeout.set(self.scrub_timeout.get().or(Some(Duration::ZERO)));
    }
}
