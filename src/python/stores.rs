//! The store classes: each adds its constructor to the base class.
//!
//! The stub `_native.pyi` is the documentation of record. `help()` shows the doc comments of this file. Each one begins
//! with the first line of the docstring in the stub: `tests/typing/test_typing.py` compares them.

#[cfg(feature = "postgres")]
use std::sync::Arc;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::prelude::*;
#[cfg(feature = "sqlite")]
use pyo3::types::PyString;
use pyo3::types::{PyDict, PyTuple};

use super::address::store_address;
#[cfg(feature = "sqlite")]
use super::arguments::file_path;
use super::arguments::{Given, RefreshArguments, duration_or};
#[cfg(feature = "postgres")]
use super::arguments::{PostgresArguments, count_or, flag, postgres_arguments};
use super::base::TokenStoreBase;
use super::cell::PyCell;
use super::error::Failure;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::error::log;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::lease_guard::lock;
#[cfg(feature = "postgres")]
use super::password;
use crate::backends;
use crate::backends::list::List;
#[cfg(feature = "postgres")]
use crate::backends::postgres::{Postgres, PostgresSettings};
#[cfg(feature = "sqlite")]
use crate::backends::sqlite::{Memory, Sqlite};
#[cfg(feature = "postgres")]
use crate::domain::check::Finding;
use crate::store::backend::Backend;
use crate::store::deadline::Deadline;
use crate::store::{Error, Store};

/// Tokens in a SQLite file, for any number of threads and processes.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[cfg(feature = "sqlite")]
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreSQLite;

/// Tokens in a PostgreSQL database, for programs on any number of machines.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[cfg(feature = "postgres")]
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStorePostgreSQL;

/// Tokens in a private SQLite database in memory, lost with the object. Also called `CustomStore`.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[cfg(feature = "sqlite")]
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreInMemory;

/// Tokens in a plain list in memory, lost with the object.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreList;

/// Tokens in any place that has compare-and-swap: a row of a database, a key of Redis, an object, a secret.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreShared {
    cell: OnceLock<Py<PyAny>>,
}

/// Tokens at any address, for the command line.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[pyclass(module = "zoho_token_store._native", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct StoreAtAddress;

/// The default of `busy_timeout`.
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a store in memory waits for another thread. That is ample: a change takes microseconds.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(feature = "sqlite")]
#[pymethods]
impl CustomStoreSQLite {
    // `__new__` accepts any arguments, so that a subclass may have an `__init__` with its own arguments.
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(path='zohooauth.db', *, keys=..., refresh_lease=10.0, refresh_ahead=0.0, refresh_backoff=30.0, \
                          busy_timeout=5.0, raise_on_missing_id=True)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (
        path=Given(None), *, keys=Given(None), refresh_lease=Given(None), refresh_ahead=Given(None),
        refresh_backoff=Given(None), busy_timeout=Given(None), raise_on_missing_id=Given(None)
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    #[expect(clippy::too_many_arguments, reason = "those of the Python constructor")]
    fn __init__(
        this: &Bound<'_, Self>,
        path: Given<'_>,
        keys: Given<'_>,
        refresh_lease: Given<'_>,
        refresh_ahead: Given<'_>,
        refresh_backoff: Given<'_>,
        busy_timeout: Given<'_>,
        raise_on_missing_id: Given<'_>,
    ) -> PyResult<()> {
        let py = this.py();
        let timeout = || duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT);
        let refresh = RefreshArguments { lease: refresh_lease, ahead: refresh_ahead, backoff: refresh_backoff };
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &raise_on_missing_id, timeout, |timeout| {
            let default = PyString::new(py, "zohooauth.db").into_any();
            let path = file_path(path.0.as_ref().unwrap_or(&default))?;
            let mut warnings = Vec::new();
            let store = open(py, timeout, |deadline| {
                let sqlite = Sqlite::open(&path, deadline)?;
                warnings = warnings_about(&sqlite);
                Ok(Box::new(sqlite))
            })?;
            // Only now: a handler of the log is Python code, so another thread can fork meanwhile.
            warnings.iter().try_for_each(|warning| warn_once(py, warning, warning))?;
            Ok(store)
        })
    }
}

