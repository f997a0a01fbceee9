//! The files of the SDK's `FileStore`: CSV with a header and nine columns (up to SDK 4, without the API domain) or ten.

use std::io::Read;
use std::path::Path;

use super::{bad_line, no_tokens, unreadable};
use crate::domain::{Field, Row, Token};
use crate::store::Result;

/// The column that a name in the header stands for.
fn field(name: &str) -> Option<Field> {
    match name {
        "user_mail" => Some(Field::UserName),
        "redirect_uri" => Some(Field::RedirectUrl),
        _ => Field::ALL.into_iter().find(|field| field.name() == name),
    }
}

pub(super) fn read(path: &Path, file: impl Read) -> Result<Vec<Row>> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let header = reader.headers().map_err(|error| trouble(path, error))?;
    let columns: Vec<Option<Field>> = header.iter().map(field).collect();
    let required = Field::ALL.into_iter().filter(|&field| field != Field::ApiDomain);
    if columns.contains(&None) || required.into_iter().any(|field| !columns.contains(&Some(field))) {
        return Err(no_tokens(path));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| trouble(path, error))?;
        // What an empty line becomes when a newer SDK adds the newer column.
        if record.iter().all(str::is_empty) {
            continue;
        }
        // One that the older header goes before may have the newer column.
        if record.len() < columns.len() {
            let line = record.position().map_or(0, csv::Position::line);
            return Err(bad_line(path, line, "has too few columns: it was cut short", "remove that line"));
        }
        let token = Token::from_fn(|field| {
            let column = columns.iter().position(|column| *column == Some(field))?;
            record.get(column)
        });
        rows.push(Row::new(token, 0, None));
    }
    Ok(rows)
}

fn trouble(path: &Path, error: csv::Error) -> crate::store::Error {
    let line = error.position().map_or(0, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) => unreadable(path, &error),
        csv::ErrorKind::Utf8 { .. } => bad_line(path, line, "is not UTF-8 text", "save the file in the encoding UTF-8"),
        _ => bad_line(path, line, "is not CSV", "repair that line"),
    }
}
