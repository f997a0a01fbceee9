//! What can be wrong with the rows of a store. Changes nothing, and repeats no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::key_ring::{PLAINTEXT, Ring, RowFlaw, name_of};
use super::token::{Field, Row};
use super::{data_centre, expiry, purge};

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The store works, but something needs attention.
    Warning,
    /// The store does not work.
    Error,
}

/// A problem, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of problem, for programs.
    pub code: &'static str,
    /// How severe a finding is.
    pub severity: Severity,
    /// The ids of the rows concerned. Empty if the problem is not about rows.
    pub ids: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

/// How far ahead an expiry may be, in milliseconds. Zoho's access tokens live for an hour, so a day is already wrong.
const MAX_EXPIRY_AHEAD_MS: i64 = 24 * 60 * 60 * 1000;

/// Checks rows one by one, and then all of them together.
#[derive(Default)]
pub struct RowChecker {
    now: i64,
    findings: BTreeMap<&'static str, Vec<String>>,
    users: BTreeMap<[Option<String>; 3], Vec<String>>,
    refresh_tokens: BTreeMap<String, Vec<String>>,
    altered: Vec<String>,
    /// The rows that are not under the first key, by the name of their entry.
    under: BTreeMap<String, Vec<String>>,
    /// May there be rows in clear text, as far as the store has recorded it?
    records_clear_text: bool,
}

impl RowChecker {
    /// A checker that has seen no rows. `now` is in milliseconds since the epoch.
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Checks one more row as it is stored. Returns the row, opened if `ring` has its key. An altered row has no values
    /// to check, and is not returned.
    pub fn add_stored(&mut self, ring: &Ring, stored: Row) -> Option<Row> {
        let id = stored.id().to_owned();
        let name = name_of(stored.token());
        let row = match ring.open(&stored) {
            Ok(opened) => opened.unwrap_or(stored),
            Err(RowFlaw::Altered) => {
                self.altered.push(id);
                return None;
            }
            // Everything but its secrets can be checked.
            Err(RowFlaw::UnknownKey(_) | RowFlaw::ClearText) => stored,
        };
        if let Some(name) = name.filter(|name| name != ring.writes()) {
            self.under.entry(name.into_owned()).or_default().push(id);
        }
        self.add(&row);
        Some(row)
    }

    /// Takes note of the names under which there may be rows, if they are recorded.
    pub fn add_record(&mut self, names: Option<&BTreeSet<String>>) {
        self.records_clear_text = names.is_some_and(|names| names.contains(PLAINTEXT));
    }

    /// Checks one more row.
    pub fn add(&mut self, row: &Row) {
        for code in codes(row, self.now) {
            self.findings.entry(code).or_default().push(row.id().to_owned());
        }
        if row.get(Field::UserName).is_some() {
            let text = |field| row.get(field).map(str::to_owned);
            let api_domain = row.get(Field::ApiDomain).map(|domain| data_centre::normalize(domain).into_owned());
            let key = [text(Field::UserName), text(Field::ClientId), api_domain];
            self.users.entry(key).or_default().push(row.id().to_owned());
        }
        if let Some(refresh_token) = row.get(Field::RefreshToken) {
            self.refresh_tokens.entry(refresh_token.to_owned()).or_default().push(row.id().to_owned());
        }
    }

    /// Returns the findings about how the rows are stored (one for each key, and one for all altered rows), and then those
    /// about their values.
    #[must_use]
    pub fn all_findings(mut self, ring: &Ring) -> Vec<Finding> {
        let altered_ids = mem::take(&mut self.altered);
        let altered = (!altered_ids.is_empty()).then(|| altered(altered_ids));
        let is_unfinished = self.records_clear_text && ring.seals().is_some() && !self.under.contains_key(PLAINTEXT);
        let unfinished = is_unfinished.then(unfinished_encryption);
        let under = mem::take(&mut self.under).into_iter().map(|(name, ids)| not_first(ring, &name, ids));
        altered.into_iter().chain(unfinished).chain(under).chain(self.findings()).collect()
    }

