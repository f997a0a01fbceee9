//! The native half of refreshes ahead of expiry (`docs/lease.md`, rule 17). `_refresh.py` is the other half.
//!
//! No function of this file asks Zoho. Python code calls the SDK for that, with no frame of Rust below it: a daemon
//! thread that waits for Zoho when the interpreter ends is terminated there (see [`super::exit`]).

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::arguments::duration;
use super::base::TokenStoreBase;
use super::clock::now;
use super::convert;
use super::error::{Failure, invalid_argument};
use super::gil::without_gil;
use super::lease_guard::{LeaseGuard, log_for, log_release_with_save};
use super::refresh_wait::{caller, log_acquired};
use crate::domain::key_ring::ListedRow;
use crate::domain::refresh_ahead::{self, Remaining};
use crate::domain::{Field, Row};
use crate::store::error::{Code, describe_id};
use crate::store::lease::Outcome;
use crate::store::{Error, Wait};

const NO_ROW: &str = "no row has this id";
const UNUSABLE: &str = "its access token has expired, and it has no refresh token";

/// What `refresh` did with the rows.
#[pyclass(module = "zoho_token_store", frozen, get_all)]
#[expect(clippy::struct_field_names, reason = "what was refreshed is named so")]
pub(super) struct Refreshed {
    /// The ids of the rows that have a new access token.
    refreshed: Vec<String>,
    /// The ids of the rows that are valid for long enough, or that another thread or process is refreshing.
    skipped: Vec<String>,
    /// The ids of the rows that could not be refreshed, each with the reason, which contains no secret.
    failed: Py<PyDict>,
}

#[pymethods]
impl Refreshed {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let list = |ids: &[String]| -> PyResult<String> { Ok(ids.into_pyobject(py)?.repr()?.to_string()) };
        let (refreshed, skipped) = (list(&self.refreshed)?, list(&self.skipped)?);
        Ok(format!("Refreshed(refreshed={refreshed}, skipped={skipped}, failed={})", self.failed.bind(py).repr()?))
    }
}

/// The refresh of one row, which holds the lease until this is dropped, unless a save has released it before.
#[pyclass(module = "zoho_token_store", frozen)]
pub(super) struct RowRefresh {
    /// Tied to this object. Tied to the frame, it would live on in the reference cycle that urllib3 makes of a refused
    /// connection.
    _guard: LeaseGuard,
    /// The row whose tokens are sent to Zoho.
    asked: Row,
    call: usize,
}

/// A token whose refresh is due now, and its refresh. Or the reason why there is none, and the number of seconds until
/// the next attempt. Nothing at all if no refresh is needed.
type ToRefresh<'py> = (Option<Bound<'py, PyAny>>, Option<Py<RowRefresh>>, Option<String>, Option<f64>);

