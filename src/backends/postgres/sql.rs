//! All SQL statements on rows and leases. Values are bound, never part of a statement. Nothing is decided here.
//!
//! Beyond plain SQL they use: `WITH … INSERT/UPDATE/DELETE`, `FOR UPDATE`, `ON CONFLICT`, `set_config(…, true)`,
//! sequences, and arrays with `unnest … WITH ORDINALITY`. The documentation of `CockroachDB` and of `YugabyteDB` has
//! all of these.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use tokio_postgres::Row as ServerRow;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::error::ServerFailure;
use crate::domain::backoff::RefreshFailures;
use crate::domain::key_ring::PLAINTEXT;
use crate::domain::lease::{Lease, ROW_PREFIX};
use crate::domain::seal;
use crate::domain::{Field, Key, Row, Token};
use crate::store::backend::{Durability, Location, SeenLease};
use crate::store::error::{Code, Error};

/// PostgreSQL's text cannot hold NUL.
const NUL: char = '\0';
/// Begins an escape. It is a control character that no token contains.
const ESCAPE: char = '\u{1a}';

/// Returns the text that stands for `value` in a table.
pub(super) fn escape(value: &str) -> Cow<'_, str> {
    if !value.contains([NUL, ESCAPE]) {
        return Cow::Borrowed(value);
    }
    let mut escaped = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        match character {
            NUL => escaped.extend([ESCAPE, '0']),
            ESCAPE => escaped.extend([ESCAPE, ESCAPE]),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Returns the value that a text in a table stands for. A text that [`escape`] never returns is taken as it is.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(ESCAPE) {
        return Cow::Borrowed(text);
    }
    let mut value = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let escaped = match (character, rest.as_str().chars().next()) {
            (ESCAPE, Some('0')) => NUL,
            (ESCAPE, Some(ESCAPE)) => ESCAPE,
            _ => {
                value.push(character);
                continue;
            }
        };
        value.push(escaped);
        rest.next();
    }
    Cow::Owned(value)
}

/// A statement and its values.
#[derive(Default)]
pub(super) struct Statement<'a> {
    text: String,
    values: Vec<Bound<'a>>,
}

enum Bound<'a> {
    Text(Option<Cow<'a, str>>),
    Number(Option<i64>),
    Texts(Vec<Option<Cow<'a, str>>>),
    Numbers(Vec<Option<i64>>),
}

impl Bound<'_> {
    fn parameter(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Number(number) => (number, Type::INT8),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
        }
    }
}

impl<'a> Statement<'a> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(Bound::parameter).collect()
    }

    /// Adds constant text.
    fn sql(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    fn bind(&mut self, value: Bound<'a>) -> &mut Self {
        self.values.push(value);
        // Writing to a string does not fail.
        let _ = write!(self.text, "${}", self.values.len());
        self
    }

    fn value(&mut self, value: Option<&'a str>) -> &mut Self {
        self.bind(Bound::Text(value.map(escape)))
    }

    fn number(&mut self, number: impl Into<Option<i64>>) -> &mut Self {
        self.bind(Bound::Number(number.into()))
    }

    /// The condition that the row with this id is still the one that was read.
    fn row_version(&mut self, id: &'a str, version: &'a RowVersion) -> &mut Self {
        self.sql("t.id = ").value(Some(id)).sql(" AND t.saved_order = ").number(version.order);
        self.sql(" AND t.key_id = ").value(Some(&version.key_id))
    }
}

/// The columns of a row, in the order in which [`row`] reads them.
const COLUMNS: &str = "t.id, t.user_name, t.client_id, t.client_secret, t.refresh_token, t.access_token, t.grant_token, \
     t.expiry_time, t.redirect_url, t.api_domain, t.saved_order, t.saved_at";
const COLUMN_COUNT: usize = Field::COUNT + 2;

/// How many rows one statement reads, if there are more. Each statement has a deadline of its own.
pub(super) const ROWS_AT_ONCE: usize = 1_000;

const CURSOR: &str = "zoho_token_rows";

