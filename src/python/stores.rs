//! The classes. One base has the methods; each store adds only how it is made.
//!
//! What Python shows of them in `help()` is the first sentence of the stub's, which is the documentation of record; a test
//! holds them to it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::administration::Finding;
use super::arguments::{Given, file_path, flag, milliseconds, seconds};
use super::clock::now;
use super::convert::{self, Incoming, Sdk, type_name};
use super::error::{Failure, bad_input, log};
use super::lease::{self, LeaseInfo};
use super::turn;
use crate::domain::Token;
use crate::domain::lease::SOON;
use crate::store::lease::Asked;
use crate::store::list::List;
use crate::store::sqlite::{Memory, Sqlite};
use crate::store::wait::Deadline;
use crate::store::{Backend, Error, Found, Place, Store, Wait};

/// What the store classes have in common: every method. It is made only through one of them.
///
/// The rest is in `_native.pyi`, where editors find it: what each argument and method takes, returns, raises and promises.
#[pyclass(module = "zoho_token_store._native", name = "TokenStoreBase", subclass, frozen, weakref)]
pub(super) struct TokenStoreBase {
    /// Empty until `__init__` has run.
    opened: OnceLock<Opened>,
}

struct Opened {
    store: Arc<Store>,
    sdk: &'static Sdk,
    raise_on_missing_id: bool,
}

/// Tokens in a SQLite file, for any number of threads and processes (contract 7, 9).
///
/// The rest is in `_native.pyi`, where editors find it: what each argument and method takes, returns, raises and promises.
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreSQLite;

/// Tokens in a private SQLite database in memory, gone with the object. Also called `CustomStore`.
///
/// The rest is in `_native.pyi`, where editors find it: what each argument and method takes, returns, raises and promises.
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreInMemory;

/// Tokens in a plain list in memory, gone with the object.
///
/// The rest is in `_native.pyi`, where editors find it: what each argument and method takes, returns, raises and promises.
#[pyclass(module = "zoho_token_store", extends = TokenStoreBase, subclass, frozen)]
pub(super) struct CustomStoreList;

/// How long a refresh may take before others make it, unless a store is told.
const REFRESH_LEASE: Duration = Duration::from_secs(10);

/// How long a store on a file waits for other programs, unless it is told.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a store in memory waits for another thread: a change to it takes microseconds.
const IN_MEMORY: Duration = Duration::from_secs(5);

impl TokenStoreBase {
    const fn unopened() -> Self {
        Self { opened: OnceLock::new() }
    }

    /// Opens the store that `make` makes.
    fn init(
        this: &Bound<'_, Self>,
        refresh_lease: &Given<'_>,
        raise_on_missing_id: &Given<'_>,
        patience: impl FnOnce() -> Result<Duration, Failure>,
        make: impl FnOnce(Deadline) -> Result<Box<dyn Backend>, Failure>,
    ) -> PyResult<()> {
        let py = this.py();
        let sdk = Sdk::get(py)?;
        sdk.register(&py.get_type::<Self>())?;
        let open = || -> Result<(), Failure> {
            let again = || bad_input("this store is open already; make another one");
            if this.get().opened.get().is_some() {
                return Err(again());
            }
            let raise_on_missing_id = flag("raise_on_missing_id", raise_on_missing_id)?;
            let refresh_lease = seconds("refresh_lease", refresh_lease, REFRESH_LEASE)?;
            let patience = patience()?;
            let store = Store::new(make(Deadline::after(patience))?, patience).with_refresh_lease(refresh_lease);
            this.get().opened.set(Opened { store: Arc::new(store), sdk, raise_on_missing_id }).map_err(|_| again())
        };
        open().map_err(|failure| failure.raise(py, sdk, &type_name(this.as_any())))
    }

    fn opened(&self) -> PyResult<&Opened> {
        self.opened.get().ok_or_else(|| {
            PyTypeError::new_err("the store was never opened: call super().__init__() in the __init__() of a subclass")
        })
    }

    /// Runs a method's work and translates its failure.
    fn run<T>(&self, py: Python<'_>, method: &str, work: impl FnOnce(&Opened) -> Result<T, Failure>) -> PyResult<T> {
        let opened = self.opened()?;
        work(opened).map_err(|failure| failure.raise(py, opened.sdk, method))
    }
}

impl Opened {
    /// Finds without letting go of the GIL, unless somebody is in the way; waits for a refresh that another makes. The
    /// second value: it was not due, and nobody was asked whether it may be refreshed.
    fn find(&self, py: Python<'_>, asked: Asked<'_>) -> Result<(Option<Found>, bool), Failure> {
        let look = |wait| match asked {
            Asked::For(token) => self.store.find(token, wait),
            Asked::Id(id) => self.store.find_by_id(id, wait),
        };
        let found = match look(Wait::No) {
            Err(error) if error.is_busy() => py.detach(|| look(Wait::Yes)),
            found => found,
        }?;
        if self.is_due_soon(asked, found.as_ref()) {
            return Ok((lease::row_in_turn(py, &self.store, self.sdk, asked, found)?, false));
        }
        Ok((found, true))
    }

