//! What the command line uses: a token database without the SDK. Its methods raise `StoreError` itself (contract,
//! section 6).
//!
//! Only [`Administration::reveal`] returns secrets to Python.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::address::store_address;
use super::arguments::{Given, duration_or, file_path, idle_for as parse_idle_for};
use super::caller_functions::or_ended;
use super::clock::now;
use super::error::Failure;
use super::keys::{self, KeysArgument, PyRekeyed};
use super::records::{Imported, PyFinding, PyRefreshState, Record, RemarkAt};
use crate::backends::address::StoreAddress;
use crate::backends::list::List;
use crate::backends::{self, BACKUP_FORMAT, DATABASE_FORMATS};
use crate::domain::{Field, Row, import};
use crate::store::administration::{ImportCounts, ImportReport};
use crate::store::atomic_write::Existing;
use crate::store::deadline::Deadline;
use crate::store::error::Code;
use crate::store::files::{FileId, is_same_file};
use crate::store::keys::StoreKeys;
use crate::store::transfer::{self, SourceKind};
use crate::store::{Error, Store};

/// The rows of a file, to import or to restore, for the command line.
#[pyclass(name = "Source", module = "zoho_token_store._native", frozen)]
pub(super) struct PySource(transfer::Source);

#[pymethods]
impl PySource {
    /// The kind of the file.
    #[getter]
    const fn kind(&self) -> &'static str {
        match self.0.kind {
            SourceKind::FileStore => "FileStore",
            SourceKind::Database(name) => name,
            SourceKind::JsonLines => "JSON Lines",
        }
    }

    /// What the user should know about rows, besides what an import says.
    #[getter]
    fn remarks(&self) -> Vec<RemarkAt> {
        let positions = self.0.remarks.iter();
        positions.map(|&(index, remark)| (remark.text(), self.0.position(index))).collect()
    }

    const fn __len__(&self) -> usize {
        self.0.rows.len()
    }
}

/// Read the rows of a file or of a server's database, to import or to restore them. Nothing is changed.
#[pyfunction]
#[pyo3(
    signature = (address, *, busy_timeout=Given(None)),
    text_signature = "(address, *, busy_timeout=5.0)"
)]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
pub(super) fn read_source(py: Python<'_>, address: &Bound<'_, PyAny>, busy_timeout: Given<'_>) -> PyResult<PySource> {
    run(py, || {
        let address = store_address(address)?;
        let timeout = duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT)?;
        Ok(PySource(py.detach(|| {
            if let Some(path) = address.path() {
                return transfer::read(path, DATABASE_FORMATS);
            }
            let store = Store::open(timeout, |deadline| backends::open(&address, false, deadline))?;
            let contents = store.contents();
            store.close();
            Ok(transfer::Source::of_store(contents?, address.kind()))
        })?))
    })
}

/// Read the rows of standard input, to import them.
#[pyfunction]
pub(super) fn read_stdin(py: Python<'_>) -> PyResult<PySource> {
    run(py, || Ok(PySource(py.detach(|| transfer::read_stream("standard input", io::stdin(), DATABASE_FORMATS))?)))
}

/// Return the statements that make the tables of a store on a server.
#[pyfunction]
pub(super) fn init_sql(py: Python<'_>) -> PyResult<&'static str> {
    run(py, || Ok(backends::init_sql()?))
}

/// Return the problems of the database at `address`, and change nothing.
#[pyfunction]
#[pyo3(
    signature = (address, *, keys=Given(None), busy_timeout=Given(None)),
    text_signature = "(address, *, keys=..., busy_timeout=5.0)"
)]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
pub(super) fn check(
    py: Python<'_>,
    address: &Bound<'_, PyAny>,
    keys: Given<'_>,
    busy_timeout: Given<'_>,
) -> PyResult<Vec<PyFinding>> {
    run(py, || {
        let address = store_address(address)?;
        let timeout = duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT)?;
        let ring = KeysArgument::new(&keys)?.ring(py)?;
        let findings = py.detach(|| backends::check(&address, now(), &ring, Deadline::after(timeout)))?;
        Ok(findings.into_iter().map(PyFinding::from).collect())
    })
}

