//! JSON Lines: one JSON object per row, with the names of the columns. For another machine, or another backend.
//!
//! The first line of an export says how many rows follow, so an export that was cut short at the end of a line does not
//! pass for a complete one. Version 0.1.0 and other programs write no such line.

use std::io::{self, Write};
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::super::atomic_write::{Existing, write_atomically};
use super::super::backend::DatabaseFormat;
use super::super::error::{Code, Error, Result};
use super::super::files::require_writable_target;
use super::{RowsOfText, invalid_line, is_database};
use crate::domain::{Field, Row, Token};

const SAVED_AT: &str = "saved_at";
const SAVED_ORDER: &str = "saved_order";

/// A row with its secrets, to be written into a file or a document. A row has no other serialization.
pub struct Exposed<'a> {
    /// The row.
    pub row: &'a Row,
    /// Write the order of its last save, too. An export has none.
    pub with_order: bool,
}

impl Serialize for Exposed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in Field::ALL {
            if let Some(value) = self.row.get(field) {
                map.serialize_entry(field.name(), value)?;
            }
        }
        if let Some(saved_at) = self.row.saved_at {
            map.serialize_entry(SAVED_AT, &saved_at)?;
        }
        if self.with_order {
            map.serialize_entry(SAVED_ORDER, &self.row.saved_order)?;
        }
        map.end()
    }
}

/// The first line of an export.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The number of rows that follow.
    rows: usize,
}

/// A line of an export. An unknown field is an error, because its value would be lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<String>,
    user_name: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh_token: Option<String>,
    access_token: Option<String>,
    grant_token: Option<String>,
    expiry_time: Option<String>,
    redirect_url: Option<String>,
    api_domain: Option<String>,
    saved_at: Option<i64>,
    #[serde(default)]
    saved_order: i64,
}

/// Returns the row in a line, or `None` if the line is no row. The message of serde may repeat a value.
#[must_use]
pub fn parse_row(line: &str) -> Option<Row> {
    let line: Line = serde_json::from_str(line).ok()?;
    Some(Row::new(Token::from_fn(|field| line.get(field)), line.saved_order, line.saved_at))
}

impl Line {
    fn get(&self, field: Field) -> Option<&str> {
        match field {
            Field::Id => &self.id,
            Field::UserName => &self.user_name,
            Field::ClientId => &self.client_id,
            Field::ClientSecret => &self.client_secret,
            Field::RefreshToken => &self.refresh_token,
            Field::AccessToken => &self.access_token,
            Field::GrantToken => &self.grant_token,
            Field::ExpiryTime => &self.expiry_time,
            Field::RedirectUrl => &self.redirect_url,
            Field::ApiDomain => &self.api_domain,
        }
        .as_deref()
    }
}

/// Writes rows into a private file. It never replaces a database, nor a file that a database keeps beside it.
pub fn write(path: &Path, rows: &[Row], existing: Existing, formats: &[&DatabaseFormat]) -> Result<()> {
    if is_database(path, formats) {
        return Err(Error::at(Code::TargetIsDatabase, path));
    }
    if formats.iter().any(|format| format.reserves(path)) {
        return Err(Error::at(Code::ReservedName, path));
    }
    require_writable_target(path)?;
    write_atomically(path, existing, |_, file| write_lines(file, rows).map_err(|error| Error::from_io(path, &error)))
}

/// Writes rows as JSON Lines into a file or a stream.
pub fn write_lines(file: impl Write, rows: &[Row]) -> io::Result<()> {
    let mut file = io::BufWriter::new(file);
    serde_json::to_writer(&mut file, &Header { rows: rows.len() })?;
    file.write_all(b"\n")?;
    for row in rows {
        serde_json::to_writer(&mut file, &Exposed { row, with_order: false })?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

pub(super) fn read(path: &Path, text: &str) -> Result<RowsOfText> {
    let mut found = RowsOfText::default();
    // The sum of all headers: a user may have put several exports into one file.
    let mut expected = None;
    for (number, line) in (1..).zip(text.split('\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Some(mut row) = parse_row(line) {
            row.saved_order = 0;
            found.rows.push(row);
            found.lines.push(number);
        } else if let Ok(Header { rows }) = serde_json::from_str(line) {
            expected = Some(rows.saturating_add(expected.unwrap_or(0)));
        } else {
            return Err(invalid_line(path, number, "it is not a JSON object with the fields of a token"));
        }
    }
    match expected {
        Some(expected) if expected != found.rows.len() => {
            let counts = format!("its first line counts {expected}, and it has {}", found.rows.len());
            Err(Error::at(Code::IncompleteExport, path).with(counts))
        }
        _ => Ok(found),
    }
}
