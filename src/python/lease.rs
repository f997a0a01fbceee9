//! Waiting for another's refresh, where the SDK's `get_token` is about to make one (`docs/lease.md`).
//!
//! [`crate::store::lease`] looks and takes. Here is what needs Python: who calls, how to wait, and how to notice that a
//! refresh came to nothing.
//!
//! The last has no call of its own: if Zoho refuses, the SDK raises, and calls no method of a store. So the lease hangs on
//! the life of the frame that decides: a [`Guard`] among its locals goes when `get_token` has returned, or when its
//! traceback has gone. A finalizer on the token that `find_token_by_id` makes would say the same for that method alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::clock;
use super::convert::Sdk;
use super::error::{Failure, log};
use crate::domain::lease::{Asker, Key, Lease, Waiting};
use crate::store::lease::{Advice, Asked, Counters, Turn, asker};
use crate::store::{Found, Store};

/// How often a store had to do with refresh leases.
#[pyclass(module = "zoho_token_store", frozen, get_all)]
pub(super) struct LeaseInfo {
    taken: u64,
    waited: u64,
    gave_up: u64,
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
/// `found` is what a look at the row alone gave. If anything fails but such a look, the answer is the row as it is. What
/// ends a wait from outside passes through: what a signal's handler raises, and a timeout of gevent's.
pub(super) fn row_in_turn(
    py: Python<'_>,
    store: &Arc<Store>,
    sdk: &Sdk,
    asked: Asked<'_>,
    found: Option<Found>,
) -> Result<Option<Found>, Failure> {
    let Some(frame) = or_no_lease(py, store, sdk.deciding_frame(py))?.flatten() else { return Ok(found) };
    let Some(who) = or_no_lease(py, store, who(py))?.flatten() else { return Ok(found) };
    let Some(clock) = or_no_lease(py, store, clock::of_the_sdk(py))? else { return Ok(found) };
    let call = frame.as_ptr() as usize;
    let mut wait = Wait { py, store, begun: None, waiting: Waiting::default() };
    let mut held_before = store.holds_leases();
    loop {
        let slice = AT_A_TIME.min(store.refresh_lease());
        let consulted = py.detach(|| store.consult(asked, &who, call, &clock, slice))?;
        if let (true, Advice::Refresh(Turn { key, .. }) | Advice::Wait(key, _)) = (held_before, &consulted.advice) {
            held_before = false;
            if let Some(outer) = or_no_lease(py, store, outer_frames(&frame))? {
                let given = py.detach(|| store.give_back_ended(who.owner(), key, |call| !outer.contains(&call)));
                given.iter().try_for_each(|key| gave_back(py, store, key))?;
            }
        }
        match consulted.advice {
            Advice::Serve => wait.ends(false)?,
            Advice::Refresh(turn) => {
                wait.ends(false)?;
                refreshes(py, store, &frame, turn)?;
            }
            Advice::NoLease(trouble) => {
                tell(py, store, "warning", &format!("going on without a lease: {trouble}"))?;
                wait.ends(true)?;
            }
            Advice::Wait(key, lease) => {
                if wait.meets(&key, &lease)? {
                    continue;
                }
            }
            Advice::Busy => {
                if wait.sleeps()? {
                    continue;
                }
            }
        }
        return Ok(consulted.found);
    }
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
    fn meets(&mut self, key: &Key, lease: &Lease) -> Result<bool, Failure> {
        if self.begun.is_none() {
            let (what, process) = (what(key), lease.process());
            tell(self.py, self.store, "debug", &format!("process {process} refreshes {what}: waiting"))?;
        }
        let waited = self.begun.get_or_insert_with(Instant::now).elapsed();
        self.waiting.meets(lease, waited);
        self.sleeps()
    }

    /// Sleeps a little, and tells whether to look again: not if it has lasted long enough.
    ///
    /// By Python's own `time.sleep`: it lets go of the GIL, a signal's handler ends it, and where gevent has replaced it
    /// the other greenlets of this thread go on.
    fn sleeps(&mut self) -> Result<bool, Failure> {
        let waited = self.begun.get_or_insert_with(Instant::now).elapsed();
        let left = self.waiting.limit(self.store.refresh_lease()).saturating_sub(waited);
        if left.is_zero() {
            self.ends(true)?;
            return Ok(false);
        }
        let step = left.min(Duration::from_millis(fastrand::u64(STEP)));
        self.py.import("time")?.call_method1(intern!(self.py, "sleep"), (step.as_secs_f64(),))?;
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

/// The lease is this call's, for as long as the frame lives.
fn refreshes(py: Python<'_>, store: &Arc<Store>, frame: &Bound<'_, PyAny>, turn: Turn) -> Result<(), Failure> {
    let (what, seconds) = (what(&turn.key), store.refresh_lease().as_secs_f64());
    let told = if turn.is_new {
        tell(py, store, "info", &format!("took the lease to refresh {what}, for {seconds} s"))
    } else {
        tell(py, store, "debug", &format!("still has the lease to refresh {what}"))
    };
    or_no_lease(py, store, at_exit(py, store, &turn))?;
    let guard = Py::new(py, Guard { store: Arc::downgrade(store), turn });
    let watch = guard.and_then(|guard| frame.getattr(intern!(py, "f_locals"))?.set_item(GUARD, guard));
    or_no_lease(py, store, watch)?;
    told
}

/// The name of the guard among the locals of the frame.
const GUARD: &str = "zoho_token_store_lease";

/// Gives a lease back when it goes, if nobody has saved until then.
#[pyclass(frozen)]
struct Guard {
    store: Weak<Store>,
    turn: Turn,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may be one of the last things in an interpreter that ends, and then there is nothing left to do it with.
        Python::try_attach(|py| {
            let Some(store) = self.store.upgrade() else { return };
            if py.detach(|| store.give_back(&self.turn)) {
                // Whoever lets go of a frame does not want to hear of a failed log.
                let _ = gave_back(py, &store, &self.turn.key);
            }
        });
    }
}

/// Sees to it that a program which ends by a failed refresh does not keep the next one waiting.
fn at_exit(py: Python<'_>, store: &Arc<Store>, turn: &Turn) -> PyResult<()> {
    static STORES: Mutex<Vec<Weak<Store>>> = Mutex::new(Vec::new());
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !turn.is_new {
        return Ok(());
    }
    {
        let mut stores = STORES.lock();
        stores.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(store));
        stores.push(Arc::downgrade(store));
    }
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let give_back = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        arguments.py().detach(|| {
            let stores: Vec<_> = STORES.lock().iter().filter_map(Weak::upgrade).collect();
            for store in stores {
                store.give_back_all();
            }
        });
    };
    let give_back = PyCFunction::new_closure(py, None, None, give_back)?;
    py.import("atexit")?.call_method1("register", (give_back,)).map(drop)
}

