//! Waiting for the refresh of another requester, in a find that the SDK's `get_token` makes (`docs/lease.md`).
//!
//! [`crate::store::lease`] reads row and lease, and acquires the lease. This module does what needs Python: it finds
//! the frame of the call, and it waits. [`super::lease_guard`] releases the lease when the refresh fails.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::caller_functions::is_ending;
use super::convert::{Sdk, exception_name};
use super::error::Failure;
use super::exit;
use super::gil::{current_greenlet, without_gil, yields};
use super::lease_guard::{
    LeaseGuard, log_for, log_pending_lines, or_no_lease, release_at_exit, released_text, tie_to_frame,
};
use crate::domain::Field;
use crate::domain::lease::{DUE_SOON_MS, Lease, LeaseKey, LookCost, Requester, WaitProgress, poll_interval};
use crate::store::error::{Error, describe_id};
use crate::store::held_leases::{Acquired, Counters, requester};
use crate::store::lease::{Lookup, Outcome, describe_key};
use crate::store::{Found, Store};

/// How often a store acquired refresh leases and waited for them, in this process, since it was opened.
#[pyclass(module = "zoho_token_store", frozen, get_all)]
pub(super) struct LeaseInfo {
    /// The leases that this store acquired. Each one let the SDK make one refresh, while other requesters waited.
    taken: u64,
    /// The finds that waited for the refresh of another requester, however the wait ended.
    waited: u64,
    /// The waits that ended without a fresh token: Zoho was slow, or `refresh_lease` is too short.
    gave_up: u64,
    /// The longest wait, in seconds.
    longest_wait: f64,
    /// The calls of `save_token` that failed. The SDK swallows their errors while it refreshes.
    failed_saves: u64,
    /// The refreshes that ended without a fresh token, of those that this store acquired a lease for.
    failed_refreshes: u64,
    /// The finds that failed at once, because refreshes had failed before (`refresh_backoff`).
    backed_off: u64,
    /// Those of the acquired leases that were for a refresh ahead of expiry.
    taken_ahead: u64,
}

impl LeaseInfo {
    pub(super) fn of(store: &Store) -> Self {
        let Counters { acquired, waited, gave_up, longest_wait, failed, backed_off, acquired_ahead } =
            store.lease_counters();
        Self {
            taken: acquired,
            waited,
            gave_up,
            longest_wait: longest_wait.as_secs_f64(),
            failed_saves: store.failed_saves(),
            failed_refreshes: failed,
            backed_off,
            taken_ahead: acquired_ahead,
        }
    }
}

#[pymethods]
impl LeaseInfo {
    fn __repr__(&self) -> String {
        let Self { taken, waited, gave_up, longest_wait, failed_saves, failed_refreshes, backed_off, taken_ahead } =
            self;
        format!(
            "LeaseInfo(taken={taken}, waited={waited}, gave_up={gave_up}, longest_wait={longest_wait:.3}, \
             failed_saves={failed_saves}, failed_refreshes={failed_refreshes}, backed_off={backed_off}, \
             taken_ahead={taken_ahead})"
        )
    }
}

/// The half of refreshes ahead of expiry that calls the SDK.
const REFRESH_MODULE: &str = "zoho_token_store._refresh";

/// The longest single attempt to acquire a lease on a busy store. Signals are handled between two attempts.
const LEASE_ACQUIRE_SLICE: Duration = Duration::from_millis(50);

/// The same for a store on a server: an attempt may have to connect first.
const SERVER_ACQUIRE_SLICE: Duration = Duration::from_secs(1);

