//! How a failure reaches Python: as the SDK's exception, with ours as its cause, and in the log (contract 6).

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::convert::Sdk;
use crate::store::Error;

create_exception!(
    zoho_token_store,
    StoreError,
    PyException,
    "Base of the library's own errors. Inside a store's methods it is the `cause` (and `__cause__`) of the SDK's \
     `SDKException`; the message says what is wrong, what was not lost, and what to do. It never holds a secret."
);

/// A failure inside a method, or an exception that is none of ours to translate.
pub(super) enum Failure {
    /// Reaches the caller as the SDK's exception.
    Store(Error),
    /// Passes through: `KeyboardInterrupt` and its like, and an interpreter out of memory.
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

/// Bad input, in words that name it and never repeat it.
pub(super) fn bad_input(what: impl Into<String>) -> Failure {
    Failure::Store(Error::BadInput(what.into()))
}

impl Failure {
    /// The exception for a failure of `method`. A store's own is logged, too: SDK 6 to 8 swallow what `save_token`
    /// raises.
    pub(super) fn raise(self, py: Python<'_>, sdk: &Sdk, method: &str) -> PyErr {
        let error = match self {
            Self::Python(error) => return error,
            Self::Store(error) => error,
        };
        let message = format!("{method}: {error}");
        // An id that is gone is news, not damage: its user logged out.
        let level = if matches!(error, Error::NoSuchId { .. }) { "warning" } else { "error" };
        if let Err(error) = log(py, level, &message) {
            return error;
        }
        sdk.exception(py, StoreError::new_err(message.clone()), &message).unwrap_or_else(|error| error)
    }

    /// The same, outside the SDK's reach: the [`StoreError`] itself, and no line in the log.
    pub(super) fn raise_bare(self) -> PyErr {
        match self {
            Self::Python(error) => error,
            Self::Store(error) => StoreError::new_err(error.to_string()),
        }
    }
}

/// Writes a line to the logger `zoho_token_store`. A handler that fails fails alone; what ends a program passes.
pub(super) fn log(py: Python<'_>, level: &str, message: &str) -> PyResult<()> {
    let write =
        || py.import("logging")?.call_method1("getLogger", ("zoho_token_store",))?.call_method1(level, ("%s", message));
    match write() {
        Err(error) if error.is_instance_of::<PyException>(py) => error.write_unraisable(py, None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    Ok(())
}
