//! Rows and leases in memory, with an index for each key.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::Lease;
use crate::domain::{Key, Row, Token, id};
use crate::store::backend::{SeenLease, Snapshot, Transaction};
use crate::store::error::Result;

/// The rows by their positions, the oldest first, and an index for each key.
#[derive(Default)]
pub(super) struct Records {
    pub(super) rows: BTreeMap<Position, Row>,
    /// For each key and value, the positions of the rows that have it.
    pub(super) index: Index,
    pub(super) last_position: Position,
    pub(super) last_id: i64,
    pub(super) last_order: i64,
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) failures: BTreeMap<String, RefreshFailures>,
    /// See [`Snapshot::key_names`].
    pub(super) key_names: BTreeSet<String>,
    /// The time by the clock that the leases expire by, if it is not the requester's ([`SeenLease::now`]).
    pub(super) now: Option<i64>,
    /// Has a transaction changed anything?
    pub(super) is_changed: bool,
    /// See [`Transaction::follows_lost_commit`].
    pub(super) follows_lost_commit: bool,
}

/// The position of a row in the list. It is not reused after the row is deleted.
pub(super) type Position = u64;

pub(super) type Index = [HashMap<String, Vec<Position>>; Key::ALL.len()];

impl Records {
    /// Puts a row at a position, and returns the row that was there before.
    pub(super) fn put(&mut self, position: Position, row: Row) -> Option<Row> {
        let before = self.remove(position);
        for key in Key::ALL {
            if let Some(value) = row.get(key.field()) {
                self.index[key as usize].entry(value.to_owned()).or_default().push(position);
            }
        }
        self.rows.insert(position, row);
        before
    }

    pub(super) fn remove(&mut self, position: Position) -> Option<Row> {
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

    /// Makes room for another row after all others, which counts its id and its order as used.
    pub(super) fn next_position(&mut self, row: &Row) -> Position {
        self.last_id = self.last_id.max(id::number(row.id()).unwrap_or(0));
        self.last_order = self.last_order.max(row.saved_order);
        self.last_position += 1;
        self.last_position
    }

    pub(super) fn next_order(&mut self) -> i64 {
        self.last_order += 1;
        self.last_order
    }

    pub(super) fn position_of(&self, id: &str) -> Option<Position> {
        self.positions(Key::Id, id).first().copied()
    }

    fn positions(&self, key: Key, value: &str) -> &[Position] {
        self.index[key as usize].get(value).map_or(&[], Vec::as_slice)
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
        let (lease, failures) = (self.leases.get(key).cloned(), self.failures.get(key).cloned());
        Ok(SeenLease { lease, failures, now: self.now })
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        Ok(Some(self.key_names.clone()))
    }
}

/// A change of records that are dropped if it fails.
impl Transaction for Records {
    fn follows_lost_commit(&self) -> bool {
        self.follows_lost_commit
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.is_changed |= number > self.last_id;
        self.last_id = self.last_id.max(number);
        Ok(())
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        let order = self.next_order();
        self.copy(&Row::new(token, order, Some(now)))
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        if let Some(position) = self.position_of(row.id()) {
            let row = Row::new(token, self.next_order(), Some(now));
            self.put(position, row);
            self.is_changed = true;
        }
        Ok(())
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        if let Some(position) = self.position_of(row.id()) {
            self.put(position, Row::new(token, row.saved_order, row.saved_at));
            self.is_changed = true;
        }
        Ok(())
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.is_changed |= self.key_names != *names;
        self.key_names.clone_from(names);
        Ok(())
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        let position = self.next_position(row);
        self.put(position, row.clone());
        self.is_changed = true;
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        let position = self.position_of(id);
        let deleted = position.and_then(|position| self.remove(position)).is_some();
        self.is_changed |= deleted;
        Ok(deleted)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.is_changed |= !self.rows.is_empty();
        self.rows.clear();
        self.index = Index::default();
        Ok(())
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.leases.insert(key.to_owned(), lease.clone());
        self.is_changed = true;
        Ok(())
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        if self.leases.get(key).is_some_and(|lease| lease.owner == owner) {
            self.leases.remove(key);
            self.is_changed = true;
        }
        Ok(())
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.failures.insert(key.to_owned(), failures.clone());
        self.is_changed = true;
        Ok(())
    }
}
