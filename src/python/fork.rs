//! Connects forks and the end of the interpreter to [`crate::store::fork`].

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::exit;
use crate::store::fork;

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
    exit::after_fork_in_child();
    fork::after_in_child();
}

#[pyfunction]
fn before_exit(py: Python<'_>) {
    py.detach(|| {
        exit::before_exit();
        fork::before_exit();
    });
}

/// Registers the hooks when the module is imported. `atexit` runs hooks in reverse order, so hooks that a program
/// registers later run before ours, and may use a store.
pub(super) fn register(py: Python<'_>) -> PyResult<()> {
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(before_exit, py)?,))?;
    let os = py.import("os")?;
    // Windows has no fork.
    let Some(register) = os.getattr_opt("register_at_fork")? else { return Ok(()) };
    let hooks = PyDict::new(py);
    hooks.set_item("before", wrap_pyfunction!(before_fork, py)?)?;
    hooks.set_item("after_in_parent", wrap_pyfunction!(after_fork_in_parent, py)?)?;
    hooks.set_item("after_in_child", wrap_pyfunction!(after_fork_in_child, py)?)?;
    register.call((), Some(&hooks))?;
    Ok(())
}