/// Returns the next [`ROWS_AT_ONCE`] rows.
pub(super) fn fetch_rows() -> Statement<'static> {
    Statement { text: format!("FETCH {ROWS_AT_ONCE} FROM {CURSOR}"), values: Vec::new() }
}

/// Ends the reading.
pub(super) fn close_cursor() -> String {
    format!("CLOSE {CURSOR}")
}

/// The server's clock, in milliseconds since the epoch. It goes on during a transaction.
///
/// The types of the operands are exactly those of the server's own operator. Otherwise an operator that another role has
/// made in a schema of the search path could be a better match, and would run with the rights of this role
/// (<https://www.postgresql.org/docs/current/typeconv-oper.html>). For the same reason `nextval` and `setval` are qualified
/// below: their literal argument would fit a function of another schema better.
pub(super) const CLOCK: &str = "CAST(floor(CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION) \
     * CAST(1000 AS DOUBLE PRECISION)) AS BIGINT)";

/// The columns of a lease and of the failures under its key, as [`Tables::joined_lease`] reads them.
const LEASE_COLUMNS: &str = "l.owner, l.until, f.count, f.since, f.last, f.fingerprint";

/// How long after its end a lease is removed, and how long after the last failure its record: a day, in milliseconds.
/// By the clock of another machine a lease may still be valid for a while.
const SWEEP_DELAY_MS: i64 = 86_400_000;

/// How many orders are left out before a reserved block. Saves of others may draw from the sequence at the same moment.
const ORDER_MARGIN: i64 = 1_000;

/// The row of the store, as a lookup saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreRow {
    /// Counts changes of the set of rows and of their keys.
    pub(super) change: i64,
    pub(super) last_id: i64,
}

/// What a lookup returns besides the rows.
#[derive(Clone, Copy)]
pub(super) struct Besides<'a> {
    /// The row of the store.
    pub(super) store: bool,
    /// The leases of the rows.
    pub(super) leases: Option<Leases<'a>>,
    /// The names of keys. They cost the server a tenth of a find.
    pub(super) names: bool,
    /// Locks the rows until the end of the transaction. Not with the others.
    pub(super) lock: bool,
}

/// The names under which there may be rows, as [`crate::store::backend::Snapshot::key_names`] returns them.
pub(super) type KeyNames = Option<BTreeSet<String>>;

/// Which leases a lookup returns.
#[derive(Clone, Copy)]
pub(super) struct Leases<'a> {
    /// The key of the lease if no row is found, if it has one then.
    pub(super) without_row: Option<&'a str>,
}

/// What a lookup found.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    pub(super) store: Option<StoreRow>,
    /// The names of keys.
    pub(super) names: Option<KeyNames>,
    /// Leases by their keys.
    pub(super) leases: Vec<(String, SeenLease)>,
}

/// A name as a statement has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tables, by their full names.
pub(super) struct Tables {
    /// The name of the schema.
    name: String,
    /// The same, quoted, and a dot.
    prefix: String,
    /// An expression that draws the next order.
    next_order: String,
    /// The name of the sequence as a literal.
    sequence: String,
}

impl Tables {
    /// The tables in a schema.
    pub(super) fn new(schema: &str) -> Self {
        let prefix = format!("{}.", quoted(schema));
        let sequence = format!("CAST('{}zoho_token_order' AS pg_catalog.regclass)", prefix.replace('\'', "''"));
        Self { name: schema.to_owned(), next_order: format!("pg_catalog.nextval({sequence})"), prefix, sequence }
    }

    /// The schema, as a statement names it.
    pub(super) fn schema(&self) -> &str {
        self.prefix.trim_end_matches('.')
    }