#[cfg(feature = "postgres")]
#[pymethods]
impl CustomStorePostgreSQL {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(dsn=None, *, schema=None, connections=4, create=True, keys=..., refresh_lease=10.0, \
                          refresh_ahead=0.0, refresh_backoff=30.0, busy_timeout=5.0, raise_on_missing_id=True, \
                          password=None, **libpq)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (
        dsn=None, *, schema=None, connections=Given(None), create=Given(None), keys=Given(None),
        refresh_lease=Given(None), refresh_ahead=Given(None), refresh_backoff=Given(None), busy_timeout=Given(None),
        raise_on_missing_id=Given(None), password=None, **libpq
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    #[expect(clippy::too_many_arguments, reason = "those of the Python constructor")]
    fn __init__(
        this: &Bound<'_, Self>,
        dsn: Option<&Bound<'_, PyAny>>,
        schema: Option<&Bound<'_, PyAny>>,
        connections: Given<'_>,
        create: Given<'_>,
        keys: Given<'_>,
        refresh_lease: Given<'_>,
        refresh_ahead: Given<'_>,
        refresh_backoff: Given<'_>,
        busy_timeout: Given<'_>,
        raise_on_missing_id: Given<'_>,
        password: Option<&Bound<'_, PyAny>>,
        libpq: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let py = this.py();
        let timeout = || duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT);
        let refresh = RefreshArguments { lease: refresh_lease, ahead: refresh_ahead, backoff: refresh_backoff };
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &raise_on_missing_id, timeout, |timeout| {
            let create = flag("create", &create)?;
            let connections = count_or("connections", &connections, PostgresSettings::default().connections)?;
            let PostgresArguments { server, schema, password } = postgres_arguments(dsn, schema, password, libpq)?;
            let of_address = server.settings();
            let settings = PostgresSettings { schema: schema.or(of_address.schema), connections, create };
            let mut address = server.address.in_schema(settings.schema.as_deref());
            if let Some(function) = password {
                let location = address.location().clone();
                address = address.with_password(Arc::new(move || password::call(&function, &location)));
            }
            let mut clock = None;
            let store = open(py, timeout, |deadline| {
                let postgres = Postgres::open(address.clone(), settings.clone(), deadline)?;
                // The store is open, so a failure here is none of the constructor.
                clock = postgres.check_clock(Deadline::after(timeout)).unwrap_or_default();
                Ok(Box::new(postgres))
            })?;
            if let Some(Finding { code, message, hint, .. }) = clock {
                warn_once(py, code, &format!("{message}. {hint}"))?;
            }
            Ok(store)
        })
    }
}

#[cfg(feature = "sqlite")]
#[pymethods]
impl CustomStoreInMemory {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(*, keys=..., refresh_lease=10.0, refresh_ahead=0.0, refresh_backoff=30.0, \
                          raise_on_missing_id=True)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (
        *, keys=Given(None), refresh_lease=Given(None), refresh_ahead=Given(None), refresh_backoff=Given(None),
        raise_on_missing_id=Given(None)
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(
        this: &Bound<'_, Self>,
        keys: Given<'_>,
        refresh_lease: Given<'_>,
        refresh_ahead: Given<'_>,
        refresh_backoff: Given<'_>,
        raise_on_missing_id: Given<'_>,
    ) -> PyResult<()> {
        let refresh = RefreshArguments { lease: refresh_lease, ahead: refresh_ahead, backoff: refresh_backoff };
        let make = |timeout| open(this.py(), timeout, |_| Ok(Box::new(Memory::new()?)));
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &raise_on_missing_id, || Ok(MEMORY_TIMEOUT), make)
    }
}

#[pymethods]
impl CustomStoreList {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(*, keys=..., refresh_lease=10.0, refresh_ahead=0.0, refresh_backoff=30.0, \
                          raise_on_missing_id=True)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (
        *, keys=Given(None), refresh_lease=Given(None), refresh_ahead=Given(None), refresh_backoff=Given(None),
        raise_on_missing_id=Given(None)
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(
        this: &Bound<'_, Self>,
        keys: Given<'_>,
        refresh_lease: Given<'_>,
        refresh_ahead: Given<'_>,
        refresh_backoff: Given<'_>,
        raise_on_missing_id: Given<'_>,
    ) -> PyResult<()> {
        let refresh = RefreshArguments { lease: refresh_lease, ahead: refresh_ahead, backoff: refresh_backoff };
        let make = |timeout| open(this.py(), timeout, |_| Ok(Box::new(List::new())));
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &raise_on_missing_id, || Ok(MEMORY_TIMEOUT), make)
    }
}

