//! Rows in a private SQLite database in memory, gone with the object: the file's statements and schema, nothing of its
//! connections.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::error::from_sqlite;
use super::recent::Recent;
use super::sql::{STATEMENTS, Sql};
use super::{backup, busy, schema};
use crate::domain::{Key, Row};
use crate::store::backend::{Backend, Durability, Location, Snapshot, Transaction};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// A SQLite database in memory.
pub struct Memory(Ordered<Option<Open>>);

struct Open {
    connection: Connection,
    /// Since the last change: nobody else can make one.
    recent: Recent<()>,
}

static LOCATION: Location = Location::named("the store in memory");

impl Memory {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let mut connection = Connection::open_in_memory().map_err(|error| from_sqlite(&LOCATION, &error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::migrate(&mut connection, &LOCATION)?;
        Ok(Self(Ordered::new(Rank::StoreState, Some(Open { connection, recent: Recent::default() }))))
    }

    /// Adds rows as they are, with their own ids, order and times; `last_id` was the highest number of any.
    pub(super) fn fill(&mut self, rows: &[Row], last_id: i64) -> Result<()> {
        let Some(open) = self.0.get_mut() else { return Ok(()) };
        let transaction = open.connection.transaction().map_err(|error| from_sqlite(&LOCATION, &error))?;
        let mut sql = Sql::new(&transaction, &LOCATION);
        rows.iter().try_for_each(|row| sql.copy(row))?;
        sql.end()?;
        sql.raise_last_id(last_id)?;
        transaction.commit().map_err(|error| from_sqlite(&LOCATION, &error))
    }

    fn lock(&self, deadline: Deadline) -> Result<OrderedGuard<'_, Option<Open>>> {
        self.0.lock(deadline).ok_or_else(|| deadline.busy(&LOCATION))
    }

    fn with<T>(
        &self,
        behavior: Option<TransactionBehavior>,
        deadline: Deadline,
        work: impl FnOnce(&mut Sql<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.lock(deadline)?;
        let Open { connection, recent } = slot.as_mut().ok_or(Error::new(Code::Closed, &LOCATION))?;
        let begin = |behavior| rusqlite::Transaction::new_unchecked(connection, behavior);
        let transaction = behavior.map(begin).transpose().map_err(|error| from_sqlite(&LOCATION, &error))?;
        if transaction.is_some() {
            *recent = Recent::default();
        }
        let mut sql = Sql::new(connection, &LOCATION);
        let result = work(&mut sql)?;
        sql.end()?;
        transaction.map_or(Ok(()), rusqlite::Transaction::commit).map_err(|error| from_sqlite(&LOCATION, &error))?;
        Ok(result)
    }
}

impl Backend for Memory {
    fn location(&self) -> &Location {
        &LOCATION
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn groups_saves(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        let mut slot = self.lock(deadline)?;
        let Open { connection, recent } = slot.as_mut().ok_or(Error::new(Code::Closed, &LOCATION))?;
        if let Some(rows) = recent.get(&(), key, value) {
            return Ok(rows);
        }
        let rows = Sql::new(connection, &LOCATION).by_key(key, value)?;
        recent.keep((), key, value, &rows);
        Ok(rows)
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Snapshot) -> Result<()>) -> Result<()> {
        self.with(None, deadline, |sql| work(sql))
    }

    fn write(
        &self,
        deadline: Deadline,
        _: Durability,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<()>,
    ) -> Result<()> {
        self.with(Some(TransactionBehavior::Immediate), deadline, |sql| work(sql))
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        let slot = self.lock(deadline)?;
        let Open { connection, .. } = slot.as_ref().ok_or(Error::new(Code::Closed, &LOCATION))?;
        busy::until(deadline, || backup::write(connection, &LOCATION, target)).map(|()| true)
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut slot) = self.0.lock(deadline) {
            *slot = None;
        }
    }
}
