//! How a lease ends where nobody saves, and what is said about leases.
//!
//! If Zoho refuses, the SDK raises, and calls no method of a store. So a lease hangs on the life of the frame that decides:
//! a [`Guard`] among its locals goes when `get_token` has returned, or when its traceback has gone. A finalizer on the token
//! that `find_token_by_id` makes would say the same for that method alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::convert::raised;
use super::error::{Failure, log};
use crate::domain::lease::Key;
use crate::store::Store;
use crate::store::error::describe_id;
use crate::store::held::Turn;

/// Hangs the guard on the life of the frame.
pub(super) fn watch(py: Python<'_>, frame: &Bound<'_, PyAny>, guard: Guard) -> PyResult<()> {
    // A name per store: another may decide in the same frame.
    let name = format!("zoho_token_store_lease_{:x}", Arc::as_ptr(&guard.store) as usize);
    frame.getattr(intern!(py, "f_locals"))?.set_item(name, Py::new(py, guard)?)
}

/// Gives a lease back when it goes, if nobody has saved until then.
#[pyclass(frozen)]
pub(super) struct Guard {
    /// Not weakly: the frame's own locals may hold the store last of all, and go first.
    pub(super) store: Arc<Store>,
    pub(super) turn: Turn,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may be one of the last things in an interpreter that ends, and then there is nothing left to do it with.
        Python::try_attach(|py| {
            if py.detach(|| self.store.give_back(&self.turn)) {
                let mut untold = UNTOLD.lock();
                if untold.len() < MOST_UNTOLD {
                    untold.push(format!("{}: {}", self.store.place(), gave_back(&self.turn.key)));
                }
            }
        });
    }
}

/// What is to be logged at the next occasion. Not at once, for a guard may go while Python collects garbage, in the middle
/// of somebody's logging handler, with its lock held.
static UNTOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
const MOST_UNTOLD: usize = 100;

/// Logs what guards that have gone left to say.
pub(super) fn tell_untold(py: Python<'_>) -> Result<(), Failure> {
    let untold = std::mem::take(&mut *UNTOLD.lock());
    Ok(untold.iter().try_for_each(|text| log(py, "info", text))?)
}

/// Sees to it that a program which ends by a failed refresh does not keep the next one waiting.
pub(super) fn at_exit(py: Python<'_>, store: &Arc<Store>) -> PyResult<()> {
    static STORES: Mutex<Vec<Weak<Store>>> = Mutex::new(Vec::new());
    static REGISTERED: AtomicBool = AtomicBool::new(false);
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

/// What went wrong on the way to a lease means "no lease"; what ends a program passes.
pub(super) fn or_no_lease<T>(py: Python<'_>, store: &Store, result: PyResult<T>) -> Result<Option<T>, Failure> {
    let error = match result {
        Ok(value) => return Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => error,
        Err(error) => return Err(Failure::Python(error)),
    };
    let name = raised(py, &error).unwrap_or_default();
    tell(py, store, "warning", &format!("going on without a lease: Python raised {name}"))?;
    Ok(None)
}

pub(super) fn gave_back(key: &Key) -> String {
    format!("gave back the lease to refresh {}: no new token was saved", what(key))
}

pub(super) fn gave_back_with_save(py: Python<'_>, store: &Store, key: &Key) -> Result<(), Failure> {
    tell(py, store, "debug", &format!("gave back the lease to refresh {} with the new token", what(key)))
}

pub(super) fn tell(py: Python<'_>, store: &Store, level: &str, text: &str) -> Result<(), Failure> {
    Ok(log(py, level, &format!("{}: {text}", store.place()))?)
}

/// What a lease is for, without a secret.
pub(super) fn what(key: &Key) -> String {
    key.id().map_or_else(|| "credentials that no row has yet".to_owned(), describe_id)
}
