//! Waiting for another's refresh, where the SDK's `get_token` is about to make one (`docs/lease.md`).
//!
//! [`crate::store::lease`] looks and takes. Here is what needs Python: who calls, and how to wait. [`super::turn`] notices
//! that a refresh came to nothing.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::clock;
use super::convert::Sdk;
use super::error::Failure;
use super::turn::{Guard, at_exit, gave_back, or_no_lease, tell, tell_untold, watch, what};
use crate::domain::lease::{Asker, Key, Lease, SOON, Waiting};
use crate::store::held::{Counters, Turn, asker};
use crate::store::lease::{Advice, Asked};
use crate::store::{Found, Store};

/// How often a store had to do with refresh leases in this process since it was made. A snapshot.
#[pyclass(module = "zoho_token_store", frozen, get_all)]
pub(super) struct LeaseInfo {
    /// Leases taken: refreshes that this store let the SDK make while others wait.
    taken: u64,
    /// Finds that waited for another's refresh, however the wait ended.
    waited: u64,
    /// Those of them that went on without a fresh token: Zoho was slow, or `refresh_lease` is short.
    gave_up: u64,
    /// The longest wait, in seconds.
    longest_wait: f64,
}

impl From<Counters> for LeaseInfo {
    fn from(counters: Counters) -> Self {
        let Counters { taken, waited, gave_up, longest_wait } = counters;
        Self { taken, waited, gave_up, longest_wait: longest_wait.as_secs_f64() }
    }
}

#[pymethods]
impl LeaseInfo {
    fn __repr__(&self) -> String {
        let Self { taken, waited, gave_up, longest_wait } = self;
        format!("LeaseInfo(taken={taken}, waited={waited}, gave_up={gave_up}, longest_wait={longest_wait:.3})")
    }
}

/// The longest that taking a lease waits for the file at a time. Signals are honoured in between.
const AT_A_TIME: Duration = Duration::from_millis(50);

/// Milliseconds between two looks at another's lease.
const STEP: std::ops::Range<u64> = 20..50;

/// The row, for one who asks: when it is fresh, or when its refresh is theirs to make.
///
/// `found` is what a look at the row alone gave. Whatever fails here, the answer is the row as it was seen last. What ends
/// a wait from outside passes through: what a signal's handler raises, and a timeout of gevent's.
pub(super) fn row_in_turn(
    py: Python<'_>,
    store: &Arc<Store>,
    sdk: &Sdk,
    asked: Asked<'_>,
    mut found: Option<Found>,
) -> Result<Option<Found>, Failure> {
    let Some(frame) = or_no_lease(py, store, sdk.deciding_frame(py))?.flatten() else { return Ok(found) };
    let call = frame.as_ptr() as usize;
    let Some(_deciding) = Deciding::begin(call) else { return Ok(found) };
    tell_untold(py)?;
    let Some((who, is_alone)) = or_no_lease(py, store, who(py))?.flatten() else { return Ok(found) };
    let Some(clock) = or_no_lease(py, store, clock::of_the_sdk(py))? else { return Ok(found) };
    while !store.is_due(asked, found.as_ref(), &clock) {
        if !store.is_due(asked, found.as_ref(), || clock().saturating_add(SOON)) {
            return Ok(found);
        }
        sleep(py, AT_A_TIME)?;
    }
    let mut wait = Wait { py, store, begun: None, waiting: Waiting::default() };
    let mut held_before = store.holds_leases();
    loop {
        let slice = AT_A_TIME.min(store.refresh_lease());
        let looked = Instant::now();
        let advice = match py.detach(|| store.consult(asked, &who, call, &clock, slice)) {
            Ok(consulted) => {
                found = consulted.found;
                consulted.advice
            }
            Err(error) => Advice::NoLease(error.to_string()),
        };
        // Before anything else that can fail: from here on the lease gives itself back.
        let lives = match &advice {
            Advice::Refresh(turn) => watch(py, &frame, Guard { store: Arc::clone(store), turn: turn.clone() }),
            _ => Ok(()),
        };
        or_no_lease(py, store, lives)?;
        if let (true, Advice::Refresh(Turn { key, .. }) | Advice::Wait(key, _)) = (held_before, &advice) {
            held_before = false;
            if let Some(outer) = or_no_lease(py, store, frames_of(&frame.getattr(intern!(py, "f_back"))?))? {
                let given = py.detach(|| store.give_back_ended(who.owner(), key, |call| !outer.contains(&call)));
                given.iter().try_for_each(|key| tell(py, store, "info", &gave_back(key)))?;
            }
        }
        let again = match &advice {
            Advice::Serve => wait.ends(false).map(|()| false),
            Advice::Refresh(turn) => wait.ends(false).and_then(|()| refreshes(py, store, turn)).map(|()| false),
            Advice::NoLease(trouble) => {
                tell(py, store, "warning", &format!("going on without a lease: {trouble}"))?;
                wait.ends(true).map(|()| false)
            }
            Advice::Wait(key, lease) if is_alone && who.shares_process_with(lease) && has_ended(py, store, key)? => {
                continue;
            }
            Advice::Wait(key, lease) => wait.meets(key, lease, looked),
            Advice::Busy => wait.is_blocked(looked),
        };
        if !again? {
            return Ok(found);
        }
    }
}

