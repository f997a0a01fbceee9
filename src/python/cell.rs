//! A cell that is a Python object: it has the methods `load` and `swap`.
//!
//! They run while an operation of a store runs, but no lock of the library is held at that time. An exception that they
//! raise becomes the cause of the `StoreError`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyTuple};

use super::caller_functions::pass_on;
use super::convert::{exception_name, type_name};
use super::error::{Failure, invalid_argument};
use super::refresh_wait::sleep;
use crate::backends::address::{CellAddress, StoreAddress};
use crate::backends::cell::{Cell, CellBackend};
use crate::store::Error;
use crate::store::backend::{Backend, Location};
use crate::store::error::{Code, Result};

/// The module of the exception that a cell raises if its place does not take so large a document.
const CELLS_MODULE: &str = "zoho_token_store.cells";

/// The object. Clones are the same object.
#[derive(Clone)]
pub(super) struct PyCell {
    object: Arc<Py<PyAny>>,
    location: Location,
}

impl PyCell {
    /// A cell that is this object.
    pub(super) fn new(object: &Bound<'_, PyAny>) -> std::result::Result<Self, Failure> {
        for method in ["load", "swap"] {
            if !object.getattr(method).is_ok_and(|found| found.is_callable()) {
                let name = type_name(object);
                return Err(invalid_argument(format!(
                    "cell is an object with the methods load and swap, not a {name}"
                )));
            }
        }
        // Its class alone: a `repr` may hold a password.
        let location = Location::on_server(format!("the cell {}", type_name(object)));
        Ok(Self { object: Arc::new(object.clone().unbind()), location })
    }

    /// The backend over this cell.
    pub(super) fn backend(&self, cache_for: Duration) -> CellBackend<Self> {
        CellBackend::new(self.clone(), self.location.clone(), cache_for)
    }

    /// The address of the cell, for the command line.
    pub(super) fn address(self) -> StoreAddress {
        let location = self.location.clone();
        let open = move || Box::new(self.backend(Duration::ZERO)) as Box<dyn Backend>;
        StoreAddress::Cell(CellAddress::new(location, Arc::new(open)))
    }

    /// Calls a method, and reads what it returns. `wrong` is the code if it returns something else.
    fn call<T>(
        &self,
        method: &str,
        wrong: Code,
        size: usize,
        call: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<std::result::Result<T, String>>,
    ) -> Result<T> {
        let error = |code, what: &str| Error::new(code, &self.location).with(format!("{method} {what}"));
        let called = Python::try_attach(|py| match call(self.object.bind(py)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(what)) => Err(error(wrong, &format!("has returned {what}"))),
            Err(raised) => Err(self.failure(py, method, wrong, size, raised)),
        });
        called.unwrap_or_else(|| Err(error(wrong, "cannot be called, because the interpreter has ended")))
    }

    /// The error for an exception that a method has raised.
    fn failure(&self, py: Python<'_>, method: &str, wrong: Code, size: usize, raised: PyErr) -> Error {
        let Some(name) = exception_name(py, &raised) else {
            // It ends the program, so no further method is called.
            pass_on(py, &self.object, raised);
            return Error::new(wrong, &self.location)
                .with(format!("{method} has raised an exception that ends the program"));
        };
        let is_too_large = || -> PyResult<bool> {
            raised.value(py).is_instance(&py.import(CELLS_MODULE)?.getattr("DocumentTooLarge")?)
        };
        let error = if is_too_large().unwrap_or(false) {
            Error::new(Code::DocumentTooLarge, &self.location).with(format!("{size} bytes"))
        } else {
            Error::new(Code::CellFailed, &self.location).with(format!("{method} has raised {name}"))
        };
        error.caused_by(without_tracebacks(py, raised))
    }
}

/// Removes the traceback of an exception, and of those that led to it. The frames of `swap` and of the client below it
/// hold the document, and a program that reports errors may send the variables of each frame.
fn without_tracebacks(py: Python<'_>, error: PyErr) -> PyErr {
    let raised = error.into_value(py).into_bound(py).into_any();
    let (mut next, mut seen) = (vec![raised.clone()], BTreeSet::new());
    while let Some(exception) = next.pop() {
        // `raise … from …` links the same exception twice.
        if !exception.is_instance_of::<PyException>() || !seen.insert(exception.as_ptr() as usize) {
            continue;
        }
        let _ = exception.setattr("__traceback__", py.None());
        let linked = |name: &str| exception.getattr(name).ok().filter(|linked| !linked.is_none());
        next.extend(["__cause__", "__context__"].into_iter().filter_map(linked));
        // Those of an `ExceptionGroup`.
        next.extend(
            linked("exceptions").and_then(|group| group.extract::<Vec<Bound<'_, PyAny>>>().ok()).unwrap_or_default(),
        );
    }
    PyErr::from_value(raised)
}

impl Cell for PyCell {
    type Version = Py<PyAny>;

    fn load(&self) -> Result<(Option<Vec<u8>>, Py<PyAny>)> {
        self.call("load", Code::CellFailed, 0, |cell| {
            let returned = cell.call_method0("load")?;
            let Ok(pair) = returned
                .cast::<PyTuple>()
                .map_err(drop)
                .and_then(|pair| if pair.len() == 2 { Ok(pair) } else { Err(()) })
            else {
                let name = type_name(&returned);
                return Ok(Err(format!("an object of type {name} instead of a pair: a document and its version")));
            };
            let (document, version) = (pair.get_item(0)?, pair.get_item(1)?.unbind());
            if document.is_none() {
                return Ok(Ok((None, version)));
            }
            let Ok(bytes) = document.cast::<PyBytes>() else {
                return Ok(Err(format!("a document of type {} instead of bytes", type_name(&document))));
            };
            Ok(Ok((Some(bytes.as_bytes().to_vec()), version)))
        })
    }

    fn swap(&self, document: &[u8], version: &Py<PyAny>) -> Result<bool> {
        self.call("swap", Code::OutcomeUnknown, document.len(), |cell| {
            let py = cell.py();
            let returned = cell.call_method1("swap", (PyBytes::new(py, document), version.bind(py)))?;
            match returned.cast::<PyBool>() {
                Ok(swapped) => Ok(Ok(swapped.is_true())),
                Err(_) => Ok(Err(format!("an object of type {} instead of a bool", type_name(&returned)))),
            }
        })
    }

    /// Other greenlets of the thread go on meanwhile, and Ctrl-C ends it.
    fn pause(&self, time: Duration) -> Result<()> {
        let slept = Python::try_attach(|py| {
            sleep(py, time).map_err(|raised| self.failure(py, "pause", Code::CellFailed, 0, raised))
        });
        slept.unwrap_or_else(|| Err(Error::busy(&self.location, time)))
    }
}