    /// Returns the findings about values, one for each kind of problem and group of rows.
    #[must_use]
    pub fn findings(self) -> Vec<Finding> {
        let alike = self.users.into_values().chain(self.refresh_tokens.into_values()).filter(|ids| ids.len() > 1);
        // Rows of one user often share a refresh token, too. That is one finding.
        let mut groups = BTreeSet::new();
        let duplicates = alike.filter(|ids| groups.insert(ids.clone())).map(|ids| finding(DUPLICATE, ids));
        let duplicates: Vec<_> = duplicates.collect();
        duplicates.into_iter().chain(self.findings.into_iter().map(|(code, ids)| finding(code, ids))).collect()
    }
}

/// The finding about rows under a key that the store does not have.
pub const UNKNOWN_KEY: &str = "unknown-key";
/// The finding about rows that are not as they were sealed.
pub const ALTERED: &str = "altered";
/// The finding about rows in clear text, in a store with keys.
pub const PLAINTEXT_ROW: &str = "plaintext";
const OLD_KEY: &str = "old-key";
const UNFINISHED_REKEY: &str = "unfinished-rekey";

/// Returns the code of the finding about rows with this flaw.
#[must_use]
pub const fn flaw_code(flaw: &RowFlaw) -> &'static str {
    match flaw {
        RowFlaw::UnknownKey(_) => UNKNOWN_KEY,
        RowFlaw::Altered => ALTERED,
        RowFlaw::ClearText => PLAINTEXT_ROW,
    }
}

fn altered(ids: Vec<String>) -> Finding {
    Finding {
        code: ALTERED,
        severity: Severity::Error,
        message: format!("{}: altered after they were sealed, so they cannot be read", rows(ids.len())),
        ids,
        hint: "Find out who can write there. Restore the rows from a backup, or delete them and have their users log in \
               again.",
    }
}

/// All rows are sealed, but what they were before was not removed: the rotation was killed, or has not run.
fn unfinished_encryption() -> Finding {
    Finding {
        code: UNFINISHED_REKEY,
        severity: Severity::Warning,
        ids: Vec::new(),
        message: "no row is in clear text any more, but what rows were before may still be readable in the file"
            .to_owned(),
        hint: "Finish the encryption: zoho-token-store rekey.",
    }
}

/// The finding about rows under this name, which is not the first one of the ring.
fn not_first(ring: &Ring, name: &str, ids: Vec<String>) -> Finding {
    let rows = rows(ids.len());
    let (code, severity, message, hint) = match (name == PLAINTEXT, ring.has(name)) {
        (true, can_be_read) => (
            PLAINTEXT_ROW,
            if can_be_read { Severity::Warning } else { Severity::Error },
            format!("{rows}: in clear text, although the store has keys"),
            "Seal them: zoho-token-store rekey, with PLAINTEXT at the end of keys. If all rows were sealed before, find \
             out who wrote these, and delete them.",
        ),
        (false, true) if ring.writes() == PLAINTEXT => (
            OLD_KEY,
            Severity::Warning,
            format!("{rows}: sealed under the key {name}, although rows are written in clear text"),
            "Open them: zoho-token-store rekey. A key without rows can be dropped.",
        ),
        (false, true) => (
            OLD_KEY,
            Severity::Warning,
            format!("{rows}: sealed under the key {name}, which is not the first one"),
            "Seal them under the first key: zoho-token-store rekey. A key without rows can be dropped.",
        ),
        (false, false) => (
            UNKNOWN_KEY,
            Severity::Error,
            format!("{rows}: sealed under the key {name}, which the store does not have"),
            "Give the store this key, too (keys=). If the key is lost, restore a backup that another key opens, or \
             delete the rows under it: zoho-token-store forget-key ID.",
        ),
    };
    Finding { code, severity, ids, message, hint }
}

const DUPLICATE: &str = "duplicate";
const NO_EXPIRY: &str = "no-expiry";
const UNREADABLE_EXPIRY: &str = "unreadable-expiry";
const FAR_EXPIRY: &str = "far-expiry";
const NO_REFRESH_TOKEN: &str = "no-refresh-token";
const UNUSABLE: &str = "unusable";
const EMPTY: &str = "empty";

