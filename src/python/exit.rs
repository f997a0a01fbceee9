//! Keeps the end of the interpreter and daemon threads apart.
//!
//! Before Python 3.14 a daemon thread that asks for the GIL while the interpreter ends is terminated by `pthread_exit`
//! (python/cpython#87135). That must not unwind frames of Rust: the process aborts with "FATAL: exception not
//! rethrown". PyO3 makes a thread hang instead if it is Rust that asks for the GIL (PyO3/pyo3#6085). But a thread whose
//! call of a store is running Python code, such as a getter of a token or a handler of the log, is terminated in that
//! code.
//!
//! So the `atexit` hook waits until such calls have ended, and a thread that begins one later waits for the end of the
//! process. At that time all threads except the one that ends the interpreter are daemon threads.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::clock::now;

/// How long the hook waits for calls of other threads. Their waits for a refresh do not count ([`away`]).
const CALLS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long after the hook other threads wait for the end of the process. It usually ends sooner. But a hook that was
/// registered before ours runs after it, and may wait for such a thread.
const END_TIMEOUT_MS: i64 = 2_000;
const POLL: Duration = Duration::from_millis(1);

/// The calls that are running in all threads.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// Until when other threads wait, in milliseconds since the epoch. Set before `IS_ENDING`.
static WAIT_UNTIL: AtomicI64 = AtomicI64::new(0);

thread_local! {
    /// The calls that are running in this thread. A subclass of a store can call one method from another.
    static CALLS_HERE: Cell<usize> = const { Cell::new(0) };
    /// Does this thread end the interpreter?
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// A call of a store that may run Python code. It ends when this is dropped.
pub(super) struct Call(());

impl Call {
    /// Begins a call. If the interpreter is about to end, another thread than the one that ends it waits here.
    pub(super) fn begin(py: Python<'_>) -> Self {
        enter(py);
        Self(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        leave();
    }
}

/// Runs `work` without the GIL. Meanwhile the call does not keep the interpreter from ending.
pub(super) fn away<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    let is_in_call = CALLS_HERE.get() > 0;
    if is_in_call {
        leave();
    }
    let done = py.detach(work);
    if is_in_call {
        enter(py);
    }
    done
}

fn enter(py: Python<'_>) {
    loop {
        // First this, and then the look at `IS_ENDING`. The hook does the same in the other order, so one of them sees
        // the other one.
        CALLS.fetch_add(1, Ordering::SeqCst);
        CALLS_HERE.set(CALLS_HERE.get() + 1);
        // A call inside another one of this thread belongs to it.
        if !IS_ENDING.load(Ordering::SeqCst) || ENDS.get() || CALLS_HERE.get() > 1 {
            return;
        }
        // At most this long, even if the system's clock was set back.
        let left = WAIT_UNTIL.load(Ordering::SeqCst).saturating_sub(now()).clamp(0, END_TIMEOUT_MS);
        if left == 0 {
            return;
        }
        leave();
        py.detach(|| thread::sleep(Duration::from_millis(left.unsigned_abs())));
    }
}

fn leave() {
    CALLS.fetch_sub(1, Ordering::SeqCst);
    CALLS_HERE.set(CALLS_HERE.get().saturating_sub(1));
}

/// Lets no other thread begin a call, and waits for those that are running. For the `atexit` hook, without the GIL.
pub(super) fn before_exit() {
    ENDS.set(true);
    WAIT_UNTIL.store(now().saturating_add(END_TIMEOUT_MS), Ordering::SeqCst);
    IS_ENDING.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    while CALLS.load(Ordering::SeqCst) > CALLS_HERE.get() && begun.elapsed() < CALLS_TIMEOUT {
        thread::sleep(POLL);
    }
}

/// Forgets the calls of the other threads, which a forked child does not have.
pub(super) fn after_fork_in_child() {
    CALLS.store(CALLS_HERE.get(), Ordering::SeqCst);
    IS_ENDING.store(false, Ordering::SeqCst);
    ENDS.set(false);
}
