//! How a connection waits for others: until the deadline of the operation that runs on this thread.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use crate::store::deadline::Deadline;

thread_local! {
    static DEADLINE: Cell<Deadline> = const { Cell::new(Deadline::now()) };
}

/// The time between two attempts to acquire a lock, in microseconds.
///
/// Short and random. SQLite's own busy handler sleeps longer and longer, so the thread that has waited longest looks
/// least often: with four writing processes a save took seconds (`tests/faults/test_crowds.py`).
pub(super) const LOCK_POLL: Range<u64> = 100..1_000;

/// The same for the holder of the write ticket. It is shorter, because no other process can use the lock that it waits
/// for.
pub(super) const TICKET_HOLDER_POLL: Range<u64> = 10..50;

/// How long a finished change waits for readers before it scrubs the residue in the WAL.
pub(super) const SCRUB_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a scrub of everything looks whether the readers have gone.
pub(super) const SCRUB_POLL: Duration = Duration::from_millis(20);

/// Runs `work`. Every wait of SQLite in it ends at `deadline`.
pub(super) fn with_deadline<T>(deadline: Deadline, work: impl FnOnce() -> T) -> T {
    let before = DEADLINE.replace(deadline);
    let result = work();
    DEADLINE.set(before);
    result
}

/// The deadline of the operation on this thread.
pub(super) fn current_deadline() -> Deadline {
    DEADLINE.get()
}

/// SQLite's busy handler (<https://www.sqlite.org/c3ref/busy_handler.html>).
pub(super) fn wait_for_lock(_attempt: i32) -> bool {
    current_deadline().sleep(LOCK_POLL)
}
