//! Rotation of keys: sealing all rows under the first key, counting the rows under each key, and deleting the rows under
//! a key that is lost.
//!
//! These work on the rows as they are stored.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::sealed_rows::SealedTransaction;
use super::sealed_view::{SealedView, names_in_use, without_lone_clear_text};
use super::{Store, Wait};
use crate::domain::key_ring::{self, PLAINTEXT};

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
        let found = self.record_names(false)?;
        if !found.is_sealed {
            return Ok(found.left);
        }
        let scrubbed = self.run(self.deadline(Wait::Yes), |backend, deadline| backend.scrub(deadline));
        // The names are committed, and so are the rows of this rotation or of one before.
        scrubbed.map_err(Error::after_rewriting)?;
        // Only now. So a rotation that was killed before it had scrubbed the file is known to be unfinished.
        Ok(if found.records_clear_text { self.record_names(true)? } else { found }.left)
    }

    /// Records under which names there are rows now. Clear text stays recorded until what rows were before `is_scrubbed`.
    fn record_names(&self, is_scrubbed: bool) -> Result<AfterRekey> {
        self.write_stored(|rows, ring, after: &mut AfterRekey| {
            *after = AfterRekey::default();
            let mut names: BTreeSet<String> = ring.seals().iter().map(|key| key.id().to_string()).collect();
            rows.each(&mut |row| {
                let name = key_ring::name_of(row.token()).map(Cow::into_owned);
                // A row that was altered cannot be read, though it names the first key.
                let is_done = name.as_deref() == Some(ring.writes()) && ring.open(&row).is_ok();
                after.left += usize::from(!is_done);
                names.extend(name);
                Ok(())
            })?;
            let recorded = rows.key_names()?;
            let mut names = without_lone_clear_text(names);
            after.is_sealed = !names.is_empty() && !names.contains(PLAINTEXT);
            if after.is_sealed && recorded.as_ref().is_some_and(|names| names.contains(PLAINTEXT)) {
                after.records_clear_text = true;
                if is_scrubbed {
                    // The WAL is empty again afterwards.
                    rows.scrub_replaced_later();
                } else {
                    names.insert(PLAINTEXT.to_owned());
                }
            }
            if recorded.as_ref() == Some(&names) { Ok(()) } else { rows.set_key_names(&names) }
        })
    }
}

/// The rows after a rotation.
#[derive(Clone, Copy, Default)]
struct AfterRekey {
    /// How many are not under the first key, or cannot be read.
    left: usize,
    /// None is in clear text, and there is a key.
    is_sealed: bool,
    /// It was recorded before that there may be rows in clear text.
    records_clear_text: bool,
}
