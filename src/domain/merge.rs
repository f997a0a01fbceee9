//! How a token and its row merge: [`complete`] fills the token (contract, section 4), [`update`] changes the row
//! (contract, section 5).

use super::expiry;
use super::token::{Field, Token};

/// Credentials of a token that its row does not have. They mean that the user has authorized again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewCredentials {
    /// The token has another refresh token than the row.
    RefreshToken,
    /// The token has no refresh token, and another grant token than the row.
    GrantToken,
}

/// Returns the credentials of `token` that replace those of `row`. A row without credentials is replaced, too.
#[must_use]
pub fn new_credentials(token: Token<'_>, row: Token<'_>) -> Option<NewCredentials> {
    let differs = |field| token.has(field) && token.get(field) != row.get(field);
    if token.has(Field::RefreshToken) {
        differs(Field::RefreshToken).then_some(NewCredentials::RefreshToken)
    } else {
        differs(Field::GrantToken).then_some(NewCredentials::GrantToken)
    }
}

/// Returns the token as the SDK will see it: absent values are filled in from the row.
#[must_use]
pub fn complete<'a>(token: Token<'a>, row: Token<'a>) -> Token<'a> {
    let is_new_login = new_credentials(token, row).is_some();
    let use_pair_of_row = !is_new_login && row_has_better_pair(token, row);
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        Field::AccessToken | Field::ExpiryTime => if use_pair_of_row { row } else { token }.get(field),
        // The row's credentials belong to the earlier login.
        Field::RefreshToken | Field::GrantToken if is_new_login => token.get(field),
        _ => token.get(field).or(row.get(field)),
    })
}

/// Access token and expiry come from one response of Zoho, so they are used as a pair. Does the row have the pair to
/// use?
fn row_has_better_pair(token: Token<'_>, row: Token<'_>) -> bool {
    let token_expires_first =
        match (expiry::parse(token.get(Field::ExpiryTime)), expiry::parse(row.get(Field::ExpiryTime))) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(of_token), Some(of_row)) => of_token < of_row,
        };
    row.has(Field::AccessToken) && (!token.has(Field::AccessToken) || token_expires_first)
}

/// Returns the row after Zoho has refused its access token: the pair is gone, so the next `get_token` refreshes.
///
/// `None`: the row stays as it is. It has another access token by now, or nothing to refresh it with.
#[must_use]
pub fn without_refused<'a>(row: Token<'a>, refused: &str) -> Option<Token<'a>> {
    let can_refresh = row.has(Field::RefreshToken) || row.has(Field::GrantToken);
    (can_refresh && row.get(Field::AccessToken) == Some(refused))
        .then(|| row.with(Field::AccessToken, None).with(Field::ExpiryTime, None))
}

/// Returns the row after `token` was saved into it: a present value replaces the row's value, an absent one keeps it.
#[must_use]
pub fn update<'a>(token: Token<'a>, row: Token<'a>) -> Token<'a> {
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        // The stored expiry belongs to the access token that is replaced. So a new one without an expiry clears it.
        Field::ExpiryTime if token.has(Field::AccessToken) => token.get(field),
        _ => token.get(field).or(row.get(field)),
    })
}

/// May a row be made from this token? A row without any refresh, grant or access token would be of no use.
#[must_use]
pub fn is_storable(token: Token<'_>) -> bool {
    [Field::RefreshToken, Field::GrantToken, Field::AccessToken].into_iter().any(|field| token.has(field))
}

/// Does an update replace a credential that stays valid for longer than an access token, which expires after an hour?
///
/// A backend that keeps old versions of a row for a while must scrub them at once in this case (contract, section 9).
#[must_use]
pub fn replaces_long_lived_secret(before: Token<'_>, after: Token<'_>) -> bool {
    [Field::ClientSecret, Field::RefreshToken, Field::GrantToken]
        .into_iter()
        .any(|field| before.has(field) && before.get(field) != after.get(field))
}

// The rules of the contract have their truth tables in `tests/data/rules.json`.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_access_token_is_removed_only_from_a_row_that_has_it_and_can_be_refreshed() {
        let row = |more: &[(Field, &'static str)]| {
            let pair = [(Field::AccessToken, "a"), (Field::ExpiryTime, "5")];
            pair.iter().chain(more).fold(Token::default(), |row, &(field, value)| row.with(field, Some(value)))
        };
        let without = |row: Token<'static>| row.with(Field::AccessToken, None).with(Field::ExpiryTime, None);
        let (refresh, grant) = (row(&[(Field::RefreshToken, "r")]), row(&[(Field::GrantToken, "g")]));
        let table = [
            ("a refresh token", refresh, "a", Some(without(refresh))),
            ("a grant token", grant, "a", Some(without(grant))),
            ("nothing to refresh with", row(&[]), "a", None),
            ("another access token", refresh, "b", None),
            ("no access token", without(refresh), "a", None),
            ("the refresh token", refresh, "r", None),
            ("an empty text", refresh, "", None),
        ];
        for (case, row, refused, expected) in table {
            assert_eq!(without_refused(row, refused), expected, "{case}");
        }
    }
}
