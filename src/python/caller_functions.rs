//! What becomes of an exception of a caller's function that an operation calls, such as one that returns a password.
//!
//! The operation itself only knows errors of a store. So the exception is kept beside it, until the method ends.

use std::cell::RefCell;
use std::mem;

use pyo3::prelude::*;

use super::convert::exception_name;
use super::error::Failure;

/// What functions have raised while a method runs.
enum Exceptions {
    /// No method runs in this thread that could raise an exception.
    Nowhere,
    /// None yet.
    Awaited,
    /// One that ends a program, such as `KeyboardInterrupt`. The method raises it.
    Fatal(PyErr),
    /// Another one, which may be shown. It is the cause if the method fails because of a missing key.
    Cause(PyErr),
}

thread_local! {
    static EXCEPTIONS: RefCell<Exceptions> = const { RefCell::new(Exceptions::Nowhere) };
}

/// Sets what this thread's functions have raised, and returns it as it was. A server such as uWSGI ends the interpreter
/// after the thread-local values of its thread. Then there is nothing to set.
fn replace(exceptions: Exceptions) -> Exceptions {
    EXCEPTIONS.try_with(|current| current.replace(exceptions)).unwrap_or(Exceptions::Nowhere)
}

/// Looks at what this thread's functions have raised.
fn are(matches: impl FnOnce(&Exceptions) -> bool) -> bool {
    EXCEPTIONS.try_with(|current| matches(&current.borrow())).unwrap_or(false)
}

/// Runs the work of a method. Returns its result, or the exception that ends the program, if a function has raised one
/// meanwhile.
pub(super) fn or_ended<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let method = RunningMethod { outer: replace(Exceptions::Awaited) };
    let result = work();
    let exceptions = replace(Exceptions::Nowhere);
    drop(method);
    match (exceptions, result) {
        (Exceptions::Fatal(error), _) => Err(Failure::Python(error)),
        // A save goes on with the keys that it has. If it fails for another reason, this is not the cause.
        (Exceptions::Cause(cause), Err(Failure::Store(error))) if error.is_about_missing_keys() => {
            Err(Failure::Caused(Box::new((error, cause))))
        }
        (_, result) => result,
    }
}

/// A method that may run inside another one of the same thread.
struct RunningMethod {
    outer: Exceptions,
}

impl Drop for RunningMethod {
    fn drop(&mut self) {
        replace(mem::replace(&mut self.outer, Exceptions::Nowhere));
    }
}

/// Returns the name of an exception that `function` has raised. Its message may hold a secret, so it is not shown.
/// Passes one that ends the program on to the method that runs.
#[cfg(feature = "postgres")]
pub(super) fn name_of(py: Python<'_>, function: &Py<PyAny>, error: PyErr) -> String {
    exception_name(py, &error).unwrap_or_else(|| {
        keep(py, function, error, Exceptions::Fatal);
        String::new()
    })
}

/// Returns the name of an exception that `function` has raised, and passes the exception on to the method that runs.
pub(super) fn pass_on(py: Python<'_>, function: &Py<PyAny>, error: PyErr) -> String {
    let name = exception_name(py, &error);
    keep(py, function, error, if name.is_some() { Exceptions::Cause } else { Exceptions::Fatal });
    name.unwrap_or_default()
}

/// Has a function raised an exception that ends the program? Then the method that runs must call no other one.
pub(super) fn is_ending() -> bool {
    are(|exceptions| matches!(exceptions, Exceptions::Fatal(_)))
}

/// In a finalizer no method runs that could raise the exception, and Python can only print it. An exception that ends the
/// program stays, whatever another function raises afterwards.
fn keep(py: Python<'_>, function: &Py<PyAny>, error: PyErr, kind: fn(PyErr) -> Exceptions) {
    if are(|exceptions| matches!(exceptions, Exceptions::Nowhere)) {
        error.write_unraisable(py, Some(function.bind(py)));
    } else if !is_ending() {
        replace(kind(error));
    }
}
