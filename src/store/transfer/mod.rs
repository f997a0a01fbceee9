//! Rows in files: what is imported, exported and restored. Tells by what is in a file which kind it is.
//!
//! No message repeats anything of a file's contents but a line's number: a value may be a secret.

mod filestore;
mod lines;

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use super::sqlite::{self, Identity};
use super::{Error, Flaw, Place, Result};
use crate::domain::Row;
pub use lines::write;

/// Which kind of file it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The SDK's `FileStore` wrote it.
    FileStore,
    /// A token database, of this library's or of the vendor's sample.
    Sqlite,
    /// An export of this library's.
    JsonLines,
}

/// The rows of a file.
pub struct Source {
    /// The rows, in the file's order.
    pub rows: Vec<Row>,
    /// The file's kind.
    pub kind: Kind,
    /// Which file it is.
    pub identity: Identity,
}

/// Reads all rows of a file, which stays as it is. Not for a file that this process has a store on: to open and close it
/// drops SQLite's locks.
pub fn read(path: &Path) -> Result<Source> {
    let failed = |error| sqlite::refused(path, &error);
    let mut start = Vec::new();
    // Closed before SQLite opens it.
    let identity = {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => sqlite::bad(path, "does not exist", "give the path of a file to read"),
            _ => failed(error),
        })?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(sqlite::bad(path, "is a directory", "give the path of a file in it"));
        }
        (&file).take(SQLITE.len() as u64).read_to_end(&mut start).map_err(failed)?;
        Identity::of(path)
    };
    let (rows, kind) = if start == SQLITE {
        (sqlite::read_source(path)?, Kind::Sqlite)
    } else {
        let file = BufReader::new(File::open(path).map_err(failed)?);
        if start.first() == Some(&b'{') {
            (lines::read(path, file)?, Kind::JsonLines)
        } else {
            (filestore::read(path, file)?, Kind::FileStore)
        }
    };
    Ok(Source { rows, kind, identity })
}

/// What every SQLite database begins with (<https://www.sqlite.org/fileformat.html>, 1.3.1).
const SQLITE: &[u8] = b"SQLite format 3\0";

/// A line, counted from 1, that is no token.
fn bad_line(path: &Path, line: u64, what: &str, cure: &'static str) -> Error {
    let what = format!("has a line {line} that {what}");
    Error::BadFile { path: path.to_owned(), flaw: Flaw::NoTokens, what, cure }
}

fn no_tokens(path: &Path) -> Error {
    Error::BadFile {
        path: path.to_owned(),
        flaw: Flaw::NoTokens,
        what: "is neither a file of the SDK's FileStore nor a token database nor an export of this library's"
            .to_owned(),
        cure: "give the path of one of these",
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::Refused {
        place: Place::File(path.to_owned()),
        what: format!("reading it failed ({})", error.kind()),
        cure: "look at the disk and try again",
    }
}