/// Return the version of the schema of the database at `address`, and change nothing.
#[pyfunction]
#[pyo3(
    signature = (address, *, busy_timeout=Given(None)),
    text_signature = "(address, *, busy_timeout=5.0)"
)]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
pub(super) fn schema_version(py: Python<'_>, address: &Bound<'_, PyAny>, busy_timeout: Given<'_>) -> PyResult<i32> {
    run(py, || {
        let address = store_address(address)?;
        let timeout = duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT)?;
        Ok(py.detach(|| backends::schema_version(&address, Deadline::after(timeout)))?)
    })
}

/// A token database without the SDK, for the command line.
#[pyclass(module = "zoho_token_store._native", frozen)]
pub(super) struct Administration {
    address: StoreAddress,
    timeout: Duration,
    keys: KeysArgument,
    /// The database, or a copy of the rows of a file that a store would migrate. Only a change migrates the file.
    opened: Store,
    is_copy: bool,
    /// The database, if it was migrated since.
    migrated: OnceLock<Store>,
}

#[pymethods]
impl Administration {
    #[new]
    #[pyo3(
        signature = (address, *, make=false, keys=Given(None), busy_timeout=Given(None)),
        text_signature = "(address, *, make=False, keys=..., busy_timeout=5.0)"
    )]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn new(
        py: Python<'_>,
        address: &Bound<'_, PyAny>,
        make: bool,
        keys: Given<'_>,
        busy_timeout: Given<'_>,
    ) -> PyResult<Self> {
        run(py, || {
            let address = store_address(address)?;
            let timeout = duration_or("busy_timeout", &busy_timeout, DEFAULT_BUSY_TIMEOUT)?;
            let keys = KeysArgument::new(&keys)?;
            let of_store = keys.for_store(py)?;
            Ok(py.detach(|| -> Result<_, Error> {
                let older = if make { None } else { backends::read_older(&address, Deadline::after(timeout))? };
                let is_copy = older.is_some();
                let opened = match older {
                    Some(copy) => Store::new(copy, timeout),
                    None => Store::open(timeout, |deadline| backends::open(&address, make, deadline))?,
                };
                let opened = with_keys(opened, of_store);
                Ok(Self { address, timeout, keys, opened, is_copy, migrated: OnceLock::new() })
            })?)
        })
    }

    /// Return a copy in memory, for a trial: what is done to it changes no file. Without a source it is empty.
    #[staticmethod]
    #[pyo3(
        signature = (source=None, *, keys=Given(None)),
        text_signature = "(source=None, *, keys=...)"
    )]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn rehearsal(py: Python<'_>, source: Option<&PySource>, keys: Given<'_>) -> PyResult<Self> {
        run(py, || {
            let keys = KeysArgument::new(&keys)?;
            let of_store = keys.for_store(py)?;
            Ok(py.detach(|| -> Result<_, Error> {
                let store = Store::open(DEFAULT_BUSY_TIMEOUT, |_| Ok(Box::new(List::new())))?;
                let store = with_keys(store, of_store);
                if let Some(PySource(transfer::Source { rows, last_id, .. })) = source {
                    store.copy_stored(rows, *last_id)?;
                }
                Ok(Self {
                    address: StoreAddress::File(PathBuf::new()),
                    timeout: DEFAULT_BUSY_TIMEOUT,
                    keys,
                    opened: store,
                    is_copy: false,
                    migrated: OnceLock::new(),
                })
            })?)
        })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        run(py, || Ok(py.detach(|| self.to_read().count())?))
    }

    /// Return all rows, the oldest row first, also those that cannot be read.
    fn records(&self, py: Python<'_>) -> PyResult<Vec<Record>> {
        run(py, || Ok(py.detach(|| self.to_read().list())?.into_iter().map(Record::from).collect()))
    }

    /// Return all rows, as `records` does, each with who refreshes it. They are of one snapshot.
    fn refresh_states(&self, py: Python<'_>) -> PyResult<Vec<(Record, PyRefreshState)>> {
        run(py, || {
            let rows = py.detach(|| self.to_read().list_with_refresh_states(now()))?;
            Ok(rows.into_iter().map(|(row, state)| (Record::from(row), state.into())).collect())
        })
    }

    /// Return the row with this id, also if it cannot be read.
    fn record(&self, py: Python<'_>, id: &str) -> PyResult<Record> {
        run(py, || Ok(Record::from(py.detach(|| self.to_read().list_row(id))?)))
    }

    /// Return the values of the row with this id, its secrets included.
    fn reveal<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyDict>> {
        run(py, || {
            let row = py.detach(|| self.to_read().row(id))?;
            let values = PyDict::new(py);
            for field in Field::ALL {
                if let Some(value) = row.get(field) {
                    values.set_item(field.name(), value)?;
                }
            }
            Ok(values)
        })
    }

    /// Write without changing anything. Fails where a save would fail.
    fn try_to_write(&self, py: Python<'_>) -> PyResult<()> {
        run(py, || Ok(py.detach(|| self.to_change()?.try_to_write())?))
    }

    /// Delete the row with this id, and scrub its secrets from the file.
    fn delete(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        run(py, || Ok(py.detach(|| self.to_change()?.delete_existing(id))?))
    }

    /// Return the rows that `purge` may delete, the oldest row first.
    #[pyo3(signature = (idle_for=None))]
    fn purgeable(&self, py: Python<'_>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Record>> {
        run(py, || {
            let idle_for = parse_idle_for(idle_for)?;
            Ok(py.detach(|| self.to_read().purgeable(now(), idle_for))?.iter().map(Record::from).collect())
        })
    }

    /// Purge the rows with these ids, and return how many were deleted.
    #[pyo3(signature = (ids, idle_for=None))]
    fn purge(&self, py: Python<'_>, ids: Vec<String>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        run(py, || {
            let idle_for = parse_idle_for(idle_for)?;
            let ids = ids.into_iter().collect();
            Ok(py.detach(|| self.to_change()?.purge_confirmed(&ids, now(), idle_for))?)
        })
    }

    /// Delete the rows with these ids, whatever their age, and return how many were deleted.
    fn delete_rows(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<usize> {
        run(py, || {
            let ids = ids.into_iter().collect();
            Ok(py.detach(|| self.to_change()?.delete_confirmed(&ids))?)
        })
    }

    /// Import rows of a source, beginning with row number `first`, in one transaction.
    fn import_rows(&self, py: Python<'_>, source: &PySource, first: usize, count: usize) -> PyResult<Imported> {
        run(py, || {
            self.require_another_file(source)?;
            let transfer::Source { rows, order, .. } = &source.0;
            let indices: Vec<usize> = order.iter().skip(first).take(count).copied().collect();
            let ImportReport { rows, counts, remarks } = py.detach(|| {
                let rows: Vec<Row> = indices.iter().map(|&index| rows[index].clone()).collect();
                self.to_change()?.import_batch(&rows, now(), BATCH_TIME)
            })?;
            let ImportCounts { new, updated, unchanged, skipped } = counts;
            let text = |(number, remark): (usize, import::Remark)| (remark.text(), source.0.position(indices[number]));
            let remarks = remarks.into_iter().map(text).collect();
            Ok(Imported { rows, new, updated, unchanged, skipped, remarks })
        })
    }

    /// Replace all rows by the rows of a backup, in one transaction. Return their number.
    fn restore(&self, py: Python<'_>, source: &PySource) -> PyResult<usize> {
        run(py, || {
            self.require_another_file(source)?;
            if !matches!(source.0.kind, SourceKind::Database(_)) {
                return Err(Failure::Store(Error::new(Code::NotABackup, "the file")));
            }
            Ok(py.detach(|| self.to_change()?.restore(&source.0.rows, source.0.last_id))?)
        })
    }

    /// Write a consistent copy into a SQLite file, like the `backup` of a store.
    fn backup(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        run(py, || {
            let target = file_path(path)?;
            Ok(py.detach(|| self.to_read().backup(&target, BACKUP_FORMAT))?)
        })
    }

    /// Write all rows into a file as JSON Lines, and return their number.
    #[pyo3(signature = (path, *, overwrite=false))]
    fn export(&self, py: Python<'_>, path: &Bound<'_, PyAny>, overwrite: bool) -> PyResult<usize> {
        run(py, || {
            let target = file_path(path)?;
            if self.to_read().location().path().is_some_and(|path| is_same_file(path, &target)) {
                return Err(Failure::Store(Error::at(Code::SameFile, &target)));
            }
            let existing = if overwrite { Existing::Replace } else { Existing::Keep };
            Ok(py.detach(|| {
                let rows = self.to_read().all()?;
                transfer::write(&target, &rows, existing, DATABASE_FORMATS).map(|()| rows.len())
            })?)
        })
    }

    /// Write all rows to standard output as JSON Lines, and return their number. Raise `OSError` if that fails.
    fn export_to_stdout(&self, py: Python<'_>) -> PyResult<usize> {
        run(py, || {
            let rows = py.detach(|| self.to_read().all())?;
            match py.detach(|| transfer::write_lines(io::stdout().lock(), &rows)) {
                Ok(()) => Ok(rows.len()),
                Err(error) => Err(Failure::Python(os_error(py, &error)?)),
            }
        })
    }

    /// Seal every row under the first key, while programs go on.
    fn rekey(&self, py: Python<'_>) -> PyResult<PyRekeyed> {
        run(py, || {
            let store = py.detach(|| self.to_change())?;
            keys::rekey(py, store)
        })
    }

    /// Return what `rekey` would do with the rows as they are now. Nothing is changed.
    fn rekey_preview(&self, py: Python<'_>) -> PyResult<PyRekeyed> {
        run(py, || Ok(py.detach(|| self.to_read().rekey_preview())?.into()))
    }

    /// Return the number of rows under each key.
    fn key_usage(&self, py: Python<'_>) -> PyResult<BTreeMap<String, usize>> {
        run(py, || Ok(py.detach(|| self.to_read().key_usage())?))
    }

    /// Delete the rows under the key with this id, and return their number. The key itself is not needed.
    fn forget_key(&self, py: Python<'_>, key_id: &str) -> PyResult<usize> {
        run(py, || Ok(py.detach(|| self.to_change()?.forget_key(key_id))?))
    }

    /// Close the database.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        run(py, || {
            py.detach(|| [Some(&self.opened), self.migrated.get()].into_iter().flatten().for_each(Store::close));
            Ok(())
        })
    }
}

