//! What the command line works on: a token database without the SDK. Fails with `StoreError` itself (contract 6).
//!
//! No secret goes to Python but by [`Administration::reveal`].

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{file_path, milliseconds};
use super::clock::now;
use super::error::{Failure, bad_input};
use crate::domain::check::Severity;
use crate::domain::{Field, Row, check as findings, expiry, place};
use crate::store::administration;
use crate::store::sqlite::{self, Identity, Sqlite};
use crate::store::transfer::{self, Kind};
use crate::store::wait::Deadline;
use crate::store::{Error, Store};

/// Something about a store that is not as it should be. It holds no secret.
#[pyclass(module = "zoho_token_store", frozen, get_all)]
pub(super) struct Finding {
    /// What kind it is, for programs.
    code: &'static str,
    /// How bad it is: the store does not work, or somebody should look.
    severity: &'static str,
    /// The rows concerned; none if it is about the file.
    ids: Vec<String>,
    /// What is wrong.
    message: String,
    /// What to do.
    cure: &'static str,
}

impl From<findings::Finding> for Finding {
    fn from(finding: findings::Finding) -> Self {
        let findings::Finding { code, severity, ids, message, cure } = finding;
        let severity = match severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        Self { code, severity, ids, message, cure }
    }
}

#[pymethods]
impl Finding {
    fn __repr__(&self) -> String {
        format!("<Finding {} ({}): {}>", self.code, self.severity, self.message)
    }
}

/// A row without its secrets.
#[expect(clippy::struct_excessive_bools, reason = "each says whether one of its values is there")]
#[pyclass(module = "zoho_token_store._native", frozen, get_all)]
pub(super) struct Record {
    id: String,
    user_name: Option<String>,
    client_id: Option<String>,
    redirect_url: Option<String>,
    api_domain: Option<String>,
    data_centre: Option<String>,
    expiry_time: Option<String>,
    expires_at: Option<i64>,
    last_saved: Option<i64>,
    has_client_secret: bool,
    has_refresh_token: bool,
    has_access_token: bool,
    has_grant_token: bool,
}

impl From<&Row> for Record {
    fn from(row: &Row) -> Self {
        let text = |field| row.get(field).map(str::to_owned);
        let has = |field| row.get(field).is_some();
        Self {
            id: row.id().to_owned(),
            user_name: text(Field::UserName),
            client_id: text(Field::ClientId),
            redirect_url: text(Field::RedirectUrl),
            api_domain: text(Field::ApiDomain),
            data_centre: row.get(Field::ApiDomain).and_then(place::data_centre),
            expiry_time: text(Field::ExpiryTime),
            expires_at: expiry::parse(row.get(Field::ExpiryTime)).and_then(expiry::Expiry::milliseconds),
            last_saved: row.saved_at,
            has_client_secret: has(Field::ClientSecret),
            has_refresh_token: has(Field::RefreshToken),
            has_access_token: has(Field::AccessToken),
            has_grant_token: has(Field::GrantToken),
        }
    }
}

#[pymethods]
impl Record {
    fn __repr__(&self) -> String {
        format!("<Record {}>", crate::store::error::describe_id(&self.id))
    }
}

/// What became of rows that were imported.
#[pyclass(module = "zoho_token_store._native", frozen, get_all)]
pub(super) struct Imported {
    new: usize,
    updated: usize,
    unchanged: usize,
    skipped: usize,
}

/// The rows of a file, not yet imported.
#[pyclass(module = "zoho_token_store._native", frozen)]
pub(super) struct Source(transfer::Source);

#[pymethods]
impl Source {
    #[getter]
    const fn kind(&self) -> &'static str {
        match self.0.kind {
            Kind::FileStore => "FileStore",
            Kind::Sqlite => "SQLite",
            Kind::JsonLines => "JSON Lines",
        }
    }

    const fn __len__(&self) -> usize {
        self.0.rows.len()
    }
}