/// Returns the row when it is fresh, or when this requester has to refresh it.
///
/// `found` is the result of a find without a wait. If anything fails here, the result is the row as it was read last.
/// An exception that ends a wait from outside passes through: one of a signal handler, or a timeout of gevent.
pub(super) fn wait_for_row(
    py: Python<'_>,
    store: &Arc<Store>,
    sdk: &Sdk,
    lookup: Lookup<'_>,
    mut found: Option<Found>,
) -> Result<Option<Found>, Failure> {
    let Some(frame) = or_no_lease(py, store, sdk.deciding_frame(py))?.flatten() else { return Ok(found) };
    let call = frame.as_ptr() as usize;
    let Some(_deciding) = Deciding::begin(call) else { return Ok(found) };
    log_pending_lines(py)?;
    let Some(caller) = or_no_lease(py, store, caller(py))?.flatten() else { return Ok(found) };
    let Some(clock) = or_no_lease(py, store, sdk.clock.read(py))? else { return Ok(found) };
    // The token is fresh, but expires within `DUE_SOON_MS`. The SDK reads the clock later than this, so wait until it
    // expires.
    while !store.is_due(lookup, found.as_ref(), &clock) {
        if !store.is_due(lookup, found.as_ref(), || clock().saturating_add(DUE_SOON_MS)) {
            return Ok(found);
        }
        sleep(py, LEASE_ACQUIRE_SLICE)?;
    }
    let mut wait = RefreshWait { py, store, begun: None, progress: WaitProgress::default() };
    let mut may_hold_abandoned = store.holds_leases();
    loop {
        let is_local = store.look_cost() == LookCost::Microseconds;
        let slice = if is_local { LEASE_ACQUIRE_SLICE } else { SERVER_ACQUIRE_SLICE }.min(store.refresh_lease());
        let attempted_at = Instant::now();
        let outcome = match without_gil(py, store, || store.try_acquire(lookup, &caller.requester, call, &clock, slice))
        {
            Ok(attempt) => {
                found = attempt.found;
                attempt.outcome
            }
            Err(error) => Outcome::NoLease(error),
        };
        // Before anything that can fail: from here on the lease is released whatever happens.
        let tied = match &outcome {
            Outcome::Refresh(acquired) => {
                tie_to_frame(py, &frame, LeaseGuard { store: Arc::clone(store), acquired: acquired.clone() })
            }
            _ => Ok(()),
        };
        or_no_lease(py, store, tied)?;
        if let (true, Outcome::Refresh(Acquired { key, .. }) | Outcome::Wait(key, ..)) = (may_hold_abandoned, &outcome)
        {
            may_hold_abandoned = false;
            if let Some(outer) = or_no_lease(py, store, calls_of(&frame.getattr("f_back")?))? {
                let owner = caller.requester.owner();
                let released = without_gil(py, store, || {
                    store.release_abandoned_leases(owner, key, |call| !outer.contains(&call))
                });
                released.iter().try_for_each(|key| log_for(py, store, "info", &released_text(key)))?;
            }
        }
        let again = match &outcome {
            Outcome::Serve => wait.end(false).map(|()| false),
            Outcome::Refresh(acquired) => {
                wait.end(false).and_then(|()| log_acquired(py, store, acquired)).map(|()| false)
            }
            // Otherwise a function of the program has raised an exception that ends it, so no other one may be called.
            Outcome::TryAgain(problem) if !is_ending() => wait.see_busy_store(problem, attempted_at),
            Outcome::NoLease(problem) | Outcome::TryAgain(problem) => {
                log_no_lease(py, store, problem)?;
                wait.end(true).map(|()| false)
            }
            Outcome::BackOff(error, _) => {
                // The wait was not in vain: it has ended with the refresh of another requester, which has failed.
                wait.end(false)?;
                return Err(error.clone().into());
            }
            Outcome::Wait(key, lease, _)
                if !caller.has_greenlets
                    && caller.requester.is_same_process(lease)
                    && release_if_abandoned(py, store, key)? =>
            {
                continue;
            }
            Outcome::Wait(key, lease, lease_now) => wait.see_lease(key, lease, *lease_now, attempted_at),
        };
        if !again? {
            return Ok(found);
        }
    }
}

/// Has the row refreshed in the background, if a request of the SDK has found it (rule 17). The find itself goes on.
/// `object` is the store that the request uses.
pub(super) fn refresh_in_background(
    object: &Bound<'_, PyAny>,
    store: &Store,
    sdk: &Sdk,
    found: &Found,
) -> Result<(), Failure> {
    let py = object.py();
    if or_no_lease(py, store, sdk.deciding_frame(py))?.flatten().is_none() {
        return Ok(());
    }
    let id = found.row().get(Field::Id).unwrap_or_default();
    let schedule = || py.import(REFRESH_MODULE)?.getattr("schedule")?.call1((object, id, store.refresh_ahead()));
    match schedule() {
        Err(error) if error.is_instance_of::<PyException>(py) => {
            let name = exception_name(py, &error).unwrap_or_default();
            let text = format!("{} cannot be refreshed ahead of its expiry: Python raised {name}", describe_id(id));
            log_for(py, store, "warning", &text)
        }
        scheduled => Ok(scheduled.map(drop)?),
    }
}

