//! JSON Lines: an object for each row, with the names of the columns, for another machine or another backend.

use std::io::{self, BufRead, Write};
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::{bad_line, is_database, unreadable};
use crate::domain::{Field, Row, Token};
use crate::store::{Result, sqlite};

const SAVED_AT: &str = "saved_at";

/// A row with its secrets, to be written into a file. Nothing else of a row can be serialised.
struct Exposed<'a>(&'a Row);

impl Serialize for Exposed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in Field::ALL {
            if let Some(value) = self.0.get(field) {
                map.serialize_entry(field.name(), value)?;
            }
        }
        if let Some(saved_at) = self.0.saved_at {
            map.serialize_entry(SAVED_AT, &saved_at)?;
        }
        map.end()
    }
}

/// The same, read. A field that it does not know is an error: what is not understood would be lost.
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

/// Writes rows into a new file, its owner's alone, that takes its name once it is whole; over another only if told so, and
/// never over a database.
pub fn write(path: &Path, rows: &[Row], overwrite: bool) -> Result<()> {
    if is_database(path) {
        return Err(sqlite::bad(path, "is a SQLite database", "give another path: an export is not one"));
    }
    sqlite::write_whole(path, overwrite, |file| {
        let mut file = io::BufWriter::new(file);
        for row in rows {
            serde_json::to_writer(&mut file, &Exposed(row))?;
            file.write_all(b"\n")?;
        }
        file.flush()
    })
}

pub(super) fn read(path: &Path, file: impl BufRead) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(file.split(b'\n')) {
        let line = line.map_err(|error| unreadable(path, &error))?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        // What serde says of it may repeat a value.
        let line: Line = serde_json::from_slice(&line).map_err(|_| {
            bad_line(
                path,
                number,
                "is not a JSON object with the fields of a token",
                "export it again; if a newer version did, upgrade zoho-token-store",
            )
        })?;
        rows.push(Row::new(Token::from_fn(|field| line.get(field)), 0, line.saved_at));
    }
    Ok(rows)
}
