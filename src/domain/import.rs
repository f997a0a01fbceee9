//! How a row of another store is merged into a row of this one.
//!
//! An import is not a save ([`super::merge::update`]). A saved token has just come from Zoho. An imported one may be
//! older than the row. And a second import of the same file must change nothing.

use std::collections::BTreeMap;

use super::token::{Field, Row, Token};
use super::{data_centre, expiry, merge};

/// What other programs write where a value is absent. None of them can be a value: Zoho's tokens, client ids and user
/// names are longer, and the rest are numbers and URLs.
///
/// - `NULL`, `\N`: database servers, and the tools that export their tables;
/// - `(null)`, `<null>`, `[NULL]`: desktop programs for databases;
/// - `None`, `null`, `undefined`, `nil`: the `DBStore` of SDKs that put a value into a statement as text;
/// - `nan`, `NaN`, `#N/A`, `-`: data frames and spreadsheets.
const PLACEHOLDERS: [&str; 16] = [
    "NULL",
    "null",
    "\\N",
    "(null)",
    "(NULL)",
    "<null>",
    "<NULL>",
    "[NULL]",
    "[null]",
    "None",
    "undefined",
    "nil",
    "nan",
    "NaN",
    "#N/A",
    "-",
];

/// Does this text stand for an absent value? The spelling counts: "Null" and "Nan" are names of people.
#[must_use]
pub fn is_placeholder(text: &str) -> bool {
    PLACEHOLDERS.contains(&text.trim_ascii())
}

/// Returns the token without its placeholders. For a CSV file, which has no other way to say that a value is absent.
#[must_use]
pub fn without_placeholders(token: Token<'_>) -> Token<'_> {
    Token::from_fn(|field| token.get(field).filter(|text| !is_placeholder(text)))
}

/// Returns the token without an access token of an unknown age, if there is a refresh token.
///
/// The SDK would use such an access token for ever, and Zoho refuses it after an hour. Without it, the next request
/// refreshes.
#[must_use]
pub fn without_undated_access_token(token: Token<'_>) -> Token<'_> {
    let is_undated = token.has(Field::RefreshToken) && !token.has(Field::ExpiryTime);
    if is_undated { token.with(Field::AccessToken, None) } else { token }
}

/// Something about an imported row that its user should know. It repeats no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// The row was not taken: there is nothing to log in with.
    NoCredentials,
    /// The row was not taken: it is sealed under a key that this store does not have.
    UnknownKey,
    /// The row was not taken: it was altered after it was sealed.
    Altered,
    /// The login was not taken: the user's row here has another one, which is not older.
    OlderLogin,
    /// Placeholders count as absent values.
    Placeholders,
    /// The expiry of an access token is missing, or is not a whole number.
    UnreadableExpiry,
    /// Neither the file nor the row here has a client secret.
    NoClientSecret,
    /// The last line of the file has no line break at its end.
    NoLineBreak,
}

impl Remark {
    /// What the remark says.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoCredentials => "not imported: there is no refresh token, grant token or access token.",
            Self::UnknownKey => {
                "not imported: it is sealed under a key that this store does not have. Add that key at the end of keys."
            }
            Self::Altered => "not imported: it was altered after it was sealed.",
            Self::OlderLogin => {
                "the refresh token was not imported: this user has another login here, and the file does not show that \
                 its own is newer. To import it all the same, delete the user's row here first."
            }
            Self::Placeholders => "a placeholder such as NULL or \\N counts as an absent value.",
            Self::UnreadableExpiry => {
                "the expiry is missing, or is not a whole number of milliseconds. Beside a refresh token the access token \
                 counts as expired, and the next request refreshes it."
            }
            Self::NoClientSecret => {
                "there is no client secret, and a refresh needs one. Give client id and client secret in the program: \
                 OAuthToken(client_id=..., client_secret=..., user_signature=...). The first refresh saves them."
            }
            Self::NoLineBreak => {
                "the last line has no line break at its end. It was imported, because its last value is complete."
            }
        }
    }
}

/// Returns what there is to say about a row. `source` is the row in the file, and `row` what it has become here, or
/// `None` if it was not taken.
pub fn remarks<'a>(source: Token<'a>, row: Option<Token<'a>>) -> impl Iterator<Item = Remark> {
    let lacks_secret = |row: Token<'_>| row.has(Field::RefreshToken) && !row.has(Field::ClientSecret);
    let is_kept = |row: Token<'_>| source.has(Field::RefreshToken) && is_another_login(source, row);
    [
        (row.is_none(), Remark::NoCredentials),
        (row.is_some_and(is_kept), Remark::OlderLogin),
        (row.is_some() && expiry::is_unreadable(source.get(Field::ExpiryTime)), Remark::UnreadableExpiry),
        (row.is_some_and(lacks_secret), Remark::NoClientSecret),
    ]
    .into_iter()
    .filter_map(|(applies, remark)| applies.then_some(remark))
}

