//! What becomes of a row that another store's row is brought to.
//!
//! Not what a save does ([`super::merge::update`]): what is saved comes from Zoho just now, what is imported may be older
//! than what is there, and a second import of the same file is to change nothing.

use std::collections::BTreeMap;

use super::expiry;
use super::merge;
use super::token::{Field, Row, Token};

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

/// The order in which to bring another store's rows in: their own, so that the oldest stays the oldest. But of one user's
/// rows the one saved last there has to come last, for that is the one that the user's name alone means.
#[must_use]
pub fn order(rows: &[Row]) -> Vec<usize> {
    let mut users: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        if let Some(user) = row.get(Field::UserName) {
            users.entry(user).or_default().push(place);
        }
    }
    let mut order: Vec<usize> = (0..rows.len()).collect();
    for places in users.into_values() {
        let mut theirs = places.clone();
        theirs.sort_by_key(|&place| (rows[place].saved_order, rows[place].saved_at));
        for (place, row) in places.into_iter().zip(theirs) {
            order[place] = row;
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

    #[test]
    fn of_one_users_rows_the_one_saved_last_comes_last_and_the_others_stay() {
        let rows = |told: &[(&str, i64, Option<i64>)]| -> Vec<Row> {
            told.iter().map(|&(values, order, at)| Row::new(token(values), order, at)).collect()
        };
        let (ada, bob, nobody) = ("id=1 user_name=ada", "id=2 user_name=bob", "id=3 refresh_token=r");
        let table = [
            (rows(&[(ada, 9, None), (bob, 8, None), (nobody, 1, None), (ada, 2, None)]), vec![3, 1, 2, 0]),
            // An export tells the time alone.
            (rows(&[(ada, 0, Some(9)), (bob, 0, Some(1)), (ada, 0, Some(7)), (ada, 0, None)]), vec![3, 1, 2, 0]),
            (rows(&[(ada, 0, None), (ada, 0, None), (nobody, 0, None)]), vec![0, 1, 2]),
            (rows(&[]), vec![]),
        ];
        for (number, (rows, wanted)) in table.into_iter().enumerate() {
            assert_eq!(order(&rows), wanted, "{number}");
        }
    }
}
