//! Rotation of keys: sealing all rows under the first key, counting the rows under each key, and deleting the rows under
//! a key that is lost.
//!
//! These work on the rows as they are stored.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::backend::{Durability, Snapshot, Transaction};
use super::error::{Error, Result};
use super::sealed_rows::SealedTransaction;
use super::sealed_view::{SealedView, names_in_use, without_lone_clear_text};
use super::{Attempts, Store, Wait};
use crate::domain::key_ring::{self, PLAINTEXT, Ring};
use crate::domain::{Row, saved_order};

/// How many rows one transaction seals. Saves of other threads wait for it.
const BATCH: usize = 50;

/// How often rows are looked for that are not under the first key. Other programs may save such rows meanwhile.
const ROUNDS: usize = 3;

/// The result of [`Store::rekey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeyed {
    /// The number of rows that were sealed under the first key.
    pub rewritten: usize,
    /// The number of rows that cannot be read, or that are not under the first key, because another program has saved
    /// them.
    pub left: usize,
}

impl Store {
    /// Seals every row that can be read under the first key, in batches. Keeps ids, order and times. If rows in clear
    /// text come first, opens them instead.
    ///
    /// It can be interrupted, and run again, at any time: also while other programs find and save tokens, or do the same.
    /// `pause` is called after each batch with the time that the batch took. It should wait as long, so that others can
    /// save. An error of it ends the rotation between two batches.
    pub fn rekey(&self, mut pause: impl FnMut(Duration) -> Result<()>) -> Result<Rekeyed> {
        self.backend.keys.ask(self.location(), self.deadline(Wait::Yes))?;
        let mut rewritten = 0;
        let left = self.rekey_counting(&mut rewritten, &mut pause);
        // The batches before the one that failed are committed.
        let left = left.map_err(|error| if rewritten > 0 { error.after_rewriting() } else { error })?;
        Ok(Rekeyed { rewritten, left })
    }

    /// Counts the rewritten rows even if it fails. Returns how many rows are left.
    fn rekey_counting(&self, rewritten: &mut usize, pause: &mut impl FnMut(Duration) -> Result<()>) -> Result<usize> {
        for _ in 0..ROUNDS {
            let ids = self.ids_to_rekey()?;
            if ids.is_empty() {
                break;
            }
            for batch in ids.chunks(BATCH) {
                let begun = Instant::now();
                *rewritten += self.rekey_batch(batch)?;
                pause(begun.elapsed())?;
            }
        }
        self.finish_rekey()
    }

    /// Returns how many rows there are under each key id, and in clear text ([`PLAINTEXT`]).
    pub fn key_usage(&self) -> Result<BTreeMap<String, usize>> {
        let mut usage = BTreeMap::new();
        self.read_stored(|rows, _| {
            usage.clear();
            rows.each(&mut |row| {
                if let Some(name) = key_ring::name_of(row.token()) {
                    *usage.entry(name.into_owned()).or_insert(0) += 1;
                }
                Ok(())
            })
        })?;
        Ok(usage)
    }

    /// Deletes the rows that are sealed under the key with this id, and no others. Returns their number. It does not need
    /// the key.
    pub fn forget_key(&self, key: &str) -> Result<usize> {
        let ids = self.write_stored(|rows, _, ids: &mut BTreeSet<String>| {
            rows.each(&mut |row| {
                let is_under_key = key != PLAINTEXT && key_ring::name_of(row.token()).as_deref() == Some(key);
                if is_under_key {
                    ids.insert(row.id().to_owned());
                }
                Ok(())
            })?;
            ids.iter().try_for_each(|id| rows.delete(id).map(drop))?;
            let mut names = rows.key_names()?.map_or_else(|| names_in_use(rows), Ok)?;
            if key != PLAINTEXT && names.remove(key) {
                rows.set_key_names(&without_lone_clear_text(names))?;
            }
            Ok(())
        })?;
        self.unsaved.discard(|kept, _| ids.contains(kept));
        Ok(ids.len())
    }

