//! What becomes of a row that another store's row is brought to.
//!
//! Not what a save does ([`super::merge::update`]): what is saved comes from Zoho just now, what is imported may be older
//! than what is there, and a second import of the same file is to change nothing.

use super::expiry;
use super::merge;
use super::token::{Field, Token};

/// The row after `incoming` was brought to it. The newer of the two wins; of one that is not, or not known to be, only
/// what the row lacks is taken.
#[must_use]
pub fn bring<'a>(incoming: Token<'a>, row: Token<'a>) -> Token<'a> {
    if is_newer(incoming, row) {
        return merge::update(incoming, row);
    }
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        // A pair, from one answer of Zoho's, and of the login that the row has.
        Field::AccessToken | Field::ExpiryTime => {
            if row.has(Field::AccessToken) || is_another_login(incoming, row) { row } else { incoming }.get(field)
        }
        _ => row.get(field).or(incoming.get(field)),
    })
}

/// Was its access token given out later? All of Zoho's live for as long, so the one that expires later was.
fn is_newer(incoming: Token<'_>, row: Token<'_>) -> bool {
    let expiry =
        |token: Token<'_>| expiry::parse(token.get(Field::ExpiryTime)).is_some_and(|_| token.has(Field::AccessToken));
    match (expiry(incoming), expiry(row)) {
        (true, true) => expiry::parse(incoming.get(Field::ExpiryTime)) > expiry::parse(row.get(Field::ExpiryTime)),
        // How old the row is, nobody knows: so it loses no login.
        (incoming_is_dated, _) => incoming_is_dated && !is_another_login(incoming, row),
    }
}

fn is_another_login(incoming: Token<'_>, row: Token<'_>) -> bool {
    let [ours, theirs] = [incoming, row].map(|token| token.get(Field::RefreshToken));
    ours.is_some() && theirs.is_some() && ours != theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token with these values, written as `"refresh_token=r user_name=u"`.
    fn token(values: &str) -> Token<'_> {
        Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
    }

    #[test]
    fn the_newer_wins_and_fills_up_or_the_older_fills_up() {
        let table = [
            // incoming, row, what the row is afterwards
            (
                "id=9 refresh_token=r access_token=b expiry_time=20",
                "id=1 refresh_token=q access_token=a expiry_time=10",
                "id=1 refresh_token=r access_token=b expiry_time=20",
            ),
            (
                "id=9 refresh_token=q access_token=a expiry_time=10",
                "id=1 refresh_token=r access_token=b expiry_time=20",
                "id=1 refresh_token=r access_token=b expiry_time=20",
            ),
            (
                "refresh_token=r access_token=b expiry_time=10",
                "id=1 refresh_token=q access_token=a expiry_time=10",
                "id=1 refresh_token=q access_token=a expiry_time=10",
            ),
            // How old the row is, nobody knows: another login does not replace its own.
            (
                "refresh_token=r access_token=b expiry_time=9",
                "id=1 refresh_token=q access_token=a",
                "id=1 refresh_token=q access_token=a",
            ),
            ("refresh_token=r access_token=b expiry_time=9", "id=1 refresh_token=q", "id=1 refresh_token=q"),
            ("refresh_token=r access_token=b", "id=1 refresh_token=q", "id=1 refresh_token=q"),
            // The same login, or the only one.
            (
                "refresh_token=q access_token=b expiry_time=9",
                "id=1 refresh_token=q access_token=a",
                "id=1 refresh_token=q access_token=b expiry_time=9",
            ),
            (
                "refresh_token=q access_token=b expiry_time=9",
                "id=1 refresh_token=q",
                "id=1 refresh_token=q access_token=b expiry_time=9",
            ),
            ("refresh_token=q access_token=b", "id=1 refresh_token=q", "id=1 refresh_token=q access_token=b"),
            (
                "refresh_token=r access_token=b expiry_time=9",
                "id=1 grant_token=g",
                "id=1 refresh_token=r grant_token=g access_token=b expiry_time=9",
            ),
            (
                "refresh_token=q access_token=b",
                "id=1 refresh_token=q access_token=a",
                "id=1 refresh_token=q access_token=a",
            ),
            (
                "refresh_token=r expiry_time=99",
                "id=1 refresh_token=q access_token=a expiry_time=10",
                "id=1 refresh_token=q access_token=a expiry_time=10",
            ),
            (
                "refresh_token=r access_token=b expiry_time=soon",
                "id=1 access_token=a expiry_time=10",
                "id=1 refresh_token=r access_token=a expiry_time=10",
            ),
            ("user_name=u client_secret=s", "id=1 refresh_token=q", "id=1 user_name=u client_secret=s refresh_token=q"),
        ];
        for (incoming, row, after) in table {
            let brought = bring(token(incoming), token(row));
            assert_eq!(brought, token(after), "{incoming} | {row}");
            assert_eq!(bring(token(incoming), brought), brought, "twice: {incoming} | {row}");
        }
    }
}
