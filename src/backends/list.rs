//! Rows in a list in memory. It is the shortest complete backend: read it before you write another one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token, id};
use crate::store::backend::{Backend, Change, Durability, Location, Reading, SeenLease, Snapshot, Transaction};
use crate::store::deadline::Deadline;
use crate::store::error::Result;
use crate::store::lock_order::{Ordered, OrderedGuard, Rank};

/// A list of rows.
pub struct List(Ordered<Records>);

static LOCATION: Location = Location::named("the store in memory");

/// The rows by their positions, the oldest first, and an index for each key.
#[derive(Default)]
struct Records {
    rows: BTreeMap<Position, Row>,
    /// For each key and value, the positions of the rows that have it.
    index: [HashMap<String, Vec<Position>>; Key::ALL.len()],
    last_position: Position,
    last_id: i64,
    last_order: i64,
    leases: BTreeMap<String, Lease>,
    failures: BTreeMap<String, RefreshFailures>,
    key_names: BTreeSet<String>,
}

/// The position of a row in the list. It is not reused after the row is deleted.
type Position = u64;

impl Records {
    /// Puts a row at a position, and returns the row that was there before.
    fn put(&mut self, position: Position, row: Row) -> Option<Row> {
        let before = self.remove(position);
        for key in Key::ALL {
            if let Some(value) = row.get(key.field()) {
                self.index[key as usize].entry(value.to_owned()).or_default().push(position);
            }
        }
        self.rows.insert(position, row);
        before
    }

    fn remove(&mut self, position: Position) -> Option<Row> {
        let row = self.rows.remove(&position)?;
        for key in Key::ALL {
            let Some(value) = row.get(key.field()) else { continue };
            if let Entry::Occupied(mut entry) = self.index[key as usize].entry(value.to_owned()) {
                entry.get_mut().retain(|&other| other != position);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        Some(row)
    }

    fn positions(&self, key: Key, value: &str) -> &[Position] {
        self.index[key as usize].get(value).map_or(&[], Vec::as_slice)
    }
}

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

impl Snapshot for Records {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        Ok(self.positions(key, value).iter().filter_map(|position| self.rows.get(position)).cloned().collect())
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.rows.values().cloned().try_for_each(visit)
    }

    fn count(&self) -> Result<usize> {
        Ok(self.rows.len())
    }

    fn last_id(&self) -> Result<i64> {
        Ok(self.last_id)
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        Ok(SeenLease { lease: self.leases.get(key).cloned(), failures: self.failures.get(key).cloned(), now: None })
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        Ok(Some(self.key_names.clone()))
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
    DeleteAll(BTreeMap<Position, Row>, [HashMap<String, Vec<Position>>; Key::ALL.len()]),
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

    fn next_order(&mut self) -> i64 {
        self.records.last_order += 1;
        self.records.last_order
    }

    fn position_of(&self, id: &str) -> Option<Position> {
        self.records.positions(Key::Id, id).first().copied()
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
        self.records.last_id = self.records.last_id.max(number);
        Ok(())
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let order = self.next_order();
        self.copy(&Row::new(token, order, Some(now)))
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.raise_last_id(id::number(row.id()).unwrap_or(0))?;
        self.records.last_order = self.records.last_order.max(row.saved_order);
        self.records.last_position += 1;
        self.put(self.records.last_position, row.clone());
        Ok(())
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        if let Some(position) = self.position_of(row.id()) {
            let row = Row::new(token, self.next_order(), Some(now));
            self.put(position, row);
        }
        Ok(())
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        if let Some(position) = self.position_of(row.id()) {
            self.put(position, Row::new(token, row.saved_order, row.saved_at));
        }
        Ok(())
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.records.key_names.clone_from(names);
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let position = self.position_of(id);
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
        self.records.leases.insert(key.to_owned(), lease.clone());
        Ok(())
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        if self.records.leases.get(key).is_some_and(|lease| lease.owner == owner) {
            self.records.leases.remove(key);
        }
        Ok(())
    }
    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.records.failures.insert(key.to_owned(), failures.clone());
        Ok(())
    }
}
