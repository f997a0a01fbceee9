//! A refreshed pair that could not be saved: when is it served in place of the row's pair, and when is it saved
//! (`docs/lease.md`, rule 16)?
//!
//! *Pair*: access token and expiry (contract, section 4). `kept` is the token as the SDK wanted to save it.

use super::token::{Field, Token};
use super::{expiry, lease};

/// Is the kept pair better than what `row` has now?
///
/// No, if the row has another user, client or login by now, or a pair that expires no earlier. A row without a refresh
/// token is still the same login if it has the grant token that the kept pair was redeemed from.
#[must_use]
pub fn is_better(kept: Token<'_>, row: Token<'_>) -> bool {
    let differs = |field| kept.has(field) && row.has(field) && kept.get(field) != row.get(field);
    if differs(Field::UserName) || differs(Field::ClientId) {
        return false;
    }
    let same = |field| kept.has(field) && kept.get(field) == row.get(field);
    let is_same_login = if row.has(Field::RefreshToken) { same(Field::RefreshToken) } else { same(Field::GrantToken) };
    let expiry = |token: Token<'_>| expiry::parse(token.get(Field::ExpiryTime)).and_then(expiry::Expiry::milliseconds);
    let Some(end) = expiry(kept) else { return false };
    // An access token without a readable expiry may have been written by another program at any time.
    let is_newer = !row.has(Field::AccessToken) || expiry(row).is_none_or(|of_row| of_row < end);
    is_same_login && is_newer && !same(Field::AccessToken)
}

/// Is the pair of this token worth keeping at `now` (milliseconds since the epoch)? It is if the SDK would use it, and
/// if the token has the refresh token that tells later whether the row still belongs to the same login.
#[must_use]
pub fn is_usable(kept: Token<'_>, now: i64) -> bool {
    kept.has(Field::AccessToken)
        && kept.has(Field::RefreshToken)
        && expiry::parse(kept.get(Field::ExpiryTime)).and_then(expiry::Expiry::milliseconds).is_some()
        && !lease::is_due(kept, now)
}

/// Is the kept pair to be saved into `row` at `now`? Otherwise it is to be discarded. `row` is the row with the id of
/// the kept token, or `None` if it is gone.
#[must_use]
pub fn is_to_be_saved(kept: Token<'_>, row: Option<Token<'_>>, now: i64) -> bool {
    row.is_some_and(|row| is_better(kept, row)) && is_usable(kept, now)
}

/// Returns the row with the kept pair. The row's other values may have changed since, so only absent ones are filled
/// in: the refresh token of a redeemed grant, and the user name.
#[must_use]
pub fn overlay<'a>(kept: Token<'a>, row: Token<'a>) -> Token<'a> {
    Token::from_fn(|field| match field {
        Field::AccessToken | Field::ExpiryTime => kept.get(field),
        _ => row.get(field).or(kept.get(field)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_300_000_000;

    /// Parses a token that is written as `"refresh_token=r user_name=u"`.
    fn token(values: &str) -> Token<'_> {
        Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
    }

    const KEPT: &str = "id=1 user_name=ada client_id=c client_secret=s refresh_token=r access_token=new \
                        grant_token=g expiry_time=1795303600000";

    #[test]
    fn a_kept_pair_is_better_than_an_older_pair_of_the_same_login() {
        let table = [
            ("expired", "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1", true),
            ("refused", "user_name=ada client_id=c refresh_token=r", true),
            ("expires earlier", "client_id=c refresh_token=r access_token=old expiry_time=1795303599999", true),
            ("expires at the same time", "client_id=c refresh_token=r access_token=b expiry_time=1795303600000", false),
            ("expires later", "client_id=c refresh_token=r access_token=b expiry_time=1795303600001", false),
            ("saved already", "client_id=c refresh_token=r access_token=new expiry_time=1795303600000", false),
            ("saved already, and spoilt", "client_id=c refresh_token=r access_token=new expiry_time=1", false),
            ("no expiry", "client_id=c refresh_token=r access_token=b", true),
            ("an expiry that is no number", "client_id=c refresh_token=r access_token=b expiry_time=soon", true),
            ("an expiry without access token", "client_id=c refresh_token=r expiry_time=1795309999999", true),
            ("no user yet", "client_id=c refresh_token=r access_token=old expiry_time=1", true),
            ("another user", "user_name=bob client_id=c refresh_token=r", false),
            ("another client", "user_name=ada client_id=d refresh_token=r", false),
            ("no client", "user_name=ada refresh_token=r", true),
            ("a new login", "user_name=ada client_id=c refresh_token=r2", false),
            ("a new login with the same grant token", "client_id=c refresh_token=r2 grant_token=g", false),
            ("the redeemed grant", "client_id=c grant_token=g", true),
            ("the redeemed grant, with a pair", "client_id=c grant_token=g access_token=old expiry_time=1", true),
            ("another grant", "client_id=c grant_token=g2", false),
            ("no login at all", "user_name=ada client_id=c", false),
        ];
        for (case, row, better) in table {
            assert_eq!(is_better(token(KEPT), token(row)), better, "{case}");
            assert_eq!(is_to_be_saved(token(KEPT), Some(token(row)), NOW), better, "{case}");
        }
        assert!(!is_to_be_saved(token(KEPT), None, NOW), "the row is gone");
        let redeemed = "client_id=c grant_token=g";
        assert!(!is_better(token("refresh_token=r access_token=new expiry_time=1795303600000"), token(redeemed)));
    }

    #[test]
    fn a_pair_is_usable_while_the_sdk_would_use_it() {
        let row = token("client_id=c refresh_token=r access_token=old expiry_time=1");
        let table = [
            ("an hour left", Some("1795303600000"), true),
            ("5 s left", Some("1795300005000"), true),
            ("less than 5 s left", Some("1795300004999"), false),
            ("expired", Some("1795299999999"), false),
            ("white space around it", Some(" 1795303600000\n"), true),
            ("no expiry", None, false),
            ("no number", Some("soon"), false),
            ("a fraction", Some("1795303600000.0"), false),
            ("beyond 64 bits", Some("99999999999999999999999"), false),
        ];
        for (case, expiry, usable) in table {
            let kept = token(KEPT).with(Field::ExpiryTime, expiry);
            assert_eq!(is_usable(kept, NOW), usable, "{case}");
            assert_eq!(is_to_be_saved(kept, Some(row), NOW), usable, "{case}");
        }
        for field in [Field::AccessToken, Field::RefreshToken] {
            assert!(!is_usable(token(KEPT).with(field, None), NOW), "{field:?}");
        }
    }

    #[test]
    fn the_row_gets_the_pair_and_keeps_its_other_values() {
        let table = [
            (
                "the pair",
                "id=1 client_id=c client_secret=s2 refresh_token=r access_token=old expiry_time=1 redirect_url=u",
                "id=1 user_name=ada client_id=c client_secret=s2 refresh_token=r access_token=new grant_token=g \
                 expiry_time=1795303600000 redirect_url=u",
            ),
            (
                "the redeemed grant",
                "id=1 user_name=ada client_id=c client_secret=s grant_token=g",
                "id=1 user_name=ada client_id=c client_secret=s refresh_token=r access_token=new grant_token=g \
                 expiry_time=1795303600000",
            ),
        ];
        for (case, row, expected) in table {
            assert!(overlay(token(KEPT), token(row)) == token(expected), "{case}");
        }
    }
}
