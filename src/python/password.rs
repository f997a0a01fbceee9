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

/// What becomes of an exception that ends a program, such as `KeyboardInterrupt`, which the function raises.
enum Ending {
    /// No method runs in this thread that could raise it.
    Nowhere,
    /// A method raises it.
    Awaited,
    /// It has come.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "without a server, no function is called"))]
    Raised(pyo3::PyErr),
}

thread_local! {
    static ENDING: RefCell<Ending> = const { RefCell::new(Ending::Nowhere) };
}

/// Runs the work of a method. Returns its result, or the exception that ends the program, if the function has raised
/// one meanwhile. An operation of a store only knows errors of a store.
pub(super) fn or_ended<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let method = RunningMethod { outer: ENDING.replace(Ending::Awaited) };
    let result = work();
    let ending = ENDING.replace(Ending::Nowhere);
    drop(method);
    if let Ending::Raised(error) = ending { Err(Failure::Python(error)) } else { result }
}

/// A method that may run inside another one of the same thread.
struct RunningMethod {
    outer: Ending,
}

impl Drop for RunningMethod {
    fn drop(&mut self) {
        ENDING.set(std::mem::replace(&mut self.outer, Ending::Nowhere));
    }
}

/// Passes the exception on to the method that runs. In a finalizer there is none, and Python can only print it.
#[cfg(feature = "postgres")]
fn end(py: Python<'_>, function: &Py<PyAny>, error: PyErr) {
    let is_awaited = ENDING.with_borrow(|ending| !matches!(ending, Ending::Nowhere));
    if is_awaited {
        ENDING.set(Ending::Raised(error));
    } else {
        error.write_unraisable(py, Some(function.bind(py)));
    }
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
        if ENDING.with_borrow(|ending| matches!(ending, Ending::Raised(_))) {
            // The method ends with that exception as soon as it can. Until then it may connect again.
            return Err(failed("has ended the call"));
        }
        let returned = function.bind(py).call0().map_err(|error| {
            let name = exception_name(py, &error);
            if name.is_none() {
                end(py, function, error);
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