    /// The ids of the rows that can be read, and are not under the first key. Asks the source of keys if one is missing.
    fn ids_to_rekey(&self) -> Result<Vec<String>> {
        self.with_all_keys(|| {
            let (mut ids, mut lacks_key) = (Vec::new(), false);
            self.read_stored(|rows, ring| {
                (ids, lacks_key) = (Vec::new(), false);
                rows.each(&mut |row| {
                    match key_ring::name_of(row.token()) {
                        Some(name) if !ring.has(&name) => lacks_key |= name != PLAINTEXT,
                        Some(name) if name != ring.writes() => ids.push(row.id().to_owned()),
                        _ => {}
                    }
                    Ok(())
                })
            })?;
            Ok((ids, lacks_key))
        })
    }

    /// Seals those of the rows that still are not under the first key, and returns their number.
    fn rekey_batch(&self, ids: &[String]) -> Result<usize> {
        let rewritten = self.write_stored(|rows, ring, rewritten: &mut BTreeSet<String>| {
            // The source of keys was asked at the beginning.
            let mut rows = SealedTransaction::new(rows, SealedView::new(ring, self.location()), None);
            for id in ids {
                if rows.reseal(id)? {
                    rewritten.insert(id.clone());
                }
            }
            Ok(())
        })?;
        Ok(rewritten.len())
    }

    /// Records under which names there are rows now. If all are sealed, scrubs what they were before. Returns how many
    /// rows are not under the first key, or cannot be read.
    fn finish_rekey(&self) -> Result<usize> {
        let (left, is_sealed) = self.write_stored(|rows, ring, (left, is_sealed): &mut (usize, bool)| {
            *left = 0;
            let mut names: BTreeSet<String> = ring.seals().iter().map(|key| key.id().to_string()).collect();
            rows.each(&mut |row| {
                let name = key_ring::name_of(row.token()).map(Cow::into_owned);
                // A row that was altered cannot be read, though it names the first key.
                let is_done = name.as_deref() == Some(ring.writes()) && ring.open(&row).is_ok();
                *left += usize::from(!is_done);
                names.extend(name);
                Ok(())
            })?;
            let names = without_lone_clear_text(names);
            *is_sealed = !names.is_empty() && !names.contains(PLAINTEXT);
            if rows.key_names()?.as_ref() == Some(&names) { Ok(()) } else { rows.set_key_names(&names) }
        })?;
        if is_sealed {
            let scrubbed = self.run(self.deadline(Wait::Yes), |backend, deadline| backend.scrub(deadline));
            // The names are committed, and so are the rows of this rotation or of one before.
            scrubbed.map_err(Error::after_rewriting)?;
        }
        Ok(left)
    }

    /// Adds rows as they are stored elsewhere, sealed or not. What is tried on this store then ends as it would there.
    pub fn copy_stored(&self, rows: &[Row], last_id: i64) -> Result<()> {
        let orders = saved_order::restored(&rows.iter().map(|row| row.saved_order).collect::<Vec<_>>());
        self.write_stored(|stored, _, (): &mut ()| {
            stored.raise_last_id(last_id)?;
            for (row, &saved_order) in rows.iter().zip(&orders) {
                let mut row = row.clone();
                row.saved_order = saved_order;
                stored.copy(&row)?;
            }
            let names = without_lone_clear_text(names_in_use(&*stored)?);
            if names.is_empty() { Ok(()) } else { stored.set_key_names(&names) }
        })
    }

    /// Runs `work` on one snapshot of the rows as they are stored.
    pub(super) fn read_stored(&self, mut work: impl FnMut(&dyn Snapshot, &Ring) -> Result<()>) -> Result<()> {
        self.run(self.deadline(Wait::Yes), |_, deadline| {
            let ring = self.backend.ring(deadline)?;
            self.backend.inner().read(deadline, &mut |rows| work(rows, &ring))
        })
    }

    /// [`Store::write`] on the rows as they are stored.
    fn write_stored<T: Clone + Default>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction, &Ring, &mut T) -> Result<()>,
    ) -> Result<T> {
        let mut attempts = Attempts::default();
        self.run(self.deadline(Wait::Yes), |_, deadline| {
            attempts.start_again();
            let ring = self.backend.ring(deadline)?;
            let mut change = |rows: &mut dyn Transaction| {
                let found = attempts.begin(rows);
                work(rows, &ring, found)
            };
            self.backend.inner().write(deadline, Durability::Full, &mut change)
        })?;
        Ok(attempts.found)
    }
}
