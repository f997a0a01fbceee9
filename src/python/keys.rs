//! The keys of a store, as Python gives them: texts, a function, a file, a variable. And what is done with keys.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySequence, PyString};
use zeroize::Zeroizing;

use super::arguments::{Given, file_path};
use super::caller_functions::{or_ended, pass_on};
use super::convert::type_name;
use super::error::{Failure, invalid_argument};
use super::exit;
use super::gil::{calling_functions, current_greenlet, without_gil};
use super::refresh_wait::sleep;
use crate::domain::key_ring::Ring;
use crate::domain::seal_key::resembles_key;
use crate::store::error::Code;
use crate::store::key_sources::{self, KeyPlace, keys_unavailable};
use crate::store::keys::{self, GivenKey, KeySource, StoreKeys, parse_keys};
use crate::store::rekey::Rekeyed;
use crate::store::{Error, Result as StoreResult, Store};

/// The class of `PLAINTEXT`.
///
/// Its only object stands for rows in clear text among the keys of a store.
#[pyclass(name = "Plaintext", module = "zoho_token_store", frozen)]
pub(super) struct PyPlaintext;

#[pymethods]
impl PyPlaintext {
    #[expect(clippy::unused_self, reason = "a method of Python has an object")]
    const fn __repr__(&self) -> &'static str {
        PLAINTEXT
    }

    /// A copy is the same object: pickle looks it up by its name.
    #[expect(clippy::unused_self, reason = "a method of Python has an object")]
    const fn __reduce__(&self) -> &'static str {
        PLAINTEXT
    }
}

/// The name of the only object of this class.
pub(super) const PLAINTEXT: &str = "PLAINTEXT";

/// Adds `PLAINTEXT` to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add(PLAINTEXT, PyPlaintext)
}

/// A function that reads keys from a file or from a variable each time it is called.
#[pyclass(name = "KeySource", module = "zoho_token_store", frozen)]
pub(super) struct PyKeySource(KeyPlace);

#[pymethods]
impl PyKeySource {
    /// Read the keys.
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        run(py, || {
            let text = py.detach(|| self.0.read())?;
            let plaintext = py.import("zoho_token_store._native")?.getattr(PLAINTEXT)?;
            let entries = PyList::empty(py);
            for entry in self.0.entries(&text) {
                match entry {
                    GivenKey::ClearText => entries.append(&plaintext)?,
                    GivenKey::Text(text) => entries.append(text)?,
                }
            }
            Ok(entries)
        })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(match &self.0 {
            KeyPlace::File(path) => format!("key_file({})", path.as_os_str().into_pyobject(py)?.repr()?),
            KeyPlace::Variable(name) => format!("key_environment({})", PyString::new(py, name).repr()?),
        })
    }
}