/// The calls of this thread that decide about a refresh. A log handler that looks up a row during such a call gets the
/// row at once, and decides nothing.
struct Deciding(usize);

thread_local!(static DECIDING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) });

impl Deciding {
    fn begin(call: usize) -> Option<Self> {
        // A server such as uWSGI ends the interpreter after the thread-local values of its thread.
        let begun = DECIDING.try_with(|calls| {
            let mut calls = calls.borrow_mut();
            let is_new = !calls.contains(&call);
            is_new.then(|| calls.push(call))
        });
        begun.ok().flatten().map(|()| Self(call))
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        // Greenlets of one thread may end in any order.
        let _ = DECIDING.try_with(|calls| calls.borrow_mut().retain(|call| *call != self.0));
    }
}

/// Releases the leases of this process whose calls are on no thread's stack any more. Returns whether the lease with
/// this key was released.
///
/// The refresh of such a call has failed, and the program keeps the exception, as a `Future` does. The exception keeps
/// the frame, and the frame keeps its [`LeaseGuard`].
fn release_if_abandoned(py: Python<'_>, store: &Store, key: &LeaseKey) -> Result<bool, Failure> {
    // The leases are read before the stacks: a lease that is acquired later belongs to a call that the stacks may not
    // show.
    let Some(held) = py.detach(|| store.calls_with_leases()) else { return Ok(false) };
    let running = || -> PyResult<Option<HashSet<usize>>> {
        let sys = py.import("sys")?;
        // Without the GIL, the frames of running threads change while they are read. Then the lease has to expire.
        if let Some(is_gil_enabled) = sys.getattr_opt("_is_gil_enabled")?
            && !is_gil_enabled.call0()?.is_truthy()?
        {
            return Ok(None);
        }
        let mut running = HashSet::new();
        let frames = sys.call_method0("_current_frames")?;
        for frame in frames.call_method0("values")?.try_iter()? {
            running.extend(calls_of(&frame?)?);
        }
        Ok(Some(running))
    };
    let Some(Some(running)) = or_no_lease(py, store, running())? else { return Ok(false) };
    let mut released = false;
    for (_, acquired) in held.iter().filter(|(call, _)| !running.contains(call)) {
        if without_gil(py, store, || store.release_lease(acquired)) {
            released |= acquired.key == *key;
            log_for(py, store, "info", &released_text(&acquired.key))?;
        }
    }
    Ok(released)
}

/// The wait of one find.
struct RefreshWait<'py, 's> {
    py: Python<'py>,
    store: &'s Store,
    begun: Option<Instant>,
    progress: WaitProgress,
}

impl RefreshWait<'_, '_> {
    /// Another requester holds the lease. Returns whether to try again.
    fn see_lease(
        &mut self,
        key: &LeaseKey,
        lease: &Lease,
        lease_now: i64,
        attempted_at: Instant,
    ) -> Result<bool, Failure> {
        if self.begun.is_none() {
            let text = format!("process {} refreshes {}: waiting", lease.process_id(), describe_key(key));
            log_for(self.py, self.store, "debug", &text)?;
        }
        let waited = self.begun.get_or_insert_with(Instant::now).elapsed();
        self.progress.see_lease(lease, lease_now, waited);
        self.sleep(attempted_at, None)
    }

    /// No lease can be acquired now, because of `problem`. Returns whether to try again.
    fn see_busy_store(&mut self, problem: &Error, attempted_at: Instant) -> Result<bool, Failure> {
        if self.begun.is_none() {
            let text = format!("no lease can be acquired ({}): waiting", problem.code().name());
            log_for(self.py, self.store, "debug", &text)?;
        }
        let begun = *self.begun.get_or_insert(attempted_at);
        self.progress.see_busy_store(attempted_at.saturating_duration_since(begun));
        self.sleep(attempted_at, Some(problem))
    }

    /// Sleeps, and returns whether to try again. Only the time until the last attempt counts. So a thread that was
    /// suspended since then, or waited for the GIL, tries once more before it gives up. `problem`: why the last attempt
    /// has acquired no lease, if no other requester holds it.
    fn sleep(&mut self, attempted_at: Instant, problem: Option<&Error>) -> Result<bool, Failure> {
        let waited = attempted_at.saturating_duration_since(*self.begun.get_or_insert_with(Instant::now));
        let left = self.progress.limit(self.store.refresh_lease()).saturating_sub(waited);
        if left.is_zero() {
            if let Some(problem) = problem {
                log_no_lease(self.py, self.store, problem)?;
            }
            self.end(true)?;
            return Ok(false);
        }
        let pause = fastrand::u64(poll_interval(waited, self.store.look_cost()));
        sleep(self.py, left.min(Duration::from_millis(pause)))?;
        Ok(true)
    }

