//! The files of the SDK's `FileStore`: CSV with a header. There are ten columns, or nine without the API domain (up to
//! SDK 4).

use std::path::Path;

use super::super::error::{Code, Error, Result};
use super::invalid_line;
use crate::domain::{Field, Row, Token};

/// Returns the field of a column.
fn field(name: &str) -> Option<Field> {
    match name {
        "user_mail" => Some(Field::UserName),
        "redirect_uri" => Some(Field::RedirectUrl),
        _ => Field::ALL.into_iter().find(|field| field.name() == name),
    }
}

pub(super) fn read(path: &Path, text: &[u8]) -> Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header = reader.headers().map_err(|error| from_csv(path, 1, error))?;
    let columns: Vec<Option<Field>> = header.iter().map(field).collect();
    let required = Field::ALL.into_iter().filter(|&field| field != Field::ApiDomain);
    if columns.contains(&None) || required.into_iter().any(|field| !columns.contains(&Some(field))) {
        return Err(Error::at(Code::NotATokenFile, path));
    }
    let (mut rows, mut last) = (Vec::new(), csv::Position::new());
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = line_of(text, error.position());
            from_csv(path, line, error)
        })?;
        // A newer SDK adds the tenth column to every line, also to an empty one.
        if record.iter().all(str::is_empty) {
            continue;
        }
        let invalid = |problem| Err(invalid_line(path, line_of(text, record.position()), problem));
        if record.len() < columns.len() {
            return invalid("it has too few columns, so it was cut short");
        }
        // A line below a header of nine columns may have ten: a newer SDK has written it.
        if record.len() > columns.len().max(Field::COUNT) {
            return invalid("it has too many columns, so two lines ran into one");
        }
        let token = Token::from_fn(|field| {
            let column = columns.iter().position(|column| *column == Some(field))?;
            record.get(column)
        });
        rows.push(Row::new(token, 0, None));
        last = record.position().cloned().unwrap_or(last);
    }
    // A line that is cut short in its last column has all its columns. Only the missing line break shows it.
    if text.last() != Some(&b'\n') {
        let line = line_of(text, Some(&last));
        return Err(invalid_line(path, line, "it has no line break at its end, so it may be cut short"));
    }
    Ok(rows)
}

/// Returns the line in which a record begins, counted from 1.
///
/// The CSV reader's own line number is one too low where lines end with "\r\n", as the SDK writes them: for the reader
/// a record begins between the two characters (`tests/rust/files.rs` shows it).
fn line_of(text: &[u8], record: Option<&csv::Position>) -> u64 {
    let begun = record.and_then(|record| usize::try_from(record.byte()).ok()).unwrap_or(0);
    let (before, from) = text.split_at(begun.min(text.len()));
    let still_before = from.iter().take_while(|byte| b"\r\n".contains(byte));
    before.iter().chain(still_before).map(|&byte| u64::from(byte == b'\n')).sum::<u64>() + 1
}

fn from_csv(path: &Path, line: u64, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::from_io(path, &error),
        csv::ErrorKind::Utf8 { .. } => invalid_line(path, line, "it is not UTF-8 text"),
        _ => invalid_line(path, line, "it is not CSV"),
    }
}
