//! The base class of the store classes, with every method.
//!
//! The stub `_native.pyi` is the documentation of record. `help()` shows the doc comments of this file. Each one begins
//! with the first line of the docstring in the stub: `tests/typing/test_typing.py` compares them.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::arguments::{Given, RefreshArguments, file_path, flag, idle_for as parse_idle_for};
use super::caller_functions::or_ended;
use super::clock::now;
use super::convert::{self, CallerToken, Sdk, type_name};
use super::error::{Failure, invalid_argument};
use super::exit::Call;
use super::gil::without_gil;
use super::keys::{self, KeysArgument, PyRekeyed};
use super::lease_guard::{log_for, log_pending_lines, log_release_with_save};
use super::records::PyFinding;
use super::refresh_wait::{LeaseInfo, refresh_in_background, saver, wait_for_row};
use crate::backends::BACKUP_FORMAT;
use crate::domain::lease::DUE_SOON_MS;
use crate::domain::{Field, Token};
use crate::store::error::describe_id;
use crate::store::lease::Lookup;
use crate::store::{Error, Found, Store, Wait};

/// The base class of all stores, with every method. Use it for `isinstance` and type hints.
///
/// `_native.pyi`, which editors show, documents each argument and method.
#[pyclass(module = "zoho_token_store", name = "TokenStoreBase", subclass, frozen, weakref)]
pub(super) struct TokenStoreBase {
    /// Empty until `__init__` has run.
    opened: OnceLock<Opened>,
}

pub(super) struct Opened {
    pub(super) store: Arc<Store>,
    pub(super) sdk: &'static Sdk,
    raise_on_missing_id: bool,
}

impl TokenStoreBase {
    pub(super) const fn unopened() -> Self {
        Self { opened: OnceLock::new() }
    }

    /// Opens the store that `make` returns.
    pub(super) fn init(
        this: &Bound<'_, Self>,
        keys: &Given<'_>,
        refresh: &RefreshArguments<'_>,
        raise_on_missing_id: &Given<'_>,
        timeout: impl FnOnce() -> Result<Duration, Failure>,
        make: impl FnOnce(Duration) -> Result<Store, Failure>,
    ) -> PyResult<()> {
        let py = this.py();
        let _call = Call::begin(py);
        let sdk = Sdk::get(py)?;
        sdk.register(&py.get_type::<Self>())?;
        let open = || -> Result<(), Failure> {
            let again = || invalid_argument("this store is open already: make another one");
            if this.get().opened.get().is_some() {
                return Err(again());
            }
            let raise_on_missing_id = flag("raise_on_missing_id", raise_on_missing_id)?;
            let settings = refresh.settings()?;
            let timeout = timeout()?;
            // Before anything is opened or made, and without any lock: a function that returns keys runs any code.
            let keys = KeysArgument::new(keys)?.for_store(py)?;
            let store = make(timeout)?.with_refresh_settings(settings);
            let store = match keys {
                Some(keys) => store.with_keys(keys),
                None => store,
            };
            this.get().opened.set(Opened { store: Arc::new(store), sdk, raise_on_missing_id }).map_err(|_| again())
        };
        or_ended(open).map_err(|failure| {
            failure.raise(py, &type_name(this.as_any()), |cause, message| sdk.exception(py, cause, message))
        })
    }

    fn opened(&self) -> PyResult<&Opened> {
        self.opened.get().ok_or_else(|| {
            PyTypeError::new_err("the store was never opened: call super().__init__() in the __init__() of a subclass")
        })
    }

    /// Runs the work of a method, and raises its failure.
    pub(super) fn run<T>(
        &self,
        py: Python<'_>,
        method: &str,
        work: impl FnOnce(&Opened) -> Result<T, Failure>,
    ) -> PyResult<T> {
        let opened = self.opened()?;
        let _call = Call::begin(py);
        or_ended(|| work(opened))
            .map_err(|failure| failure.raise(py, method, |cause, message| opened.sdk.exception(py, cause, message)))
    }
}

