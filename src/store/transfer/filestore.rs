//! The files of the SDK's `FileStore`: CSV with a header and nine columns (up to SDK 4, without the API domain) or ten.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::{BYTE_ORDER_MARK, bad_line, no_tokens, unreadable};
use crate::domain::{Field, Row, Token};
use crate::store::{Error, Result};

/// The column that a name in the header stands for.
fn field(name: &str) -> Option<Field> {
    match name {
        "user_mail" => Some(Field::UserName),
        "redirect_uri" => Some(Field::RedirectUrl),
        _ => Field::ALL.into_iter().find(|field| field.name() == name),
    }
}

pub(super) fn read(path: &Path, file: impl Read) -> Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(Ending { file, last: None });
    let header = reader.headers().map_err(|error| trouble(path, 1, error))?;
    let columns: Vec<Option<Field>> = header.iter().map(field).collect();
    let required = Field::ALL.into_iter().filter(|&field| field != Field::ApiDomain);
    if columns.contains(&None) || required.into_iter().any(|field| !columns.contains(&Some(field))) {
        return Err(no_tokens(path));
    }
    let (mut rows, mut last) = (Vec::new(), csv::Position::new());
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = line_of(path, error.position());
            trouble(path, line, error)
        })?;
        // What an empty line becomes when a newer SDK adds the newer column.
        if record.iter().all(str::is_empty) {
            continue;
        }
        let bad = |what, cure| Err(bad_line(path, line_of(path, record.position()), what, cure));
        // One that the older header goes before may have the newer column.
        if record.len() < columns.len() {
            return bad("has too few columns: it was cut short", "remove that line");
        }
        if record.len() > columns.len().max(Field::COUNT) {
            return bad("has too many columns: it is two that ran into one", "remove that line");
        }
        let token = Token::from_fn(|field| {
            let column = columns.iter().position(|column| *column == Some(field))?;
            record.get(column)
        });
        rows.push(Row::new(token, 0, None));
        last = record.position().cloned().unwrap_or(last);
    }
    // The last column may be cut short, and nothing else tells.
    if reader.get_ref().last != Some(b'\n') {
        let line = line_of(path, Some(&last));
        return Err(bad_line(
            path,
            line,
            "has no end: it was cut short",
            "remove that line, or end it with a line break",
        ));
    }
    Ok(rows)
}

/// A file that remembers its last byte.
struct Ending<R> {
    file: R,
    last: Option<u8>,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.last = buffer[..count].last().copied().or(self.last);
        Ok(count)
    }
}

/// The line that a record begins in, counted from 1. By the reader's own count it is the one before: where lines end with
/// "\r\n", as the SDK's do, it takes the record for begun between the two.
fn line_of(path: &Path, record: Option<&csv::Position>) -> u64 {
    let text = fs::read(path).unwrap_or_default();
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let begun = record.and_then(|record| usize::try_from(record.byte()).ok()).unwrap_or(0);
    let (before, from) = text.split_at(begun.min(text.len()));
    let still_before = from.iter().take_while(|byte| b"\r\n".contains(byte));
    before.iter().chain(still_before).map(|&byte| u64::from(byte == b'\n')).sum::<u64>() + 1
}

fn trouble(path: &Path, line: u64, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unreadable(path, &error),
        csv::ErrorKind::Utf8 { .. } => bad_line(path, line, "is not UTF-8 text", "save the file in the encoding UTF-8"),
        _ => bad_line(path, line, "is not CSV", "repair that line"),
    }
}
