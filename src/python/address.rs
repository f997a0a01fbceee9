//! The address of a store, for the command line.

use pyo3::prelude::*;

use super::arguments::{file_path, server_address};
use super::cell::PyCell;
use super::error::Failure;
use crate::backends::address::StoreAddress;

/// Where a store is: the path of a file, or the address of a database on a server.
#[pyclass(name = "StoreAddress", module = "zoho_token_store._native", frozen)]
pub(super) struct PyStoreAddress(StoreAddress);

#[pymethods]
impl PyStoreAddress {
    #[new]
    #[pyo3(signature = (address))]
    fn new(py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<Self> {
        store_address(address).map(Self).map_err(|failure| failure.raise_without_sdk(py))
    }

    /// Whether it is the path of a file.
    #[getter]
    fn is_file(&self) -> bool {
        self.0.path().is_some()
    }

    /// What messages call it. It contains no secret.
    #[getter]
    fn name(&self) -> String {
        self.0.location().to_string()
    }

    /// The schema that the address of a server names (`?schema=NAME`).
    #[getter]
    fn schema(&self) -> Option<String> {
        self.0.schema().map(str::to_owned)
    }

    /// Whether the address itself contains a password.
    #[getter]
    fn has_password(&self) -> bool {
        self.0.has_password()
    }

    /// Whether no password is known: neither the address, nor the environment, nor `.pgpass` has one.
    #[getter]
    fn lacks_password(&self) -> bool {
        self.0.lacks_password()
    }

    /// Return the same address with this password.
    fn with_password(&self, password: &str) -> Self {
        Self(self.0.clone().with_password(password))
    }

    fn __repr__(&self) -> String {
        format!("<StoreAddress {}>", self.name())
    }
}

/// The address of a store: a `StoreAddress`, a cell, the path of a file, or the text of a server's address.
pub(super) fn store_address(value: &Bound<'_, PyAny>) -> Result<StoreAddress, Failure> {
    if let Ok(address) = value.cast::<PyStoreAddress>() {
        return Ok(address.get().0.clone());
    }
    if value.hasattr("swap").unwrap_or(false) {
        return Ok(PyCell::new(value)?.address());
    }
    match server_address(value) {
        Some(text) => Ok(StoreAddress::server(&text)?),
        None => Ok(StoreAddress::File(file_path(value)?)),
    }
}
