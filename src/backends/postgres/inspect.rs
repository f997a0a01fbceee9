//! Checks a database, with a store or without one. Changes nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::error::ServerFailure;
use super::link::Link;
use super::missing::{hint, missing_parts, missing_rights};
use super::pool::Pool;
use super::schema::{self, Installed};
use super::sql::{self, Tables, get};
use super::{Address, Postgres, run};
use crate::domain::check::{Finding, Severity};
use crate::domain::key_ring::Ring;
use crate::store::Store;
use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::Result;

/// Clocks that differ by at most this are the same clock, in milliseconds.
const SAME_CLOCK_MS: i64 = 2_000;

/// Checks a database at `now` (milliseconds since the epoch), even if a store could not be opened on it. `ring` has the
/// keys of its rows, as far as they are known.
pub fn check(
    address: &Address,
    schema: Option<&str>,
    now: i64,
    ring: &Ring,
    deadline: Deadline,
) -> Result<Vec<Finding>> {
    let address = address.clone().in_schema(schema);
    let location = &address.location().clone();
    let pool = Pool::new(address, 1);
    let installed = match run(&pool, deadline, |link| schema::look(link, schema)) {
        Ok(installed) => installed,
        Err(error) => return Ok(vec![error.into_finding()?]),
    };
    if let Some(finding) = installed.finding(location) {
        return Ok(vec![finding]);
    }
    let store = Store::new(Box::new(Postgres { pool, tables: installed.tables }), deadline.left().unwrap_or_default());
    let findings = store.check_with(now, Some(ring));
    store.close();
    findings
}

/// Returns the version of the tables. 0: there are none.
pub fn schema_version(address: &Address, schema: Option<&str>, deadline: Deadline) -> Result<i32> {
    let pool = Pool::new(address.clone(), 1);
    let looked = run(&pool, deadline, |link| schema::look(link, schema));
    pool.close(deadline);
    looked.map(|Installed { version, .. }| i32::try_from(version).unwrap_or(i32::MAX))
}

/// Returns what is wrong with the server and the tables, apart from the rows.
pub(super) fn findings(link: &Link, tables: &Tables) -> std::result::Result<Vec<Finding>, ServerFailure> {
    let location = link.location();
    let mut findings = Vec::new();
    let mut add = |code, severity, message, hint| {
        findings.push(Finding { code, severity, ids: Vec::new(), message, hint });
    };
    let missing = missing_parts(link, tables)?;
    if !missing.is_empty() {
        add(
            "changed-tables",
            Severity::Error,
            format!("{location} lacks parts of the tables, or they were changed: {}", missing.join(", ")),
            hint(&missing.iter().map(String::as_str).collect::<Vec<_>>()),
        );
    }
    let rights = missing_rights(link, tables)?;
    if !rights.is_empty() {
        add(
            "missing-rights",
            Severity::Warning,
            format!("{location} does not give this user all rights that a store needs: {}", rights.join("; ")),
            GRANT_HINT,
        );
    }
    let owners = other_owners(link, tables)?;
    if !owners.is_empty() {
        add(
            "other-owner",
            Severity::Warning,
            format!("{location} has tables that belong to another user: {}", owners.join(", ")),
            "The owner of a table can read and change what is in it. If you trust this user, nothing has to be done. If not, \
             make a backup, restore it into a schema of your own, and have the users log in again.",
        );
    }
    let asked = own_time();
    let answer = link.query(&sql::server_state())?;
    let answered = own_time();
    let Some(row) = answer.first() else { return Ok(findings) };
    let (server, commit, read_only): (i64, &str, &str) =
        (get(location, row, 0)?, get(location, row, 1)?, get(location, row, 2)?);
    if commit == "off" {
        add(
            "no-synchronous-commit",
            Severity::Warning,
            format!("{location} has synchronous_commit=off"),
            "Nothing has to be done for tokens: each save turns it on for itself. Other programs of the database may lose \
             their last commits in a crash.",
        );
    }
    if read_only == "on" {
        add(
            "read-only-server",
            Severity::Warning,
            format!("{location} cannot be written: it is a standby, or its transactions are read-only"),
            "Finds work. For saves, give the address of the primary, or all hosts and target_session_attrs=read-write.",
        );
    }
    if link.is_exposed() {
        add(
            "no-tls",
            Severity::Warning,
            format!("the connection to {location} has no TLS, so others on the network can read the tokens"),
            "Use sslmode=verify-full.",
        );
    }
    findings.extend(clock_finding(location, asked, server, answered));
    Ok(findings)
}

