//! What may be wrong with the rows of a store, for whoever looks after it. Changes nothing, repeats no secret.

use std::collections::{BTreeMap, BTreeSet};

use super::token::{Field, Row};
use super::{expiry, purge};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and somebody should look.
    Warning,
    /// It does not work.
    Error,
}

/// Something that is not as it should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind it is, for programs.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The rows concerned, if it is about rows.
    pub ids: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub cure: &'static str,
}

/// Furthest that an access token's expiry lies ahead, in milliseconds: Zoho's live for an hour.
const FURTHEST: i64 = 24 * 60 * 60 * 1000;

/// Looks at all rows at `now` (milliseconds since the epoch).
#[derive(Default)]
pub struct Examination {
    now: i64,
    findings: BTreeMap<&'static str, Vec<String>>,
    users: BTreeMap<[Option<String>; 3], Vec<String>>,
    refresh_tokens: BTreeMap<String, Vec<String>>,
}

impl Examination {
    /// Of no rows yet.
    #[must_use]
    pub fn at(now: i64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Looks at one more row.
    pub fn look(&mut self, row: &Row) {
        for code in codes(row, self.now) {
            self.findings.entry(code).or_default().push(row.id().to_owned());
        }
        if row.get(Field::UserName).is_some() {
            let key =
                [Field::UserName, Field::ClientId, Field::ApiDomain].map(|field| row.get(field).map(str::to_owned));
            self.users.entry(key).or_default().push(row.id().to_owned());
        }
        if let Some(refresh_token) = row.get(Field::RefreshToken) {
            self.refresh_tokens.entry(refresh_token.to_owned()).or_default().push(row.id().to_owned());
        }
    }

    /// What was found, a kind at a time.
    #[must_use]
    pub fn findings(self) -> Vec<Finding> {
        let alike = self.users.into_values().chain(self.refresh_tokens.into_values()).filter(|ids| ids.len() > 1);
        // One user's rows often have one refresh token, too: that is one finding.
        let mut groups = BTreeSet::new();
        let duplicates = alike.filter(|ids| groups.insert(ids.clone())).map(|ids| finding(DUPLICATE, ids));
        let duplicates: Vec<_> = duplicates.collect();
        duplicates.into_iter().chain(self.findings.into_iter().map(|(code, ids)| finding(code, ids))).collect()
    }
}

const DUPLICATE: &str = "duplicate";
const NO_EXPIRY: &str = "no-expiry";
const FAR_EXPIRY: &str = "far-expiry";
const UNUSABLE: &str = "unusable";
const EMPTY: &str = "empty";

/// What is wrong with one row by itself.
fn codes(row: &Row, now: i64) -> impl Iterator<Item = &'static str> {
    let has = |field| row.get(field).is_some();
    let expiry = expiry::parse(row.get(Field::ExpiryTime));
    let has_nothing = ![Field::RefreshToken, Field::GrantToken, Field::AccessToken].into_iter().any(has);
    [
        (has(Field::AccessToken) && expiry.is_none(), NO_EXPIRY),
        (expiry.is_some_and(|expiry| !expiry.has_passed(now.saturating_add(FURTHEST))), FAR_EXPIRY),
        (purge::is_spent(row, now), UNUSABLE),
        (has_nothing, EMPTY),
    ]
    .into_iter()
    .filter_map(|(found, code)| found.then_some(code))
}

fn finding(code: &'static str, ids: Vec<String>) -> Finding {
    let (what, cure) = match code {
        DUPLICATE => (
            "one user, client and API domain, or one refresh token; only one of them is kept up to date",
            "delete those saved longest ago",
        ),
        NO_EXPIRY => (
            "an access token without an expiry that can be read, so that nobody knows when to refresh it",
            "have these users log in again, or delete the rows",
        ),
        FAR_EXPIRY => (
            "an expiry more than a day from now, where Zoho's access tokens live for an hour: it is not in milliseconds, \
             or a clock is wrong, and nobody will refresh in time",
            "set the clocks of the machines, and have these users log in again",
        ),
        UNUSABLE => ("can never be used again: no refresh token, and the access token has expired", "purge them"),
        _ => ("neither a refresh token nor a grant token nor an access token", "delete them"),
    };
    Finding { code, severity: Severity::Warning, message: format!("{}: {what}", rows(ids.len())), ids, cure }
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

    /// What is found in rows that are written as `"refresh_token=r user_name=u"`, as `"code: ids"`.
    fn found(rows: &[&str]) -> Vec<String> {
        let mut examination = Examination::at(NOW);
        for (number, values) in rows.iter().enumerate() {
            let id = (number + 1).to_string();
            let value =
                |field: Field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('='));
            examination.look(&Row::new(Token::from_fn(value).with(Field::Id, Some(&id)), 1, None));
        }
        let findings = examination.findings();
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning && !finding.cure.is_empty()));
        findings.iter().map(|finding| format!("{}: {}", finding.code, finding.ids.join(" "))).collect()
    }

    #[test]
    fn each_kind_of_trouble_is_found_and_nothing_else() {
        let day = NOW + FURTHEST;
        let (past, at_most, beyond) = (NOW.to_string(), day.to_string(), (day + 1).to_string());
        let row = |values: &str, expiry: &str| format!("{values} expiry_time={expiry}");
        let table: [(Vec<String>, &[&str]); 14] = [
            (vec![], &[]),
            (vec![row("user_name=u refresh_token=r access_token=a", &at_most)], &[]),
            (vec![row("user_name=u refresh_token=r access_token=a", &past)], &[]),
            (vec!["refresh_token=r".to_owned()], &[]),
            (vec!["grant_token=g".to_owned()], &[]),
            (vec![row("refresh_token=r access_token=a", &beyond)], &["far-expiry: 1"]),
            (vec!["refresh_token=r access_token=a".to_owned()], &["no-expiry: 1"]),
            (vec![row("refresh_token=r access_token=a", "soon")], &["no-expiry: 1"]),
            (vec![row("access_token=a", &past), row("access_token=b", &at_most)], &["unusable: 1"]),
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
