//! What the command line sees of rows, findings and imports. None of it contains a secret.

use pyo3::prelude::*;

use crate::domain::check as findings;
use crate::domain::key_ring::ListedRow;
use crate::domain::{Field, Row, data_centre, expiry};
use crate::store::administration::RefreshState;
use crate::store::error::describe_id;

/// A problem of a store, and what to do about it. It contains no secret.
#[pyclass(name = "Finding", module = "zoho_token_store", frozen, get_all)]
pub(super) struct PyFinding {
    /// The kind of the problem, for programs.
    code: &'static str,
    /// How severe the problem is.
    severity: &'static str,
    /// The ids of the rows that have the problem. Empty if the problem is about the file.
    ids: Vec<String>,
    /// What is wrong.
    message: String,
    /// What to do.
    hint: &'static str,
}

impl From<findings::Finding> for PyFinding {
    fn from(finding: findings::Finding) -> Self {
        let findings::Finding { code, severity, ids, message, hint } = finding;
        let severity = match severity {
            findings::Severity::Warning => "warning",
            findings::Severity::Error => "error",
        };
        Self { code, severity, ids, message, hint }
    }
}

#[pymethods]
impl PyFinding {
    /// The old name of `hint`.
    #[getter]
    const fn cure(&self) -> &'static str {
        self.hint
    }

    fn __repr__(&self) -> String {
        format!("<Finding {} ({}): {}>", self.code, self.severity, self.message)
    }
}

/// A row without its secrets, for the command line.
#[expect(clippy::struct_excessive_bools, reason = "each says whether one of its values is there")]
#[pyclass(module = "zoho_token_store._native", frozen, get_all)]
pub(super) struct Record {
    /// The row's id.
    id: String,
    /// The user name, as the SDK writes it (SDK 6 to 8: `email:zgid`).
    user_name: Option<String>,
    /// The id of the OAuth client.
    client_id: Option<String>,
    /// The redirect URL of the OAuth client.
    redirect_url: Option<String>,
    /// The URL of the user's data centre and environment.
    api_domain: Option<String>,
    /// The name of the API domain, such as `"US"` or `"EU sandbox"`. `None` if the domain is not one of Zoho's.
    data_centre: Option<String>,
    /// When the access token expires, as text, as it is stored.
    expiry_time: Option<String>,
    /// When the access token expires, in milliseconds since the epoch. `None` if `expiry_time` cannot be read.
    expires_at: Option<i64>,
    /// When the row was last saved, in milliseconds since the epoch. `None` if that is not known.
    last_saved: Option<i64>,
    /// Whether the row has a client secret.
    has_client_secret: bool,
    /// Whether the row has a refresh token.
    has_refresh_token: bool,
    /// Whether the row has an access token.
    has_access_token: bool,
    /// Whether the row has a grant token.
    has_grant_token: bool,
    /// Why the row cannot be read: `"unknown-key"`, `"altered"` or `"plaintext"`. `None` if it can be read.
    unreadable: Option<&'static str>,
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
            data_centre: row.get(Field::ApiDomain).and_then(data_centre::name),
            expiry_time: text(Field::ExpiryTime),
            expires_at: expiry::parse(row.get(Field::ExpiryTime)).and_then(expiry::Expiry::milliseconds),
            last_saved: row.saved_at,
            has_client_secret: has(Field::ClientSecret),
            has_refresh_token: has(Field::RefreshToken),
            has_access_token: has(Field::AccessToken),
            has_grant_token: has(Field::GrantToken),
            unreadable: None,
        }
    }
}

impl From<ListedRow> for Record {
    fn from(ListedRow { row, flaw }: ListedRow) -> Self {
        Self { unreadable: flaw.as_ref().map(findings::flaw_code), ..Self::from(&row) }
    }
}

#[pymethods]
impl Record {
    fn __repr__(&self) -> String {
        format!("<Record {}>", describe_id(&self.id))
    }
}

/// Who refreshes a row, and how often that has failed, for the command line.
#[pyclass(name = "RefreshState", module = "zoho_token_store._native", frozen, get_all)]
pub(super) struct PyRefreshState {
    /// The id of the process that holds the refresh lease.
    held_by: Option<String>,
    /// How many refreshes have failed since the last one that succeeded.
    failures: u32,
    /// When the first of them failed, in milliseconds since the epoch.
    failing_since: Option<i64>,
}

impl From<RefreshState> for PyRefreshState {
    fn from(state: RefreshState) -> Self {
        let RefreshState { held_by, failing } = state;
        let failures = failing.as_ref().map_or(0, |failing| failing.count);
        Self { held_by, failures, failing_since: failing.map(|failing| failing.since) }
    }
}

/// The result of an import, for the command line.
#[pyclass(module = "zoho_token_store._native", frozen, get_all)]
pub(super) struct Imported {
    /// How many rows were read.
    pub(super) rows: usize,
    /// Rows that were not in the database before.
    pub(super) new: usize,
    /// Rows that were newer than the row in the database, or had a value that it lacked.
    pub(super) updated: usize,
    /// Rows that had nothing new.
    pub(super) unchanged: usize,
    /// Rows that were not imported. The remarks say why.
    pub(super) skipped: usize,
    /// What the user should know about rows: each remark, and the position of its row in the file.
    pub(super) remarks: Vec<RemarkAt>,
}

/// The text of a remark, and the position of its row.
pub(super) type RemarkAt = (&'static str, String);
