//! Which rows may be purged (contract, section 10).

use super::expiry;
use super::token::{Field, Row};

/// May the row be deleted at `now` (milliseconds since the epoch)?
///
/// It may if it is unusable. With `idle_for` (milliseconds) it also may if it was not saved for that long. A row whose
/// age is unknown is never idle.
#[must_use]
pub fn may_purge(row: &Row, now: i64, idle_for: Option<i64>) -> bool {
    is_unusable(row, now) || is_idle(row.saved_at, now, idle_for)
}

/// Is the row of no use any more at `now`? That is: it has no refresh token, and its access token has expired.
///
/// A grant token beside an access token does not help: it was used up to get that access token.
#[must_use]
pub fn is_unusable(row: &Row, now: i64) -> bool {
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