/// Acquire the lease of a row with less than `within` left, and return its token as an expired one.
///
/// The caller is the SDK's `get_token`, which then refreshes the token. The lease is released when the second value is
/// dropped, unless a save has released it before.
#[pyfunction]
pub(super) fn find_to_refresh<'py>(
    store: &Bound<'py, TokenStoreBase>,
    row_id: &Bound<'py, PyString>,
    within: &Bound<'py, PyAny>,
) -> PyResult<ToRefresh<'py>> {
    let py = store.py();
    store.get().run(py, "refresh", |opened| {
        let no_request = || invalid_argument("find_to_refresh is called within the SDK's get_token alone");
        let id = row_id.to_str()?;
        let lead = refresh_ahead::lead_ms(duration("within", within)?);
        let frame = opened.sdk.deciding_frame(py)?.ok_or_else(no_request)?;
        let caller = caller(py)?.ok_or_else(no_request)?;
        let clock = opened.sdk.clock.read(py)?;
        let call = frame.as_ptr() as usize;
        let store = &opened.store;
        let attempt =
            match without_gil(py, store, || store.try_acquire_ahead(id, &caller.requester, call, &clock, lead)) {
                // The program has closed the store while the row was queued.
                Err(error) if error.code() == Code::Closed => return Ok((None, None, None, None)),
                attempt => attempt?,
            };
        // Before anything that can fail: from here on the lease is released whatever happens.
        let guard = match &attempt.outcome {
            Outcome::Refresh(acquired) => Some(LeaseGuard { store: Arc::clone(store), acquired: acquired.clone() }),
            _ => None,
        };
        let Some(found) = attempt.found else { return Err(Error::missing_id(store.location(), id).into()) };
        let because = |reason: &str| (None, None, Some(reason.to_owned()), None);
        Ok(match (attempt.outcome, guard) {
            (Outcome::Refresh(acquired), Some(guard)) => {
                let refresh = Py::new(py, RowRefresh { _guard: guard, asked: found.stored(), call })?;
                log_acquired(py, store, &acquired)?;
                let expired = found.row().with(Field::ExpiryTime, Some("0"));
                (Some(opened.sdk.make(py, expired)?), Some(refresh), None, None)
            }
            (Outcome::Serve, _) if found.remaining(clock(), lead) == Remaining::Unusable => because(UNUSABLE),
            (Outcome::BackOff(error, left), _) => {
                (None, None, Some(error.detail().to_owned()), Some(left.as_secs_f64()))
            }
            (Outcome::NoLease(error) | Outcome::TryAgain(error), _) => {
                because(&format!("no lease can be acquired ({})", error.code().name()))
            }
            (Outcome::Serve | Outcome::Wait(..) | Outcome::Refresh(_), _) => (None, None, None, None),
        })
    })
}

/// Save the answer of Zoho, and return whether it was saved: not if the row is gone, or has another login now.
#[pyfunction]
pub(super) fn save_refreshed(
    store: &Bound<'_, TokenStoreBase>,
    token: &Bound<'_, PyAny>,
    refresh: &Bound<'_, RowRefresh>,
) -> PyResult<bool> {
    let py = store.py();
    store.get().run(py, "save_token", |opened| {
        let (store, refresh) = (&opened.store, refresh.get());
        let save = || -> Result<bool, Failure> {
            let read = opened.sdk.read(token)?;
            let owner = caller(py)?.map(|caller| caller.requester.owner().to_owned()).unwrap_or_default();
            let (token, asked) = (read.token(), &refresh.asked);
            let released = without_gil(py, store, || store.save_refreshed(token, asked, now(), &owner, refresh.call))?;
            let Some(released) = released else { return Ok(false) };
            released.iter().try_for_each(|key| log_release_with_save(py, store, key))?;
            Ok(true)
        };
        opened.count_if_failed(save())
    })
}

/// Return whether the row still has the login that is being refreshed.
///
/// A store that overrides `save_token` saves the answer itself.
#[pyfunction]
pub(super) fn is_refresh_wanted(store: &Bound<'_, TokenStoreBase>, refresh: &Bound<'_, RowRefresh>) -> PyResult<bool> {
    let py = store.py();
    store.get().run(py, "refresh", |opened| {
        let asked = &refresh.get().asked;
        let found = without_gil(py, &opened.store, || opened.store.find_by_id(Some(asked.id()), Wait::Yes))?
            .map(|found| found.stored());
        Ok(refresh_ahead::is_same_login(asked.token(), found.as_ref().map(Row::token)))
    })
}

/// Write what became of a refresh in the background. `reason` is given if it failed.
#[pyfunction]
#[pyo3(signature = (store, row_id, reason))]
pub(super) fn log_refresh_ahead(store: &Bound<'_, TokenStoreBase>, row_id: &str, reason: Option<&str>) -> PyResult<()> {
    let py = store.py();
    store.get().run(py, "refresh", |opened| {
        let id = describe_id(row_id);
        match reason {
            None => log_for(py, &opened.store, "info", &format!("refreshed {id} ahead of its expiry")),
            Some(reason) => {
                let text = format!("{id} was not refreshed ahead of its expiry: {reason}");
                log_for(py, &opened.store, "warning", &text)
            }
        }
    })
}

