//! Which row a token names (contract 3). Decides; never looks anything up by itself.

use super::token::{Field, Row, Token};

/// What a row can be found by, in the order in which a token's keys are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Whose token it is: the only key that several rows may share by right.
    UserName,
    /// The row's id.
    Id,
    /// The grant token.
    GrantToken,
    /// The refresh token.
    RefreshToken,
    /// The access token.
    AccessToken,
}

impl Key {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::UserName, Self::Id, Self::GrantToken, Self::RefreshToken, Self::AccessToken];

    /// The field that a row is found by.
    #[must_use]
    pub const fn field(self) -> Field {
        match self {
            Self::UserName => Field::UserName,
            Self::Id => Field::Id,
            Self::GrantToken => Field::GrantToken,
            Self::RefreshToken => Field::RefreshToken,
            Self::AccessToken => Field::AccessToken,
        }
    }

    /// The fields in which a row found by this key must not contradict the token.
    const fn agreeing(self) -> [Field; 2] {
        match self {
            Self::UserName => [Field::ClientId, Field::ApiDomain],
            _ => [Field::UserName, Field::ClientId],
        }
    }
}

/// The keys that the token has, in the order in which they are tried. None: it names no row.
pub fn keys(token: Token<'_>) -> impl Iterator<Item = (Key, &str)> {
    Key::ALL.into_iter().filter_map(move |key| Some((key, token.get(key.field())?)))
}

/// Do both sides have a value, and the values differ? An absent value contradicts nothing.
fn contradicts(key: Key, token: Token<'_>, row: &Row) -> bool {
    key.agreeing().into_iter().any(|field| match (token.get(field), row.get(field)) {
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false,
    })
}

/// The row that `token` means among all that `key` found.
#[must_use]
pub fn choose(key: Key, token: Token<'_>, found: Vec<Row>) -> Option<Row> {
    let same = |row: &Row, field| token.has(field) && row.get(field) == token.get(field);
    found
        .into_iter()
        .filter(|row| !contradicts(key, token, row))
        // Of several for a user: the one with the token's id, else those of its client, else all. Of several
        // still, the one saved last. For the other keys only the last step tells rows apart: two rows with one
        // id cannot be, and for them the client is a matter of agreement alone.
        .max_by_key(|row| match key {
            Key::UserName => (same(row, Field::Id), same(row, Field::ClientId), row.saved_order),
            _ => (false, false, row.saved_order),
        })
}

/// The row that `token` names. `rows_by` gives all rows with that value under that key.
pub fn find<E>(token: Token<'_>, mut rows_by: impl FnMut(Key, &str) -> Result<Vec<Row>, E>) -> Result<Option<Row>, E> {
    for (key, value) in keys(token) {
        if let Some(row) = choose(key, token, rows_by(key, value)?) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// The same for a token that another store has, where ids are another matter.
///
/// A user may have rows here of which none contradicts it. The one with a credential of the token's is the one that it was
/// brought to the last time; another would get its credentials the second time.
pub fn find_brought<E>(
    token: Token<'_>,
    mut rows_by: impl FnMut(Key, &str) -> Result<Vec<Row>, E>,
) -> Result<Option<Row>, E> {
    if let Some(name) = token.get(Field::UserName) {
        let mut found = rows_by(Key::UserName, name)?;
        let credentials = [Field::RefreshToken, Field::GrantToken, Field::AccessToken];
        let shares = |row: &Row, field| token.has(field) && row.get(field) == token.get(field);
        found.retain(|row| credentials.into_iter().any(|field| shares(row, field)));
        if let Some(row) = choose(Key::UserName, token, found) {
            return Ok(Some(row));
        }
    }
    find(token, rows_by)
}