#[pymethods]
impl CustomStoreShared {
    #[new]
    #[pyo3(
        signature = (*_args, **_kwargs),
        text_signature = "(cell, *, cache_for=0.0, keys=..., refresh_lease=10.0, refresh_ahead=0.0, refresh_backoff=30.0, \
                          busy_timeout=5.0, raise_on_missing_id=True)"
    )]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self { cell: OnceLock::new() })
    }

    /// The cell, or `None` before `__init__` has run.
    #[getter]
    fn cell(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.cell.get().map(|cell| cell.clone_ref(py))
    }

    #[pyo3(signature = (
        cell, *, cache_for=Given(None), keys=Given(None), refresh_lease=Given(None), refresh_ahead=Given(None),
        refresh_backoff=Given(None), busy_timeout=Given(None), raise_on_missing_id=Given(None)
    ))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    #[expect(clippy::too_many_arguments, reason = "those of the Python constructor")]
    fn __init__(
        this: &Bound<'_, Self>,
        cell: &Bound<'_, PyAny>,
        cache_for: Given<'_>,
        keys: Given<'_>,
        refresh_lease: Given<'_>,
        refresh_ahead: Given<'_>,
        refresh_backoff: Given<'_>,
        busy_timeout: Given<'_>,
        raise_on_missing_id: Given<'_>,
    ) -> PyResult<()> {
        let timeout = || duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT);
        let refresh = RefreshArguments { lease: refresh_lease, ahead: refresh_ahead, backoff: refresh_backoff };
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &raise_on_missing_id, timeout, |timeout| {
            let _ = this.get().cell.set(cell.clone().unbind());
            let cell = PyCell::new(cell)?;
            let cache_for = duration_or("cache_for", &cache_for, Duration::ZERO)?;
            open(this.py(), timeout, move |_| Ok(Box::new(cell.backend(cache_for))))
        })
    }
}

#[pymethods]
impl StoreAtAddress {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(address, *, keys=..., busy_timeout=5.0)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (address, *, keys=Given(None), busy_timeout=Given(None)))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(
        this: &Bound<'_, Self>,
        address: &Bound<'_, PyAny>,
        keys: Given<'_>,
        busy_timeout: Given<'_>,
    ) -> PyResult<()> {
        let timeout = || duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT);
        let refresh = RefreshArguments::default();
        TokenStoreBase::init(this.as_super(), &keys, &refresh, &Given(None), timeout, |timeout| {
            let address = store_address(address)?;
            open(this.py(), timeout, |deadline| backends::open(&address, true, deadline))
        })
    }
}

/// Opens a store without the GIL: this waits while another thread forks, and that thread needs the GIL.
fn open(
    py: Python<'_>,
    timeout: Duration,
    open: impl FnMut(Deadline) -> Result<Box<dyn Backend>, Error> + Send,
) -> Result<Store, Failure> {
    Ok(py.detach(|| Store::open(timeout, open))?)
}

/// Returns the warnings about a file: others can read it, or it is on a network file system.
#[cfg(feature = "sqlite")]
fn warnings_about(sqlite: &Sqlite) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(format!("{} {text}", sqlite.location()));
    if sqlite.is_exposed() {
        warn("holds credentials, and other users can read it. Run chmod 600 on it.");
    }
    if let Some(network) = sqlite.network() {
        warn(&format!(
            "is on a file system that several machines may use ({network}). SQLite's locks do not always reach from \
             one machine to another, and finds wait for saves. Keep the file on a local disk, or use it on one \
             machine only."
        ));
    }
    warnings
}

/// Writes a warning, once per process for each `key`.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn warn_once(py: Python<'_>, key: &str, warning: &str) -> PyResult<()> {
    static WARNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    {
        let mut warned = lock(py, &WARNED);
        if warned.iter().any(|known| known == key) {
            return Ok(());
        }
        warned.push(key.to_owned());
    }
    log(py, "warning", warning)
}
