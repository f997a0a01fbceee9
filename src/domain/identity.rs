//! Which row a token names (contract, section 3). This only decides. The caller looks rows up.

use super::token::{Field, Row, Token};
use super::{data_centre, import};

/// A field by which rows can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The user name. It is the only key that several rows may share.
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
    /// All keys, in the order in which they are tried.
    pub const ALL: [Self; 5] = [Self::UserName, Self::Id, Self::GrantToken, Self::RefreshToken, Self::AccessToken];

    /// The field that holds the key.
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

    /// The fields in which a row that this key finds must not contradict the token.
    const fn must_agree(self) -> [Field; 2] {
        match self {
            Self::UserName => [Field::ClientId, Field::ApiDomain],
            _ => [Field::UserName, Field::ClientId],
        }
    }
}

/// Keys with their values, in the order in which they are tried. A key may have several values, one after the other.
#[derive(Clone, Copy)]
pub struct Keys<'a>(KeyValues<'a>);

#[derive(Clone, Copy)]
enum KeyValues<'a> {
    OfToken([Option<(Key, &'a str)>; Key::ALL.len()]),
    List(&'a [(Key, &'a str)]),
}

impl<'a> Keys<'a> {
    /// The keys of `token`. A token without any names no row.
    #[must_use]
    pub fn of(token: Token<'a>) -> Self {
        Self(KeyValues::OfToken(Key::ALL.map(|key| Some((key, token.get(key.field())?)))))
    }

    /// These keys and values.
    #[must_use]
    pub const fn list(pairs: &'a [(Key, &'a str)]) -> Self {
        Self(KeyValues::List(pairs))
    }

    /// Each key and its value.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &'a str)> + Clone {
        let (of_token, list): (&[_], &[_]) = match &self.0 {
            KeyValues::OfToken(values) => (values, &[]),
            KeyValues::List(pairs) => (&[], pairs),
        };
        of_token.iter().copied().flatten().chain(list.iter().copied())
    }
}

/// Do token and row have different values in a field in which they must agree? An absent value contradicts nothing.
fn contradicts(key: Key, token: Token<'_>, row: &Row) -> bool {
    key.must_agree().into_iter().any(|field| match (token.get(field), row.get(field)) {
        (Some(ours), Some(theirs)) if field == Field::ApiDomain => !data_centre::is_same(ours, theirs),
        (Some(ours), Some(theirs)) => ours != theirs,
        _ => false,
    })
}

/// Returns the row that `token` means among all rows that `key` found.
///
/// For a user name, a row with the token's id wins over one with its client id, which wins over the others. Among
/// equals, and for every other key, the row that was saved last wins.
#[must_use]
pub fn choose(key: Key, token: Token<'_>, found: Vec<Row>) -> Option<Row> {
    let same = |row: &Row, field| token.has(field) && row.get(field) == token.get(field);
    found.into_iter().filter(|row| !contradicts(key, token, row)).max_by_key(|row| match key {
        Key::UserName => (same(row, Field::Id), same(row, Field::ClientId), row.saved_order),
        _ => (false, false, row.saved_order),
    })
}

