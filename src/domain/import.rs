//! How a row of another store is merged into a row of this one.
//!
//! An import is not a save ([`super::merge::update`]). A saved token has just come from Zoho. An imported one may be
//! older than the row. And a second import of the same file must change nothing.

use std::collections::BTreeMap;

use super::expiry;
use super::merge;
use super::token::{Field, Row, Token};

/// Returns the row after `incoming` was imported into it. If `incoming` is newer, it updates the row. Otherwise it only
/// fills in the values that the row lacks.
#[must_use]
pub fn merge_imported<'a>(incoming: Token<'a>, row: Token<'a>) -> Token<'a> {
    if is_newer(incoming, row) {
        return merge::update(incoming, row);
    }
    Token::from_fn(|field| match field {
        Field::Id => row.get(field),
        // The pair is filled in only if it belongs to the login that the row has.
        Field::AccessToken | Field::ExpiryTime => {
            if row.has(Field::AccessToken) || is_another_login(incoming, row) { row } else { incoming }.get(field)
        }
        _ => row.get(field).or(incoming.get(field)),
    })
}

/// Was the access token of `incoming` issued later? All access tokens of Zoho live equally long, so the one that
/// expires later was issued later.
fn is_newer(incoming: Token<'_>, row: Token<'_>) -> bool {
    let expiry =
        |token: Token<'_>| expiry::parse(token.get(Field::ExpiryTime)).is_some_and(|_| token.has(Field::AccessToken));
    match (expiry(incoming), expiry(row)) {
        (true, true) => expiry::parse(incoming.get(Field::ExpiryTime)) > expiry::parse(row.get(Field::ExpiryTime)),
        // The age of the row is unknown. So its login is not replaced by another one.
        (incoming_is_dated, _) => incoming_is_dated && !is_another_login(incoming, row),
    }
}

fn is_another_login(incoming: Token<'_>, row: Token<'_>) -> bool {
    let [ours, theirs] = [incoming, row].map(|token| token.get(Field::RefreshToken));
    ours.is_some() && theirs.is_some() && ours != theirs
}

/// Returns the order in which to import rows. It is the order of the source, but the rows of each user are sorted by
/// their last save. So a user name without other keys names the same row here as in the source: the one that was saved
/// last.
#[must_use]
pub fn order(rows: &[Row]) -> Vec<usize> {
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if let Some(user) = row.get(Field::UserName) {
            users.entry(user).or_default().push(index);
        }
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for indices in users.into_values() {
        let mut by_save = indices.clone();
        by_save.sort_by_key(|&index| (rows[index].saved_order, rows[index].saved_at));
        for (position, index) in indices.into_iter().zip(by_save) {
            order[position] = index;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token with these values, written as `"refresh_token=r user_name=u"`.
    fn token(values: &str) -> Token<'_> {
        Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
    }

    #[test]
    fn a_newer_token_updates_the_row_and_an_older_one_fills_it_in() {
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
            // The age of the row is unknown: another login does not replace its own.
            (
                "refresh_token=r access_token=b expiry_time=9",
                "id=1 refresh_token=q access_token=a",
                "id=1 refresh_token=q access_token=a",
            ),
            ("refresh_token=r access_token=b expiry_time=9", "id=1 refresh_token=q", "id=1 refresh_token=q"),
            ("refresh_token=r access_token=b", "id=1 refresh_token=q", "id=1 refresh_token=q"),
            // The same login, or a row without a login.
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
            // The id of another store is never taken over.
            ("id=9 user_name=u", "refresh_token=q", "user_name=u refresh_token=q"),
            ("user_name=u client_secret=s", "id=1 refresh_token=q", "id=1 user_name=u client_secret=s refresh_token=q"),
        ];
        for (incoming, row, after) in table {
            let merged = merge_imported(token(incoming), token(row));
            assert_eq!(merged, token(after), "{incoming} | {row}");
            assert_eq!(merge_imported(token(incoming), merged), merged, "twice: {incoming} | {row}");
        }
    }

    #[test]
    fn the_row_of_a_user_that_was_saved_last_is_imported_last() {
        let rows = |told: &[(&str, i64, Option<i64>)]| -> Vec<Row> {
            told.iter().map(|&(values, order, at)| Row::new(token(values), order, at)).collect()
        };
        let (ada, bob, nobody) = ("id=1 user_name=ada", "id=2 user_name=bob", "id=3 refresh_token=r");
        let table = [
            (rows(&[(ada, 9, None), (bob, 8, None), (nobody, 1, None), (ada, 2, None)]), vec![3, 1, 2, 0]),
            // The rows of an export have no `saved_order`, only times.
            (rows(&[(ada, 0, Some(9)), (bob, 0, Some(1)), (ada, 0, Some(7)), (ada, 0, None)]), vec![3, 1, 2, 0]),
            (rows(&[(ada, 0, None), (ada, 0, None), (nobody, 0, None)]), vec![0, 1, 2]),
            (rows(&[]), vec![]),
        ];
        for (number, (rows, wanted)) in table.into_iter().enumerate() {
            assert_eq!(order(&rows), wanted, "{number}");
        }
    }
}