/// Who asks: the thread, and the greenlet if gevent or the like has replaced `threading.get_ident` and `time.sleep`.
fn who(py: Python<'_>) -> PyResult<Option<Asker>> {
    let task = py.import("threading")?.call_method0(intern!(py, "get_ident"))?.extract()?;
    let yields = !py.import("time")?.getattr(intern!(py, "sleep"))?.is_instance_of::<PyCFunction>();
    Ok(asker(task, yields))
}

/// What this thread holds, its task included, if it holds anything.
pub(super) fn owner(py: Python<'_>, store: &Store) -> Result<Option<String>, Failure> {
    if !store.holds_leases() {
        return Ok(None);
    }
    Ok(or_no_lease(py, store, who(py))?.flatten().map(|who| who.owner().to_owned()))
}

/// The marks of the calls that this frame's call was made within.
fn outer_frames(frame: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let back = intern!(frame.py(), "f_back");
    let mut marks = Vec::new();
    let mut next = frame.getattr(back)?;
    while !next.is_none() {
        marks.push(next.as_ptr() as usize);
        next = next.getattr(back)?;
    }
    Ok(marks)
}

/// What went wrong on the way to a lease means "no lease"; what ends a program passes.
fn or_no_lease<T>(py: Python<'_>, store: &Store, result: PyResult<T>) -> Result<Option<T>, Failure> {
    let error = match result {
        Ok(value) => return Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => error,
        Err(error) => return Err(Failure::Python(error)),
    };
    let name = super::convert::raised(py, &error).unwrap_or_default();
    tell(py, store, "warning", &format!("going on without a lease: Python raised {name}"))?;
    Ok(None)
}

fn gave_back(py: Python<'_>, store: &Store, key: &Key) -> Result<(), Failure> {
    tell(py, store, "info", &format!("gave back the lease to refresh {}: no new token was saved", what(key)))
}

pub(super) fn gave_back_with_save(py: Python<'_>, store: &Store, key: &Key) -> Result<(), Failure> {
    tell(py, store, "debug", &format!("gave back the lease to refresh {} with the new token", what(key)))
}

fn tell(py: Python<'_>, store: &Store, level: &str, text: &str) -> Result<(), Failure> {
    Ok(log(py, level, &format!("{}: {text}", store.place()))?)
}

/// What a lease is for, without a secret.
fn what(key: &Key) -> String {
    key.id().map_or_else(|| "credentials that no row has yet".to_owned(), crate::store::error::describe_id)
}
