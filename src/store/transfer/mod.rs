//! Rows in files: what is imported, exported and restored. Tells by what is in a file which kind it is.
//!
//! No message repeats anything of a file's contents but a line's number: a value may be a secret.

mod filestore;
mod lines;

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use super::sqlite::{self, Identity};
use super::{Error, Flaw, Place, Result};
use crate::domain::{Row, import};
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
    /// The order in which to import them.
    pub order: Vec<usize>,
    /// The highest number that the id of any row ever had, as far as the file says so; 0 if it does not.
    pub last_id: i64,
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
        let kind = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => sqlite::bad(path, "does not exist", "give the path of a file to read"),
            _ => failed(error),
        })?;
        if kind.is_dir() {
            return Err(sqlite::bad(path, "is a directory", "give the path of a file in it"));
        }
        // A pipe can be read but once, and to open it may take for ever; a device may have no end.
        if !kind.is_file() {
            return Err(sqlite::bad(path, "is not a regular file", "write what comes from it into a file first"));
        }
        let file = File::open(path).map_err(failed)?;
        (&file).take(SQLITE.len() as u64).read_to_end(&mut start).map_err(failed)?;
        Identity::of(path)
    };
    if start == SQLITE {
        let (rows, last_id) = sqlite::read_source(path)?;
        return Ok(Source { order: import::order(&rows), rows, last_id, kind: Kind::Sqlite, identity });
    }
    let file = File::open(path).map_err(failed)?;
    let (rows, kind) = in_one_piece(path, &file, || {
        let mut file = BufReader::new(&file);
        if start.starts_with(BYTE_ORDER_MARK) {
            file.read_exact(&mut [0; BYTE_ORDER_MARK.len()]).map_err(failed)?;
            start.drain(..BYTE_ORDER_MARK.len());
        }
        if start.trim_ascii_start().starts_with(b"{") {
            Ok((lines::read(path, file)?, Kind::JsonLines))
        } else {
            Ok((filestore::read(path, file)?, Kind::FileStore))
        }
    })?;
    Ok(Source { order: import::order(&rows), rows, last_id: 0, kind, identity })
}

/// What `read` makes of a file that nobody writes meanwhile. The SDK writes its file anew where it stands: half of it as it
/// was and half as it is would give one user another's token.
fn in_one_piece<T>(path: &Path, file: &File, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let version = || file.metadata().map(|file| (file.len(), file.modified().ok())).ok();
    let before = version();
    let read = read();
    if version() == before {
        return read;
    }
    Err(Error::BadFile {
        path: path.to_owned(),
        flaw: Flaw::NoTokens,
        what: "was written to while it was read".to_owned(),
        cure: "stop the program that uses it, and try again",
    })
}

/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What every SQLite database begins with (<https://www.sqlite.org/fileformat.html>, 1.3.1).
const SQLITE: &[u8] = b"SQLite format 3\0";

fn is_database(path: &Path) -> bool {
    let mut start = [0; SQLITE.len()];
    // A pipe would keep who opens it waiting.
    fs::metadata(path).is_ok_and(|file| file.is_file())
        && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == SQLITE
}

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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_written_while_it_is_read_is_not_taken() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let handle = File::open(&path).unwrap();
        assert_eq!(in_one_piece(&path, &handle, || Ok(7)).unwrap(), 7);
        let write = || {
            file.write_all(b"planted").map_err(|error| unreadable(&path, &error))?;
            // What is wrong with half a file is not the trouble.
            Err::<(), _>(no_tokens(&path))
        };
        assert!(in_one_piece(&path, &handle, write).unwrap_err().to_string().contains("written to while it was read"));
    }
}