    /// A little early: the SDK looks at the clock after us.
    fn is_due_soon(&self, asked: Asked<'_>, found: Option<&Found>) -> bool {
        self.store.is_due(asked, found, || now().saturating_add(SOON))
    }

    /// Saves, and gives back what leases this thread holds.
    fn save(&self, py: Python<'_>, token: Token<'_>) -> Result<String, Failure> {
        let Some((owner, call)) = lease::saver(py, &self.store, self.sdk)? else {
            let id = py.detach(|| self.store.save(token, now()))?;
            turn::tell_untold(py)?;
            return Ok(id);
        };
        let (id, given) = py.detach(|| self.store.save_and_give_back(token, now(), &owner, call))?;
        given.iter().try_for_each(|key| turn::gave_back_with_save(py, &self.store, key))?;
        Ok(id)
    }
}

#[pymethods]
impl TokenStoreBase {
    /// Complete a token from its row.
    fn find_token<'py>(&self, py: Python<'py>, token: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.run(py, "find_token", |opened| {
            loop {
                let incoming = opened.sdk.read(token)?;
                let asked = incoming.token();
                let (found, was_fresh) = opened.find(py, Asked::For(asked))?;
                let Some(found) = found else { return Ok(None) };
                let filled = incoming.fill(opened.sdk, asked, found.complete(asked))?;
                // That is Python's code, and other threads may have had the GIL for seconds meanwhile.
                if !(was_fresh && opened.is_due_soon(Asked::For(asked), Some(&found))) {
                    return Ok(Some(filled));
                }
            }
        })
    }

    /// Save a token into its row, or into a new one if it has none.
    fn save_token(&self, py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "save_token", |opened| {
            let incoming = opened.sdk.read(token)?;
            let id = opened.save(py, incoming.token())?;
            incoming.carry_id(opened.sdk, &id)?;
            Ok(())
        })
    }

    /// Make a new token from the row with this id. It waits for another's refresh as `find_token` does.
    fn find_token_by_id<'py>(&self, py: Python<'py>, id: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.run(py, "find_token_by_id", |opened| {
            let id = convert::id(id)?;
            let id = id.as_ref().map(|id| id.to_str()).transpose()?;
            loop {
                match opened.find(py, Asked::Id(id))? {
                    (Some(found), was_fresh) => {
                        let made = opened.sdk.make(py, found.row())?;
                        // As in `find_token`.
                        if !(was_fresh && opened.is_due_soon(Asked::Id(id), Some(&found))) {
                            return Ok(Some(made));
                        }
                    }
                    (None, _) if opened.raise_on_missing_id => {
                        return Err(Failure::Store(Error::NoSuchId {
                            place: opened.store.place().clone(),
                            id: id.unwrap_or_default().to_owned(),
                        }));
                    }
                    (None, _) => return Ok(None),
                }
            }
        })
    }

    /// Make a new token of every row, the oldest row first.
    fn get_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.run(py, "get_tokens", |opened| {
            let rows = py.detach(|| opened.store.all())?;
            opened.sdk.make_all(py, rows)
        })
    }

    /// Delete the row with this id, and what is left of it on the disk. An id that is not there is no error.
    fn delete_token(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "delete_token", |opened| {
            let id = convert::id(id)?;
            let id = id.as_ref().map(|id| id.to_str()).transpose()?;
            Ok(py.detach(|| opened.store.delete(id))?)
        })
    }

    /// Delete all rows, and what is left of them on the disk. Their ids are not given out again.
    fn delete_tokens(&self, py: Python<'_>) -> PyResult<()> {
        self.run(py, "delete_tokens", |opened| Ok(py.detach(|| opened.store.delete_all())?))
    }

    /// Delete the rows that can never be used again (contract 10).
    #[pyo3(signature = (idle_for=None))]
    fn purge(&self, py: Python<'_>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        self.run(py, "purge", |opened| {
            let idle_for = idle_for.map(milliseconds).transpose()?;
            Ok(py.detach(|| opened.store.purge(now(), idle_for))?)
        })
    }

    /// Save each of the tokens, in one transaction: all of them or none.
    fn import_tokens(&self, py: Python<'_>, tokens: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.run(py, "import_tokens", |opened| {
            let mut incoming = Vec::new();
            if !tokens.hasattr(intern!(py, "__iter__"))? && !tokens.hasattr(intern!(py, "__getitem__"))? {
                return Err(bad_input(format!(
                    "an iterable of tokens is needed, not an object of type {}",
                    type_name(tokens)
                )));
            }
            for token in tokens.try_iter()? {
                incoming.push(opened.sdk.read(&token?)?);
            }
            let saved: Vec<Token<'_>> = incoming.iter().map(Incoming::token).collect();
            let ids = py.detach(|| opened.store.import(&saved, now()))?;
            for (token, id) in incoming.iter().zip(&ids) {
                token.carry_id(opened.sdk, id)?;
            }
            Ok(ids.len())
        })
    }

    /// Write a consistent copy into a SQLite file, while others go on writing.
    fn backup(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "backup", |opened| {
            let target = file_path(path)?;
            Ok(py.detach(|| opened.store.backup(&target))?)
        })
    }

    /// Look for what is not as it should be, and change nothing. `zoho-token-store check` finds the same.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<Finding>> {
        self.run(py, "check", |opened| {
            let findings = py.detach(|| opened.store.check(now()))?;
            Ok(findings.into_iter().map(Finding::from).collect())
        })
    }

    /// Return how often this store had to do with refresh leases, for whoever runs it in production.
    fn lease_info(&self, py: Python<'_>) -> PyResult<LeaseInfo> {
        self.run(py, "lease_info", |opened| {
            turn::tell_untold(py)?;
            Ok(opened.store.lease_counters().into())
        })
    }

    /// Close the store, and give back what leases it holds.
    fn close(&self, py: Python<'_>) {
        if let Some(opened) = self.opened.get() {
            py.detach(|| opened.store.close());
        }
    }

    fn __enter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        this.get().opened()?;
        Ok(this)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.run(py, "len", |opened| Ok(py.detach(|| opened.store.count())?))
    }

    // A store without rows is a store. With `__len__` alone, `store or default` would be the default.
    fn __bool__(&self) -> bool {
        self.opened.get().is_some()
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        let class = type_name(this.as_any());
        Ok(match this.get().opened.get().map(|opened| opened.store.place()) {
            Some(Place::File(path)) => format!("{class}({})", path.as_os_str().into_pyobject(this.py())?.repr()?),
            Some(Place::Memory) => format!("{class}()"),
            None => format!("<{class}, not opened>"),
        })
    }

    // A copy would be a second owner of one connection, and a pickle would hold secrets or nothing.
    fn __reduce_ex__(this: &Bound<'_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "{} cannot be copied or pickled: open another store on the same file",
            type_name(this.as_any())
        )))
    }
}

