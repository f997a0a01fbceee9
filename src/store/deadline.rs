//! Waiting with an end: how long, how to sleep between two attempts, and the error when time is up.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use super::error::Error;
use super::fork_state;
use super::location::Location;

/// The moment at which an operation stops waiting.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When the operation has begun, and how long it may wait. `None`: it may not wait.
    limit: Option<(Instant, Duration)>,
    is_after_question: bool,
}

impl Deadline {
    /// A deadline that allows no waiting, not even for the disk. For a caller that holds a lock which others need.
    #[must_use]
    pub const fn now() -> Self {
        Self { limit: None, is_after_question: false }
    }

    /// A deadline that is over after `timeout`.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        Self { limit: Some((Instant::now(), timeout)), is_after_question: false }
    }

    /// May the caller do slow work, such as opening a file, even if no other thread is in the way?
    #[must_use]
    pub const fn allows_slow_work(self) -> bool {
        self.limit.is_some()
    }

    /// Was it over from its beginning?
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.limit.is_some_and(|(_, timeout)| timeout.is_zero())
    }

    /// The same deadline as if it had begun later, after something that does not count.
    #[must_use]
    pub fn without(self, time: Duration) -> Self {
        let limit = self.limit.and_then(|(start, timeout)| Some((start.checked_add(time)?, timeout)));
        Self { limit, ..self }
    }

    /// The same deadline of an operation that has asked the source of keys. It does not ask again, so it ends.
    #[must_use]
    pub const fn after_question(self) -> Self {
        Self { is_after_question: true, ..self }
    }

    /// Has the operation asked the source of keys?
    #[must_use]
    pub const fn is_after_question(self) -> bool {
        self.is_after_question
    }

    /// Returns the time that is left, or `None` if the deadline is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        let (start, timeout) = self.limit?;
        timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
    }

    /// Sleeps for a random time in `microseconds`, at most until the deadline. Returns false, without sleeping, if the
    /// deadline is over or if this process is about to fork (see [`fork_state::is_fork_awaited`]).
    ///
    /// The backend chooses the range: how long the thing it polls for usually takes.
    pub fn sleep(self, microseconds: Range<u64>) -> bool {
        let Some(left) = self.left().filter(|_| !fork_state::is_fork_awaited()) else { return false };
        thread::sleep(left.min(Duration::from_micros(fastrand::u64(microseconds))));
        true
    }

    /// The error to return when the deadline is over.
    #[must_use]
    pub fn busy(self, location: &Location) -> Error {
        Error::busy(location, self.limit.map_or(Duration::ZERO, |(_, timeout)| timeout))
    }
}
