//! Statements that change rows and leases.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::sql::{Tables, synchronous_commit};
use super::statement::{Bound, Statement, escape};
use crate::domain::backoff::RefreshFailures;
use crate::domain::key_ring::PLAINTEXT;
use crate::domain::lease::Lease;
use crate::domain::{Field, Row, Token, seal};
use crate::store::backend::{Durability, Location};
use crate::store::error::{Code, Error};

/// How many orders are left out before a reserved block. Saves of others may draw from the sequence at the same moment.
const ORDER_MARGIN: i64 = 1_000;

impl<'a> Statement<'a> {
    /// The condition that the row with this id is still the one that was read.
    fn row_version(&mut self, id: &'a str, version: &'a RowVersion) -> &mut Self {
        self.sql("t.id = ").value(Some(id)).sql(" AND t.saved_order = ").number(version.order);
        self.sql(" AND t.key_id = ").value(Some(&version.key_id))
    }
}

/// A change of one row or lease.
pub(super) enum Write {
    /// Adds a row, which is the last one.
    Insert { row: Row },
    /// Replaces the values of a row. `refresh`: only those change that [`REFRESHED`] has.
    Update { before: RowVersion, row: Row, refresh: bool },
    /// Replaces the values of a row, which keeps its order and its time.
    Rewrite { before: RowVersion, row: Row },
    /// Deletes a row that was saved as the `before`th.
    Delete { id: String, before: i64 },
    /// Stores a lease.
    Acquire { key: String, lease: Lease, replaces: Replaces },
    /// Removes a lease of an owner.
    Release { key: String, owner: String },
    /// Records failed refreshes.
    Fail { key: String, failures: RefreshFailures },
}

/// What differs after a change of a row: a save changes its order, and a rotation of keys the key. If only the nonce of
/// a seal has changed, all values are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowVersion {
    order: i64,
    key_id: String,
}

impl RowVersion {
    /// The version of a row that was read.
    pub(super) fn of(row: &Row) -> Self {
        let secret = row.get(Field::ClientSecret).map(escape).filter(|secret| seal::is_reserved(secret));
        // The column `key_id`.
        let key_id = secret.map_or_else(|| PLAINTEXT.to_owned(), |secret| secret.chars().skip(5).take(22).collect());
        Self { order: row.saved_order, key_id }
    }
}

/// The fields that a refresh changes. A sealed row has its seal in `client_secret`, and each save makes a new seal. No
/// index has this column.
const REFRESHED: [Field; 3] = [Field::ClientSecret, Field::AccessToken, Field::ExpiryTime];

/// Do the two differ at most in what a refresh changes?
pub(super) fn is_refresh(before: Token<'_>, after: Token<'_>) -> bool {
    REFRESHED.into_iter().fold(before, |row, field| row.with(field, after.get(field))) == after
}

/// Which lease an acquired one replaces.
pub(super) enum Replaces {
    /// Whichever is there.
    Any,
    /// Exactly this one, or none.
    Exactly(Option<Lease>),
}

impl Write {
    /// Does it change which rows there are, or by which keys they are found?
    pub(super) const fn changes_keys(&self) -> bool {
        self.is_of_row() && !matches!(self, Self::Update { refresh: true, .. })
    }

    /// Does it change a row?
    pub(super) const fn is_of_row(&self) -> bool {
        matches!(self, Self::Insert { .. } | Self::Update { .. } | Self::Rewrite { .. } | Self::Delete { .. })
    }

    /// Does it change a lease?
    pub(super) const fn is_of_lease(&self) -> bool {
        matches!(self, Self::Acquire { .. } | Self::Release { .. })
    }

    /// The key of the lease that it acquires.
    pub(super) fn acquired_key(&self) -> Option<&str> {
        if let Self::Acquire { key, .. } = self { Some(key) } else { None }
    }