#[pymethods]
impl CustomStoreSQLite {
    // `__new__` takes whatever comes, so that a subclass may have an `__init__` of its own.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(path='zohooauth.db', *, refresh_lease=10.0, busy_timeout=5.0, raise_on_missing_id=True)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (path=Given(None), *, refresh_lease=Given(None), busy_timeout=Given(None), raise_on_missing_id=Given(None)))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(
        this: &Bound<'_, Self>,
        path: Given<'_>,
        refresh_lease: Given<'_>,
        busy_timeout: Given<'_>,
        raise_on_missing_id: Given<'_>,
    ) -> PyResult<()> {
        let py = this.py();
        let patience = || seconds("busy_timeout", &busy_timeout, BUSY_TIMEOUT);
        TokenStoreBase::init(this.as_super(), &refresh_lease, &raise_on_missing_id, patience, |deadline| {
            let default = PyString::new(py, "zohooauth.db").into_any();
            let path = file_path(path.0.as_ref().unwrap_or(&default))?;
            let sqlite = py.detach(|| Sqlite::open(&path, deadline))?;
            if sqlite.is_exposed() {
                warn_once(py, &sqlite, "holds credentials and can be read by others than its owner: chmod 600 it")?;
            }
            if let Some(network) = sqlite.network() {
                let what = format!(
                    "is on a file system that more than one machine may use ({network}), where SQLite's locks do not \
                     always reach from one to another and finds wait for saves: keep the file on a local disk, or let one \
                     machine alone use it"
                );
                warn_once(py, &sqlite, &what)?;
            }
            Ok(Box::new(sqlite))
        })
    }
}

#[pymethods]
impl CustomStoreInMemory {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(*, refresh_lease=10.0, raise_on_missing_id=True)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (*, refresh_lease=Given(None), raise_on_missing_id=Given(None)))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(this: &Bound<'_, Self>, refresh_lease: Given<'_>, raise_on_missing_id: Given<'_>) -> PyResult<()> {
        let make = |_| Ok(Box::new(Memory::new()?) as Box<dyn Backend>);
        TokenStoreBase::init(this.as_super(), &refresh_lease, &raise_on_missing_id, || Ok(IN_MEMORY), make)
    }
}

#[pymethods]
impl CustomStoreList {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(*, refresh_lease=10.0, raise_on_missing_id=True)")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(TokenStoreBase::unopened()).add_subclass(Self)
    }

    #[pyo3(signature = (*, refresh_lease=Given(None), raise_on_missing_id=Given(None)))]
    #[expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]
    fn __init__(this: &Bound<'_, Self>, refresh_lease: Given<'_>, raise_on_missing_id: Given<'_>) -> PyResult<()> {
        let make = |_| Ok(Box::new(List::new()) as Box<dyn Backend>);
        TokenStoreBase::init(this.as_super(), &refresh_lease, &raise_on_missing_id, || Ok(IN_MEMORY), make)
    }
}

/// Warns of something, once per file and process.
fn warn_once(py: Python<'_>, sqlite: &Sqlite, what: &str) -> PyResult<()> {
    static WARNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let warning = format!("{} {what}", sqlite.place());
    {
        let mut warned = WARNED.lock();
        if warned.contains(&warning) {
            return Ok(());
        }
        warned.push(warning.clone());
    }
    log(py, "warning", &warning)
}