const GRANT_HINT: &str = "Have the owner of the tables grant these rights. The documentation has the statements: PostgreSQL, \
     Minimum rights.";

/// The users who own the tables, so that they can read and change them, and whom the owners of the schema and of the
/// database do not stand for.
fn other_owners(link: &Link, tables: &Tables) -> std::result::Result<Vec<String>, ServerFailure> {
    let found = link.query(&tables.other_owners())?;
    found.iter().map(|row| Ok(get::<&str>(link.location(), row, 0)?.escape_debug().to_string())).collect()
}

/// Compares the clock of this machine with the server's.
pub(super) fn check_clock(link: &Link) -> std::result::Result<Option<Finding>, ServerFailure> {
    let location = link.location();
    let asked = own_time();
    let answer = link.query(&Tables::clock())?;
    let answered = own_time();
    let Some(row) = answer.first() else { return Ok(None) };
    Ok(clock_finding(location, asked, get(location, row, 0)?, answered))
}

fn clock_finding(location: &Location, asked: i64, server: i64, answered: i64) -> Option<Finding> {
    let off = clock_off(asked, server, answered)?;
    let seconds = Duration::from_millis(off.unsigned_abs()).as_secs_f64();
    let direction = if off > 0 { "ahead of" } else { "behind" };
    Some(Finding {
        code: "clock-off",
        severity: Severity::Warning,
        ids: Vec::new(),
        message: format!("the clock of this machine is {seconds:.1} s {direction} that of {location}"),
        hint: "Synchronize both clocks (NTP). The SDK decides by the clock of this machine whether a token has expired.",
    })
}

/// By how much this machine's clock differs from the server's, in milliseconds, if it is too much. `asked` and
/// `answered` are readings of this machine's clock before and after the server's: a late answer is no difference.
fn clock_off(asked: i64, server: i64, answered: i64) -> Option<i64> {
    let off = if asked > server {
        asked.saturating_sub(server)
    } else if answered < server {
        answered.saturating_sub(server)
    } else {
        0
    };
    (off.saturating_abs() > SAME_CLOCK_MS).then_some(off)
}

/// The clock of this machine, in milliseconds since the epoch.
pub(super) fn own_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Installed {
    /// What is wrong with tables that no store can be opened on without changing them.
    fn finding(&self, location: &Location) -> Option<Finding> {
        let (code, severity, message, hint) = match self.task() {
            schema::Task::Nothing => return None,
            schema::Task::Migrate(0) | schema::Task::RefuseChange(0) => (
                "missing-tables",
                Severity::Error,
                if self.has_schema {
                    format!("{location} has no tables of tokens in the schema {}", self.tables.schema())
                } else {
                    format!("{location} has no schema {}", self.tables.schema())
                },
                "Run zoho-token-store init as a user who may create tables, or run what zoho-token-store init --sql \
                 prints.",
            ),
            schema::Task::Migrate(_) | schema::Task::RefuseChange(_) => (
                "older-schema",
                Severity::Warning,
                format!(
                    "{location} was written by the SDK's sample or by an older version of this library, and was not opened \
                     since then"
                ),
                "Nothing has to be done: the next program that opens it migrates it. Make a backup first.",
            ),
            schema::Task::Refuse => return schema::newer(location).into_finding().ok(),
        };
        Some(Finding { code, severity, ids: Vec::new(), message, hint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_if_even_the_time_of_the_answer_does_not_explain_it() {
        let table = [
            (1_000, 1_000, 1_000, None),
            (1_000, 4_000, 7_000, None),
            (5_000, 3_000, 5_010, None),
            (5_000, 2_999, 5_010, Some(2_001)),
            (1_000, 3_010, 1_010, None),
            (1_000, 3_011, 1_010, Some(-2_001)),
            (i64::MAX, i64::MIN, i64::MAX, Some(i64::MAX)),
        ];
        for (asked, server, answered, expected) in table {
            assert_eq!(clock_off(asked, server, answered), expected, "{asked} {server} {answered}");
        }
    }
}
