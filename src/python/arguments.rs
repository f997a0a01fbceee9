//! What callers hand to constructors and methods besides tokens: paths, times, options. Anything else is bad input.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::Borrowed;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyString};

use super::convert::{raised, type_name};
use super::error::{Failure, bad_input};

/// An argument as it was given, `None` included; or not given.
pub(super) struct Given<'py>(pub(super) Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = Infallible;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self(Some(object.to_owned())))
    }
}

/// A path that the caller gave, made absolute: a later `chdir` must not move the store.
pub(super) fn file_path(value: &Bound<'_, PyAny>) -> Result<PathBuf, Failure> {
    let py = value.py();
    let not_a_path =
        || bad_input(format!("a path is a str or an os.PathLike, not an object of type {}", type_name(value)));
    let text = py
        .import("os")?
        .call_method1(intern!(py, "fspath"), (value,))
        .map_err(|error| or_python(py, error, not_a_path()))?;
    if !text.is_instance_of::<PyString>() {
        return Err(not_a_path());
    }
    let given: PathBuf = text.extract().map_err(|_| bad_input("the path cannot be a file's name here"))?;
    if given.as_os_str() == ":memory:" {
        return Err(bad_input("\":memory:\" is not a file: use CustomStoreInMemory()"));
    }
    if given.as_os_str().is_empty() {
        return Err(bad_input("the path is empty"));
    }
    if given.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(bad_input("the path contains a NUL character"));
    }
    std::path::absolute(&given)
        .map_err(|error| bad_input(format!("the path cannot be made absolute ({})", error.kind())))
}

/// What ends a program passes; anything else that a caller's object raised is `failure`.
fn or_python(py: Python<'_>, error: PyErr, failure: Failure) -> Failure {
    if raised(py, &error).is_some() { failure } else { Failure::Python(error) }
}

/// A yes or no; yes unless it is given.
pub(super) fn flag(name: &str, value: &Given<'_>) -> Result<bool, Failure> {
    let Some(value) = &value.0 else { return Ok(true) };
    value.cast::<PyBool>().map(PyBoolMethods::is_true).map_err(|_| bad_input(format!("{name} is True or False")))
}

/// A number of seconds, or what it is unless it is given.
pub(super) fn seconds(name: &str, value: &Given<'_>, unless_given: Duration) -> Result<Duration, Failure> {
    let Some(value) = &value.0 else { return Ok(unless_given) };
    duration(&format!("{name} is a number of seconds from 0 on"), value)
}

/// Seconds, as a number; `rule` is what is said of anything else.
fn duration(rule: &str, value: &Bound<'_, PyAny>) -> Result<Duration, Failure> {
    let wrong = || bad_input(rule);
    if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    }
    let seconds: f64 = value.extract().map_err(|error| or_python(value.py(), error, wrong()))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// A `timedelta` or seconds, in milliseconds.
pub(super) fn milliseconds(value: &Bound<'_, PyAny>) -> Result<i64, Failure> {
    let seconds = match value.cast::<PyDelta>() {
        Ok(delta) => delta.call_method0(intern!(value.py(), "total_seconds"))?,
        Err(_) => value.clone(),
    };
    let duration = duration("idle_for is a timedelta or a number of seconds from 0 on", &seconds)?;
    Ok(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
