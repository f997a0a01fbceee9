//! How a lease is released when a refresh fails, and the log lines about leases.
//!
//! If Zoho refuses a refresh, the SDK raises and calls no method of a store. So the lease is tied to the life of the
//! frame of `get_token`: a [`LeaseGuard`] among its local variables is dropped when the method has returned, or when
//! its traceback is dropped. (A finalizer on the token that `find_token_by_id` makes would cover that method alone.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::convert::exception_name;
use super::error::{Failure, log};
use super::gil::without_gil;
use crate::domain::lease::LeaseKey;
use crate::store::Store;
use crate::store::held_leases::Acquired;
use crate::store::lease::describe_key;

/// Makes the class of the guard. PyO3 would make it at its first use, and a fork at that moment would leave it half
/// made.
pub(super) fn register(py: Python<'_>) {
    py.get_type::<LeaseGuard>();
}

/// Acquires a lock of this layer. It releases the GIL while it waits.
pub(super) fn lock<'a, T>(py: Python<'_>, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    mutex.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Ties the guard to the life of the frame.
pub(super) fn tie_to_frame(py: Python<'_>, frame: &Bound<'_, PyAny>, guard: LeaseGuard) -> PyResult<()> {
    // The name contains the address of the store, because one frame may hold leases of several stores.
    let name = format!("zoho_token_store_lease_{:x}", Arc::as_ptr(&guard.store) as usize);
    frame.getattr("f_locals")?.set_item(name, Py::new(py, guard)?)
}

/// Releases a lease when it is dropped, unless a save has released it before.
#[pyclass(frozen)]
pub(super) struct LeaseGuard {
    /// A strong reference. The last other one may be a local variable of the frame, which may be dropped first.
    pub(super) store: Arc<Store>,
    pub(super) acquired: Acquired,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        // Nothing can be done if the interpreter has ended already.
        Python::try_attach(|py| {
            if without_gil(py, &self.store, || self.store.release_lease(&self.acquired)) {
                let line = format!("{}: {}", self.store.location(), released_text(&self.acquired.key));
                let mut pending = lock(py, &PENDING_LINES);
                if pending.len() < MAX_PENDING_LINES {
                    pending.push(line);
                }
            }
        });
    }
}

/// Log lines of dropped guards. They are written later: a guard may be dropped by the garbage collector, in the middle
/// of a logging handler that holds its lock.
static PENDING_LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
const MAX_PENDING_LINES: usize = 100;

/// Writes the log lines that dropped guards have left.
pub(super) fn log_pending_lines(py: Python<'_>) -> Result<(), Failure> {
    let pending = std::mem::take(&mut *lock(py, &PENDING_LINES));
    Ok(pending.iter().try_for_each(|line| log(py, "info", line))?)
}

/// Releases the leases of this store when the interpreter exits: a program that ends with a failed refresh must not
/// keep other processes waiting.
pub(super) fn release_at_exit(py: Python<'_>, store: &Arc<Store>) -> PyResult<()> {
    static STORES: Mutex<Vec<Weak<Store>>> = Mutex::new(Vec::new());
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    {
        let mut stores = lock(py, &STORES);
        stores.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(store));
        stores.push(Arc::downgrade(store));
    }
    if REGISTERED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let release = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let py = arguments.py();
        let stores: Vec<_> = lock(py, &STORES).iter().filter_map(Weak::upgrade).collect();
        for store in stores {
            without_gil(py, &store, || store.release_all_leases());
        }
    };
    let release = PyCFunction::new_closure(py, None, None, release)?;
    py.import("atexit")?.call_method1("register", (release,)).map(drop)
}

/// Turns an exception on the way to a lease into "no lease" (`None`), with a warning. An exception that ends a program
/// passes through.
pub(super) fn or_no_lease<T>(py: Python<'_>, store: &Store, result: PyResult<T>) -> Result<Option<T>, Failure> {
    let error = match result {
        Ok(value) => return Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => error,
        Err(error) => return Err(Failure::Python(error)),
    };
    let name = exception_name(py, &error).unwrap_or_default();
    log_for(py, store, "warning", &format!("continues without a lease: Python raised {name}"))?;
    Ok(None)
}

pub(super) fn released_text(key: &LeaseKey) -> String {
    format!("released the lease to refresh {}: no new token was saved", describe_key(key))
}

pub(super) fn log_release_with_save(py: Python<'_>, store: &Store, key: &LeaseKey) -> Result<(), Failure> {
    log_for(py, store, "debug", &format!("released the lease to refresh {} with the new token", describe_key(key)))
}

/// Writes a log line about a store.
pub(super) fn log_for(py: Python<'_>, store: &Store, level: &str, text: &str) -> Result<(), Failure> {
    Ok(log(py, level, &format!("{}: {text}", store.location()))?)
}
