//! Standing still while the process forks.
//!
//! A child inherits memory, but only the thread that forked: a lock that another thread held stays held for good, and
//! what it was halfway through stays halfway. SQLite adds to that: it keeps a table of the files and locks of the
//! *process*, and a child that inherits an entry believes in locks that only its parent has. So before a fork every
//! operation ends and every connection to a file is closed; parent and child open their own when they next need one.
//!
//! The Python layer calls [`before`] and the two `after`s from `os.register_at_fork`. A fork that goes past those hooks
//! (from C) is caught later and less well: a connection knows the process that opened it
//! ([`super::sqlite`]), and no lock of a store's is waited for without an end.
//!
//! Atomics rather than a lock: a lock with vanished waiters would be handed to one of them in the child.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::wait::Deadline;

static FORKING: AtomicBool = AtomicBool::new(false);
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Longest wait for running operations. A fork must happen in the end, whatever they wait for.
const PATIENCE: Duration = Duration::from_secs(10);

thread_local! {
    /// This thread is the one that forks. Other hooks that it runs meanwhile may use a store: nobody else does.
    static FORKS: Cell<bool> = const { Cell::new(false) };
    /// This thread is in an operation.
    static INSIDE_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Is a thread waiting for this one's operation to end, that it may fork? The operation gives up what it waits for, and
/// [`super::Store`] begins it anew after the fork.
pub(super) fn is_awaited() -> bool {
    FORKING.load(Ordering::Relaxed) && !FORKS.get() && INSIDE_HERE.get()
}

/// Held by an operation while it runs. One may be within another.
pub struct Pass {
    outermost: bool,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.outermost {
            INSIDE_HERE.set(false);
        }
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no fork is under way. `None`: not within the time.
#[must_use]
pub fn enter(deadline: Deadline) -> Option<Pass> {
    loop {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        if INSIDE_HERE.get() {
            return Some(Pass { outermost: false });
        }
        let pass = Pass { outermost: true };
        // Both sides write first and look afterwards, so at least one of them sees the other.
        if !FORKING.load(Ordering::SeqCst) || FORKS.get() {
            INSIDE_HERE.set(true);
            return Some(pass);
        }
        drop(pass);
        if !deadline.sleep() {
            return None;
        }
    }
}

/// In the thread that is about to fork: lets running operations end, keeps new ones out, closes the connections.
pub fn before() {
    let deadline = Deadline::after(PATIENCE);
    while FORKING.swap(true, Ordering::SeqCst) {
        if !deadline.sleep() {
            return;
        }
    }
    FORKS.set(true);
    while INSIDE.load(Ordering::SeqCst) > 0 && deadline.sleep() {}
    #[cfg(feature = "sqlite")]
    super::sqlite::let_go_of_files(deadline);
}

/// After the fork, in the parent.
pub fn after_in_parent() {
    if FORKS.replace(false) {
        FORKING.store(false, Ordering::SeqCst);
    }
}

/// After the fork, in the child.
pub fn after_in_child() {
    // Operations that were still running have no thread here to end them.
    INSIDE.store(0, Ordering::SeqCst);
    FORKS.set(false);
    FORKING.store(false, Ordering::SeqCst);
}
