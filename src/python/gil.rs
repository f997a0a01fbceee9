//! Whether an operation of a store releases the GIL.

use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use crate::store::Store;

/// Runs `work`, an operation of `store`, without the GIL.
///
/// With greenlets it keeps the GIL if the store runs functions of the program. Such a function may switch to another
/// greenlet of the thread, which may return first. PyO3 counts for each thread how often it has acquired the GIL, and
/// `detach` restores the count that it has saved (PyO3 0.30, `internal/state.rs`). So two of them must not overlap. The
/// thread itself does not wait: the function lets other greenlets run.
pub(super) fn without_gil<T: Send>(py: Python<'_>, store: &Store, work: impl FnOnce() -> T + Send) -> T {
    if store.runs_foreign_code() { calling_functions(py, work) } else { py.detach(work) }
}

/// Runs `work`, which may call a function of the program, without the GIL, unless that function may switch to another
/// greenlet ([`without_gil`]).
pub(super) fn calling_functions<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    if may_switch(py).unwrap_or(false) { work() } else { py.detach(work) }
}

/// May a function of the program switch to another greenlet of this thread? A program that only imports `greenlet`, as
/// `SQLAlchemy` does, has none.
fn may_switch(py: Python<'_>) -> PyResult<bool> {
    let modules = py.import("sys")?.getattr("modules")?;
    let module = |name: &str| modules.call_method1("get", (name,));
    let greenlet = module("greenlet")?;
    if greenlet.is_none() {
        return yields(py);
    }
    let has_hub = !module("gevent")?.is_none() || !module("eventlet")?.is_none();
    Ok(has_hub || !greenlet.call_method0("getcurrent")?.getattr("parent")?.is_none() || yields(py)?)
}

/// Identifies the greenlet that is running. 0: the program has no greenlets.
pub(super) fn current_greenlet(py: Python<'_>) -> PyResult<u64> {
    let modules = py.import("sys")?.getattr("modules")?;
    let greenlet = modules.call_method1("get", ("greenlet",))?;
    if greenlet.is_none() { Ok(0) } else { Ok(greenlet.call_method0("getcurrent")?.as_ptr() as u64) }
}

/// Do other tasks of a thread run while one sleeps? gevent and others replace `time.sleep` for that.
pub(super) fn yields(py: Python<'_>) -> PyResult<bool> {
    Ok(!py.import("time")?.getattr("sleep")?.is_instance_of::<PyCFunction>())
}
