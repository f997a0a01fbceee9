//! A password that a Python function returns, for each new connection to a server.

use std::cell::RefCell;

#[cfg(feature = "postgres")]
use pyo3::prelude::*;
#[cfg(feature = "postgres")]
use pyo3::types::PyString;

#[cfg(feature = "postgres")]
use super::convert::{exception_name, type_name};
use super::error::Failure;
#[cfg(feature = "postgres")]
use crate::store::Error;
#[cfg(feature = "postgres")]
use crate::store::backend::Location;
#[cfg(feature = "postgres")]
use crate::store::error::Code;

thread_local! {
    /// An exception that ends a program, such as `KeyboardInterrupt`, which the function has raised in this thread.
    static ENDED: RefCell<Option<pyo3::PyErr>> = const { RefCell::new(None) };
}

/// Returns the result of an operation, or the exception that ends the program, if the function has raised one
/// meanwhile. The operation itself only knows errors of a store.
pub(super) fn or_ended<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    ENDED.take().map_or(result, |error| Err(Failure::Python(error)))
}

/// Calls the function that returns the password. The operation that connects does so in its own thread, and holds
/// neither the GIL nor a lock at that time. The text of an exception may hold the password, so only its name is shown.
#[cfg(feature = "postgres")]
pub(super) fn call(function: &Py<PyAny>, location: &Location) -> Result<String, Error> {
    let failed = |what: &str| {
        let hint = "Correct the function that was passed as password: it has to return the password as a str.";
        let detail = format!("the function that returns the password {what}");
        Error::new(Code::AccessDenied, location).with(detail).with_hint(hint)
    };
    let called = Python::try_attach(|py| {
        let returned = function.bind(py).call0().map_err(|error| {
            let name = exception_name(py, &error);
            if name.is_none() {
                ENDED.set(Some(error));
            }
            failed(&format!("has raised {}", name.unwrap_or_default()))
        })?;
        match returned.cast::<PyString>().map(|text| text.to_str()) {
            Ok(Ok(text)) => Ok(text.to_owned()),
            Ok(Err(_)) => Err(failed("has returned a text that has no UTF-8 form")),
            Err(_) => Err(failed(&format!("has returned an object of type {}", type_name(&returned)))),
        }
    });
    called.unwrap_or_else(|| Err(failed("cannot be called, because the interpreter has ended")))
}
