//! Waiting with an end: how long, how to sleep meanwhile, and what is said when it was in vain.

use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::error::{Error, Place};
use super::fork;

/// The moment at which an operation stops waiting for others.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<(Instant, Duration)>);

impl Deadline {
    /// No waiting at all, not even for the disk: for callers that hold up others.
    #[must_use]
    pub const fn now() -> Self {
        Self(None)
    }

    /// At most `patience` from now on.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        Self(Some((Instant::now(), patience)))
    }

    /// May anything be done that takes its time, even if nobody is in the way?
    #[must_use]
    pub const fn has_time(self) -> bool {
        self.0.is_some()
    }

    /// How much of it is left; `None` once it is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        let (start, patience) = self.0?;
        patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
    }

    /// The lock, if it can be had in time.
    #[must_use]
    pub fn lock<T>(self, mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        mutex.try_lock().or_else(|| mutex.try_lock_for(self.left()?))
    }

    /// Sleeps a little, if there is time left, and tells whether it did.
    ///
    /// A short sleep of random length: with SQLite's own ever longer ones, whoever has waited longest is the last to
    /// look again, and a save among four busy processes took seconds.
    ///
    /// Nor is there when this process is about to fork: see [`fork`].
    pub fn sleep(self) -> bool {
        self.sleep_for(fastrand::u64(100..1_000))
    }

    /// The same, for who is the next one: shorter, for nobody else can use what it waits for.
    pub fn nap(self) -> bool {
        self.sleep_for(fastrand::u64(10..50))
    }

    fn sleep_for(self, microseconds: u64) -> bool {
        let Some(left) = self.left().filter(|_| !fork::is_awaited()) else { return false };
        thread::sleep(left.min(Duration::from_micros(microseconds)));
        true
    }

    /// What to say when the wait was in vain.
    #[must_use]
    pub fn busy(self, place: &Place) -> Error {
        let waited = self.0.map_or(Duration::ZERO, |(_, patience)| patience);
        Error::Busy { place: place.clone(), waited }
    }
}
