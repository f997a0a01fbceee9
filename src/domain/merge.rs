//! How a token and its row merge: completing the one (contract 4), updating the other (contract 5).

use super::expiry;
use super::token::{Field, Token};

/// Credentials of a token that its row does not have: its user authorised anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newer {
    /// A refresh token that is not the row's.
    RefreshToken,
    /// No refresh token, and a grant token that is not the row's.
    GrantToken,
}

/// Does `token` bring newer credentials than `row` has? A row without any has older ones.
#[must_use]
pub fn newer(token: Token<'_>, row: Token<'_>) -> Option<Newer> {
    let brings = |field| token.has(field) && token.get(field) != row.get(field);
    if token.has(Field::RefreshToken) {
        brings(Field::RefreshToken).then_some(Newer::RefreshToken)
    } else {
        brings(Field::GrantToken).then_some(Newer::GrantToken)
    }
}

/// The token as the SDK is to see it: what it lacks filled in from its row.
#[must_use]
pub fn complete<'a>(token: Token<'a>, row: Token<'a>) -> Token<'a> {
    let newer = newer(token, row);
    let rows_pair = newer.is_none() && pair_of_row_wins(token, row);
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        Field::AccessToken | Field::ExpiryTime => if rows_pair { row } else { token }.get(field),
        // What was used up or replaced by the new credentials stays behind.
        Field::RefreshToken | Field::GrantToken if newer.is_some() => token.get(field),
        _ => token.get(field).or(row.get(field)),
    })
}

/// Access token and expiry come from one answer of Zoho's, so they move together or not at all.
fn pair_of_row_wins(token: Token<'_>, row: Token<'_>) -> bool {
    let older = match (expiry::parse(token.get(Field::ExpiryTime)), expiry::parse(row.get(Field::ExpiryTime))) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(tokens), Some(rows)) => tokens < rows,
    };
    row.has(Field::AccessToken) && (!token.has(Field::AccessToken) || older)
}

/// The row after `token` was saved into it: what is present replaces, what is absent leaves.
#[must_use]
pub fn update<'a>(token: Token<'a>, row: Token<'a>) -> Token<'a> {
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        // An access token that comes alone says that the old expiry is not its own.
        Field::ExpiryTime if token.has(Field::AccessToken) => token.get(field),
        _ => token.get(field).or(row.get(field)),
    })
}

/// Can a row be made of it? One that holds nothing to ask Zoho with, and nothing to call it with, is of no use.
#[must_use]
pub fn is_worth_a_row(token: Token<'_>) -> bool {
    [Field::RefreshToken, Field::GrantToken, Field::AccessToken].into_iter().any(|field| token.has(field))
}

/// Does the update take a credential away that outlives the hour of an access token?
///
/// The stores that keep old versions of a page for a while must then get rid of them at once (contract 9).
#[must_use]
pub fn replaces_lasting_secret(before: Token<'_>, after: Token<'_>) -> bool {
    [Field::ClientSecret, Field::RefreshToken, Field::GrantToken]
        .into_iter()
        .any(|field| before.has(field) && before.get(field) != after.get(field))
}