/// Returns the row that `token` names.
///
/// `by_keys` looks the keys up in their order. It passes the rows of each key to a function, until the function returns
/// true. It may start again from the first key.
pub fn find<E>(
    token: Token<'_>,
    by_keys: impl FnOnce(&Keys<'_>, &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<(), E>,
) -> Result<Option<Row>, E> {
    find_with(choose, token, by_keys)
}

/// [`find`] for a token from another store.
pub fn find_for_import<E>(
    token: Token<'_>,
    by_keys: impl FnOnce(&Keys<'_>, &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<(), E>,
) -> Result<Option<Row>, E> {
    find_with(choose_same_login, token, by_keys)
}

fn find_with<E>(
    choose: fn(Key, Token<'_>, Vec<Row>) -> Option<Row>,
    token: Token<'_>,
    by_keys: impl FnOnce(&Keys<'_>, &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<(), E>,
) -> Result<Option<Row>, E> {
    let mut row = None;
    by_keys(&Keys::of(token), &mut |key, found| {
        row = choose(key, token, found);
        row.is_some()
    })?;
    Ok(row)
}

/// Returns the row that an imported token means among all rows that `key` found.
///
/// Ids of another store mean nothing here. So if several rows of a user match an imported token, the row with one of
/// its credentials is the row that an earlier import wrote: [`choose_for_import`] is asked for it first. A grant token
/// and an access token belong to one login, so a row that they find is not the token's if it has another refresh token.
/// Otherwise one placeholder text in many rows, where a token should be, would merge the rows of many users.
#[must_use]
pub fn choose_same_login(key: Key, token: Token<'_>, mut found: Vec<Row>) -> Option<Row> {
    if key != Key::UserName {
        found.retain(|row| !import::is_another_login(token, row.token()));
    }
    choose(key, token, found)
}

/// Narrows the rows of a user to those that share a credential with a token from another store. Any other row would get
/// foreign credentials.
#[must_use]
pub fn choose_for_import(token: Token<'_>, mut rows_of_user: Vec<Row>) -> Option<Row> {
    let credentials = [Field::RefreshToken, Field::GrantToken, Field::AccessToken];
    let shares = |row: &Row, field| token.has(field) && row.get(field) == token.get(field);
    rows_of_user.retain(|row| credentials.into_iter().any(|field| shares(row, field)));
    choose(Key::UserName, token, rows_of_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imported_token_is_merged_only_into_a_row_of_its_user_with_one_of_its_credentials() {
        let token = |values: &[(Field, &'static str)]| {
            values.iter().fold(Token::default(), |token, &(field, value)| token.with(field, Some(value)))
        };
        let user = (Field::UserName, "ada");
        let row = |id, field, value| Row::new(token(&[user, (Field::Id, id), (field, value)]), 1, None);
        let rows = || {
            vec![
                row("1", Field::RefreshToken, "r"),
                row("2", Field::GrantToken, "g"),
                row("3", Field::AccessToken, "a"),
                Row::new(token(&[user, (Field::Id, "4")]), 9, None),
            ]
        };
        let table = [
            ("refresh token", token(&[user, (Field::RefreshToken, "r")]), Some("1")),
            ("grant token", token(&[user, (Field::GrantToken, "g")]), Some("2")),
            ("access token", token(&[user, (Field::AccessToken, "a")]), Some("3")),
            ("another login", token(&[user, (Field::RefreshToken, "other")]), None),
            ("no credential", token(&[user]), None),
        ];
        for (case, token, expected) in table {
            let chosen = choose_for_import(token, rows());
            assert_eq!(chosen.as_ref().map(Row::id), expected, "{case}");
        }
    }

    #[test]
    fn an_imported_token_is_not_merged_into_another_login_that_shares_a_grant_or_access_token() {
        let token = |values: &'static str| {
            Token::from_fn(|field| {
                values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('='))
            })
        };
        let table = [
            // key, imported token, row, is it the token's row?
            (Key::AccessToken, "refresh_token=r access_token=x", "refresh_token=q access_token=x", false),
            (Key::GrantToken, "refresh_token=r grant_token=x", "refresh_token=q grant_token=x", false),
            (Key::AccessToken, "refresh_token=r access_token=x", "access_token=x", true),
            (Key::AccessToken, "access_token=x", "refresh_token=q access_token=x", true),
            (Key::RefreshToken, "refresh_token=r", "refresh_token=r access_token=x", true),
            // One user who has logged in twice has one row.
            (Key::UserName, "user_name=u refresh_token=r", "user_name=u refresh_token=q", true),
            (Key::AccessToken, "user_name=u access_token=x", "user_name=v access_token=x", false),
        ];
        for (key, incoming, row, expected) in table {
            let chosen = choose_same_login(key, token(incoming), vec![Row::new(token(row), 1, None)]);
            assert_eq!(chosen.is_some(), expected, "{incoming} | {row}");
        }
    }
}
