//! How a failure reaches Python: as the SDK's exception with a `StoreError` as its cause, and in the log (contract,
//! section 6).

use std::error::Error as _;
use std::ffi::CString;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::store::Error;
use crate::store::error::Code;

const LOGGER: &str = "zoho_token_store";
const STORE_ERROR: &str = "zoho_token_store.StoreError";
const STORE_ERROR_DOC: &str = "An error of a token store, with a code for programs and a hint for people.\n\n\
    `_native.pyi`, which editors show, documents it.";

/// The class `StoreError`, made once as a plain Python exception. A Rust class cannot extend an exception here:
/// "subclassing native types requires Python >= 3.12 when using the `abi3` feature" (PyO3 0.30, `impl_/pyclass.rs`).
fn store_error(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let make = || -> PyResult<Py<PyType>> {
        let (name, doc) = (CString::new(STORE_ERROR)?, CString::new(STORE_ERROR_DOC)?);
        // `new_type` of PyO3 0.30 drops its argument `dict` before it uses it, so the attributes are set afterwards.
        let class = PyErr::new_type(py, &name, Some(&doc), Some(&py.get_type::<PyException>()), None)?;
        // The values of a `StoreError` that Python code makes. `new_store_error` sets them for every other one.
        class.bind(py).setattr("code", Code::DatabaseError.name())?;
        class.bind(py).setattr("hint", Code::DatabaseError.hint())?;
        Ok(class)
    };
    Ok(CLASS.get_or_try_init(py, make)?.bind(py))
}

/// Return every code that a `StoreError` can have, with its hint.
#[pyfunction]
pub(super) fn error_codes(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let hints = PyDict::new(py);
    for code in Code::ALL {
        hints.set_item(code.name(), code.hint())?;
    }
    Ok(hints)
}

/// Adds `StoreError` to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("StoreError", store_error(module.py())?)
}

/// A failure inside a method, or an exception of Python that passes through.
pub(super) enum Failure {
    /// Reaches the caller as the SDK's exception.
    Store(Error),
    /// The same, because a function of the caller has raised this exception.
    Caused(Box<(Error, PyErr)>),
    /// Passes through: `KeyboardInterrupt` and the like, and a lack of memory.
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

/// An argument that cannot be used. `what` names the argument, and never repeats its value.
pub(super) fn invalid_argument(what: impl Into<String>) -> Failure {
    Failure::Store(Error::invalid_argument(what))
}

/// A `StoreError` with this message, and with the code and the hint of `error`.
fn new_store_error(py: Python<'_>, error: &Error, message: &str) -> PyResult<PyErr> {
    let exception = store_error(py)?.call1((message,))?;
    exception.setattr("code", error.code().name())?;
    exception.setattr("hint", error.hint())?;
    let raised = PyErr::from_value(exception);
    if let Some(cause) = error.source().and_then(|source| source.downcast_ref::<PyErr>()) {
        raised.set_cause(py, Some(cause.clone_ref(py)));
    }
    Ok(raised)
}

impl Failure {
    /// The exception for a failure of `method`, which `wrap` makes from the `StoreError` and the message. It is logged,
    /// too, because SDK 6 to 8 swallow what `save_token` raises.
    pub(super) fn raise(
        self,
        py: Python<'_>,
        method: &str,
        wrap: impl FnOnce(PyErr, &str) -> PyResult<PyErr>,
    ) -> PyErr {
        let (error, because) = match self {
            Self::Python(error) => return error,
            Self::Store(error) => (error, None),
            Self::Caused(both) => (both.0, Some(both.1)),
        };
        let message = format!("{method}: {error}");
        let level = match error.code() {
            // An everyday event: a user has logged out.
            Code::MissingId => "warning",
            // Every request gets it while refreshes fail. One line per request would hide the others.
            Code::RefreshFailing => "debug",
            _ => "error",
        };
        if let Err(error) = log(py, level, &message) {
            return error;
        }
        let raised = new_store_error(py, &error, &message).and_then(|cause| {
            if because.is_some() {
                cause.set_cause(py, because);
            }
            wrap(cause, &message)
        });
        raised.unwrap_or_else(|error| error)
    }

    /// The `StoreError` itself, without a line in the log. For callers other than the SDK.
    pub(super) fn raise_without_sdk(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Python(error) => error,
            Self::Store(error) => new_store_error(py, &error, &error.to_string()).unwrap_or_else(|error| error),
            Self::Caused(both) => {
                let (error, because) = *both;
                let raised = new_store_error(py, &error, &error.to_string()).unwrap_or_else(|error| error);
                raised.set_cause(py, Some(because));
                raised
            }
        }
    }
}

/// Gives the logger a handler that writes nothing. Without it, Python prints the library's warnings to stderr in a
/// program that has not configured logging (Python's "Logging HOWTO", section "Configuring Logging for a Library").
pub(super) fn add_null_handler(py: Python<'_>) -> PyResult<()> {
    let logging = py.import("logging")?;
    let handler = logging.call_method0("NullHandler")?;
    logging.call_method1("getLogger", (LOGGER,))?.call_method1("addHandler", (handler,)).map(drop)
}

/// Writes a line to the logger. An exception of a handler is reported, but does not reach the caller, unless it is one
/// that ends a program.
pub(super) fn log(py: Python<'_>, level: &str, message: &str) -> PyResult<()> {
    let write = || py.import("logging")?.call_method1("getLogger", (LOGGER,))?.call_method1(level, ("%s", message));
    match write() {
        Err(error) if error.is_instance_of::<PyException>(py) => error.write_unraisable(py, None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    Ok(())
}