impl Opened {
    /// Finds a row. If a refresh is due, waits for another requester that is refreshing it. If no refresh was due, the
    /// second value is the offset of the SDK's clock, for [`Opened::has_become_due`]. `store` is the object whose
    /// method was called.
    ///
    /// A find keeps the GIL, unless it has to wait or the backend does not answer at once.
    fn find(
        &self,
        store: &Bound<'_, TokenStoreBase>,
        lookup: Lookup<'_>,
    ) -> Result<(Option<Found>, Option<i64>), Failure> {
        let py = store.py();
        let find = |wait| match lookup {
            Lookup::Token(token) => self.store.find(token, wait),
            Lookup::Id(id) => self.store.find_by_id(id, wait),
        };
        let at_once = if self.store.answers_at_once() { Some(find(Wait::No)) } else { None };
        let found = match at_once {
            Some(Err(error)) if error.is_busy() => without_gil(py, &self.store, || find(Wait::Yes)),
            Some(found) => found,
            None => without_gil(py, &self.store, || find(Wait::Yes)),
        }?;
        if let Some(found) = &found
            && self.store.is_pair_to_be_saved(found)
        {
            self.save_unsaved_pair(py, found.row())?;
        }
        let (now, offset) =
            if self.store.refresh_lease().is_zero() { (0, 0) } else { self.sdk.clock.now_and_offset(py)? };
        // One look covers all cases in which more is to be done than to return the row.
        let is_due_within =
            |ahead: i64| self.store.is_due(lookup, found.as_ref(), || now.saturating_add(offset).saturating_add(ahead));
        if is_due_within(self.store.look_ahead()) {
            if is_due_within(DUE_SOON_MS) {
                return Ok((wait_for_row(py, &self.store, self.sdk, lookup, found)?, None));
            }
            if let Some(found) = &found {
                refresh_in_background(store.as_any(), &self.store, self.sdk, found)?;
            }
        }
        Ok((found, Some(offset)))
    }

    /// Tries again to save the pair of this row, if an earlier save has failed. At most once a second.
    #[cold]
    fn save_unsaved_pair(&self, py: Python<'_>, row: Token<'_>) -> Result<(), Failure> {
        let id = row.get(Field::Id).unwrap_or_default();
        if !without_gil(py, &self.store, || self.store.save_unsaved_pair(id, now())) {
            return Ok(());
        }
        log_for(py, &self.store, "info", &format!("saved the access token that was kept for {}", describe_id(id)))
    }

    /// Has the token become due while its object was made? That is Python code, so other threads may have held the GIL
    /// for seconds meanwhile. `fresh` is the second value of [`Opened::find`].
    fn has_become_due(&self, lookup: Lookup<'_>, found: &Found, fresh: Option<i64>) -> bool {
        // The SDK reads the clock a little later, so a token that is fresh now may be due then.
        let sdk_now = |offset: i64| now().saturating_add(offset).saturating_add(DUE_SOON_MS);
        fresh.is_some_and(|offset| self.store.is_due(lookup, Some(found), || sdk_now(offset)))
    }

    /// Counts a save that has failed.
    pub(super) fn count_if_failed<T>(&self, saved: Result<T, Failure>) -> Result<T, Failure> {
        saved.inspect_err(|failure| {
            if let Failure::Store(error) = failure {
                self.store.count_failed_save(error.code());
            }
        })
    }

    /// Saves a token, and releases the leases that this thread holds.
    fn save(&self, py: Python<'_>, token: Token<'_>) -> Result<String, Failure> {
        let Some((owner, call)) = saver(py, &self.store, self.sdk)? else {
            let id = without_gil(py, &self.store, || self.store.save(token, now()))?;
            log_pending_lines(py)?;
            return Ok(id);
        };
        let (id, released) = without_gil(py, &self.store, || self.store.save_and_release(token, now(), &owner, call))?;
        released.iter().try_for_each(|key| log_release_with_save(py, &self.store, key))?;
        Ok(id)
    }
}

