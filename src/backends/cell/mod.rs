//! Rows in one document in any place that has compare-and-swap: a row of a database, a key of Redis, an object, a
//! secret.
//!
//! A read loads the document once. A change loads it, works on the rows, and swaps it: the place takes the new document
//! only if the old one was not changed meanwhile. Otherwise the change starts over. So a change is atomic, and two
//! writers never both insert. `document.rs` has the format, `marks.rs` tells whether a change was made whose answer was
//! lost, and `lease_clock.rs` says when a lease expires.

mod document;
mod lease_clock;
mod marks;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

use self::document::Document;
use self::lease_clock::LeaseClock;
use self::marks::Trace;
use super::records::Records;
use crate::domain::identity::Keys;
use crate::domain::lease::{self, DUE_SOON_MS, LookCost};
use crate::domain::{Key, Row};
use crate::store::backend::{Backend, Change, Durability, Location, Reading, Snapshot};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::fork_state;
use crate::store::lock_order::{Ordered, Rank};

pub use self::document::VERSION;
pub use self::lease_clock::{Moment, ReadClocks};

/// A place that holds one document, and replaces it only if it has not changed.
///
/// Both methods are called without any lock of this library. They may be slow, and they may run code that this library
/// does not know.
pub trait Cell: Send + Sync {
    /// Names one state of the place.
    type Version;

    /// Returns the document, and the version that it has. `None`: there is no document yet.
    fn load(&self) -> Result<(Option<Vec<u8>>, Self::Version)>;

    /// Writes the document if the place still has this version, and returns whether it did. If it fails, the document
    /// may be written or not. After a failure with [`Code::OutcomeUnknown`] the place is not asked again.
    fn swap(&self, document: &[u8], version: &Self::Version) -> Result<bool>;

    /// Waits between two attempts at a change.
    fn pause(&self, time: Duration) -> Result<()> {
        thread::sleep(time);
        Ok(())
    }
}

/// The rows in the document of a cell.
pub struct CellBackend<C> {
    cell: C,
    location: Location,
    /// For how long a document that was loaded answers finds of fresh tokens.
    cache_for: Duration,
    cache: Ordered<Option<Cached>>,
    clock: LeaseClock,
    /// The highest id that this process has seen. If the place was emptied, its ids must not be given to others.
    last_id: AtomicI64,
}

/// A document that answers finds.
struct Cached {
    records: Arc<Records>,
    /// The document was the current one at this time.
    since: Instant,
    /// A document that was asked for later is at least as new.
    newest_at: Instant,
}

/// A document, and the version that the place had.
struct Loaded<V> {
    document: Document,
    version: V,
}

/// The longest time between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time between two attempts of a change, as a multiple of the time that the last one took, after so many
/// attempts that met another change.
///
/// If many programs change the document at once, most attempts are in vain, and only slow the one that counts. So the
/// multiple doubles. It halves again for a change that has lost often: otherwise those that begin later always win.
const fn pause_factor(lost: u32) -> u32 {
    match lost {
        ..5 => 1 << lost,
        5..9 => 1 << (9 - lost),
        _ => 1,
    }
}

impl<C: Cell> CellBackend<C> {
    /// The rows in a cell. A document answers finds of fresh tokens for `cache_for` after it was loaded.
    pub fn new(cell: C, location: Location, cache_for: Duration) -> Self {
        let cache = Ordered::new(Rank::StoreState, None);
        Self { cell, location, cache_for, cache, clock: LeaseClock::of_system(), last_id: AtomicI64::new(0) }
    }

    /// The same backend with other clocks.
    #[must_use]
    pub fn with_clocks(self, read: ReadClocks) -> Self {
        Self { clock: LeaseClock::new(read), ..self }
    }

    /// Loads the document. Fails if it cannot be read.
    pub fn try_load(&self) -> Result<()> {
        self.load().map(drop)
    }

