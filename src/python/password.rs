//! A password that a Python function returns, for each new connection to a server.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::caller_functions::{is_ending, name_of};
use super::convert::type_name;
use crate::store::Error;
use crate::store::backend::Location;
use crate::store::error::Code;

/// Calls the function that returns the password. The operation that connects does so in its own thread, and holds
/// neither the GIL nor a lock at that time. The text of an exception may hold the password, so only its name is shown.
pub(super) fn call(function: &Py<PyAny>, location: &Location) -> Result<String, Error> {
    let failed = |what: &str| {
        let hint = "Correct the function that was passed as password: it has to return the password as a str.";
        let detail = format!("the function that returns the password {what}");
        Error::new(Code::AccessDenied, location).with(detail).with_hint(hint)
    };
    let called = Python::try_attach(|py| {
        if is_ending() {
            // The method ends with that exception as soon as it can. Until then it may connect again.
            return Err(failed("has ended the call"));
        }
        let raised = |error| failed(&format!("has raised {}", name_of(py, function, error)));
        let returned = function.bind(py).call0().map_err(raised)?;
        match returned.cast::<PyString>().map(|text| text.to_str()) {
            Ok(Ok(text)) => Ok(text.to_owned()),
            Ok(Err(_)) => Err(failed("has returned a text that has no UTF-8 form")),
            Err(_) => Err(failed(&format!("has returned an object of type {}", type_name(&returned)))),
        }
    });
    called.unwrap_or_else(|| Err(failed("cannot be called, because the interpreter has ended")))
}
