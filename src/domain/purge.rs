//! Which rows may be purged (contract 10).

use super::expiry;
use super::token::{Field, Row};

/// May the row go at `now` (milliseconds since the epoch)?
///
/// It may when it can never be used again. With `idle_for` (milliseconds) it may, too, when it was not saved for
/// that long; a row of unknown age does not count as idle.
#[must_use]
pub fn may_go(row: &Row, now: i64, idle_for: Option<i64>) -> bool {
    is_spent(row, now) || is_idle(row.saved_at, now, idle_for)
}

/// Can it never be used again at `now`?
///
/// So it is with nothing to ask Zoho with, and an access token that has expired. A grant token beside it is used up: it
/// is what the access token was got with.
#[must_use]
pub fn is_spent(row: &Row, now: i64) -> bool {
    let token = row.token();
    let expired = expiry::parse(token.get(Field::ExpiryTime)).is_some_and(|expiry| expiry.has_passed(now));
    !token.has(Field::RefreshToken) && token.has(Field::AccessToken) && expired
}

fn is_idle(saved_at: Option<i64>, now: i64, idle_for: Option<i64>) -> bool {
    match (saved_at, idle_for) {
        (Some(saved_at), Some(idle_for)) => saved_at <= now.saturating_sub(idle_for),
        _ => false,
    }
}