    /// Counts and logs the wait, if there was one.
    fn end(&self, gave_up: bool) -> Result<(), Failure> {
        let Some(begun) = self.begun else { return Ok(()) };
        let waited = begun.elapsed();
        self.store.count_wait(waited, gave_up);
        let seconds = waited.as_secs_f64();
        if gave_up {
            let text =
                format!("waited {seconds:.3} s for a refresh that did not come: continues with the row as it is");
            return log_for(self.py, self.store, "warning", &text);
        }
        log_for(self.py, self.store, "info", &format!("waited {seconds:.3} s for the refresh of another requester"))
    }
}

fn log_no_lease(py: Python<'_>, store: &Store, problem: &Error) -> Result<(), Failure> {
    log_for(py, store, "warning", &format!("continues without a lease: {problem}"))
}

/// Sleeps without the GIL, and runs signal handlers.
///
/// gevent replaces `time.sleep`. Then this calls the replacement, so that other greenlets of the thread go on. Python's
/// own `time.sleep` is not called: it checks for signals only if one arrives while it sleeps. And a thread that is in
/// it when the interpreter ends is terminated (Python's C API, "Cautions regarding runtime finalization"). Rust frames
/// must not be unwound by `pthread_exit`.
pub(super) fn sleep(py: Python<'_>, time: Duration) -> PyResult<()> {
    let sleep = py.import("time")?.getattr("sleep")?;
    if sleep.is_instance_of::<PyCFunction>() {
        exit::away(py, || thread::sleep(time));
    } else {
        sleep.call1((time.as_secs_f64(),))?;
    }
    py.check_signals()
}

pub(super) fn log_acquired(py: Python<'_>, store: &Arc<Store>, acquired: &Acquired) -> Result<(), Failure> {
    let (what, seconds) = (describe_key(&acquired.key), store.refresh_lease().as_secs_f64());
    if !acquired.is_new {
        return log_for(py, store, "debug", &format!("still holds the lease to refresh {what}"));
    }
    or_no_lease(py, store, release_at_exit(py, store))?;
    if let Some(problem) = &acquired.problem {
        let text = format!("acquired the lease to refresh {what} in this process only: {problem}");
        return log_for(py, store, "warning", &text);
    }
    log_for(py, store, "info", &format!("acquired the lease to refresh {what}, for {seconds} s"))
}

/// The thread or greenlet that calls.
pub(super) struct Caller {
    pub(super) requester: Requester,
    /// The process uses greenlets, whose stacks `sys._current_frames` does not show.
    has_greenlets: bool,
}

pub(super) fn caller(py: Python<'_>) -> PyResult<Option<Caller>> {
    let task = current_greenlet(py)?;
    let yields = yields(py)?;
    // Without the GIL: it waits while another thread forks, and that thread needs the GIL.
    Ok(py.detach(|| requester(task, yields)).map(|requester| Caller { requester, has_greenlets: task != 0 }))
}

/// Returns the owner whose leases a save releases. If the SDK's `get_token` saves, also returns the identity of that
/// call. `None` if the store holds no lease.
pub(super) fn saver(py: Python<'_>, store: &Store, sdk: &Sdk) -> Result<Option<(String, Option<usize>)>, Failure> {
    if !store.holds_leases() {
        return Ok(None);
    }
    let call = or_no_lease(py, store, sdk.deciding_frame(py))?.flatten().map(|frame| frame.as_ptr() as usize);
    let caller = or_no_lease(py, store, caller(py))?.flatten();
    Ok(caller.map(|caller| (caller.requester.owner().to_owned(), call)))
}

/// Returns the identity of the call of this frame, and of each call below it on the stack. The address of a frame
/// identifies its call.
fn calls_of(frame: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let back = "f_back";
    let mut calls = Vec::new();
    let mut next = frame.clone();
    while !next.is_none() {
        calls.push(next.as_ptr() as usize);
        next = next.getattr(back)?;
    }
    Ok(calls)
}
