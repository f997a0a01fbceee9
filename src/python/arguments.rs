//! Arguments of constructors and methods other than tokens: paths, durations, flags. Any other value is an invalid
//! argument.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyString};
#[cfg(feature = "postgres")]
use pyo3::types::{PyDict, PyInt};

use super::convert::{exception_name, type_name};
use super::error::{Failure, invalid_argument};
#[cfg(feature = "postgres")]
use crate::backends::address::PostgresAddress;
use crate::backends::address::is_keyword_text;
use crate::domain::lease::Settings;
use crate::domain::look_alike::{LookAlike, look_alike};

/// An argument with a default value. It tells an explicit `None` from an argument that was not given.
#[derive(Default)]
pub(super) struct Given<'py>(pub(super) Option<Bound<'py, PyAny>>);

impl<'py> FromPyObject<'_, 'py> for Given<'py> {
    type Error = Infallible;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> Result<Self, Infallible> {
        Ok(Self(Some(object.to_owned())))
    }
}

/// The text of a value that is the address of a database on a server, and not the path of a file.
pub(super) fn server_address(value: &Bound<'_, PyAny>) -> Option<String> {
    let text = value.cast::<PyString>().ok()?.to_str().ok()?;
    (look_alike(text, cfg!(windows)) == Some(LookAlike::Server)).then(|| text.to_owned())
}

/// A path of the caller, made absolute: a later `chdir` must not move the store.
pub(super) fn file_path(value: &Bound<'_, PyAny>) -> Result<PathBuf, Failure> {
    let py = value.py();
    let not_a_path =
        || invalid_argument(format!("a path is a str or an os.PathLike, not an object of type {}", type_name(value)));
    let text =
        py.import("os")?.call_method1("fspath", (value,)).map_err(|error| unless_fatal(py, error, not_a_path()))?;
    if !text.is_instance_of::<PyString>() {
        return Err(not_a_path());
    }
    let given: PathBuf =
        text.extract().map_err(|_| invalid_argument("the path cannot be a file name on this system"))?;
    if let Some(look_alike) = given.to_str().and_then(|given| look_alike(given, cfg!(windows))) {
        // The text is not repeated: a URL can contain a password.
        return Err(invalid_argument(match look_alike {
            LookAlike::Home => {
                "the path begins with \"~\", which is not expanded: use os.path.expanduser(path), or \"./~\" for a \
                 folder with this name"
            }
            LookAlike::Server => {
                "the path is the address of a database on a server: give the path of a file, or open the address with \
                 CustomStorePostgreSQL"
            }
            LookAlike::Uri => "the path is a URI or URL: give the path of a file, or \"./\" before a name with a colon",
            LookAlike::Windows => {
                "the path is one of Windows: give a path of this system, or \"./\" before such a name"
            }
            LookAlike::Memory => "\":memory:\" is not a file: use CustomStoreInMemory()",
        }));
    }
    if given.to_str().is_some_and(is_keyword_text) {
        return Err(invalid_argument(
            "the path is connection parameters of a server: write them as an address (postgresql://USER@HOST/DATABASE), \
             or \"./\" before a name with an equals sign",
        ));
    }
    if given.as_os_str().is_empty() {
        return Err(invalid_argument("the path is empty"));
    }
    if given.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(invalid_argument("the path contains a NUL character"));
    }
    std::path::absolute(&given)
        .map_err(|error| invalid_argument(format!("the path cannot be made absolute ({})", error.kind())))
}

/// Returns `failure` for an exception of a caller's object. An exception that ends a program passes through.
fn unless_fatal(py: Python<'_>, error: PyErr, failure: Failure) -> Failure {
    if exception_name(py, &error).is_some() { failure } else { Failure::Python(error) }
}

/// A flag whose default is true.
pub(super) fn flag(name: &str, value: &Given<'_>) -> Result<bool, Failure> {
    let Some(value) = &value.0 else { return Ok(true) };
    value.cast::<PyBool>().map(PyBoolMethods::is_true).map_err(|_| invalid_argument(format!("{name} is True or False")))
}

/// A count of at least 1, with a default.
#[cfg(feature = "postgres")]
pub(super) fn count_or(name: &str, value: &Given<'_>, default: usize) -> Result<usize, Failure> {
    let Some(value) = &value.0 else { return Ok(default) };
    let count = if value.is_instance_of::<PyBool>() { None } else { value.extract::<usize>().ok() };
    count.filter(|&count| count > 0).ok_or_else(|| invalid_argument(format!("{name} is an int, and at least 1")))
}

/// The arguments that say which server, database and schema, and as whom.
#[cfg(feature = "postgres")]
pub(super) struct PostgresArguments {
    pub(super) server: PostgresAddress,
    /// The schema, if it is not that of the address.
    pub(super) schema: Option<String>,
    /// A function that returns the password.
    pub(super) password: Option<Py<PyAny>>,
}

