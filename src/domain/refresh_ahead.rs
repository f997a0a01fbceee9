//! Refresh ahead of expiry: which rows, and how early (`docs/lease.md`, rule 17).

use std::time::Duration;

use super::lease::{self, DUE_SOON_MS, SDK_REFRESH_MARGIN_MS};
use super::token::{Field, Row, Token};
use super::{expiry, purge};

/// What a refresh ahead of expiry does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remaining {
    /// Less is left than asked for, so refresh it.
    Due,
    /// It is valid for long enough, or it never expires.
    Enough,
    /// It has expired, and has nothing to refresh it with.
    Unusable,
}

/// Returns how long before the SDK itself would refresh a token is due, in milliseconds, if it is due when less than
/// `within` is left.
///
/// The SDK refreshes in the last five seconds. So a shorter time than that changes nothing.
#[must_use]
pub fn lead_ms(within: Duration) -> i64 {
    i64::try_from(within.as_millis()).unwrap_or(i64::MAX).saturating_sub(SDK_REFRESH_MARGIN_MS).max(0)
}

/// Returns how far ahead a find looks, in milliseconds: any row that is due by then needs more than being returned.
#[must_use]
pub fn look_ahead_ms(lead: i64) -> i64 {
    lead.max(DUE_SOON_MS)
}

/// Returns what to do with a row at `now` (milliseconds since the epoch), `lead` milliseconds before the SDK would.
#[must_use]
pub fn remaining(row: &Row, now: i64, lead: i64) -> Remaining {
    if lease::is_due(expiry::readable(row.token()), now.saturating_add(lead)) {
        Remaining::Due
    } else if purge::is_unusable(row, now) {
        Remaining::Unusable
    } else {
        Remaining::Enough
    }
}

/// Does the row still have the login whose tokens were sent to Zoho? `asked` is the row as it was then, and `row` is the
/// row with the same id now, or `None` if it is gone.
///
/// If not, the answer of Zoho must not be saved: its user has logged in again meanwhile, or has logged out.
#[must_use]
pub fn is_same_login(asked: Token<'_>, row: Option<Token<'_>>) -> bool {
    let secret = if asked.has(Field::RefreshToken) { Field::RefreshToken } else { Field::GrantToken };
    row.is_some_and(|row| {
        let differs = |field| asked.has(field) && row.has(field) && asked.get(field) != row.get(field);
        asked.get(secret) == row.get(secret) && !differs(Field::UserName) && !differs(Field::ClientId)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    const NOW: i64 = 1_795_300_000_000;

    #[test]
    fn the_lead_is_what_goes_beyond_the_five_seconds_of_the_sdk() {
        let table = [(0, 0), (1, 0), (5_000, 0), (5_001, 1), (300_000, 295_000)];
        for (within, lead) in table {
            assert_eq!(lead_ms(Duration::from_millis(within)), lead, "{within}");
        }
        assert_eq!(lead_ms(Duration::MAX), i64::MAX - 5_000);
    }

    #[test]
    fn an_answer_belongs_to_the_login_that_was_asked_for() {
        fn token(values: &str) -> Token<'_> {
            Token::from_fn(|field| {
                values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('='))
            })
        }
        let asked = "user_name=ada client_id=c refresh_token=r grant_token=g access_token=old";
        let redeemed = "client_id=c grant_token=g";
        let table = [
            ("unchanged", asked, Some(asked), true),
            ("refreshed", asked, Some("user_name=ada client_id=c refresh_token=r access_token=new"), true),
            ("refused", asked, Some("user_name=ada client_id=c refresh_token=r"), true),
            ("a new login", asked, Some("user_name=ada client_id=c refresh_token=r2"), false),
            ("a new client", asked, Some("user_name=ada client_id=d refresh_token=r"), false),
            ("the user is known now", redeemed, Some("user_name=ada client_id=c grant_token=g"), true),
            ("another user", asked, Some("user_name=bob client_id=c refresh_token=r"), false),
            ("no refresh token any more", asked, Some("user_name=ada client_id=c grant_token=g"), false),
            ("deleted", asked, None, false),
            ("a grant", redeemed, Some(redeemed), true),
            ("another grant", redeemed, Some("client_id=c grant_token=g2"), false),
            ("a deleted grant", redeemed, None, false),
        ];
        for (case, asked, row, expected) in table {
            assert_eq!(is_same_login(token(asked), row.map(token)), expected, "{case}");
        }
    }

    #[test]
    fn a_find_always_looks_as_far_as_the_sdk_may_read_the_clock_later() {
        for (lead, looked) in [(0, 200), (199, 200), (200, 200), (201, 201), (295_000, 295_000)] {
            assert_eq!(look_ahead_ms(lead), looked, "{lead}");
        }
    }

    #[test]
    fn what_is_left_decides() {
        use Remaining::{Due, Enough, Unusable};
        // What the row has, how much is left in milliseconds, and the results for 0 s and for 300 s.
        let table = [
            ("refresh access", Some(-1), Due, Due),
            ("refresh access", Some(4_999), Due, Due),
            ("refresh access", Some(5_000), Enough, Due),
            ("refresh access", Some(299_999), Enough, Due),
            ("refresh access", Some(300_000), Enough, Enough),
            ("refresh access", None, Enough, Enough),
            ("refresh", None, Due, Due),
            ("grant", None, Due, Due),
            ("access", Some(-1), Unusable, Unusable),
            ("access", Some(1), Enough, Enough),
            ("access", None, Enough, Enough),
            ("", None, Enough, Enough),
        ];
        for (has, left, without, with) in table {
            let expiry = left.map(|left| (NOW + left).to_string());
            let value = |name: &str| has.contains(name).then_some("made-up");
            let token = Token::default()
                .with(Field::RefreshToken, value("refresh"))
                .with(Field::AccessToken, value("access"))
                .with(Field::GrantToken, value("grant"))
                .with(Field::ExpiryTime, expiry.as_deref());
            let row = Row::new(token, 1, None);
            let results = [0, 295_000].map(|lead| remaining(&row, NOW, lead));
            assert_eq!(results, [without, with], "{has:?} {left:?}");
        }
    }
}