    /// The statement for this change. It returns a row if it did what it should, and none if what it relied on has
    /// changed. `ok`: it does nothing unless the common table expression `ok` has a row.
    fn add_to<'a>(&'a self, tables: &Tables, ok: bool, statement: &mut Statement<'a>) {
        let prefix = tables.prefix.as_str();
        let (from, also_from) = if ok { (" FROM ok", ", ok") } else { ("", "") };
        let using = if ok { " USING ok" } else { "" };
        match self {
            Self::Insert { row } => {
                statement.sql("INSERT INTO ").sql(prefix).sql("oauthtoken (");
                statement
                    .sql(&Field::ALL.map(Field::name).join(", "))
                    .sql(", saved_order, saved_at, position) SELECT ");
                for field in Field::ALL {
                    statement.value(row.get(field)).sql(", ");
                }
                statement.sql("o.n, ").number(row.saved_at).sql(", o.n FROM (SELECT ").sql(&tables.next_order);
                statement.sql(" AS n) AS o").sql(also_from);
            }
            Self::Update { before, row, refresh } => {
                statement.sql("UPDATE ").sql(prefix).sql("oauthtoken AS t SET ");
                let changed = |field: &Field| *field != Field::Id && (!refresh || REFRESHED.contains(field));
                for field in Field::ALL.into_iter().filter(changed) {
                    statement.sql(field.name()).sql(" = ").value(row.get(field)).sql(", ");
                }
                statement.sql("saved_order = ").sql(&tables.next_order).sql(", saved_at = ").number(row.saved_at);
                statement.sql(from).sql(" WHERE ").row_version(row.id(), before);
            }
            Self::Rewrite { before, row } => {
                statement.sql("UPDATE ").sql(prefix).sql("oauthtoken AS t SET ");
                for (number, field) in Field::ALL.into_iter().filter(|field| *field != Field::Id).enumerate() {
                    statement
                        .sql(if number == 0 { "" } else { ", " })
                        .sql(field.name())
                        .sql(" = ")
                        .value(row.get(field));
                }
                statement.sql(from).sql(" WHERE ").row_version(row.id(), before);
            }
            Self::Delete { id, before } => {
                statement.sql("DELETE FROM ").sql(prefix).sql("oauthtoken AS t").sql(using);
                statement.sql(" WHERE t.id = ").value(Some(id)).sql(" AND t.saved_order = ").number(*before);
            }
            Self::Acquire { key, lease, replaces } => {
                statement.sql("INSERT INTO ").sql(prefix).sql("zoho_token_lease AS l (key, owner, until) SELECT ");
                statement.value(Some(key)).sql(", ").value(Some(&lease.owner)).sql(", ").number(lease.until).sql(from);
                statement.sql(" ON CONFLICT (key) DO ");
                match replaces {
                    Replaces::Exactly(None) => {
                        statement.sql("NOTHING");
                    }
                    Replaces::Any => {
                        statement.sql("UPDATE SET owner = excluded.owner, until = excluded.until");
                    }
                    Replaces::Exactly(Some(Lease { owner, until })) => {
                        statement.sql("UPDATE SET owner = excluded.owner, until = excluded.until WHERE l.owner = ");
                        statement.value(Some(owner)).sql(" AND l.until = ").number(*until);
                    }
                }
            }
            Self::Release { key, owner } => {
                statement.sql("DELETE FROM ").sql(prefix).sql("zoho_token_lease AS l").sql(using);
                statement.sql(" WHERE l.key = ").value(Some(key)).sql(" AND l.owner = ").value(Some(owner));
            }
            Self::Fail { key, failures: RefreshFailures { count, since, last, fingerprint } } => {
                statement.sql("INSERT INTO ").sql(prefix);
                statement.sql("zoho_token_failure AS f (key, count, since, last, fingerprint) SELECT ");
                statement.value(Some(key)).sql(", ").number(i64::from(*count)).sql(", ").number(*since).sql(", ");
                statement.number(*last).sql(", ").value(Some(fingerprint)).sql(from);
                statement.sql(" ON CONFLICT (key) DO UPDATE SET count = excluded.count, since = excluded.since, ");
                statement.sql("last = excluded.last, fingerprint = excluded.fingerprint");
            }
        }
        statement.sql(" RETURNING 1");
    }

    /// The change must have found what it relied on.
    pub(super) const fn must_succeed(&self) -> bool {
        !matches!(self, Self::Release { .. })
    }

    /// The statement alone, in a transaction that holds the store's row.
    pub(super) fn statement(&self, tables: &Tables) -> Statement<'_> {
        let mut statement = Statement::default();
        self.add_to(tables, false, &mut statement);
        statement
    }
}

/// What a guarded statement relies on.
#[derive(Default)]
pub(super) struct Guards {
    /// Rows that must still be as they were read.
    pub(super) rows: Vec<(String, RowVersion)>,
    /// The set of rows and their keys must not have changed since then.
    pub(super) change: Option<i64>,
}

/// What a transaction does to the row of the store.
#[derive(Clone, Copy, Default)]
pub(super) struct StoreChange {
    /// The set of rows or their keys change.
    pub(super) keys: bool,
    /// Ids up to this number are used.
    pub(super) last_id: Option<i64>,
}

impl StoreChange {
    pub(super) const fn is_none(self) -> bool {
        !self.keys && self.last_id.is_none()
    }

    /// The statement, for a transaction that holds the store's row.
    pub(super) fn script(self, tables: &Tables) -> String {
        let (keys, last_id) = (i64::from(self.keys), self.last_id.unwrap_or(0));
        format!(
            "UPDATE {}zoho_token_store SET change = change + {keys}, last_id = greatest(last_id, {last_id})",
            tables.prefix
        )
    }
}

