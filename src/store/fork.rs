//! Makes a fork safe: no operation runs, and no database file is open, while the process forks.
//!
//! A child inherits the memory of its parent, but only the thread that forked (`fork(2)`). A lock that another thread
//! held stays locked for ever, and a change that another thread was making stays half made. A backend may have more to
//! protect, such as locks that belong to a process. So [`before`] waits until no operation runs, keeps new ones out,
//! and calls [`Backend::before_fork`] of every open store. Parent and child go on after [`after_in_parent`] and
//! [`after_in_child`].
//!
//! The Python layer calls these from `os.register_at_fork`. A fork in C code does not run those hooks. Then each
//! backend has to notice by itself that its process has another id, and no lock is waited for without a deadline.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::backend::Backend;
use super::deadline::Deadline;
use super::fork_state::{FORKING, FORKS_HERE, RUNNING, RUNS_HERE};
use super::lock_order::{Ordered, Rank};

/// The backends of all open stores.
static BACKENDS: Ordered<Vec<Weak<dyn Backend>>> = Ordered::new(Rank::Backends, Vec::new());

/// How long a fork waits for running operations. After that it happens anyway.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a new store, or the end of the interpreter, waits for a fork of another thread.
pub(super) const GATE_TIMEOUT: Duration = Duration::from_secs(1);

/// The time between two looks at the gate, in microseconds.
const GATE_POLL: Range<u64> = 100..1_000;

/// Held by an operation while it runs. Operations nest.
pub struct Pass(());

impl Drop for Pass {
    fn drop(&mut self) {
        RUNS_HERE.set(RUNS_HERE.get().saturating_sub(1));
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until no fork is in progress, and begins an operation. `None`: the deadline is over.
#[must_use]
pub fn enter(deadline: Deadline) -> Option<Pass> {
    let outer = RUNS_HERE.get();
    while !try_enter(1, outer > 0) {
        if !deadline.sleep(GATE_POLL) {
            return None;
        }
    }
    RUNS_HERE.set(outer + 1);
    Some(Pass(()))
}

/// Counts operations as running, unless another thread forks. `anyway`: counts them in any case.
fn try_enter(operations: usize, anyway: bool) -> bool {
    RUNNING.fetch_add(operations, Ordering::SeqCst);
    // Both sides write first and read second, so at least one of them sees the other.
    if anyway || !FORKING.load(Ordering::SeqCst) || FORKS_HERE.get() {
        return true;
    }
    RUNNING.fetch_sub(operations, Ordering::SeqCst);
    false
}

/// Runs `work`, which is no part of the operation of this thread: a fork does not wait for it. `work` may even fork.
/// The caller holds no lock, and nothing that a child must not inherit.
pub fn away<T>(work: impl FnOnce() -> T) -> T {
    let _away = Away::begin();
    work()
}

/// The operations of this thread, while they do not count as running.
struct Away {
    operations: usize,
}

impl Away {
    fn begin() -> Self {
        let operations = RUNS_HERE.replace(0);
        RUNNING.fetch_sub(operations, Ordering::SeqCst);
        Self { operations }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let deadline = Deadline::after(FORK_TIMEOUT);
        while !try_enter(self.operations, false) {
            if !deadline.sleep(GATE_POLL) {
                try_enter(self.operations, true);
                break;
            }
        }
        RUNS_HERE.set(self.operations);
    }
}

/// Adds the backend of a new store, so that forks and the end of the interpreter concern it.
pub(super) fn register(backend: &Arc<dyn Backend>) {
    let deadline = Deadline::after(GATE_TIMEOUT);
    // Inside the gate, so that no fork happens while the list is locked.
    let _pass = enter(deadline);
    if let Some(mut backends) = BACKENDS.lock(deadline) {
        backends.retain(|known| known.strong_count() > 0);
        backends.push(Arc::downgrade(backend));
    }
}

fn backends(deadline: Deadline) -> Vec<Arc<dyn Backend>> {
    BACKENDS.lock(deadline).map_or_else(Vec::new, |backends| backends.iter().filter_map(Weak::upgrade).collect())
}

/// To be called in the thread that is about to fork.
pub fn before() {
    let deadline = Deadline::after(FORK_TIMEOUT);
    while FORKING.swap(true, Ordering::SeqCst) {
        if !deadline.sleep(GATE_POLL) {
            return;
        }
    }
    FORKS_HERE.set(true);
    while RUNNING.load(Ordering::SeqCst) > 0 && deadline.sleep(GATE_POLL) {}
    for backend in backends(deadline) {
        backend.before_fork(deadline);
    }
}

/// To be called in the parent after the fork.
pub fn after_in_parent() {
    if FORKS_HERE.replace(false) {
        FORKING.store(false, Ordering::SeqCst);
    }
}

/// To be called in the child after the fork.
pub fn after_in_child() {
    // The threads of operations that were still running do not exist here.
    RUNNING.store(0, Ordering::SeqCst);
    FORKS_HERE.set(false);
    FORKING.store(false, Ordering::SeqCst);
    for backend in backends(Deadline::now()) {
        backend.after_fork_in_child();
    }
}

/// To be called before the interpreter ends. Stores that the program keeps to the end, as the SDK does, are never
/// dropped.
pub fn before_exit() {
    let deadline = Deadline::after(GATE_TIMEOUT);
    let _pass = enter(deadline);
    for backend in backends(deadline) {
        backend.before_exit(Deadline::after(GATE_TIMEOUT));
    }
}