/// Return a function that reads keys from a file, one per line, each time it is called.
#[pyfunction]
pub(super) fn key_file(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<PyKeySource> {
    run(py, || Ok(PyKeySource(KeyPlace::File(path_of_keys(path)?))))
}

/// The path of a file of keys. It may be a key that was meant to be in the file. That would be in messages.
fn path_of_keys(path: &Bound<'_, PyAny>) -> Result<PathBuf, Failure> {
    let path = file_path(path)?;
    if resembles_key(&path.to_string_lossy()) {
        return Err(invalid_argument("the path of a file of keys is needed, and not a key"));
    }
    Ok(path)
}

/// Return a function that reads keys from an environment variable each time it is called.
#[pyfunction]
#[pyo3(signature = (name="ZOHO_TOKEN_STORE_KEYS"))]
pub(super) fn key_environment(py: Python<'_>, name: &str) -> PyResult<PyKeySource> {
    run(py, || {
        // The name itself may be a key that was meant to be a value.
        if name.is_empty() || name.contains(['=', '\0']) || resembles_key(name) {
            return Err(invalid_argument("the name of an environment variable is needed"));
        }
        Ok(PyKeySource(KeyPlace::Variable(name.to_owned())))
    })
}

/// Make a new key, and return its text. Nothing is stored.
#[pyfunction]
pub(super) fn new_key(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    run(py, || Ok(PyString::new(py, &keys::new_key()?)))
}

/// Return the id of a key. Rows and messages name the key by it.
#[pyfunction]
pub(super) fn key_id(py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<String> {
    run(py, || match key_entry(key) {
        Some(KeyEntry::Text(text)) => Ok(key_sources::key_id(&text)?),
        _ => Err(invalid_argument(format!("a key is a str or bytes, not an object of type {}", type_name(key)))),
    })
}

/// Make a new key in a new file that only its owner can read, and return the id of the key.
#[pyfunction]
pub(super) fn write_new_key(py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<String> {
    run(py, || {
        let path = path_of_keys(path)?;
        Ok(py.detach(|| key_sources::write_new_key(&path))?)
    })
}

/// Return the names under which a list of keys reads rows, in their order: the ids of keys, and `"plaintext"`.
#[pyfunction]
pub(super) fn key_names(py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    run(py, || {
        let ring = KeysArgument::new(&Given(Some(keys.clone())))?.ring(py)?;
        Ok(ring.names().map(str::to_owned).collect())
    })
}

/// What `rekey` did with the rows.
#[pyclass(name = "Rekeyed", module = "zoho_token_store", frozen, get_all, eq)]
#[derive(PartialEq, Eq)]
pub(super) struct PyRekeyed {
    /// The number of rows that were sealed under the first key.
    rewritten: usize,
    /// The number of rows that are not under the first key, or were altered after they were sealed.
    left: usize,
}

impl From<Rekeyed> for PyRekeyed {
    fn from(Rekeyed { rewritten, left }: Rekeyed) -> Self {
        Self { rewritten, left }
    }
}

#[pymethods]
impl PyRekeyed {
    fn __repr__(&self) -> String {
        format!("Rekeyed(rewritten={}, left={})", self.rewritten, self.left)
    }
}

/// Seals every row under the first key. Between two batches other threads can save, and signals are handled.
pub(super) fn rekey(py: Python<'_>, store: &Store) -> Result<PyRekeyed, Failure> {
    let mut ended = None;
    let result = without_gil(py, store, || {
        store.rekey(|took| {
            let paused = Python::try_attach(|py| pause(py, took));
            match paused {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => {
                    ended = Some(error);
                    Err(Error::new(Code::Closed, store.location()))
                }
                None => Err(Error::new(Code::Closed, store.location())),
            }
        })
    });
    match (ended, result) {
        (Some(error), _) => Err(Failure::Python(error)),
        (None, result) => Ok(result?.into()),
    }
}

/// The longest time without a look at signals.
const PAUSE_SLICE: Duration = Duration::from_millis(50);

fn pause(py: Python<'_>, took: Duration) -> PyResult<()> {
    let begun = Instant::now();
    loop {
        sleep(py, took.saturating_sub(begun.elapsed()).min(PAUSE_SLICE))?;
        if begun.elapsed() >= took {
            return Ok(());
        }
    }
}

/// An entry of `keys`. Its text is overwritten when it is dropped.
pub(super) enum KeyEntry {
    Text(Zeroizing<String>),
    ClearText,
}

fn parse(entries: &[KeyEntry]) -> StoreResult<Ring> {
    parse_keys(entries.iter().map(|entry| match entry {
        KeyEntry::Text(text) => GivenKey::Text(text),
        KeyEntry::ClearText => GivenKey::ClearText,
    }))
}

/// The keys of a store, as its caller gave them.
#[derive(Clone)]
pub(super) enum KeysArgument {
    /// None were given.
    Absent,
    /// Texts, in their order.
    Fixed(Arc<Vec<KeyEntry>>),
    /// What returns them.
    Function(Arc<dyn KeySource>),
}

impl KeysArgument {
    /// Reads the argument `keys`. Nothing is asked yet.
    pub(super) fn new(keys: &Given<'_>) -> Result<Self, Failure> {
        let Some(keys) = &keys.0 else { return Ok(Self::Absent) };
        if keys.is_none() {
            return Err(Failure::Store(Error::invalid_key("keys is None, so nothing would be encrypted")));
        }
        if let Ok(source) = keys.cast::<PyKeySource>() {
            return Ok(Self::Function(Arc::new(source.get().0.clone())));
        }
        if keys.is_callable() {
            return Ok(Self::Function(Arc::new(CallableKeys(keys.clone().unbind()))));
        }
        let entries = key_entries(keys, true)?.map_err(|what| invalid_argument(format!("keys {what}")))?;
        Ok(Self::Fixed(Arc::new(entries)))
    }

    /// Returns the keys for a store. A function is asked now. `None`: no keys were given.
    pub(super) fn for_store(&self, py: Python<'_>) -> Result<Option<StoreKeys>, Failure> {
        Ok(calling_functions(py, || self.without_gil())?)
    }

    /// The same, for a thread that need not hold the GIL.
    pub(super) fn without_gil(&self) -> StoreResult<Option<StoreKeys>> {
        Ok(match self {
            Self::Absent => None,
            Self::Fixed(entries) => Some(StoreKeys::fixed(parse(entries)?)),
            Self::Function(source) => Some(StoreKeys::supplied(Arc::clone(source))?),
        })
    }

    /// Returns the keys now. Without any, rows are in clear text.
    pub(super) fn ring(&self, py: Python<'_>) -> Result<Ring, Failure> {
        Ok(match self {
            Self::Absent => Ring::clear_text(),
            Self::Fixed(entries) => parse(entries)?,
            Self::Function(source) => calling_functions(py, || source.keys())?,
        })
    }
}

/// A Python function that returns keys. It is asked with the GIL, and outside of every operation.
struct CallableKeys(Py<PyAny>);

impl KeySource for CallableKeys {
    fn keys(&self) -> StoreResult<Ring> {
        let failed = |what: &str| keys_unavailable(format!("the function that returns the keys {what}"));
        let called = Python::try_attach(|py| {
            let raised = |error| failed(&format!("has raised {}", pass_on(py, &self.0, error)));
            let returned = self.0.bind(py).call0().map_err(raised)?;
            let entries = key_entries(&returned, false).map_err(raised)?;
            entries.map_err(|what| failed(&format!("has returned keys that cannot be used: the value {what}")))
        });
        parse(&called.unwrap_or_else(|| Err(failed("cannot be called, because the interpreter has ended")))?)
    }

    fn runs_foreign_code(&self) -> bool {
        true
    }

    fn wait(&self, time: Duration) {
        // The thread that asks needs the GIL, and this one may hold it.
        Python::try_attach(|py| exit::away(py, || thread::sleep(time)));
    }

    fn task(&self) -> u64 {
        Python::try_attach(|py| current_greenlet(py).unwrap_or_default()).unwrap_or_default()
    }
}

/// Returns the entries of a list of keys, or of a single key. The text says what else the value is. It is the argument
/// `keys`, or what a function has returned.
fn key_entries(value: &Bound<'_, PyAny>, is_argument: bool) -> PyResult<Result<Vec<KeyEntry>, String>> {
    if let Some(KeyEntry::Text(text)) = key_entry(value) {
        return Ok(Ok(vec![KeyEntry::Text(text)]));
    }
    let Ok(sequence) = value.cast::<PySequence>() else {
        let kind = type_name(value);
        return Ok(Err(if value.is_callable() {
            // Such as what `key_environment` returns, if `keys` is that function itself.
            "is a function, and not keys: return what it returns".to_owned()
        } else if is_argument {
            format!("is a str, bytes, a sequence of those and PLAINTEXT, or a function, not an object of type {kind}")
        } else {
            format!("is a str, bytes, or a sequence of those and PLAINTEXT, not an object of type {kind}")
        }));
    };
    let mut entries = Vec::new();
    for (position, item) in (1..).zip(sequence.to_list()?) {
        let Some(entry) = key_entry(&item) else {
            let kind = type_name(&item);
            return Ok(Err(format!("has an object of type {kind} as number {position}, which is no str and no bytes")));
        };
        entries.push(entry);
    }
    Ok(Ok(entries))
}

/// Returns the entry for one object. A text that has no UTF-8 form is no key.
fn key_entry(value: &Bound<'_, PyAny>) -> Option<KeyEntry> {
    const NO_KEY: &str = "\u{fffd}";
    if let Ok(text) = value.cast::<PyString>() {
        return Some(KeyEntry::Text(Zeroizing::new(text.to_str().unwrap_or(NO_KEY).to_owned())));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        let text = std::str::from_utf8(bytes.as_bytes()).unwrap_or(NO_KEY);
        return Some(KeyEntry::Text(Zeroizing::new(text.to_owned())));
    }
    value.is_instance_of::<PyPlaintext>().then_some(KeyEntry::ClearText)
}

/// Runs the work of a function, and raises its failure.
fn run<T>(py: Python<'_>, work: impl FnOnce() -> Result<T, Failure>) -> PyResult<T> {
    or_ended(work).map_err(|failure| failure.raise_without_sdk(py))
}