    fn load(&self) -> Result<Loaded<C::Version>> {
        let (text, version) = self.cell.load()?;
        let mut document = match text {
            Some(text) => Document::parse(&text, &self.clock, &self.location)?,
            None => Document::empty(&self.clock),
        };
        let found = document.records.last_id;
        document.records.last_id = found.max(self.last_id.fetch_max(found, Ordering::Relaxed));
        Ok(Loaded { document, version })
    }

    /// The records for a find. Every find may load them, so they are not shared with changes.
    fn load_for_find(&self, deadline: Deadline) -> Result<Arc<Records>> {
        // A caller that may not wait cannot wait for a network either.
        if !deadline.allows_slow_work() {
            return Err(deadline.busy(&self.location));
        }
        let since = Instant::now();
        let records = Arc::new(self.load()?.document.records);
        self.keep(&records, since, since, deadline);
        Ok(records)
    }

    /// Lets the records answer finds, unless newer ones do.
    fn keep(&self, records: &Arc<Records>, since: Instant, newest_at: Instant, deadline: Deadline) {
        if self.cache_for.is_zero() {
            return;
        }
        if let Some(mut cache) = self.cache.lock(deadline)
            && cache.as_ref().is_none_or(|cached| cached.newest_at <= newest_at)
        {
            *cache = Some(Cached { records: Arc::clone(records), since, newest_at });
        }
    }

    /// The records that may answer a find.
    fn cached(&self) -> Option<Arc<Records>> {
        if self.cache_for.is_zero() {
            return None;
        }
        let cache = self.cache.try_lock()?;
        let cached = cache.as_ref().filter(|cached| cached.since.elapsed() < self.cache_for)?;
        Some(Arc::clone(&cached.records))
    }

    /// Is no refresh of the row due? Another process may have made one that is due.
    fn is_fresh(&self, row: &Row) -> bool {
        !lease::is_due(row.token(), self.clock.moment().wall.saturating_add(DUE_SOON_MS))
    }

    /// Makes attempts at a change until one succeeds or fails, or the deadline is over.
    fn attempt_until(&self, earlier: &mut EarlierAttempts, deadline: Deadline, work: &mut Change<'_>) -> Result<()> {
        let mut lost: u32 = 0;
        loop {
            let begun = Instant::now();
            if let ChangeOutcome::Done = self.attempt(earlier, deadline, work)? {
                return Ok(());
            }
            let Some(left) = deadline.left().filter(|_| !fork_state::is_fork_awaited()) else {
                return Err(deadline.busy(&self.location));
            };
            let longest = begun.elapsed().saturating_mul(pause_factor(lost)).min(LONGEST_PAUSE);
            self.cell.pause(left.min(longest.mul_f64(fastrand::f64())))?;
            lost = lost.saturating_add(1);
        }
    }

    /// Makes one attempt at a change.
    fn attempt(
        &self,
        earlier: &mut EarlierAttempts,
        deadline: Deadline,
        work: &mut Change<'_>,
    ) -> Result<ChangeOutcome> {
        let begun = Instant::now();
        let Loaded { mut document, version } = self.load()?;
        if earlier.mark.as_ref().is_some_and(|mark| document.marks.contain(mark)) {
            self.keep(&Arc::new(document.records), begun, begun, deadline);
            return Ok(ChangeOutcome::Done);
        }
        document.records.follows_lost_commit = mem::take(&mut earlier.was_answer_lost);
        work(&mut document.records)?;
        if !document.records.is_changed {
            return Ok(ChangeOutcome::Done);
        }
        let mark = new_mark(&self.location)?;
        let failed = |error: io::Error| Error::new(Code::IoError, &self.location).with(error.to_string());
        let text = document.write(&mark, &self.clock).map_err(failed)?;
        let since = Instant::now();
        match self.cell.swap(&text, &version) {
            Ok(true) => {
                self.last_id.fetch_max(document.records.last_id, Ordering::Relaxed);
                self.keep(&Arc::new(document.records), since, Instant::now(), deadline);
                Ok(ChangeOutcome::Done)
            }
            // The client of the cell may have repeated a request whose answer was lost. So this may be our own change.
            Ok(false) => {
                earlier.mark = Some(mark);
                Ok(ChangeOutcome::Conflict)
            }
            Err(error) if error.code() == Code::OutcomeUnknown => Err(error),
            Err(error) => {
                let since = Instant::now();
                let now = self.load().map_err(|_| error.clone().with_code(Code::OutcomeUnknown))?.document;
                match now.marks.trace(&mark, &document.marks) {
                    Trace::Made => {
                        self.keep(&Arc::new(now.records), since, since, deadline);
                        return Ok(ChangeOutcome::Done);
                    }
                    Trace::Unchanged => return Err(error),
                    Trace::Overtaken => {}
                    Trace::Unknown => (earlier.was_answer_lost, earlier.is_unknown) = (true, true),
                }
                Ok(ChangeOutcome::Conflict)
            }
        }
    }
}