/// Reads the address of a database: a text, and arguments that override it. `None` counts as not given.
#[cfg(feature = "postgres")]
pub(super) fn postgres_arguments(
    dsn: Option<&Bound<'_, PyAny>>,
    schema: Option<&Bound<'_, PyAny>>,
    password: Option<&Bound<'_, PyAny>>,
    libpq: Option<&Bound<'_, PyDict>>,
) -> Result<PostgresArguments, Failure> {
    let dsn = dsn.map(|dsn| text("dsn", dsn)).transpose()?;
    let mut arguments = Vec::new();
    let mut function = None;
    match password {
        Some(password) if password.is_callable() => function = Some(password.clone().unbind()),
        Some(password) if password.is_instance_of::<PyString>() => {
            arguments.push(("password".to_owned(), text("password", password)?));
        }
        Some(password) => {
            return Err(invalid_argument(format!(
                "password is a str, or a function that returns one, not an object of type {}",
                type_name(password)
            )));
        }
        None => {}
    }
    let schema = schema.map(|schema| text("schema", schema)).transpose()?;
    for (name, value) in libpq.into_iter().flatten() {
        if !value.is_none() {
            let name: String = name.extract()?;
            let is_number = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
            let value = if is_number { value.str()?.to_string() } else { text(&name, &value)? };
            arguments.push((name, value));
        }
    }
    Ok(PostgresArguments { server: PostgresAddress::new(dsn.as_deref(), &arguments)?, schema, password: function })
}

/// The text of an argument.
#[cfg(feature = "postgres")]
fn text(name: &str, value: &Bound<'_, PyAny>) -> Result<String, Failure> {
    let Ok(text) = value.cast::<PyString>() else {
        return Err(invalid_argument(format!("{name} is a str, not an object of type {}", type_name(value))));
    };
    text.to_str()
        .map(str::to_owned)
        .map_err(|_| invalid_argument(format!("{name} has no UTF-8 form (it contains half of a surrogate pair)")))
}

/// A duration with a default.
pub(super) fn duration_or(name: &str, value: &Given<'_>, default: Duration) -> Result<Duration, Failure> {
    value.0.as_ref().map_or(Ok(default), |value| duration(name, value))
}

/// A duration: a `timedelta`, or a number of seconds.
pub(super) fn duration(name: &str, value: &Bound<'_, PyAny>) -> Result<Duration, Failure> {
    let invalid = || invalid_argument(format!("{name} is a timedelta or a number of seconds, and not negative"));
    let seconds = match value.cast::<PyDelta>() {
        Ok(delta) => delta.call_method0("total_seconds")?,
        Err(_) if value.is_instance_of::<PyBool>() => return Err(invalid()),
        Err(_) => value.clone(),
    };
    let seconds: f64 = seconds.extract().map_err(|error| unless_fatal(value.py(), error, invalid()))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// The `idle_for` of a purge, in milliseconds. Every row has been idle for 0 ms, so 0 would delete every login without
/// a word. That has a method of its own.
pub(super) fn idle_for(value: Option<&Bound<'_, PyAny>>) -> Result<Option<i64>, Failure> {
    let Some(value) = value else { return Ok(None) };
    match duration("idle_for", value)?.as_millis() {
        0 => Err(invalid_argument("idle_for is at least a millisecond: to delete all rows, call delete_tokens()")),
        milliseconds => Ok(Some(i64::try_from(milliseconds).unwrap_or(i64::MAX))),
    }
}

/// The default of `refresh_lease`.
const DEFAULT_REFRESH_LEASE: Duration = Duration::from_secs(10);

/// The highest `refresh_ahead`. With more than the hour that an access token lives, each new one would be refreshed at
/// once.
const MAX_REFRESH_AHEAD: Duration = Duration::from_mins(30);

/// The default of `refresh_backoff`.
const DEFAULT_REFRESH_BACKOFF: Duration = Duration::from_secs(30);

/// The arguments about refreshes that every constructor has.
#[derive(Default)]
pub(super) struct RefreshArguments<'py> {
    pub(super) lease: Given<'py>,
    pub(super) ahead: Given<'py>,
    pub(super) backoff: Given<'py>,
}

impl RefreshArguments<'_> {
    pub(super) fn settings(&self) -> Result<Settings, Failure> {
        let settings = Settings {
            length: duration_or("refresh_lease", &self.lease, DEFAULT_REFRESH_LEASE)?,
            ahead: duration_or("refresh_ahead", &self.ahead, Duration::ZERO)?,
            longest_backoff: duration_or("refresh_backoff", &self.backoff, DEFAULT_REFRESH_BACKOFF)?,
        };
        if settings.ahead > MAX_REFRESH_AHEAD {
            return Err(invalid_argument("refresh_ahead is at most 1800 s, because an access token lives for an hour"));
        }
        if settings.length.is_zero() && !settings.ahead.is_zero() {
            return Err(invalid_argument("refresh_ahead needs a refresh_lease above 0"));
        }
        Ok(settings)
    }
}
