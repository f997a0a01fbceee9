//! Tokens as dictionaries, for programs that move tokens themselves. The keys are the names of the columns.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::convert::{Sdk, type_name};
use crate::domain::{Field, Token};

/// Return the values of a token as a dictionary. It holds secrets.
#[pyfunction]
pub(super) fn token_to_dict<'py>(py: Python<'py>, token: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let read = Sdk::get(py)?.read(token).map_err(|failure| failure.raise_without_sdk(py))?;
    let values = PyDict::new(py);
    for field in Field::ALL {
        if let Some(value) = read.token().get(field) {
            values.set_item(field.name(), value)?;
        }
    }
    Ok(values)
}

/// Make a token from a dictionary.
#[pyfunction]
pub(super) fn token_from_dict<'py>(py: Python<'py>, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !values.hasattr("items")? {
        return Err(PyTypeError::new_err(format!("a mapping is needed, not an object of type {}", type_name(values))));
    }
    let mut texts: [Option<String>; Field::COUNT] = Default::default();
    for item in values.call_method0("items")?.try_iter()? {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
        let field = name.extract::<String>().ok().and_then(|name| Field::ALL.into_iter().find(|f| f.name() == name));
        let field = field.ok_or_else(|| PyValueError::new_err(format!("no column is called {}", shown(&name))))?;
        texts[field as usize] = if value.is_none() {
            None
        } else if value.is_instance_of::<PyString>() || (field == Field::ExpiryTime && is_number(&value)) {
            Some(value.str()?.extract()?)
        } else {
            let found = type_name(&value);
            return Err(PyTypeError::new_err(format!("{} is a str or None, not of type {found}", field.name())));
        };
    }
    let token = Token::from_fn(|field| texts[field as usize].as_deref());
    Sdk::get(py)?.make(py, token).map_err(|failure| failure.raise_without_sdk(py))
}

fn is_number(value: &Bound<'_, PyAny>) -> bool {
    value.get_type().is(value.py().get_type::<PyInt>())
}

/// A key as a message shows it. A text of another length than a name could be a secret.
fn shown(name: &Bound<'_, PyAny>) -> String {
    match name.cast::<PyString>() {
        Ok(text) if text.len().is_ok_and(|length| length <= 20) => format!("{text:?}"),
        Ok(_) => "so (a long text)".to_owned(),
        Err(_) => format!("so (a key is a str, not of type {})", type_name(name)),
    }
}
