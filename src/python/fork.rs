//! Tells the stores of every fork that Python makes, and of its end.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::store::fork;
use crate::store::sqlite::close_files;
use crate::store::wait::Deadline;

#[pyfunction]
fn before_fork(py: Python<'_>) {
    py.detach(fork::before);
}

#[pyfunction]
fn after_fork_in_parent() {
    fork::after_in_parent();
}

#[pyfunction]
fn after_fork_in_child() {
    fork::after_in_child();
}

#[pyfunction]
fn at_exit(py: Python<'_>) {
    py.detach(|| {
        let _pass = fork::enter(Deadline::after(AT_EXIT));
        close_files();
    });
}

/// Longest wait for a fork that another thread makes just then.
const AT_EXIT: Duration = Duration::from_secs(1);

/// Once, at import: so what others register for the end comes before, and may use a store.
pub(super) fn register(py: Python<'_>) -> PyResult<()> {
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(at_exit, py)?,))?;
    let os = py.import("os")?;
    // Where there is no fork there is nothing more to register.
    let Some(register) = os.getattr_opt("register_at_fork")? else { return Ok(()) };
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, py)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork_in_parent, py)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, py)?)?;
    register.call((), Some(&hooks))?;
    Ok(())
}