#[pymethods]
impl TokenStoreBase {
    /// Complete a token from its row.
    fn find_token<'py>(this: &Bound<'py, Self>, token: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        this.get().run(this.py(), "find_token", |opened| {
            loop {
                let read = opened.sdk.read(token)?;
                let before = read.token();
                let (found, fresh) = opened.find(this, Lookup::Token(before))?;
                let Some(found) = found else { return Ok(None) };
                let completed = read.complete(opened.sdk, before, found.complete(before))?;
                if !opened.has_become_due(Lookup::Token(before), &found, fresh) {
                    return Ok(Some(completed));
                }
            }
        })
    }

    /// Save a token into its row, or into a new row if it has none.
    fn save_token(&self, py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "save_token", |opened| {
            let save = || -> Result<(), Failure> {
                let read = opened.sdk.read(token)?;
                let id = opened.save(py, read.token())?;
                read.set_id(opened.sdk, &id)
            };
            opened.count_if_failed(save())
        })
    }

    /// Make a new token from the row with this id.
    fn find_token_by_id<'py>(this: &Bound<'py, Self>, id: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        this.get().run(py, "find_token_by_id", |opened| {
            let id = convert::id(id)?;
            let id = id.as_ref().map(|id| id.to_str()).transpose()?;
            loop {
                match opened.find(this, Lookup::Id(id))? {
                    (Some(found), fresh) => {
                        let made = opened.sdk.make(py, found.row())?;
                        if !opened.has_become_due(Lookup::Id(id), &found, fresh) {
                            return Ok(Some(made));
                        }
                    }
                    (None, _) if opened.raise_on_missing_id => {
                        return Err(Error::missing_id(opened.store.location(), id.unwrap_or_default()).into());
                    }
                    (None, _) => {
                        log_unknown_id(py, &opened.store, "find_token_by_id", id)?;
                        return Ok(None);
                    }
                }
            }
        })
    }

    /// Remove an access token that Zoho has refused, so that the next `get_token` refreshes.
    fn refused(&self, py: Python<'_>, token: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.run(py, "refused", |opened| {
            let refuse =
                |access_token: &str| without_gil(py, &opened.store, || opened.store.refuse(access_token, now()));
            if let Some(text) = convert::access_token(token)? {
                return Ok(refuse(text.to_str()?)?);
            }
            let read = opened.sdk.read(token)?;
            let before = read.token();
            let removed = before.get(Field::AccessToken).map_or(Ok(false), refuse)?;
            // The object itself must not be used again with this access token.
            let without = before.with(Field::AccessToken, None).with(Field::ExpiryTime, None);
            read.complete(opened.sdk, before, without)?;
            Ok(removed)
        })
    }

    /// Make a new token from every row, the oldest row first.
    fn get_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.run(py, "get_tokens", |opened| {
            let rows = without_gil(py, &opened.store, || opened.store.all())?;
            opened.sdk.make_all(py, rows)
        })
    }

    /// Delete the row with this id, and scrub its secrets from the file.
    fn delete_token(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "delete_token", |opened| {
            let id = convert::id(id)?;
            let id = id.as_ref().map(|id| id.to_str()).transpose()?;
            if !without_gil(py, &opened.store, || opened.store.delete(id))? {
                log_unknown_id(py, &opened.store, "delete_token", id)?;
            }
            Ok(())
        })
    }

    /// Delete all rows, and scrub their secrets from the file.
    fn delete_tokens(&self, py: Python<'_>) -> PyResult<()> {
        self.run(py, "delete_tokens", |opened| Ok(without_gil(py, &opened.store, || opened.store.delete_all())?))
    }

    /// Delete the rows that can never be used again.
    #[pyo3(signature = (idle_for=None))]
    fn purge(&self, py: Python<'_>, idle_for: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
        self.run(py, "purge", |opened| {
            let idle_for = parse_idle_for(idle_for)?;
            Ok(without_gil(py, &opened.store, || opened.store.purge(now(), idle_for))?)
        })
    }

    /// Save all tokens in one transaction.
    fn import_tokens(&self, py: Python<'_>, tokens: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.run(py, "import_tokens", |opened| {
            let mut read = Vec::new();
            if !tokens.hasattr("__iter__")? && !tokens.hasattr("__getitem__")? {
                return Err(invalid_argument(format!(
                    "an iterable of tokens is needed, not an object of type {}",
                    type_name(tokens)
                )));
            }
            for token in tokens.try_iter()? {
                read.push(opened.sdk.read(&token?)?);
            }
            let to_save: Vec<Token<'_>> = read.iter().map(CallerToken::token).collect();
            let ids = without_gil(py, &opened.store, || opened.store.import(&to_save, now()))?;
            for (token, id) in read.iter().zip(&ids) {
                token.set_id(opened.sdk, id)?;
            }
            Ok(ids.len())
        })
    }

    /// Write a consistent copy into a SQLite file, while other callers go on writing.
    fn backup(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        self.run(py, "backup", |opened| {
            let target = file_path(path)?;
            Ok(without_gil(py, &opened.store, || opened.store.backup(&target, BACKUP_FORMAT))?)
        })
    }

    /// Return the problems of the store, and change nothing.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<PyFinding>> {
        self.run(py, "check", |opened| {
            let findings = without_gil(py, &opened.store, || opened.store.check(now()))?;
            Ok(findings.into_iter().map(PyFinding::from).collect())
        })
    }

    /// Seal every row under the first key, while other callers go on.
    fn rekey(&self, py: Python<'_>) -> PyResult<PyRekeyed> {
        self.run(py, "rekey", |opened| keys::rekey(py, &opened.store))
    }

    /// Return the number of rows under each key.
    fn key_usage(&self, py: Python<'_>) -> PyResult<BTreeMap<String, usize>> {
        self.run(py, "key_usage", |opened| Ok(without_gil(py, &opened.store, || opened.store.key_usage())?))
    }

    /// Return how often this store acquired refresh leases and waited for them.
    fn lease_info(&self, py: Python<'_>) -> PyResult<LeaseInfo> {
        self.run(py, "lease_info", |opened| {
            log_pending_lines(py)?;
            Ok(LeaseInfo::of(&opened.store))
        })
    }

    /// Close the store, and release its leases.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let Some(opened) = self.opened.get() else { return Ok(()) };
        let close = || {
            without_gil(py, &opened.store, || {
                opened.store.save_unsaved_pairs(now());
                opened.store.close();
            });
            Ok(())
        };
        or_ended(close)
            .map_err(|failure| failure.raise(py, "close", |cause, message| opened.sdk.exception(py, cause, message)))
    }

    fn __enter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        this.get().opened()?;
        Ok(this)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.run(py, "len", |opened| Ok(without_gil(py, &opened.store, || opened.store.count())?))
    }

    // With `__len__` alone, an empty store would be false, and `store or default` would be the default.
    fn __bool__(&self) -> bool {
        self.opened.get().is_some()
    }

    fn __repr__(this: &Bound<'_, Self>) -> PyResult<String> {
        let class = type_name(this.as_any());
        let Some(opened) = this.get().opened.get() else { return Ok(format!("<{class}, not opened>")) };
        Ok(match opened.store.location().path() {
            Some(path) => format!("{class}({})", path.as_os_str().into_pyobject(this.py())?.repr()?),
            None if opened.store.answers_at_once() => format!("{class}()"),
            None => format!("{class}({})", opened.store.location()),
        })
    }

    // A copy would be a second owner of one connection. A pickle would contain secrets, or nothing.
    fn __reduce_ex__(this: &Bound<'_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyTypeError::new_err(format!(
            "{} cannot be copied or pickled: open another store instead",
            type_name(this.as_any())
        )))
    }
}

/// Logs that no row has the id. A program may use the ids of another store, such as user names.
fn log_unknown_id(py: Python<'_>, store: &Store, method: &str, id: Option<&str>) -> Result<(), Failure> {
    log_for(py, store, "debug", &format!("{method}: no row has {}", describe_id(id.unwrap_or_default())))
}
