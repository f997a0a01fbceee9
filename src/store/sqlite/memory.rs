//! Rows in a private SQLite database in memory, gone with the object: the file's statements and schema, nothing of its
//! connections.

use std::path::Path;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::recent::Recent;
use super::sql::{STATEMENTS, Sql};
use super::trouble::trouble;
use super::{backup, busy, schema};
use crate::domain::{Key, Row};
use crate::store::wait::Deadline;
use crate::store::{Backend, Change, Error, Place, Result, Rows};

/// A SQLite database in memory.
pub struct Memory(Mutex<Option<Open>>);

struct Open {
    connection: Connection,
    /// Since the last change: nobody else can make one.
    recent: Recent<()>,
}

const PLACE: Place = Place::Memory;

impl Memory {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let mut connection = Connection::open_in_memory().map_err(|error| trouble(&PLACE, &error))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        schema::migrate(&mut connection, &PLACE)?;
        Ok(Self(Mutex::new(Some(Open { connection, recent: Recent::default() }))))
    }

    /// Adds rows as they are, with their own ids, order and times; `last_id` was the highest number of any.
    pub(in crate::store) fn fill(&mut self, rows: &dyn Rows, last_id: i64) -> Result<()> {
        let Some(open) = self.0.get_mut() else { return Ok(()) };
        let transaction = open.connection.transaction().map_err(|error| trouble(&PLACE, &error))?;
        let mut sql = Sql::new(&transaction, &PLACE);
        let mut result = Ok(());
        rows.each(&mut |row| {
            if result.is_ok() {
                result = sql.copy(&row);
            }
        })?;
        result?;
        sql.end()?;
        sql.raise_last_id(last_id)?;
        transaction.commit().map_err(|error| trouble(&PLACE, &error))
    }

    fn lock(&self, deadline: Deadline) -> Result<MutexGuard<'_, Option<Open>>> {
        deadline.lock(&self.0).ok_or_else(|| deadline.busy(&PLACE))
    }

    fn with<T>(
        &self,
        behavior: Option<TransactionBehavior>,
        deadline: Deadline,
        work: impl FnOnce(&mut Sql<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.lock(deadline)?;
        let Open { connection, recent } = slot.as_mut().ok_or(Error::Closed(PLACE))?;
        let begin = |behavior| Transaction::new_unchecked(connection, behavior);
        let transaction = behavior.map(begin).transpose().map_err(|error| trouble(&PLACE, &error))?;
        if transaction.is_some() {
            *recent = Recent::default();
        }
        let mut sql = Sql::new(connection, &PLACE);
        let result = work(&mut sql)?;
        sql.end()?;
        transaction.map_or(Ok(()), Transaction::commit).map_err(|error| trouble(&PLACE, &error))?;
        Ok(result)
    }
}

impl Backend for Memory {
    fn place(&self) -> &Place {
        &PLACE
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        let mut slot = self.lock(deadline)?;
        let Open { connection, recent } = slot.as_mut().ok_or(Error::Closed(PLACE))?;
        if let Some(rows) = recent.get(&(), key, value) {
            return Ok(rows);
        }
        let rows = Sql::new(connection, &PLACE).by_key(key, value)?;
        recent.keep((), key, value, &rows);
        Ok(rows)
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Rows) -> Result<()>) -> Result<()> {
        self.with(None, deadline, |sql| work(sql))
    }

    fn write(&self, deadline: Deadline, work: &mut dyn FnMut(&mut dyn Change) -> Result<()>) -> Result<()> {
        self.with(Some(TransactionBehavior::Immediate), deadline, |sql| work(sql))
    }

    fn backup(&self, target: &Path, deadline: Deadline) -> Result<()> {
        let slot = self.lock(deadline)?;
        let Open { connection, .. } = slot.as_ref().ok_or(Error::Closed(PLACE))?;
        busy::until(deadline, || backup::write(connection, &PLACE, target))
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut slot) = deadline.lock(&self.0) {
            *slot = None;
        }
    }
}
