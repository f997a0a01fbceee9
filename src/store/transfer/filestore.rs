//! CSV with a header: the files of the SDKs' `FileStore`, and tables of their `DBStore` that a tool has exported.
//!
//! The SDKs write these columns (Python, PHP, Java, Node.js, Ruby and C# alike). `user_mail` is the older name of the
//! user name, and Python's SDK writes `redirect_uri` for the redirect URL.
//!
//! - ten: those of [`Field::ALL`];
//! - nine, without the API domain (up to SDK 4);
//! - six, without id, client secret, redirect URL and API domain (the first SDKs that had a `FileStore`);
//! - four, in the table of the SDKs before them: `useridentifier`, `accesstoken`, `refreshtoken`, `expirytime`.
//!
//! Any other selection of these columns is read, too, if it has the refresh token. Case, order, quotes and underscores
//! of their names do not count. A spreadsheet may have changed the delimiter to a semicolon or a tab.

use std::path::Path;

use super::super::error::{Code, Error, Result};
use super::{RowsOfText, invalid_line};
use crate::domain::import::{Remark, is_complete, without_placeholders, without_undated_access_token};
use crate::domain::{Field, Row, Token};

pub(super) fn read(path: &Path, text: &str) -> Result<RowsOfText> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter(text)).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|_| Error::at(Code::NotATokenFile, path).with(NO_COLUMNS))?;
    let columns = columns(header).map_err(|problem| Error::at(Code::NotATokenFile, path).with(problem))?;
    let mut lines = Lines::new(text);
    let mut found = RowsOfText::default();
    let mut last_is_complete = true;
    for record in reader.records() {
        let record = record.map_err(|error| {
            let begun = error.position().map_or(0, csv::Position::byte);
            invalid_line(path, lines.advance_to(begun), "it is not CSV")
        })?;
        // A newer SDK adds the tenth column to every line, also to an empty one.
        if record.iter().all(|value| value.trim_ascii().is_empty()) {
            continue;
        }
        let line = lines.advance_to(record.position().map_or(0, csv::Position::byte));
        let invalid = |problem| Err(invalid_line(path, line, problem));
        if record.len() < columns.len() {
            return invalid("it has too few columns, so it was cut short");
        }
        // A line below a header of nine columns may have ten: a newer SDK has written it.
        let at_most = if columns.len() + 1 == Field::COUNT { Field::COUNT } else { columns.len() };
        // A delimiter at the end of a line makes an empty column.
        if record.iter().skip(at_most).any(|value| !value.is_empty()) {
            return invalid("it has too many columns, so two lines ran into one");
        }
        let token = Token::from_fn(|field| {
            let column = columns.iter().position(|column| *column == Some(field))?;
            record.get(column)
        });
        let without = without_placeholders(token);
        let row = without_undated_access_token(without);
        let changes = [(without != token, Remark::Placeholders), (row != without, Remark::UnreadableExpiry)];
        found.remarks.extend(changes.iter().filter(|(changes, _)| *changes).map(|(_, why)| (found.rows.len(), *why)));
        found.rows.push(Row::new(row, 0, None));
        found.lines.push(line);
        let last_field = columns.get(record.len() - 1).copied().unwrap_or(Some(Field::ApiDomain));
        last_is_complete =
            last_field.zip(record.iter().next_back()).is_some_and(|(field, value)| is_complete(field, value));
    }
    // A line that is cut short in its last column has all its columns. Only the missing line break shows it. But the
    // SDKs for Node.js and PHP write the line break before each line instead of after it.
    if let (false, Some(&line)) = (text.ends_with(['\n', '\r']), found.lines.last()) {
        if !last_is_complete {
            return Err(Error::at(Code::UnfinishedLine, path).with(format!("({line})")));
        }
        found.remarks.push((found.rows.len() - 1, Remark::NoLineBreak));
    }
    Ok(found)
}

const NO_COLUMNS: &str = "its first line does not have the columns of one, such as refresh_token";

/// Returns the fields of the columns. A column without a name has none, and its values are not read.
fn columns(header: &csv::StringRecord) -> std::result::Result<Vec<Option<Field>>, String> {
    let mut columns: Vec<_> = header.iter().map(|name| (is_named(name), field(name))).collect();
    // A delimiter at the end of the header.
    let named = columns.iter().rposition(|&(is_named, _)| is_named).map_or(0, |last| last + 1);
    columns.truncate(named);
    if !columns.contains(&(true, Some(Field::RefreshToken))) {
        return Err(NO_COLUMNS.to_owned());
    }
    // The number of a column, not its name: if the header is missing, the first line has secrets.
    for (index, &(is_named, field)) in columns.iter().enumerate() {
        if is_named && field.is_none() {
            return Err(format!("column {} is not one of a token, so its values would be lost", index + 1));
        }
        if field.is_some() && columns[..index].contains(&(true, field)) {
            return Err(format!("column {} is there twice", index + 1));
        }
    }
    Ok(columns.into_iter().map(|(_, field)| field).collect())
}

fn is_named(column: &str) -> bool {
    column.contains(|c: char| c.is_ascii_alphanumeric())
}

/// Returns the field of a column.
fn field(name: &str) -> Option<Field> {
    let letters = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
    };
    match letters(name).as_str() {
        "usermail" | "useridentifier" => Some(Field::UserName),
        "redirecturi" => Some(Field::RedirectUrl),
        name => Field::ALL.into_iter().find(|field| letters(field.name()) == name),
    }
}

/// Returns the delimiter: the one that the header has most of.
fn delimiter(text: &str) -> u8 {
    let header = text.trim_ascii_start().lines().next().unwrap_or_default();
    let count = |delimiter| header.bytes().filter(|&byte| byte == delimiter).count();
    // Of equals, `max_by_key` returns the last one.
    *b"\t;,".iter().max_by_key(|&&delimiter| count(delimiter)).unwrap_or(&b',')
}

/// Counts the lines of a text from its beginning.
///
/// The CSV reader's own line number is one too low where lines end with "\r\n", as the SDK writes them: for the reader
/// a record begins between the two characters (`tests/rust/files.rs` shows it).
struct Lines<'t> {
    rest: &'t [u8],
    read: usize,
    line: u64,
}

impl<'t> Lines<'t> {
    const fn new(text: &'t str) -> Self {
        Self { rest: text.as_bytes(), read: 0, line: 1 }
    }

    /// Returns the number of the line in which the record at this byte begins, counted from 1. Records come in order.
    fn advance_to(&mut self, byte: u64) -> u64 {
        let byte = usize::try_from(byte).unwrap_or(usize::MAX);
        while let [first, rest @ ..] = self.rest {
            let is_break = matches!(first, b'\r' | b'\n');
            if self.read >= byte && !is_break {
                break;
            }
            // "\r\n" is one line break.
            let is_half = *first == b'\r' && rest.first() == Some(&b'\n');
            self.line += u64::from(is_break && !is_half);
            (self.rest, self.read) = (rest, self.read + 1);
        }
        self.line
    }
}
