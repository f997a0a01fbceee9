//! The SQL statements that read rows, leases and the store's own row, and that begin transactions. Nothing is decided
//! here. [`super::writes`] has the statements that change rows, and [`super::parts`] those on tables and rights.
//!
//! Beyond plain SQL they use: `WITH … INSERT/UPDATE/DELETE`, `FOR UPDATE`, `ON CONFLICT`, `set_config(…, true)`,
//! sequences, and arrays with `unnest … WITH ORDINALITY`. The documentation of `CockroachDB` and of `YugabyteDB` has
//! all of these.

use std::borrow::Cow;
use std::collections::BTreeSet;

use tokio_postgres::Row as ServerRow;
use tokio_postgres::types::FromSql;

use super::error::ServerFailure;
use super::statement::{Bound, Statement, escape, quoted, unescape};
use crate::domain::backoff::RefreshFailures;
use crate::domain::key_ring::PLAINTEXT;
use crate::domain::lease::{Lease, ROW_PREFIX};
use crate::domain::{Field, Key, Row, Token};
use crate::store::backend::{Durability, Location, SeenLease};

/// The columns of a row, in the order in which [`row`] reads them.
const COLUMNS: &str = "t.id, t.user_name, t.client_id, t.client_secret, t.refresh_token, t.access_token, t.grant_token, \
     t.expiry_time, t.redirect_url, t.api_domain, t.saved_order, t.saved_at";
const COLUMN_COUNT: usize = Field::COUNT + 2;

/// How many rows one statement reads, if there are more. Each statement has a deadline of its own.
pub(super) const ROWS_AT_ONCE: usize = 1_000;

const CURSOR: &str = "zoho_token_rows";

/// Returns the next [`ROWS_AT_ONCE`] rows.
pub(super) fn fetch_rows() -> Statement<'static> {
    let mut statement = Statement::default();
    statement.sql(&format!("FETCH {ROWS_AT_ONCE} FROM {CURSOR}"));
    statement
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

/// The tables, by their full names.
pub(super) struct Tables {
    /// The name of the schema.
    pub(super) name: String,
    /// The same, quoted, and a dot.
    pub(super) prefix: String,
    /// An expression that draws the next order.
    pub(super) next_order: String,
    /// The name of the sequence as a literal.
    pub(super) sequence: String,
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
        format!("DECLARE {CURSOR} CURSOR FOR {}", self.each(None).text())
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
pub(super) const fn synchronous_commit(durability: Durability) -> &'static str {
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

/// The server's clock, how durable its commits are by default, and whether it is read-only.
pub(super) fn server_state() -> Statement<'static> {
    let mut statement = Tables::clock();
    statement.sql(", current_setting('synchronous_commit'), current_setting('transaction_read_only')");
    statement
}

/// Begins a transaction that reads one snapshot.
pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

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
    fn a_schema_is_quoted_in_statements_and_in_literals() {
        let tables = Tables::new("it's a \"schema\"");
        assert_eq!(tables.schema(), "\"it's a \"\"schema\"\"\"");
        assert_eq!(
            tables.next_order,
            "pg_catalog.nextval(CAST('\"it''s a \"\"schema\"\"\".zoho_token_order' AS pg_catalog.regclass))"
        );
    }
}