impl Administration {
    /// The store to read from.
    fn to_read(&self) -> &Store {
        self.migrated.get().unwrap_or(&self.opened)
    }

    /// The store to change. Migrates the file if it is older.
    fn to_change(&self) -> Result<&Store, Error> {
        if !self.is_copy || self.migrated.get().is_some() {
            return Ok(self.to_read());
        }
        // Fails if this object was closed.
        self.opened.count()?;
        let keys = self.keys.without_gil()?;
        let store = Store::open(self.timeout, |deadline| backends::open(&self.address, false, deadline))?;
        Ok(self.migrated.get_or_init(|| with_keys(store, keys)))
    }

    /// Fails if the source is the database itself.
    fn require_another_file(&self, source: &PySource) -> Result<(), Failure> {
        match self.to_read().location().path() {
            Some(path) if source.0.file.is_some() && FileId::of(path) == source.0.file => {
                Err(Failure::Store(Error::at(Code::SameFile, path)))
            }
            _ => Ok(()),
        }
    }
}

/// The `OSError` for a failed write to standard output, as Python itself would raise it (`OSError`'s constructor picks
/// the subclass by the number).
fn os_error(py: Python<'_>, error: &io::Error) -> PyResult<PyErr> {
    let Some(number) = error.raw_os_error() else { return Ok(PyOSError::new_err(error.to_string())) };
    let text: String = py.import("os")?.call_method1("strerror", (number,))?.extract()?;
    Ok(PyOSError::new_err((number, text)))
}

/// How long an import keeps other programs waiting at a time.
const BATCH_TIME: Duration = Duration::from_secs(1);

fn with_keys(store: Store, keys: Option<StoreKeys>) -> Store {
    match keys {
        Some(keys) => store.with_keys(keys),
        None => store,
    }
}

/// How long the command line waits for other programs by default.
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the work of a method, and raises its failure.
fn run<T>(py: Python<'_>, work: impl FnOnce() -> Result<T, Failure>) -> PyResult<T> {
    or_ended(work).map_err(|failure| failure.raise_without_sdk(py))
}