/// What is known of the earlier attempts at a change.
#[derive(Default)]
struct EarlierAttempts {
    /// The mark of the last attempt that met another version. It is among those of the document if the answer was
    /// wrong.
    mark: Option<String>,
    /// The answer to the last attempt was lost, and the document was changed so often since that its marks do not
    /// tell whether the attempt was made.
    was_answer_lost: bool,
    /// The answer to any attempt was lost in that way. So the change may have been made.
    is_unknown: bool,
}

/// How an attempt to change the document has ended.
enum ChangeOutcome {
    Done,
    /// Another change came first.
    Conflict,
}

impl<C: Cell> Backend for CellBackend<C> {
    fn location(&self) -> &Location {
        &self.location
    }

    fn answers_at_once(&self) -> bool {
        !self.cache_for.is_zero()
    }

    fn runs_foreign_code(&self) -> bool {
        true
    }

    fn look_cost(&self) -> LookCost {
        LookCost::Document
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        Ok(self.by_key_in_clear_text(key, value, deadline)?.0)
    }

    fn by_key_in_clear_text(&self, key: Key, value: &str, deadline: Deadline) -> Result<(Vec<Row>, bool)> {
        if let Some(records) = self.cached() {
            let rows = records.by_key(key, value)?;
            if !rows.is_empty() && rows.iter().all(|row| self.is_fresh(row)) {
                return Ok((rows, records.key_names.is_empty()));
            }
        }
        let records = self.load_for_find(deadline)?;
        Ok((records.by_key(key, value)?, records.key_names.is_empty()))
    }

    fn by_keys(
        &self,
        keys: &Keys<'_>,
        deadline: Deadline,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> Result<()> {
        if let Some(records) = self.cached() {
            let mut is_answered = false;
            records.by_keys(keys, &mut |key, rows| {
                let is_stale = rows.iter().any(|row| !self.is_fresh(row));
                is_answered = !is_stale && accept(key, rows);
                is_stale || is_answered
            })?;
            if is_answered {
                return Ok(());
            }
        }
        self.load_for_find(deadline)?.by_keys(keys, accept)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        work(&*self.load_for_find(deadline)?)
    }

    fn write(&self, deadline: Deadline, _: Durability, work: &mut Change<'_>) -> Result<()> {
        if !deadline.allows_slow_work() {
            return Err(deadline.busy(&self.location));
        }
        let mut earlier = EarlierAttempts::default();
        let result = self.attempt_until(&mut earlier, deadline, work);
        result.map_err(|error| if earlier.is_unknown { error.after_unanswered_change() } else { error })
    }

    fn close(&self, deadline: Deadline) {
        if let Some(mut cache) = self.cache.lock(deadline) {
            *cache = None;
        }
    }
}

/// A random mark, which no other change has.
fn new_mark(location: &Location) -> Result<String> {
    let mut random = [0; 16];
    let failed = |_| Error::new(Code::IoError, location).with("there are no random numbers");
    getrandom::fill(&mut random).map_err(failed)?;
    Ok(format!("{:032x}", u128::from_le_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_has_lost_often_pauses_less() {
        let factors: Vec<u32> = (0..12).chain([1_000, u32::MAX]).map(pause_factor).collect();
        assert_eq!(factors, [1, 2, 4, 8, 16, 16, 8, 4, 2, 1, 1, 1, 1, 1]);
    }
}
