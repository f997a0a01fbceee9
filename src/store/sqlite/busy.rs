//! How SQLite waits for other connections: until the deadline of the operation that runs on this thread.

use std::cell::Cell;
use std::time::Duration;

use crate::store::wait::Deadline;

thread_local! {
    static DEADLINE: Cell<Deadline> = const { Cell::new(Deadline::now()) };
}

/// Runs `work` with `deadline` for every wait of SQLite's in it.
pub(super) fn until<T>(deadline: Deadline, work: impl FnOnce() -> T) -> T {
    let before = DEADLINE.replace(deadline);
    let result = work();
    DEADLINE.set(before);
    result
}

/// The deadline that is in force.
pub(super) fn deadline() -> Deadline {
    DEADLINE.get()
}

/// SQLite's busy handler. A plain function, so what it needs to know is the thread's.
pub(super) fn handler(_attempt: i32) -> bool {
    deadline().sleep()
}

/// How long to wait for readers once a change is durable and only its traces are still to be wiped.
pub(super) const FOR_TRACES: Duration = Duration::from_secs(1);
