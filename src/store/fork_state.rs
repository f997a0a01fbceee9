//! The state of the gate that keeps operations and forks apart ([`super::fork`]).
//!
//! It is made of atomics, not of a mutex: a child would inherit a mutex with waiting threads that it does not have.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A thread is forking, or waits for operations to end so that it can fork.
pub(super) static FORKING: AtomicBool = AtomicBool::new(false);

/// The number of running operations, nested ones included.
pub(super) static RUNNING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread is forking. Other fork hooks that it runs may use a store.
    pub(super) static FORKS_HERE: Cell<bool> = const { Cell::new(false) };
    /// The number of operations that this thread runs, nested ones included.
    pub(super) static RUNS_HERE: Cell<usize> = const { Cell::new(0) };
}

/// Does another thread wait for the operation of this thread to end, so that it can fork?
///
/// The operation then stops waiting and fails with `Busy`. [`super::Store`] starts it again after the fork.
#[must_use]
pub fn is_fork_awaited() -> bool {
    FORKING.load(Ordering::Relaxed) && !FORKS_HERE.get() && RUNS_HERE.get() > 0
}