/// A decision that is being made. A handler of our own log that looks a row up is within it, and makes none.
struct Deciding(usize);

thread_local!(static DECIDING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) });

impl Deciding {
    fn begin(call: usize) -> Option<Self> {
        DECIDING.with_borrow_mut(|calls| {
            let is_new = !calls.contains(&call);
            is_new.then(|| calls.push(call))
        })?;
        Some(Self(call))
    }
}

impl Drop for Deciding {
    fn drop(&mut self) {
        // The greenlets of a thread need not end in order.
        DECIDING.with_borrow_mut(|calls| calls.retain(|call| *call != self.0));
    }
}

/// Gives back the leases of this process whose calls are on no thread's stack any more: their refresh has failed, and
/// somebody keeps the exception, and with it the frame and its [`Guard`]. Tells whether the one with this key was among them.
fn has_ended(py: Python<'_>, store: &Store, key: &Key) -> Result<bool, Failure> {
    // Before the look at the stacks: what is taken from here on, by calls that it does not see, is not meant.
    let Some(held) = py.detach(|| store.calls()) else { return Ok(false) };
    let running = || -> PyResult<Option<HashSet<usize>>> {
        let sys = py.import("sys")?;
        // Without the GIL, frames that other threads run change while they are looked at: then the lease's end is waited for.
        if let Some(is_gil_enabled) = sys.getattr_opt(intern!(py, "_is_gil_enabled"))?
            && !is_gil_enabled.call0()?.is_truthy()?
        {
            return Ok(None);
        }
        let mut running = HashSet::new();
        let frames = sys.call_method0(intern!(py, "_current_frames"))?;
        for frame in frames.call_method0(intern!(py, "values"))?.try_iter()? {
            running.extend(frames_of(&frame?)?);
        }
        Ok(Some(running))
    };
    let Some(Some(running)) = or_no_lease(py, store, running())? else { return Ok(false) };
    let mut is_among = false;
    for (_, turn) in held.iter().filter(|(call, _)| !running.contains(call)) {
        if py.detach(|| store.give_back(turn)) {
            is_among |= turn.key == *key;
            tell(py, store, "info", &gave_back(&turn.key))?;
        }
    }
    Ok(is_among)
}

/// One find's wait for others.
struct Wait<'py, 's> {
    py: Python<'py>,
    store: &'s Store,
    begun: Option<Instant>,
    waiting: Waiting,
}

impl Wait<'_, '_> {
    /// Another's lease is in the way. Tells whether to look again.
    fn meets(&mut self, key: &Key, lease: &Lease, looked: Instant) -> Result<bool, Failure> {
        if self.begun.is_none() {
            let (what, process) = (what(key), lease.process());
            tell(self.py, self.store, "debug", &format!("process {process} refreshes {what}: waiting"))?;
        }
        let waited = self.begun.get_or_insert_with(Instant::now).elapsed();
        self.waiting.meets(lease, waited);
        self.sleeps(looked)
    }

    /// A lease is to be had, but others keep the store busy. Tells whether to look again.
    fn is_blocked(&mut self, looked: Instant) -> Result<bool, Failure> {
        if self.begun.is_none() {
            tell(self.py, self.store, "debug", "others keep the store too busy to take a lease: waiting")?;
        }
        let waited = self.begun.get_or_insert_with(Instant::now).elapsed();
        self.waiting.is_blocked(waited);
        self.sleeps(looked)
    }

