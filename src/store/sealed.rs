//! Encryption at rest, for every backend: a backend over a backend. What is above sees rows in clear text, and what is
//! below sees sealed ones ([`crate::domain::seal`]).
//!
//! A store without keys goes through it, too, with a ring of clear text alone. So it never takes a sealed row for one in
//! clear text.
//!
//! # When a miss is certain
//!
//! A lookup by a token searches for its tags, and finds nothing under a key that this store does not have. "Not found"
//! would make the SDK log in again, and a save would insert a second row. So the backend records the names of all keys
//! under which there may be rows ([`Snapshot::key_names`]). A lookup that finds nothing reads them in its own snapshot,
//! and fails if one is missing here and a row of the snapshot needs it. A save then drops names that no row needs.
//! Lookups by user name and id search in clear text: their misses are certain.

use std::path::Path;
use std::sync::Arc;

use super::backend::{Backend, Change, Durability, Location, Reading};
use super::deadline::Deadline;
use super::error::Result;
use super::keys::StoreKeys;
use super::sealed_rows::{SealedRows, SealedTransaction};
use super::sealed_view::{SealedView, is_tagged};
use crate::domain::check::Finding;
use crate::domain::identity::Keys;
use crate::domain::key_ring::Ring;
use crate::domain::lease::LookCost;
use crate::domain::{Key, Row, Token};

/// A backend whose rows are sealed under the keys of a store.
pub struct Sealed {
    inner: Arc<dyn Backend>,
    pub(super) keys: StoreKeys,
}

impl Sealed {
    /// A backend over `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, keys: StoreKeys) -> Self {
        Self { inner, keys }
    }

    /// The backend with the rows as they are stored.
    pub(super) fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    /// An owned copy of a token that is to be saved.
    pub(super) fn owned(&self, token: Token<'_>) -> Row {
        let row = Row::new(token, 0, None);
        if self.keys.ring().is_some_and(|ring| ring.is_without_keys()) { row } else { row.overwritten_on_drop() }
    }

    pub(super) fn ring(&self, deadline: Deadline) -> Result<Arc<Ring>> {
        self.keys.ring().ok_or_else(|| deadline.busy(self.location()))
    }
}

fn looks_sealed(rows: &[Row]) -> bool {
    rows.iter().any(Row::looks_sealed)
}

impl Backend for Sealed {
    fn location(&self) -> &Location {
        self.inner.location()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn groups_saves(&self) -> bool {
        self.inner.groups_saves()
    }

    fn answers_at_once(&self) -> bool {
        self.inner.answers_at_once()
    }

    fn runs_foreign_code(&self) -> bool {
        self.inner.runs_foreign_code() || self.keys.run_foreign_code()
    }

    fn look_cost(&self) -> LookCost {
        self.inner.look_cost()
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        if self.keys.are_none() {
            // The most frequent call of a store without keys costs no more than without this layer.
            let (found, is_certain) = self.inner.by_key_in_clear_text(key, value, deadline)?;
            let is_clear = if found.is_empty() { is_certain || !is_tagged(key) } else { !looks_sealed(&found) };
            if is_clear {
                return Ok(found);
            }
        }
        let ring = self.ring(deadline)?;
        let view = SealedView::new(&ring, self.location());
        if !is_tagged(key) {
            return view.open_all(self.inner.by_key(key, value, deadline)?);
        }
        let mut found = Vec::new();
        if self.answers_at_once() && !self.keys.are_none() {
            for stored in ring.stored_values(key.field(), value) {
                found.append(&mut self.inner.by_key(key, &stored, deadline)?);
            }
            found = view.open_matching(key, value, found)?;
        }
        if found.is_empty() {
            // Once more, in one snapshot: a row may have moved from one key to another between two lookups.
            self.inner.read(deadline, &mut |rows| {
                found = SealedView::new(&ring, self.location()).by_key(rows, key, value)?;
                Ok(())
            })?;
        }
        Ok(found)
    }

    fn by_keys(
        &self,
        keys: &Keys<'_>,
        deadline: Deadline,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> Result<()> {
        let ring = self.ring(deadline)?;
        self.inner.read(deadline, &mut |rows| SealedView::new(&ring, self.location()).by_keys(rows, keys, accept))
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        let ring = self.ring(deadline)?;
        self.inner.read(deadline, &mut |rows| work(&SealedRows::new(rows, SealedView::new(&ring, self.location()))))
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        let ring = self.ring(deadline)?;
        self.inner.write(deadline, durability, &mut |transaction| {
            let view = SealedView::new(&ring, self.location());
            let keys = (!deadline.is_after_question()).then_some(&self.keys);
            work(&mut SealedTransaction::new(transaction, view, keys))
        })
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        self.inner.online_backup(target, deadline)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        self.inner.check(deadline)
    }

    fn scrub(&self, deadline: Deadline) -> Result<()> {
        self.inner.scrub(deadline)
    }

    fn before_fork(&self, deadline: Deadline) {
        self.inner.before_fork(deadline);
    }

    fn after_fork_in_child(&self) {
        self.inner.after_fork_in_child();
    }

    fn before_exit(&self, deadline: Deadline) {
        self.inner.before_exit(deadline);
    }

    fn close(&self, deadline: Deadline) {
        self.inner.close(deadline);
    }
}
