//! Tokens as dictionaries, for programs that move tokens themselves. The keys are the names of the columns.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::convert::{Sdk, field_text, type_name};
use super::error::{Failure, invalid_argument};
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
    let make = || -> Result<_, Failure> {
        if !values.hasattr("items")? {
            return Err(invalid_argument(format!("a mapping is needed, not an object of type {}", type_name(values))));
        }
        let mut texts: [Option<Bound<'_, PyString>>; Field::COUNT] = Default::default();
        for item in values.call_method0("items")?.try_iter()? {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item?.extract()?;
            let field = Field::ALL.into_iter().find(|field| name.eq(field.name()).unwrap_or(false));
            // The key is not repeated: it could be a value.
            let field = field.ok_or_else(|| {
                invalid_argument(format!(
                    "a key is not a column: the columns are {}",
                    Field::ALL.map(Field::name).join(", ")
                ))
            })?;
            texts[field as usize] = field_text(field, &value)?;
        }
        Sdk::get(py)?.make(py, Token::from_fn(|field| texts[field as usize].as_ref()?.to_str().ok()))
    };
    make().map_err(|failure| failure.raise_without_sdk(py))
}
