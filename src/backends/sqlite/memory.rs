//! A SQLite database in memory. It has the statements and the schema of a file, and is gone with the object.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::error::from_sqlite;
use super::read_cache::ReadCache;
use super::sql::{STATEMENT_CACHE_SIZE, Sql};
use super::waiting::with_deadline;
use super::{backup, schema};
use crate::domain::key_ring::{self, PLAINTEXT};
use crate::domain::{Key, Row};
use crate::store::backend::{Backend, Change, Durability, Location, Reading, Snapshot, Transaction};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// A SQLite database in memory.
pub struct Memory {
    open: Ordered<Option<MemoryConnection>>,
    location: Location,
}

struct MemoryConnection {
    connection: Connection,
    /// What was found since the last change. All changes go through this connection, so there is only one version.
    read_cache: ReadCache<()>,
}

const LOCATION: Location = Location::named("the store in memory");

impl Memory {
    /// An empty database.
    pub fn new() -> Result<Self> {
        let mut connection = Connection::open_in_memory().map_err(|error| from_sqlite(&LOCATION, &error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_SIZE);
        schema::migrate(&mut connection, &LOCATION)?;
        let open = MemoryConnection { connection, read_cache: ReadCache::default() };
        Ok(Self { open: Ordered::new(Rank::StoreState, Some(open)), location: LOCATION })
    }

    /// A copy of the rows of the file at `location`, which messages name.
    pub(super) fn copy_of(location: Location, rows: &[Row]) -> Result<Self> {
        let mut copy = Self { location, ..Self::new()? };
        copy.fill(rows, 0)?;
        Ok(copy)
    }

    /// Adds rows with their own ids, order and times. `last_id` is the highest number that an id ever had.
    pub(super) fn fill(&mut self, rows: &[Row], last_id: i64) -> Result<()> {
        let Some(open) = self.open.get_mut() else { return Ok(()) };
        let transaction = open.connection.transaction().map_err(|error| from_sqlite(&self.location, &error))?;
        let mut sql = Sql::new(&transaction, &self.location);
        let names = sealed_names(rows);
        if !names.is_empty() {
            sql.set_key_names(&names)?;
        }
        rows.iter().try_for_each(|row| sql.copy(row))?;
        sql.end()?;
        sql.raise_last_id(last_id)?;
        transaction.commit().map_err(|error| from_sqlite(&self.location, &error))
    }

    fn lock(&self, deadline: Deadline) -> Result<OrderedGuard<'_, Option<MemoryConnection>>> {
        self.open.lock(deadline).ok_or_else(|| deadline.busy(&self.location))
    }

    fn with<T>(
        &self,
        behavior: Option<TransactionBehavior>,
        deadline: Deadline,
        work: impl FnOnce(&mut Sql<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.lock(deadline)?;
        let MemoryConnection { connection, read_cache } =
            slot.as_mut().ok_or(Error::new(Code::Closed, &self.location))?;
        let begin = |behavior| rusqlite::Transaction::new_unchecked(connection, behavior);
        let transaction = behavior.map(begin).transpose().map_err(|error| from_sqlite(&self.location, &error))?;
        if transaction.is_some() {
            *read_cache = ReadCache::default();
        }
        let mut sql = Sql::new(connection, &self.location);
        let result = work(&mut sql)?;
        sql.end()?;
        transaction
            .map_or(Ok(()), rusqlite::Transaction::commit)
            .map_err(|error| from_sqlite(&self.location, &error))?;
        Ok(result)
    }
}

/// The names under which these rows are stored, if any row is sealed.
fn sealed_names(rows: &[Row]) -> BTreeSet<String> {
    let names: BTreeSet<_> =
        rows.iter().filter_map(|row| key_ring::name_of(row.token())).map(Cow::into_owned).collect();
    if names.iter().all(|name| name == PLAINTEXT) { BTreeSet::new() } else { names }
}

impl Backend for Memory {
    fn location(&self) -> &Location {
        &self.location
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.by_key_in_clear_text(key, value, deadline).map(|(rows, _)| rows)
    }

    fn by_key_in_clear_text(&self, key: Key, value: &str, deadline: Deadline) -> Result<(Vec<Row>, bool)> {
        let mut slot = self.lock(deadline)?;
        let MemoryConnection { connection, read_cache } =
            slot.as_mut().ok_or(Error::new(Code::Closed, &self.location))?;
        let sql = Sql::new(connection, &self.location);
        let rows = if let Some(rows) = read_cache.get(&(), key, value) {
            rows
        } else {
            let rows = sql.by_key(key, value)?;
            read_cache.insert((), key, value, &rows);
            rows
        };
        if rows.is_empty() && read_cache.is_sealed(&()).is_none() {
            read_cache.set_sealed((), sql.is_sealed()?);
        }
        let is_clear = read_cache.is_sealed(&()) == Some(false);
        Ok((rows, is_clear))
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.with(None, deadline, |sql| work(sql))
    }

    fn write(&self, deadline: Deadline, _: Durability, work: &mut Change<'_>) -> Result<()> {
        self.with(Some(TransactionBehavior::Immediate), deadline, |sql| work(sql))
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        let slot = self.lock(deadline)?;
        let MemoryConnection { connection, .. } = slot.as_ref().ok_or(Error::new(Code::Closed, &self.location))?;
        with_deadline(deadline, || backup::write(connection, &self.location, target)).map(|()| true)
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut slot) = self.open.lock(deadline) {
            *slot = None;
        }
    }
}
