//! A list of rows in memory: the shortest backend there can be, and the one to read first.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::path::Path;

use parking_lot::Mutex;

use super::wait::Deadline;
use super::{Backend, Change, Place, Result, Rows};
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token, id};

/// Rows by the order in which they came, the oldest first, and where each can be found.
pub struct List(Mutex<Records>);

#[derive(Default)]
struct Records {
    rows: BTreeMap<Number, Row>,
    /// For each key and value, the rows that have it.
    index: [HashMap<String, Vec<Number>>; Key::ALL.len()],
    last_number: Number,
    last_id: i64,
    last_order: i64,
    leases: BTreeMap<String, Lease>,
}

/// The place of a row in the list; for as long as the list lives, no other row's.
type Number = u64;

impl Records {
    /// Puts a row in its place, and gives back which was there.
    fn put(&mut self, number: Number, row: Row) -> Option<Row> {
        let before = self.take(number);
        for key in Key::ALL {
            if let Some(value) = row.get(key.field()) {
                self.index[key as usize].entry(value.to_owned()).or_default().push(number);
            }
        }
        self.rows.insert(number, row);
        before
    }

    /// Takes the row from its place.
    fn take(&mut self, number: Number) -> Option<Row> {
        let row = self.rows.remove(&number)?;
        for key in Key::ALL {
            let Some(value) = row.get(key.field()) else { continue };
            if let Entry::Occupied(mut entry) = self.index[key as usize].entry(value.to_owned()) {
                entry.get_mut().retain(|&other| other != number);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
        }
        Some(row)
    }

    fn numbers(&self, key: Key, value: &str) -> &[Number] {
        self.index[key as usize].get(value).map_or(&[], Vec::as_slice)
    }
}

impl List {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Records::default()))
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for List {
    fn place(&self) -> &Place {
        &Place::Memory
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        deadline.lock(&self.0).ok_or_else(|| deadline.busy(&Place::Memory))?.by_key(key, value)
    }

    fn read(&self, deadline: Deadline, work: &mut dyn FnMut(&dyn Rows) -> Result<()>) -> Result<()> {
        let records = deadline.lock(&self.0).ok_or_else(|| deadline.busy(&Place::Memory))?;
        work(&*records)
    }

    fn write(&self, deadline: Deadline, work: &mut dyn FnMut(&mut dyn Change) -> Result<()>) -> Result<()> {
        let mut records = deadline.lock(&self.0).ok_or_else(|| deadline.busy(&Place::Memory))?;
        let mut draft =
            Draft { undo: Vec::new(), counters: (records.last_id, records.last_order), records: &mut records };
        let result = work(&mut draft);
        if result.is_err() {
            draft.take_back();
        }
        result
    }

    #[cfg(feature = "sqlite")]
    fn backup(&self, target: &Path, deadline: Deadline) -> Result<()> {
        let mut copy = super::sqlite::Memory::new()?;
        {
            let records = deadline.lock(&self.0).ok_or_else(|| deadline.busy(&Place::Memory))?;
            copy.fill(&*records, records.last_id)?;
        }
        copy.backup(target, deadline)
    }

    #[cfg(not(feature = "sqlite"))]
    fn backup(&self, _: &Path, _: Deadline) -> Result<()> {
        Err(super::Error::BadInput("a backup is a SQLite file, and this build has no SQLite".to_owned()))
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut records) = deadline.lock(&self.0) {
            *records = Records::default();
        }
    }
}

impl Rows for Records {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        Ok(self.numbers(key, value).iter().filter_map(|number| self.rows.get(number)).cloned().collect())
    }

    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()> {
        self.rows.values().cloned().for_each(visit);
        Ok(())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.rows.len())
    }

    fn lease(&self, key: &str) -> Result<Option<Lease>> {
        Ok(self.leases.get(key).cloned())
    }
}

/// A change to the records, and how to take it back.
struct Draft<'a> {
    records: &'a mut Records,
    counters: (i64, i64),
    undo: Vec<Undo>,
}

enum Undo {
    /// What was in a place before.
    Put(Number, Option<Row>),
    /// Everything.
    DeleteAll(BTreeMap<Number, Row>, [HashMap<String, Vec<Number>>; Key::ALL.len()]),
}

impl Draft<'_> {
    fn take_back(self) {
        for step in self.undo.into_iter().rev() {
            match step {
                Undo::Put(number, Some(row)) => drop(self.records.put(number, row)),
                Undo::Put(number, None) => drop(self.records.take(number)),
                Undo::DeleteAll(rows, index) => (self.records.rows, self.records.index) = (rows, index),
            }
        }
        (self.records.last_id, self.records.last_order) = self.counters;
    }

    fn next_order(&mut self) -> i64 {
        self.records.last_order += 1;
        self.records.last_order
    }

    fn place_of(&self, id: &str) -> Option<Number> {
        self.records.numbers(Key::Id, id).first().copied()
    }

    fn put(&mut self, number: Number, row: Row) {
        let before = self.records.put(number, row);
        self.undo.push(Undo::Put(number, before));
    }
}

impl Rows for Draft<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.records.by_key(key, value)
    }

    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()> {
        self.records.each(visit)
    }

    fn count(&self) -> Result<usize> {
        self.records.count()
    }

    fn lease(&self, key: &str) -> Result<Option<Lease>> {
        self.records.lease(key)
    }
}

impl Change for Draft<'_> {
    fn last_id(&self) -> Result<i64> {
        Ok(self.records.last_id)
    }

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
        self.records.last_number += 1;
        self.put(self.records.last_number, row.clone());
        Ok(())
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        if let Some(number) = self.place_of(row.id()) {
            let row = Row::new(token, self.next_order(), Some(now));
            self.put(number, row);
        }
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let place = self.place_of(id);
        if let Some(number) = place {
            let row = self.records.take(number);
            self.undo.push(Undo::Put(number, row));
        }
        Ok(place.is_some())
    }

    fn delete_all(&mut self) -> Result<()> {
        let (rows, index) = (mem::take(&mut self.records.rows), mem::take(&mut self.records.index));
        self.undo.push(Undo::DeleteAll(rows, index));
        Ok(())
    }

    // Leases are not taken back with the rest: they come last in a change, and end by themselves.
    fn take_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.records.leases.insert(key.to_owned(), lease.clone());
        Ok(())
    }

    fn give_back(&mut self, key: &str, owner: &str) -> Result<()> {
        if self.records.leases.get(key).is_some_and(|lease| lease.owner == owner) {
            self.records.leases.remove(key);
        }
        Ok(())
    }
}
