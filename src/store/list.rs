//! A list of rows in memory: the shortest backend there can be, and the one to read first.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use super::wait::Deadline;
use super::{Backend, Change, Place, Result, Rows};
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token, id};

/// Rows in a `Vec`, the oldest first.
pub struct List(Mutex<Records>);

#[derive(Default)]
struct Records {
    rows: Vec<Row>,
    last_id: i64,
    last_order: i64,
    leases: BTreeMap<String, Lease>,
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
        let has = |row: &&Row| row.token().get(key.field()) == Some(value);
        Ok(self.rows.iter().filter(has).cloned().collect())
    }

    fn each(&self, visit: &mut dyn FnMut(Row)) -> Result<()> {
        self.rows.iter().cloned().for_each(visit);
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
    Insert,
    Update(usize, Row),
    Delete(usize, Row),
    DeleteAll(Vec<Row>),
}

impl Draft<'_> {
    fn take_back(self) {
        let rows = &mut self.records.rows;
        for step in self.undo.into_iter().rev() {
            match step {
                Undo::Insert => drop(rows.pop()),
                Undo::Update(place, row) => rows[place] = row,
                Undo::Delete(place, row) => rows.insert(place, row),
                Undo::DeleteAll(all) => *rows = all,
            }
        }
        (self.records.last_id, self.records.last_order) = self.counters;
    }

    fn next_order(&mut self) -> i64 {
        self.records.last_order += 1;
        self.records.last_order
    }

    fn position(&self, id: Option<&str>) -> Option<usize> {
        self.records.rows.iter().position(|row| Some(row.id()) == id)
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
        let row = Row::new(token, self.next_order(), Some(now));
        self.raise_last_id(id::number(row.id()).unwrap_or(0))?;
        self.records.rows.push(row);
        self.undo.push(Undo::Insert);
        Ok(())
    }

    fn update(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let row = Row::new(token, self.next_order(), Some(now));
        if let Some(place) = self.position(Some(row.id())) {
            let old = std::mem::replace(&mut self.records.rows[place], row);
            self.undo.push(Undo::Update(place, old));
        }
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<()> {
        if let Some(place) = self.position(Some(id)) {
            self.undo.push(Undo::Delete(place, self.records.rows.remove(place)));
        }
        Ok(())
    }

    fn delete_all(&mut self) -> Result<()> {
        self.undo.push(Undo::DeleteAll(std::mem::take(&mut self.records.rows)));
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