/// Reads the rows of a file to import or to restore.
#[pyfunction]
pub(super) fn read_source(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Source> {
    bare(|| {
        let path = file_path(path)?;
        Ok(Source(py.detach(|| transfer::read(&path))?))
    })
}

/// What is not as it should be with a token database. Changes nothing.
#[pyfunction]
pub(super) fn check(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<Vec<Finding>> {
    bare(|| {
        let path = file_path(path)?;
        let findings = py.detach(|| sqlite::check(&path, now()))?;
        Ok(findings.into_iter().map(Finding::from).collect())
    })
}

/// A token database without the SDK.
#[pyclass(module = "zoho_token_store._native", frozen)]
pub(super) struct Administration {
    store: Store,
    path: PathBuf,
}

#[pymethods]
impl Administration {
    #[new]
    #[pyo3(signature = (path, *, make=false, busy_timeout=5.0))]
    fn new(py: Python<'_>, path: &Bound<'_, PyAny>, make: bool, busy_timeout: f64) -> PyResult<Self> {
        bare(|| {
            let path = file_path(path)?;
            let patience = Duration::try_from_secs_f64(busy_timeout)
                .map_err(|_| bad_input("busy_timeout is a number of seconds from 0 on"))?;
            // Where one may not look, it may be there: opening it will tell.
            if !make && path.try_exists().is_ok_and(|there| !there) {
                let (what, cure) = ("does not exist", "give the path of a token database");
                return Err(Failure::Store(Error::BadPath { path, what, cure }));
            }
            let sqlite = py.detach(|| Sqlite::open(&path, Deadline::after(patience)))?;
            Ok(Self { store: Store::new(Box::new(sqlite), patience), path })
        })
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        bare(|| Ok(py.detach(|| self.store.count())?))
    }

    fn records(&self, py: Python<'_>) -> PyResult<Vec<Record>> {
        bare(|| Ok(py.detach(|| self.store.all())?.iter().map(Record::from).collect()))
    }

    fn record(&self, py: Python<'_>, id: &str) -> PyResult<Record> {
        bare(|| Ok(Record::from(&py.detach(|| self.store.row(id))?)))
    }

    fn reveal<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyDict>> {
        bare(|| {
            let row = py.detach(|| self.store.row(id))?;
            let values = PyDict::new(py);
            for field in Field::ALL {
                if let Some(value) = row.get(field) {
                    values.set_item(field.name(), value)?;
                }
            }
            Ok(values)
        })
    }

    fn delete(&self, py: Python<'_>, id: &str) -> PyResult<()> {
        bare(|| Ok(py.detach(|| self.store.delete_existing(id))?))
    }

    #[pyo3(signature = (idle_for=None))]
    fn purgeable(&self, py: Python<'_>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Record>> {
        bare(|| {
            let idle_for = idle_for.map(milliseconds).transpose()?;
            Ok(py.detach(|| self.store.purgeable(now(), idle_for))?.iter().map(Record::from).collect())
        })
    }

    #[pyo3(signature = (ids, idle_for=None))]
    fn purge(&self, py: Python<'_>, ids: Vec<String>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        bare(|| {
            let idle_for = idle_for.map(milliseconds).transpose()?;
            let ids = ids.into_iter().collect();
            Ok(py.detach(|| self.store.purge_those(&ids, now(), idle_for))?)
        })
    }

    fn import_rows(&self, py: Python<'_>, source: &Source, first: usize, count: usize) -> PyResult<Imported> {
        bare(|| {
            self.is_another(source)?;
            let transfer::Source { rows, order, .. } = &source.0;
            let administration::Imported { new, updated, unchanged, skipped } = py.detach(|| {
                let rows: Vec<Row> = order.iter().skip(first).take(count).map(|&place| rows[place].clone()).collect();
                self.store.import_rows(&rows, now())
            })?;
            Ok(Imported { new, updated, unchanged, skipped })
        })
    }

    fn restore(&self, py: Python<'_>, source: &Source) -> PyResult<usize> {
        bare(|| {
            self.is_another(source)?;
            if source.0.kind != Kind::Sqlite {
                return Err(bad_input("that file is no backup: import it, and what is there stays"));
            }
            Ok(py.detach(|| self.store.restore(&source.0.rows, source.0.last_id))?)
        })
    }

    fn backup(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        bare(|| {
            let target = file_path(path)?;
            Ok(py.detach(|| self.store.backup(&target))?)
        })
    }

    #[pyo3(signature = (path, *, overwrite=false))]
    fn export(&self, py: Python<'_>, path: &Bound<'_, PyAny>, overwrite: bool) -> PyResult<usize> {
        bare(|| {
            let target = file_path(path)?;
            if Identity::of(&self.path).is(Identity::of(&target)) {
                return Err(bad_input("the file to write is the token database itself"));
            }
            Ok(py.detach(|| {
                let rows = self.store.all()?;
                transfer::write(&target, &rows, overwrite).map(|()| rows.len())
            })?)
        })
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.store.close());
    }
}

impl Administration {
    fn is_another(&self, source: &Source) -> Result<(), Failure> {
        if Identity::of(&self.path).is(source.0.identity) {
            return Err(bad_input("the file to read is the token database itself"));
        }
        Ok(())
    }
}

/// Runs a method's work and translates its failure.
fn bare<T>(work: impl FnOnce() -> Result<T, Failure>) -> PyResult<T> {
    work().map_err(Failure::raise_bare)
}