    /// Sleeps a little, and tells whether to look again: not if it had lasted long enough when the last look began. Whoever
    /// was stopped since then, or waited for the GIL, looks once more before it gives up.
    fn sleeps(&mut self, looked: Instant) -> Result<bool, Failure> {
        let waited = looked.saturating_duration_since(*self.begun.get_or_insert_with(Instant::now));
        let left = self.waiting.limit(self.store.refresh_lease()).saturating_sub(waited);
        if left.is_zero() {
            self.ends(true)?;
            return Ok(false);
        }
        sleep(self.py, left.min(Duration::from_millis(fastrand::u64(STEP))))?;
        Ok(true)
    }

    /// It is over, in vain or not.
    fn ends(&self, in_vain: bool) -> Result<(), Failure> {
        let Some(begun) = self.begun else { return Ok(()) };
        let waited = begun.elapsed();
        self.store.count_wait(waited, in_vain);
        let seconds = waited.as_secs_f64();
        if in_vain {
            let text = format!("waited {seconds:.3} s for a refresh that did not come: going on with the row as it is");
            return tell(self.py, self.store, "warning", &text);
        }
        tell(self.py, self.store, "info", &format!("waited {seconds:.3} s for another's refresh"))
    }
}

/// Sleeps without the GIL, and lets signals' handlers have their say.
///
/// Where gevent or the like has replaced `time.sleep`, by that: the other greenlets of this thread go on. Python's own is
/// not called: it looks for signals only if one comes while it sleeps, and a thread that is in it when the interpreter
/// ends is ended in a way that no Rust below it survives.
fn sleep(py: Python<'_>, time: Duration) -> PyResult<()> {
    let sleep = py.import("time")?.getattr(intern!(py, "sleep"))?;
    if sleep.is_instance_of::<PyCFunction>() {
        py.detach(|| thread::sleep(time));
    } else {
        sleep.call1((time.as_secs_f64(),))?;
    }
    py.check_signals()
}

/// Says that the lease is this call's.
fn refreshes(py: Python<'_>, store: &Arc<Store>, turn: &Turn) -> Result<(), Failure> {
    let (what, seconds) = (what(&turn.key), store.refresh_lease().as_secs_f64());
    if !turn.is_new {
        return tell(py, store, "debug", &format!("still has the lease to refresh {what}"));
    }
    or_no_lease(py, store, at_exit(py, store))?;
    tell(py, store, "info", &format!("took the lease to refresh {what}, for {seconds} s"))
}

/// Who asks: the thread, and the greenlet if there are any. The second value: none are in this process.
fn who(py: Python<'_>) -> PyResult<Option<(Asker, bool)>> {
    let modules = py.import("sys")?.getattr(intern!(py, "modules"))?;
    let greenlets = modules.call_method1(intern!(py, "get"), (intern!(py, "greenlet"),))?;
    let task = if greenlets.is_none() { 0 } else { greenlets.call_method0(intern!(py, "getcurrent"))?.as_ptr() as u64 };
    let yields = !py.import("time")?.getattr(intern!(py, "sleep"))?.is_instance_of::<PyCFunction>();
    // Detached, for it waits while another thread forks, and that needs the GIL.
    Ok(py.detach(|| asker(task, yields)).map(|who| (who, greenlets.is_none())))
}

/// Who saves, if this process holds any lease, and the mark of the decision that this is the save of.
pub(super) fn saver(py: Python<'_>, store: &Store, sdk: &Sdk) -> Result<Option<(String, Option<usize>)>, Failure> {
    if !store.holds_leases() {
        return Ok(None);
    }
    let call = or_no_lease(py, store, sdk.deciding_frame(py))?.flatten().map(|frame| frame.as_ptr() as usize);
    Ok(or_no_lease(py, store, who(py))?.flatten().map(|(who, _)| (who.owner().to_owned(), call)))
}

/// The marks of a frame and of all that it was called from.
fn frames_of(frame: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let back = intern!(frame.py(), "f_back");
    let mut marks = Vec::new();
    let mut next = frame.clone();
    while !next.is_none() {
        marks.push(next.as_ptr() as usize);
        next = next.getattr(back)?;
    }
    Ok(marks)
}