/// One statement that makes all changes if everything that they rely on still holds, and otherwise none. It returns
/// true or false. `writes` has at most one change of rows, of leases and of failures: `CockroachDB` allows one for each
/// table.
///
/// The guards lock what they check, and PostgreSQL checks a row again that it had to wait for
/// (<https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED>).
pub(super) fn guarded<'a>(
    tables: &Tables,
    guards: &'a Guards,
    writes: &'a [Write],
    store: StoreChange,
    durability: Durability,
    lock_timeout_ms: u128,
) -> Statement<'a> {
    let mut statement = Statement::default();
    statement.sql("WITH settings AS MATERIALIZED (SELECT ").sql(synchronous_commit(durability));
    statement.sql(", set_config('lock_timeout', ");
    statement.bind(Bound::Text(Some(Cow::Owned(lock_timeout_ms.to_string())))).sql(", true)), ");
    let mut conditions = Vec::new();
    if let Some(change) = guards.change {
        statement.sql("held_store AS MATERIALIZED (SELECT 1 FROM settings, ").sql(&tables.prefix);
        statement.sql("zoho_token_store AS s WHERE s.change = ").number(change).sql(" FOR UPDATE OF s), ");
        conditions.push("(SELECT count(*) FROM held_store) = 1".to_owned());
    }
    if !guards.rows.is_empty() {
        statement.sql("held_rows AS MATERIALIZED (SELECT 1 FROM settings, ").sql(&tables.prefix);
        statement.sql("oauthtoken AS t WHERE ");
        for (number, (id, version)) in guards.rows.iter().enumerate() {
            statement.sql(if number == 0 { "(" } else { " OR (" }).row_version(id, version).sql(")");
        }
        statement.sql(" FOR UPDATE OF t), ");
        conditions.push(format!("(SELECT count(*) FROM held_rows) = {}", guards.rows.len()));
    }
    statement.sql("ok AS MATERIALIZED (SELECT 1 FROM settings");
    if !conditions.is_empty() {
        statement.sql(" WHERE ").sql(&conditions.join(" AND "));
    }
    statement.sql(")");
    let mut done = "SELECT (SELECT count(*) FROM ok) = 1".to_owned();
    for (number, write) in writes.iter().enumerate() {
        statement.sql(&format!(", w{number} AS ("));
        write.add_to(tables, true, &mut statement);
        statement.sql(")");
        if write.must_succeed() {
            // Writing to a string does not fail.
            let _ = write!(done, " AND (SELECT count(*) FROM w{number}) = 1");
        }
    }
    if !store.is_none() {
        statement.sql(", moved AS (").sql(&store.script(tables)).sql(" FROM ok)");
    }
    statement.sql(" ").sql(&done);
    statement
}

/// Adds rows with their own orders and times.
pub(super) fn copy<'a>(tables: &Tables, rows: &'a [Row], first_position: i64) -> Statement<'a> {
    let mut statement = Statement::default();
    let names = Field::ALL.map(Field::name).join(", ");
    statement.sql("INSERT INTO ").sql(&tables.prefix).sql("oauthtoken (").sql(&names);
    statement.sql(", saved_order, saved_at, position) SELECT ").sql(&names);
    statement.sql(", saved_order, saved_at, position FROM unnest(");
    for field in Field::ALL {
        statement.bind(Bound::Texts(rows.iter().map(|row| row.get(field).map(escape)).collect())).sql(", ");
    }
    statement.bind(Bound::Numbers(rows.iter().map(|row| Some(row.saved_order)).collect())).sql(", ");
    statement.bind(Bound::Numbers(rows.iter().map(|row| row.saved_at).collect())).sql(", ");
    let positions = (first_position..).take(rows.len());
    statement.bind(Bound::Numbers(positions.map(Some).collect()));
    statement.sql(") AS u (").sql(&names).sql(", saved_order, saved_at, position)");
    statement
}

/// Reserves a block of orders, and returns the first one.
pub(super) fn reserve_orders(tables: &Tables, count: i64) -> Statement<'static> {
    let mut statement = Statement::default();
    statement.sql("SELECT pg_catalog.setval(").sql(&tables.sequence).sql(", last_value + ");
    statement.number(count.saturating_add(ORDER_MARGIN)).sql(") - ").number(count);
    statement.sql(" FROM ").sql(&tables.prefix).sql("zoho_token_order");
    statement
}

pub(super) fn delete_all(tables: &Tables) -> Statement<'static> {
    let mut statement = Statement::default();
    statement.sql("DELETE FROM ").sql(&tables.prefix).sql("oauthtoken");
    statement
}

/// The longest id in bytes: the index of a primary key takes no long values.
const MAX_ID_LENGTH: usize = 1_000;

/// Fails if no row can have this id.
pub(super) fn require_short_id(location: &Location, id: &str) -> crate::store::Result<()> {
    if id.len() > MAX_ID_LENGTH { Err(Error::new(Code::ValueTooLarge, location)) } else { Ok(()) }
}
