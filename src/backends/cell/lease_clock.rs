//! When leases expire, without the clock of another machine.
//!
//! The holder of a lease writes how long it lasts. Every other process measures that length on its own monotonic clock,
//! from when it first saw the lease. So a lease ends later for others than for its holder, and never earlier.

use std::collections::{HashMap, HashSet};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::store::deadline::Deadline;
use crate::store::lock_order::{Ordered, Rank};

/// One moment by two clocks, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// By a monotonic clock, which leases expire by. It begins at any number.
    pub now: i64,
    /// By the wall clock, since the epoch. Failures are recorded by it.
    pub wall: i64,
}

impl Moment {
    /// A time of the wall clock by the monotonic clock.
    pub(super) const fn local_time(self, wall: i64) -> i64 {
        wall.saturating_sub(self.wall).saturating_add(self.now)
    }

    /// A time of the monotonic clock by the wall clock.
    pub(super) const fn wall_time(self, now: i64) -> i64 {
        now.saturating_sub(self.now).saturating_add(self.wall)
    }
}

/// Reads both clocks.
pub type ReadClocks = Box<dyn Fn() -> Moment + Send + Sync>;

/// The clock of this process, and when it first saw which lease.
pub(super) struct LeaseClock {
    read: ReadClocks,
    /// By the mark of the change that acquired the lease.
    first_seen: Ordered<HashMap<String, i64>>,
}

/// How many leases are remembered before old ones are forgotten.
const MAX_SEEN: usize = 1_000;

/// No lease that a document lacks is remembered for longer, in milliseconds.
const MAX_AGE_MS: i64 = 3_600_000;

impl LeaseClock {
    pub(super) fn new(read: ReadClocks) -> Self {
        Self { read, first_seen: Ordered::new(Rank::StoreState, HashMap::new()) }
    }

    /// The clocks of the system.
    pub(super) fn of_system() -> Self {
        let begin = Instant::now();
        let wall = || {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
        };
        let offset = wall();
        Self::new(Box::new(move || {
            let elapsed = i64::try_from(begin.elapsed().as_millis()).unwrap_or(i64::MAX);
            Moment { now: offset.saturating_add(elapsed), wall: wall() }
        }))
    }

    pub(super) fn moment(&self) -> Moment {
        (self.read)()
    }

    /// Returns when this process first saw the lease that a change with this mark acquired.
    pub(super) fn first_seen(&self, mark: &str, moment: Moment) -> i64 {
        // The lock is held for a few instructions. Without it, the lease seems new, and lasts longer.
        let Some(mut seen) = self.first_seen.lock(Deadline::after(LOCK_TIMEOUT)) else { return moment.now };
        *seen.entry(mark.to_owned()).or_insert(moment.now)
    }

    /// Forgets leases that are not among `current` any more.
    pub(super) fn forget_old(&self, current: &HashSet<&str>, moment: Moment) {
        let Some(mut seen) = self.first_seen.try_lock() else { return };
        if seen.len() > MAX_SEEN {
            let oldest = moment.now.saturating_sub(MAX_AGE_MS);
            seen.retain(|mark, first| *first > oldest || current.contains(mark.as_str()));
        }
    }
}

/// How long a thread waits for the list of leases, which a fork in C code may have left locked.
const LOCK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_by_one_clock_is_the_same_time_by_the_other() {
        let moment = Moment { now: 100, wall: 1_000_000 };
        assert_eq!((moment.local_time(999_990), moment.wall_time(90)), (90, 999_990));
        assert_eq!(moment.local_time(moment.wall_time(-5)), -5);
    }

    #[test]
    fn only_old_leases_that_a_document_lacks_are_forgotten() {
        let clock = LeaseClock::of_system();
        let at = |now| Moment { now, wall: 0 };
        for number in 0..=MAX_SEEN {
            clock.first_seen(&number.to_string(), at(0));
        }
        clock.first_seen("new", at(5));
        clock.forget_old(&HashSet::from(["7"]), at(MAX_AGE_MS));
        let seen: Vec<i64> = ["7", "new", "8"].iter().map(|mark| clock.first_seen(mark, at(9))).collect();
        assert_eq!(seen, [0, 5, 9]);
    }
}