/// The ids of the rows to refresh, of those that are valid for long enough, and of those that cannot be refreshed, each
/// with the reason.
type Selected = (Vec<String>, Vec<String>, Vec<(String, String)>);

/// Select the rows with less than `within` left, of `ids` or of all.
#[pyfunction]
#[pyo3(signature = (store, within, ids))]
pub(super) fn select_to_refresh(
    store: &Bound<'_, TokenStoreBase>,
    within: &Bound<'_, PyAny>,
    ids: Option<&Bound<'_, PyAny>>,
) -> PyResult<Selected> {
    let py = store.py();
    store.get().run(py, "refresh", |opened| {
        let store = &opened.store;
        let lead = refresh_ahead::lead_ms(duration("within", within)?);
        let ids = ids.map(row_ids).transpose()?;
        let clock = opened.sdk.clock.read(py)?;
        let (mut due, mut enough, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut select = |id: String, remaining| match remaining {
            Remaining::Due => due.push(id),
            Remaining::Enough => enough.push(id),
            Remaining::Unusable => failed.push((id, UNUSABLE.to_owned())),
        };
        let Some(ids) = ids else {
            let mut unreadable = Vec::new();
            for ListedRow { row, flaw } in without_gil(py, store, || store.list())? {
                let id = row.id().to_owned();
                match flaw {
                    None => select(id, refresh_ahead::remaining(&row, clock(), lead)),
                    Some(flaw) => {
                        let reason = Error::unreadable_row(store.location(), &id, &flaw).problem();
                        unreadable.push((id, reason));
                    }
                }
            }
            failed.extend(unreadable);
            return Ok((due, enough, failed));
        };
        let mut others = Vec::new();
        for id in ids {
            match without_gil(py, store, || store.find_by_id(Some(&id), Wait::Yes)) {
                Ok(Some(found)) => select(id, found.remaining(clock(), lead)),
                Ok(None) => others.push((id, NO_ROW.to_owned())),
                Err(error) if error.is_about_sealed_row() => others.push((id, error.problem())),
                Err(error) => return Err(error.into()),
            }
        }
        failed.extend(others);
        Ok((due, enough, failed))
    })
}

/// The ids that a caller passes, each once, in their order.
fn row_ids(ids: &Bound<'_, PyAny>) -> Result<Vec<String>, Failure> {
    if ids.is_instance_of::<PyString>() || (!ids.hasattr("__iter__")? && !ids.hasattr("__getitem__")?) {
        return Err(invalid_argument("ids is an iterable of ids, such as a list of str"));
    }
    let (mut read, mut known) = (Vec::new(), HashSet::new());
    for id in ids.try_iter()? {
        let id = convert::id(&id?)?.map_or_else(String::new, |id| id.to_string());
        if known.insert(id.clone()) {
            read.push(id);
        }
    }
    Ok(read)
}

/// Make the result of `refresh`. If all that was tried has failed, raise instead.
#[pyfunction]
pub(super) fn report_refresh(
    store: &Bound<'_, TokenStoreBase>,
    refreshed: Vec<String>,
    skipped: Vec<String>,
    failed: Bound<'_, PyDict>,
) -> PyResult<Refreshed> {
    let py = store.py();
    store.get().run(py, "refresh", |opened| {
        if let (true, Some((id, reason))) = (refreshed.is_empty(), failed.iter().next()) {
            let (id, reason): (String, String) = (id.extract()?, reason.extract()?);
            if reason == NO_ROW {
                return Err(Error::missing_id(opened.store.location(), &id).into());
            }
            let others = failed.len().saturating_sub(1);
            return Err(Error::not_refreshed(opened.store.location(), &id, others, &reason).into());
        }
        Ok(Refreshed { refreshed, skipped, failed: failed.unbind() })
    })
}