/// Returns the codes of the problems that one row has by itself.
fn codes(row: &Row, now: i64) -> impl Iterator<Item = &'static str> {
    let has = |field| row.get(field).is_some();
    let is_unreadable = expiry::is_unreadable(row.get(Field::ExpiryTime));
    // What the SDK gets decides whether the token is ever refreshed.
    let expiry = expiry::parse(expiry::readable(row.token()).get(Field::ExpiryTime));
    let is_unusable = purge::is_unusable(row, now);
    let has_nothing = ![Field::RefreshToken, Field::GrantToken, Field::AccessToken].into_iter().any(has);
    [
        (has(Field::AccessToken) && expiry.is_none(), NO_EXPIRY),
        (has(Field::AccessToken) && has(Field::RefreshToken) && is_unreadable, UNREADABLE_EXPIRY),
        (expiry.is_some_and(|expiry| !expiry.has_passed(now.saturating_add(MAX_EXPIRY_AHEAD_MS))), FAR_EXPIRY),
        (has(Field::AccessToken) && !has(Field::RefreshToken) && !is_unusable, NO_REFRESH_TOKEN),
        (is_unusable, UNUSABLE),
        (has_nothing, EMPTY),
    ]
    .into_iter()
    .filter_map(|(found, code)| found.then_some(code))
}

fn finding(code: &'static str, ids: Vec<String>) -> Finding {
    let (what, hint) = match code {
        DUPLICATE => (
            "same user, client and API domain, or same refresh token. Only one of these rows is kept up to date",
            "Delete the rows that were saved longest ago.",
        ),
        NO_EXPIRY => (
            "access token without a readable expiry, so it is never refreshed",
            "Have these users log in again, or delete the rows.",
        ),
        UNREADABLE_EXPIRY => (
            "expiry that is not a whole number of milliseconds, so the token counts as expired",
            "Nothing has to be done: the next use of each row refreshes it and saves a readable expiry. Check the program \
             that wrote these rows.",
        ),
        FAR_EXPIRY => (
            "expiry more than a day from now, although Zoho's access tokens live for an hour. The expiry is not in \
             milliseconds, or a clock is wrong, so the token is not refreshed in time",
            "Set the clocks of the machines, and have these users log in again.",
        ),
        NO_REFRESH_TOKEN => (
            "access token without a refresh token. These users are logged out when it expires, after an hour at most",
            "Have these users log in again, with access_type=offline and prompt=consent in the URL of the login.",
        ),
        UNUSABLE => (
            "no refresh token, and an expired access token: can never be used again",
            "Purge them. Have these users log in again, with access_type=offline and prompt=consent in the URL of the \
             login.",
        ),
        _ => ("no refresh token, no grant token and no access token", "Delete them."),
    };
    Finding { code, severity: Severity::Warning, message: format!("{}: {what}", rows(ids.len())), ids, hint }
}

/// A row whose refreshes have failed since the last one that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingRefresh {
    /// The id of the row.
    pub id: String,
    /// How often.
    pub count: u32,
    /// When the first of them failed, in milliseconds since the epoch.
    pub since: i64,
}

/// Returns the finding about refreshes that fail, at `now` (milliseconds since the epoch).
#[must_use]
pub fn refresh_failing(rows_failing: &[FailingRefresh], now: i64) -> Option<Finding> {
    let since = rows_failing.iter().map(|row| row.since).min()?;
    let most = rows_failing.iter().map(|row| row.count).max().unwrap_or_default();
    let minutes = now.saturating_sub(since).max(0) / 60_000;
    Some(Finding {
        code: "refresh-failing",
        severity: Severity::Warning,
        ids: rows_failing.iter().map(|row| row.id.clone()).collect(),
        message: format!(
            "{}: expired, and all refreshes since {minutes} min ago have failed ({}{most} attempt{})",
            rows(rows_failing.len()),
            if rows_failing.len() == 1 { "" } else { "up to " },
            if most == 1 { "" } else { "s" }
        ),
        hint: "What get_token raised says why: invalid_code means that these users have to log in again, and Access \
               Denied ends after ten minutes. A later request tries again by itself.",
    })
}

/// Returns the finding about saves that failed in this process, the last one with the error code `last`.
#[must_use]
pub fn failed_saves(count: u64, last: &str) -> Option<Finding> {
    (count > 0).then(|| Finding {
        code: "failed-saves",
        severity: Severity::Warning,
        ids: Vec::new(),
        message: format!(
            "{count} save{} failed in this process since the store was opened, the last one with {last}",
            if count == 1 { "" } else { "s" }
        ),
        hint: "Look the code up in the documentation, and in the log zoho_token_store at level ERROR.",
    })
}

