//! Rows in a list in memory. It is the shortest complete backend: read it, and `records.rs`, before you write another
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::records::{Index, Position, Records};
use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token};
use crate::store::backend::{Backend, Change, Durability, Location, Reading, SeenLease, Snapshot, Transaction};
use crate::store::deadline::Deadline;
use crate::store::error::Result;
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// A list of rows.
pub struct List(Ordered<Records>);

static LOCATION: Location = Location::named("the store in memory");

impl List {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self(Ordered::new(Rank::StoreState, Records::default()))
    }

    fn lock(&self, deadline: Deadline) -> Result<OrderedGuard<'_, Records>> {
        self.0.lock(deadline).ok_or_else(|| deadline.busy(&LOCATION))
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for List {
    fn location(&self) -> &Location {
        &LOCATION
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.lock(deadline)?.by_key(key, value)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        work(&*self.lock(deadline)?)
    }

    fn write(&self, deadline: Deadline, _: Durability, work: &mut Change<'_>) -> Result<()> {
        let mut records = self.lock(deadline)?;
        let before = (records.last_id, records.last_order, records.key_names.clone());
        let mut change = UndoLog { undo: Vec::new(), before, records: &mut records };
        let result = work(&mut change);
        if result.is_err() {
            change.roll_back();
        }
        result
    }

    fn close(&self, deadline: Deadline) {
        if let Ok(mut records) = self.lock(deadline) {
            *records = Records::default();
        }
    }
}

/// A change of the records, and how to undo it.
struct UndoLog<'a> {
    records: &'a mut Records,
    /// `last_id`, `last_order` and `key_names` before the change.
    before: (i64, i64, BTreeSet<String>),
    undo: Vec<Undo>,
}

enum Undo {
    /// Restores what was at a position.
    Put(Position, Option<Row>),
    /// Restores all rows.
    DeleteAll(BTreeMap<Position, Row>, Index),
}

impl UndoLog<'_> {
    fn roll_back(self) {
        for step in self.undo.into_iter().rev() {
            match step {
                Undo::Put(position, Some(row)) => drop(self.records.put(position, row)),
                Undo::Put(position, None) => drop(self.records.remove(position)),
                Undo::DeleteAll(rows, index) => (self.records.rows, self.records.index) = (rows, index),
            }
        }
        (self.records.last_id, self.records.last_order, self.records.key_names) = self.before;
    }

    fn put(&mut self, position: Position, row: Row) {
        let before = self.records.put(position, row);
        self.undo.push(Undo::Put(position, before));
    }
}

impl Snapshot for UndoLog<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.records.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.records.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.records.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.records.last_id()
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.records.lease(key)
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        self.records.key_names()
    }
}

impl Transaction for UndoLog<'_> {
    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.records.raise_last_id(number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let order = self.records.next_order();
        self.copy(&Row::new(token, order, Some(now)))
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        let position = self.records.next_position(row);
        self.put(position, row.clone());
        Ok(())
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        if let Some(position) = self.records.position_of(row.id()) {
            let row = Row::new(token, self.records.next_order(), Some(now));
            self.put(position, row);
        }
        Ok(())
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        if let Some(position) = self.records.position_of(row.id()) {
            self.put(position, Row::new(token, row.saved_order, row.saved_at));
        }
        Ok(())
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.records.key_names.clone_from(names);
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let position = self.records.position_of(id);
        if let Some(position) = position {
            let row = self.records.remove(position);
            self.undo.push(Undo::Put(position, row));
        }
        Ok(position.is_some())
    }

    fn delete_all(&mut self) -> Result<()> {
        let (rows, index) = (mem::take(&mut self.records.rows), mem::take(&mut self.records.index));
        self.undo.push(Undo::DeleteAll(rows, index));
        Ok(())
    }

    // A change of a lease is not undone. It is the last step of a transaction, and a lease expires by itself.
    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.records.acquire_lease(key, lease)
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.records.release_lease(key, owner)
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.records.record_failures(key, failures)
    }
}