/// Is the last value of a file complete, although no line break follows? A value that is cut short still looks like a
/// value, unless its form shows where it ends.
#[must_use]
pub fn is_complete(field: Field, value: &str) -> bool {
    match field {
        Field::ApiDomain => data_centre::is_whole(value),
        // Milliseconds have 13 digits until the year 2286.
        Field::ExpiryTime => value.len() == 13 && value.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

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

/// Do both have a refresh token, and not the same? Zoho never rotates a refresh token, so these are two logins.
#[must_use]
pub fn is_another_login(incoming: Token<'_>, row: Token<'_>) -> bool {
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
    fn a_placeholder_is_what_other_programs_write_for_an_absent_value() {
        let table = [
            (r"NULL null \N (null) (NULL) <null> <NULL> [NULL] [null] None undefined nil nan NaN #N/A -", true),
            // Other spellings may be names of users. The rest are values that the SDKs save.
            (r"Null Nil Nan NAN none NONE N n/a \n \\N \NULL NULL2 -- 0 null@example.com 1000.null", false),
        ];
        for (texts, expected) in table {
            for text in texts.split(' ') {
                assert_eq!(is_placeholder(text), expected, "{text}");
                assert_eq!(is_placeholder(&format!(" {text}\r\n")), expected, "{text} with blanks");
            }
        }
        let row = r"id=NULL user_name=\N client_id=c refresh_token=r grant_token=null expiry_time=nan api_domain=-";
        assert_eq!(without_placeholders(token(row)), token("client_id=c refresh_token=r"));
    }

    #[test]
    fn an_access_token_of_unknown_age_is_not_imported_if_it_can_be_refreshed() {
        let table = [
            ("refresh_token=r access_token=a", "refresh_token=r"),
            ("refresh_token=r access_token=a expiry_time=soon", "refresh_token=r access_token=a expiry_time=soon"),
            ("refresh_token=r access_token=a expiry_time=1", "refresh_token=r access_token=a expiry_time=1"),
            ("grant_token=g access_token=a", "grant_token=g access_token=a"),
            ("access_token=a", "access_token=a"),
            ("refresh_token=r", "refresh_token=r"),
        ];
        for (row, expected) in table {
            assert_eq!(without_undated_access_token(token(row)), token(expected), "{row}");
        }
    }

    #[test]
    fn a_remark_says_what_was_not_taken_and_why() {
        use Remark::{NoClientSecret, NoCredentials, OlderLogin, UnreadableExpiry};
        let table: [(&str, Option<&str>, &[Remark]); 10] = [
            // the row in the file, the row here afterwards
            ("refresh_token=r client_secret=s", Some("refresh_token=r client_secret=s"), &[]),
            ("user_name=u", None, &[NoCredentials]),
            ("refresh_token=r client_secret=s", Some("refresh_token=q client_secret=s"), &[OlderLogin]),
            ("access_token=a", Some("refresh_token=q client_secret=s"), &[]),
            ("refresh_token=r", Some("refresh_token=r"), &[NoClientSecret]),
            // The program has the secret already if there is nothing to refresh with.
            ("access_token=a", Some("access_token=a"), &[]),
            ("access_token=a expiry_time=1.79585E+12", Some("access_token=a"), &[UnreadableExpiry]),
            ("access_token=a expiry_time=2026-11-28", Some("access_token=a"), &[UnreadableExpiry]),
            ("access_token=a expiry_time=1795848490409.0", Some("access_token=a"), &[UnreadableExpiry]),
            ("access_token=a expiry_time=nan", Some("access_token=a"), &[UnreadableExpiry]),
        ];
        for (source, row, expected) in table {
            assert_eq!(remarks(token(source), row.map(token)).collect::<Vec<_>>(), expected, "{source}");
        }
    }

    #[test]
    fn only_the_form_of_a_value_shows_that_it_is_complete() {
        let table = [
            (Field::ApiDomain, "https://www.zohoapis.eu", true),
            (Field::ApiDomain, "https://www.zohoapis.com", false), // or it was cut from `.com.au`
            (Field::ApiDomain, "https://sandbox.zohoapis.com.au", true),
            (Field::ApiDomain, "https://www.zohoapis.e", false),
            (Field::ApiDomain, "https://www.zohoapis.", false),
            (Field::ApiDomain, "http://127.0.0.1:8000", false),
            (Field::ApiDomain, "", false),
            (Field::ExpiryTime, "1795300001000", true),
            (Field::ExpiryTime, "179530000100", false),
            (Field::ExpiryTime, "17953000010000", false),
            (Field::ExpiryTime, "", false),
            (Field::RedirectUrl, "https://www.zohoapis.com", false),
            (Field::RefreshToken, "1795300001000", false),
        ];
        for (field, value, expected) in table {
            assert_eq!(is_complete(field, value), expected, "{} {value}", field.name());
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