/// "1 row", "2 rows".
fn rows(count: usize) -> String {
    format!("{count} row{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Token;

    const NOW: i64 = 1_795_300_000_000;

    /// Returns the findings as `"code: ids"`, for rows written as `"refresh_token=r user_name=u"`.
    fn found(rows: &[&str]) -> Vec<String> {
        let mut checker = RowChecker::new(NOW);
        for (number, values) in rows.iter().enumerate() {
            let id = (number + 1).to_string();
            let value =
                |field: Field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('='));
            checker.add(&Row::new(Token::from_fn(value).with(Field::Id, Some(&id)), 1, None));
        }
        let findings = checker.findings();
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning && !finding.hint.is_empty()));
        findings.iter().map(|finding| format!("{}: {}", finding.code, finding.ids.join(" "))).collect()
    }

    #[test]
    fn a_finding_says_what_is_wrong_with_how_many_rows_and_what_to_do() {
        let mut checker = RowChecker::new(NOW);
        let past = (NOW - 1).to_string();
        let far = (NOW + 86_400_001).to_string();
        for (id, field, value, expiry) in [
            ("1", Field::AccessToken, "a", Some(past.as_str())),
            ("2", Field::AccessToken, "b", Some(far.as_str())),
            ("3", Field::AccessToken, "c", None),
            ("4", Field::ClientId, "d", None),
            ("5", Field::ClientId, "e", None),
            ("6", Field::RefreshToken, "r", None),
            ("7", Field::RefreshToken, "r", None),
        ] {
            let token = Token::default().with(Field::Id, Some(id)).with(field, Some(value));
            checker.add(&Row::new(token.with(Field::ExpiryTime, expiry), 1, None));
        }
        let login = Token::default().with(Field::RefreshToken, Some("q")).with(Field::AccessToken, Some("d"));
        checker.add(&Row::new(login.with(Field::Id, Some("8")).with(Field::ExpiryTime, Some("soon")), 1, None));
        let findings = checker.findings();
        let texts: Vec<_> = findings
            .iter()
            .map(|finding| (finding.code, finding.message.split(": ").next().unwrap_or_default(), finding.hint))
            .collect();
        assert_eq!(
            texts,
            [
                ("duplicate", "2 rows", "Delete the rows that were saved longest ago."),
                ("empty", "2 rows", "Delete them."),
                ("far-expiry", "1 row", "Set the clocks of the machines, and have these users log in again."),
                ("no-expiry", "1 row", "Have these users log in again, or delete the rows."),
                (
                    "no-refresh-token",
                    "2 rows",
                    "Have these users log in again, with access_type=offline and prompt=consent in the URL of the \
                     login.",
                ),
                (
                    "unreadable-expiry",
                    "1 row",
                    "Nothing has to be done: the next use of each row refreshes it and saves a readable expiry. Check \
                     the program that wrote these rows.",
                ),
                (
                    "unusable",
                    "1 row",
                    "Purge them. Have these users log in again, with access_type=offline and prompt=consent in the \
                     URL of the login.",
                ),
            ]
        );
        let says = |code: &str, text: &str| {
            findings.iter().any(|finding| finding.code == code && finding.message.contains(text))
        };
        assert!(says("duplicate", "same user") && says("empty", "no refresh token, no grant token"));
        assert!(says("far-expiry", "more than a day") && says("no-expiry", "without a readable expiry"));
        assert!(says("unusable", "expired access token") && says("unreadable-expiry", "not a whole number"));
        assert!(says("no-refresh-token", "logged out"));
    }

    #[test]
    fn saves_that_failed_are_one_finding() {
        let message = |count| failed_saves(count, "disk-full").map(|finding| finding.message);
        let text = |saves: &str| {
            Some(format!("{saves} failed in this process since the store was opened, the last one with disk-full"))
        };
        for (count, expected) in [(0, None), (1, text("1 save")), (2, text("2 saves"))] {
            assert_eq!(message(count), expected);
        }
    }

    #[test]
    fn refreshes_that_fail_are_one_finding() {
        let failing =
            |id: &str, count, minutes: i64| FailingRefresh { id: id.to_owned(), count, since: NOW - minutes * 60_000 };
        let found =
            |rows: &[FailingRefresh]| refresh_failing(rows, NOW).map(|found| (found.ids.join(" "), found.message));
        let text = |ids: &str, text: &str| Some((ids.to_owned(), text.to_owned()));
        assert_eq!(found(&[]), None);
        let one = "1 row: expired, and all refreshes since 2 min ago have failed (1 attempt)";
        assert_eq!(found(&[failing("7", 1, 2)]), text("7", one));
        let two = "2 rows: expired, and all refreshes since 9 min ago have failed (up to 5 attempts)";
        assert_eq!(found(&[failing("7", 5, 2), failing("8", 3, 9)]), text("7 8", two));
        let ahead = "1 row: expired, and all refreshes since 0 min ago have failed (2 attempts)";
        assert_eq!(found(&[failing("7", 2, -1)]), text("7", ahead), "the clock was set back");
    }

    #[test]
    fn each_kind_of_problem_is_found_and_nothing_else() {
        let day = NOW + 86_400_000;
        let (past, at_most, beyond) = (NOW.to_string(), day.to_string(), (day + 1).to_string());
        let row = |values: &str, expiry: &str| format!("{values} expiry_time={expiry}");
        let table: [(Vec<String>, &[&str]); 21] = [
            (vec![], &[]),
            (vec![row("user_name=u refresh_token=r access_token=a", &at_most)], &[]),
            (vec![row("user_name=u refresh_token=r access_token=a", &past)], &[]),
            (vec!["refresh_token=r".to_owned()], &[]),
            (vec!["grant_token=g".to_owned()], &[]),
            (vec![row("refresh_token=r access_token=a", &beyond)], &["far-expiry: 1"]),
            (vec!["refresh_token=r access_token=a".to_owned()], &["no-expiry: 1"]),
            (vec![row("refresh_token=r access_token=a", "soon")], &["unreadable-expiry: 1"]),
            (vec![row("refresh_token=r access_token=a", &"9".repeat(30))], &["unreadable-expiry: 1"]),
            (vec![row("refresh_token=r", "soon"), row("grant_token=g", "soon")], &[]),
            // Nothing can refresh it, so the SDK gets it without an expiry.
            (vec![row("access_token=a", "soon")], &["no-expiry: 1", "no-refresh-token: 1"]),
            (vec![row("access_token=a", &past)], &["unusable: 1"]),
            (vec![row("access_token=a", &at_most)], &["no-refresh-token: 1"]),
            // The grant token was used up to get the access token.
            (vec![row("grant_token=g access_token=a", &at_most)], &["no-refresh-token: 1"]),
            (vec!["access_token=a".to_owned()], &["no-expiry: 1", "no-refresh-token: 1"]),
            (
                vec![
                    "user_name=u client_id=c api_domain=https://www.zohoapis.eu refresh_token=r".to_owned(),
                    "user_name=u client_id=c api_domain=https://www.ZohoAPIs.eu/ refresh_token=q".to_owned(),
                    "user_name=u client_id=c api_domain=https://www.zohoapis.com refresh_token=p".to_owned(),
                ],
                &["duplicate: 1 2"],
            ),
            (vec!["user_name=u client_id=c".to_owned()], &["empty: 1"]),
            (
                vec!["user_name=u refresh_token=r".to_owned(), "user_name=u refresh_token=q".to_owned()],
                &["duplicate: 1 2"],
            ),
            (
                vec![
                    "user_name=u client_id=c refresh_token=r".to_owned(),
                    "user_name=u client_id=d refresh_token=q".to_owned(),
                ],
                &[],
            ),
            (
                vec!["user_name=u refresh_token=r".to_owned(), "user_name=v refresh_token=r".to_owned()],
                &["duplicate: 1 2"],
            ),
            (
                vec!["user_name=u refresh_token=r".to_owned(), "user_name=u refresh_token=r".to_owned()],
                &["duplicate: 1 2"],
            ),
        ];
        for (rows, expected) in table {
            let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
            assert_eq!(found(&rows), expected, "{rows:?}");
        }
    }
}