    /// Looks up the rows that have one of the values. The caller sees which of them each row has.
    pub(super) fn lookup<'a, 'k: 'a>(
        &self,
        keys: impl Iterator<Item = (Key, &'k str)>,
        besides: Besides<'a>,
    ) -> Statement<'a> {
        let mut statement = Statement::default();
        statement.sql("SELECT ").sql(COLUMNS);
        let is_plain = !besides.names && !besides.store && besides.leases.is_none();
        if besides.names {
            statement.sql(", k.names");
        }
        if besides.store {
            statement.sql(", s.change, s.last_id");
        }
        if besides.leases.is_some() {
            statement.sql(", ").sql(CLOCK).sql(", ").sql(LEASE_COLUMNS);
        }
        statement.sql(" FROM ");
        if is_plain {
            statement.sql(&self.prefix).sql("oauthtoken AS t WHERE ");
        } else {
            // One row at least, also if no row of a token is found.
            statement.sql("(SELECT 1) AS o");
            if besides.names {
                self.add_key_names(&mut statement, " CROSS JOIN (SELECT ", " AS names FROM ").sql(") AS k");
            }
            if besides.store {
                statement.sql(" CROSS JOIN ").sql(&self.prefix).sql("zoho_token_store AS s");
            }
            statement.sql(" LEFT JOIN ").sql(&self.prefix).sql("oauthtoken AS t ON ");
        }
        for (number, (key, value)) in keys.enumerate() {
            let or = if number == 0 { "(t." } else { " OR t." };
            statement.sql(or).sql(key.field().name()).sql(" = ").value(Some(value));
        }
        statement.sql(")");
        if let Some(Leases { without_row }) = besides.leases {
            for (table, alias) in [("zoho_token_lease", "l"), ("zoho_token_failure", "f")] {
                statement.sql(" LEFT JOIN ").sql(&self.prefix).sql(table).sql(" AS ").sql(alias).sql(" ON ").sql(alias);
                statement.sql(".key = coalesce('").sql(ROW_PREFIX).sql("' || t.id, ").value(without_row).sql(")");
            }
        }
        if besides.lock {
            statement.sql(" FOR UPDATE OF t");
        }
        statement
    }

    /// Reads the answer to [`Tables::lookup`].
    pub(super) fn answer(
        &self,
        location: &Location,
        found: &[ServerRow],
        besides: Besides<'_>,
    ) -> Result<Answer, ServerFailure> {
        let mut answer = Answer::default();
        for one in found {
            let row = row(location, one)?;
            let mut column = COLUMN_COUNT;
            if besides.names {
                answer.names = Some(key_names(location, one, column)?);
                column += 1;
            }
            if besides.store {
                let store = StoreRow { change: get(location, one, column)?, last_id: get(location, one, column + 1)? };
                answer.store = Some(store);
                column += 2;
            }
            if let Some(Leases { without_row }) = besides.leases {
                let key = row.as_ref().map(|row| format!("{ROW_PREFIX}{}", row.id()));
                if let Some(key) = key.or_else(|| without_row.map(str::to_owned)) {
                    answer.leases.push((key, self.seen_lease(location, one, column)?));
                }
            }
            answer.rows.extend(row);
        }
        Ok(answer)
    }

    /// Reads the clock, a lease and failures from the columns from `first` on.
    #[allow(clippy::unused_self, reason = "it belongs to the statements of the tables")]
    fn seen_lease(&self, location: &Location, row: &ServerRow, first: usize) -> Result<SeenLease, ServerFailure> {
        let text = |column| get::<Option<&str>>(location, row, first + column);
        let number = |column| get::<Option<i64>>(location, row, first + column);
        let lease = match (text(1)?, number(2)?) {
            (Some(owner), Some(until)) => Some(Lease { owner: unescape(owner).into_owned(), until }),
            _ => None,
        };
        let failures = match (number(3)?, number(4)?, number(5)?, text(6)?) {
            (Some(count), Some(since), Some(last), Some(fingerprint)) => {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                Some(RefreshFailures { count, since, last, fingerprint: unescape(fingerprint).into_owned() })
            }
            _ => None,
        };
        Ok(SeenLease { lease, failures, now: number(0)? })
    }

    fn add_key_names<'s, 'a>(
        &self,
        statement: &'s mut Statement<'a>,
        select: &str,
        from: &str,
    ) -> &'s mut Statement<'a> {
        let names = "pg_catalog.array_agg(n.id)";
        statement.sql(select).sql(names).sql(from).sql(&self.prefix).sql("zoho_token_key AS n")
    }

    /// The names of keys.
    pub(super) fn key_names(&self) -> Statement<'static> {
        let mut statement = Statement::default();
        self.add_key_names(&mut statement, "SELECT ", " FROM ");
        statement
    }

    /// Replaces the names of keys, in a transaction that holds the store's row. Tables with sealed rows have a version of
    /// their own.
    pub(super) fn set_key_names<'a>(&self, names: &'a BTreeSet<String>, version: i64) -> Statement<'a> {
        let ids = || {
            let names = names.iter().map(|name| Some(escape(name)));
            let clear_text = names.len() == 0;
            Bound::Texts(names.chain(clear_text.then_some(Some(Cow::Borrowed(PLAINTEXT)))).collect())
        };
        let mut statement = Statement::default();
        statement.sql("WITH removed AS (DELETE FROM ").sql(&self.prefix).sql("zoho_token_key WHERE id <> ALL (");
        statement.bind(ids()).sql(")), moved AS (UPDATE ").sql(&self.prefix).sql("zoho_token_store SET version = ");
        statement.number(version).sql(", change = change + 1) INSERT INTO ").sql(&self.prefix);
        statement.sql("zoho_token_key (id) SELECT u.id FROM unnest(").bind(ids());
        statement.sql(") AS u (id) ON CONFLICT (id) DO NOTHING");
        statement
    }

    /// Looks up the lease under one key.
    pub(super) fn lease<'a>(&self, key: &'a str) -> Statement<'a> {
        let mut statement = Statement::default();
        statement.sql("SELECT ").sql(CLOCK).sql(", ").sql(LEASE_COLUMNS).sql(" FROM (SELECT 1) AS s");
        for (table, alias) in [("zoho_token_lease", "l"), ("zoho_token_failure", "f")] {
            statement.sql(" LEFT JOIN ").sql(&self.prefix).sql(table).sql(" AS ").sql(alias).sql(" ON ");
            statement.sql(alias).sql(".key = ").value(Some(key));
        }
        statement
    }

    /// Reads the answer to [`Tables::lease`].
    pub(super) fn read_lease(&self, location: &Location, found: &[ServerRow]) -> Result<SeenLease, ServerFailure> {
        found.first().map_or_else(|| Ok(SeenLease::default()), |row| self.seen_lease(location, row, 0))
    }

    /// Looks up every lease and every failure, with their keys.
    pub(super) fn all_leases(&self) -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT ").sql(CLOCK).sql(", ").sql(LEASE_COLUMNS).sql(", coalesce(l.key, f.key)");
        statement.sql(" FROM (SELECT 1) AS s LEFT JOIN (").sql(&self.prefix).sql("zoho_token_lease AS l FULL JOIN ");
        statement.sql(&self.prefix).sql("zoho_token_failure AS f ON f.key = l.key) ON TRUE");
        statement
    }

    /// Reads the answer to [`Tables::all_leases`]: the server's time, and the leases by their keys.
    pub(super) fn read_all_leases(
        &self,
        location: &Location,
        found: &[ServerRow],
    ) -> Result<(i64, Vec<(String, SeenLease)>), ServerFailure> {
        let (mut now, mut leases) = (0, Vec::new());
        for row in found {
            now = get(location, row, 0)?;
            if let Some(key) = get::<Option<&str>>(location, row, 7)? {
                leases.push((unescape(key).into_owned(), self.seen_lease(location, row, 0)?));
            }
        }
        Ok((now, leases))
    }

    /// All rows, the oldest first. `count`: at most so many.
    pub(super) fn each(&self, count: Option<i64>) -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT ").sql(COLUMNS).sql(" FROM ").sql(&self.prefix);
        statement.sql("oauthtoken AS t ORDER BY t.position");
        if let Some(count) = count {
            statement.sql(" LIMIT ").number(count);
        }
        statement
    }

    /// Begins to read all rows in a transaction. [`fetch_rows`] returns the next ones.
    pub(super) fn open_cursor(&self) -> String {
        format!("DECLARE {CURSOR} CURSOR FOR {}", self.each(None).text)
    }

    pub(super) fn count(&self) -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT count(*) FROM ").sql(&self.prefix).sql("oauthtoken");
        statement
    }

    pub(super) fn last_id(&self) -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT last_id FROM ").sql(&self.prefix).sql("zoho_token_store");
        statement
    }

    pub(super) fn version(&self) -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT version FROM ").sql(&self.prefix).sql("zoho_token_store");
        statement
    }

    /// The same, with the lock of the store's row.
    pub(super) fn locked_version(&self) -> Statement<'static> {
        let mut statement = self.version();
        statement.sql(" FOR UPDATE");
        statement
    }

    /// The tables, indexes and sequences of the schema, and the columns of the tables with their types.
    pub(super) fn parts(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT CAST(c.relname AS TEXT), CAST(a.attname AS TEXT), format_type(a.atttypid, a.atttypmod) ");
        statement.sql("FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 ");
        statement.sql("AND NOT a.attisdropped WHERE CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// The rights that the user lacks: each with the part that it is about, or with NULL for the schema.
    pub(super) fn missing_rights(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT CAST(NULL AS TEXT), CAST('USAGE' AS TEXT) FROM pg_catalog.pg_namespace AS n ");
        statement.sql("WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        let rights = NEEDED_RIGHTS.iter().flat_map(|(part, rights)| rights.iter().map(move |right| (part, right)));
        let rights: Vec<_> = rights.map(|(part, right)| format!("('{part}', '{right}')")).collect();
        statement.sql(" UNION ALL SELECT w.part, w.need FROM (VALUES ").sql(&rights.join(", "));
        statement.sql(") AS w (part, need) JOIN pg_catalog.pg_class AS c ON CAST(c.relname AS TEXT) = w.part ");
        statement.sql("JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("WHERE NOT pg_catalog.has_table_privilege(c.oid, w.need) AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// Which of the rights to make tables the user has on the schema.
    pub(super) fn rights_to_make(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'), ");
        statement.sql("pg_catalog.has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace AS n ");
        statement.sql("WHERE CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// The owners of the tables and of the sequence who can do what neither this user nor the owner of the schema or
    /// of the database has allowed them.
    pub(super) fn other_owners(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT DISTINCT CAST(pg_catalog.pg_get_userbyid(c.relowner) AS TEXT) AS owner ");
        statement.sql("FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("JOIN pg_catalog.pg_database AS d ON CAST(d.datname AS TEXT) = ");
        statement.sql("CAST(pg_catalog.current_database() AS TEXT) WHERE CAST(c.relname AS TEXT) IN (");
        statement.sql(&NEEDED_RIGHTS.iter().map(|(part, _)| format!("'{part}'")).collect::<Vec<_>>().join(", "));
        // A superuser is a member of every role.
        statement.sql(") AND NOT pg_catalog.pg_has_role(c.relowner, 'MEMBER') ");
        for trusted in ["n.nspowner", "d.datdba"] {
            statement.sql("AND NOT pg_catalog.pg_has_role(c.relowner, ").sql(trusted).sql(", 'MEMBER') ");
        }
        statement.sql("AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement.sql(" ORDER BY owner");
        statement
    }

    /// Removes leases that were never released, and old records of failures.
    pub(super) fn sweep(&self) -> String {
        let before = format!("{CLOCK} - {SWEEP_DELAY_MS}");
        ["zoho_token_lease WHERE until", "zoho_token_failure WHERE last"]
            .map(|table| format!("DELETE FROM {}{table} < {before}", self.prefix))
            .join("; ")
    }

    /// The server's clock.
    pub(super) fn clock() -> Statement<'static> {
        let mut statement = Statement::default();
        statement.sql("SELECT ").sql(CLOCK);
        statement
    }
}

/// How to set the durability of the current transaction, whatever the server's default is. A stronger default stays
/// (<https://www.postgresql.org/docs/current/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT>).
const fn synchronous_commit(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => {
            "set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') \
             IN ('off', 'local', 'remote_write') THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
        }
        Durability::Relaxed => "set_config('synchronous_commit', 'off', true)",
    }
}

/// Begins a transaction that holds the store's row, and returns that row.
pub(super) fn begin_locked(tables: &Tables, durability: Durability, lock_timeout_ms: u128) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SELECT {}, set_config('lock_timeout', '{lock_timeout_ms}', true), \
         set_config('idle_in_transaction_session_timeout', '2000', true); \
         SELECT change, last_id FROM {}zoho_token_store FOR UPDATE",
        synchronous_commit(durability),
        tables.prefix
    )
}

/// What there is: the encoding of the database, the schema (the given one, or else the first one of the search path),
/// whether it exists, whether it has a table of a store and a table of tokens, and whether the server is read-only.
pub(super) fn look(schema: Option<&str>) -> Statement<'_> {
    let mut statement = Statement::default();
    statement
        .sql("SELECT current_setting('server_encoding'), o.name, EXISTS (SELECT 1 FROM pg_catalog.pg_namespace AS n ");
    statement.sql("WHERE CAST(n.nspname AS TEXT) = o.name), EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN ");
    statement.sql("pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE CAST(n.nspname AS TEXT) = o.name AND ");
    statement
        .sql("CAST(c.relname AS TEXT) = 'zoho_token_store'), EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN ");
    statement.sql("pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE CAST(n.nspname AS TEXT) = o.name AND ");
    statement.sql(
        "CAST(c.relname AS TEXT) = 'oauthtoken'), current_setting('transaction_read_only') FROM (SELECT coalesce(",
    );
    statement.bind(Bound::Text(schema.map(Cow::Borrowed))).sql(", CAST(current_schema() AS TEXT)) AS name) AS o");
    statement
}

/// The server's clock, how durable its commits are by default, and whether it is read-only.
pub(super) fn server_state() -> Statement<'static> {
    let mut statement = Tables::clock();
    statement.sql(", current_setting('synchronous_commit'), current_setting('transaction_read_only')");
    statement
}

/// The parts of the schema, as [`Tables::parts`] shows them, and the columns that we use.
pub(super) const PARTS: &[(&str, &[(&str, &str)])] = &[
    (
        "oauthtoken",
        &[
            ("id", "text"),
            ("user_name", "text"),
            ("client_id", "text"),
            ("client_secret", "text"),
            ("refresh_token", "text"),
            ("access_token", "text"),
            ("grant_token", "text"),
            ("expiry_time", "text"),
            ("redirect_url", "text"),
            ("api_domain", "text"),
            ("saved_order", "bigint"),
            ("saved_at", "bigint"),
            ("position", "bigint"),
            ("key_id", "text"),
        ],
    ),
    ("zoho_token_key", &[("id", "text")]),
    ("zoho_token_user_name", &[]),
    ("zoho_token_grant_token", &[]),
    ("zoho_token_refresh_token", &[]),
    ("zoho_token_access_token", &[]),
    ("zoho_token_order", &[]),
    ("zoho_token_store", &[("version", "bigint"), ("last_id", "bigint"), ("change", "bigint")]),
    ("zoho_token_lease", &[("key", "text"), ("owner", "text"), ("until", "bigint")]),
    (
        "zoho_token_failure",
        &[("key", "text"), ("count", "bigint"), ("since", "bigint"), ("last", "bigint"), ("fingerprint", "text")],
    ),
];

/// The rights that a store needs on its tables and on its sequence, as `docs/postgresql.md` grants them.
pub(super) const NEEDED_RIGHTS: &[(&str, &[&str])] = &[
    ("oauthtoken", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_key", &["SELECT", "INSERT", "DELETE"]),
    ("zoho_token_lease", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_failure", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_store", &["SELECT", "UPDATE"]),
    ("zoho_token_order", &["SELECT", "UPDATE"]),
];

/// The tables that hold nothing lasting: they may be dropped at any time (`docs/lease.md`, rule 13).
pub(super) const DISPOSABLE: &[&str] = &["zoho_token_lease", "zoho_token_failure"];

/// The name of the database.
pub(super) fn database() -> Statement<'static> {
    let mut statement = Statement::default();
    statement.sql("SELECT CAST(pg_catalog.current_database() AS TEXT)");
    statement
}

/// Begins a transaction that reads one snapshot.
pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

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

/// What differs after a change of a row: a save changes its order, and a rotation of keys the key. If only the nonce of a
/// seal has changed, all values are the same.
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

/// The fields that a refresh changes. A sealed row has its seal in `client_secret`, and each save makes a new seal. No index
/// has this column.
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

/// A column of an answer. The tables are ours, so if a column has another type, they were changed.
pub(super) fn get<'r, T: FromSql<'r>>(
    location: &Location,
    row: &'r ServerRow,
    column: usize,
) -> Result<T, ServerFailure> {
    row.try_get(column).map_err(|_| ServerFailure::from_sqlstate(location, "42804"))
}

/// The names of keys in a column. The table has at least one, or the record is lost.
pub(super) fn key_names(location: &Location, row: &ServerRow, column: usize) -> Result<KeyNames, ServerFailure> {
    let ids: Option<Vec<&str>> = get(location, row, column)?;
    Ok(match ids.as_deref() {
        None | Some([]) => None,
        // No row was ever sealed.
        Some([PLAINTEXT]) => Some(BTreeSet::new()),
        Some(ids) => Some(ids.iter().map(|id| unescape(id).into_owned()).collect()),
    })
}

/// A row, or `None` if the columns are those of no row.
pub(super) fn row(location: &Location, row: &ServerRow) -> Result<Option<Row>, ServerFailure> {
    let mut values = [const { None }; Field::COUNT];
    for field in Field::ALL {
        values[field as usize] = get::<Option<&str>>(location, row, field as usize)?.map(unescape);
    }
    if values[Field::Id as usize].is_none() {
        return Ok(None);
    }
    let token = Token::from_fn(|field| values[field as usize].as_deref());
    let saved_order = get(location, row, Field::COUNT)?;
    Ok(Some(Row::new(token, saved_order, get(location, row, Field::COUNT + 1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_can_be_stored_and_is_read_as_it_was() {
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("\\u001a \\0", "\\u001a \\0"),
            ("\0", "\u{1a}0"),
            ("\u{1a}", "\u{1a}\u{1a}"),
            ("\u{1a}0", "\u{1a}\u{1a}0"),
            ("\0\0", "\u{1a}0\u{1a}0"),
            ("a\0b\u{1a}c", "a\u{1a}0b\u{1a}\u{1a}c"),
            ("\u{1a}\0", "\u{1a}\u{1a}\u{1a}0"),
            ("\u{1a}\u{1a}0", "\u{1a}\u{1a}\u{1a}\u{1a}0"),
            ("🦀\0é", "🦀\u{1a}0é"),
        ];
        for (value, text) in table {
            assert_eq!(escape(value), text, "{value:?}");
            assert_eq!(unescape(text), value, "{text:?}");
        }
    }

    #[test]
    fn no_two_texts_of_awkward_characters_are_stored_alike() {
        let alphabet = ["\0", "\u{1a}", "0", "a"];
        let mut texts = vec![String::new()];
        for _ in 0..5 {
            let longer = texts.iter().flat_map(|text| alphabet.map(|end| format!("{text}{end}")));
            texts = longer.chain(texts.clone()).collect();
            texts.sort();
            texts.dedup();
        }
        let mut stored: Vec<String> = texts.iter().map(|text| escape(text).into_owned()).collect();
        assert!(texts.iter().zip(&stored).all(|(text, stored)| unescape(stored) == *text && !stored.contains('\0')));
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), texts.len());
    }

    #[test]
    fn a_text_of_another_program_is_read_as_it_is() {
        for text in ["\u{1a}", "\u{1a}x", "a\u{1a}", "\u{1a}1"] {
            assert_eq!(unescape(text), text);
        }
    }

    #[test]
    fn a_schema_is_quoted_in_statements_and_in_literals() {
        let tables = Tables::new("it's a \"schema\"");
        assert_eq!(tables.schema(), "\"it's a \"\"schema\"\"\"");
        assert_eq!(
            tables.next_order,
            "pg_catalog.nextval(CAST('\"it''s a \"\"schema\"\"\".zoho_token_order' AS pg_catalog.regclass))"
        );
    }
}
