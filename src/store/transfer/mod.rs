//! Rows in files, for import, export and restore. The contents of a file decide which kind it is.
//!
//! An error about a line names its number, and never repeats its contents: a value may be a secret.

mod filestore;
mod json_lines;

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::backend::{DatabaseFormat, DatabaseRows};
use super::error::{Code, Error, Result};
use super::files::{self, FileId};
use crate::domain::{Row, import};
pub use json_lines::{write, write_lines};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The SDK's `FileStore` wrote it.
    FileStore,
    /// A token database. The text is the name of its [`DatabaseFormat`].
    Database(&'static str),
    /// An export of this library.
    JsonLines,
}

/// The rows of a file.
pub struct Source {
    /// The rows, in the order of the file.
    pub rows: Vec<Row>,
    /// The indices of the rows, in the order in which to import them.
    pub order: Vec<usize>,
    /// The highest number that an id ever had, if the file says so; otherwise 0.
    pub last_id: i64,
    /// The kind of the file.
    pub kind: SourceKind,
    /// Identifies the file.
    pub file: Option<FileId>,
}

/// Reads all rows of a file, and leaves the file as it is.
///
/// This process must not have a store on the file: reading opens and closes it, which drops the database's POSIX locks.
pub fn read(path: &Path, formats: &[&DatabaseFormat]) -> Result<Source> {
    files::require_regular_file(path)?;
    let failed = |error| Error::from_io(path, &error);
    let file = FileId::of(path);
    // The handle is closed before a database opens the file.
    if let Some(format) = find_format(path, formats).map_err(failed)? {
        let DatabaseRows { rows, last_id } = (format.read)(path)?;
        let kind = SourceKind::Database(format.name);
        return Ok(Source { order: import::order(&rows), rows, last_id, kind, file });
    }
    let mut handle = File::open(path).map_err(failed)?;
    let (rows, kind) = read_unchanged(path, &handle.try_clone().map_err(failed)?, || {
        let mut text = Vec::new();
        handle.read_to_end(&mut text).map_err(failed)?;
        read_text(path, &text)
    })?;
    Ok(Source { order: import::order(&rows), rows, last_id: 0, kind, file })
}

/// Reads all rows of a stream, such as standard input. `name` is what messages call it.
///
/// The text stays in memory: it contains secrets, so it does not go into a temporary file. A database cannot be read
/// in this way, because a database library opens a path.
pub fn read_stream(name: &str, mut stream: impl Read, formats: &[&DatabaseFormat]) -> Result<Source> {
    let name = Path::new(name);
    let mut text = Vec::new();
    stream.read_to_end(&mut text).map_err(|error| Error::from_io(name, &error))?;
    if formats.iter().any(|format| text.starts_with(format.signature)) {
        return Err(Error::at(Code::DatabaseInStream, name));
    }
    let (rows, kind) = read_text(name, &text)?;
    Ok(Source { order: import::order(&rows), rows, last_id: 0, kind, file: None })
}

fn read_text(path: &Path, text: &[u8]) -> Result<(Vec<Row>, SourceKind)> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim_ascii_start().starts_with(b"{") {
        Ok((json_lines::read(path, text)?, SourceKind::JsonLines))
    } else {
        Ok((filestore::read(path, text)?, SourceKind::FileStore))
    }
}

/// Runs `read`, and fails if the file was written in the meantime.
///
/// The SDK overwrites its file in place. A file that is half old and half new could give one user the token of another.
fn read_unchanged<T>(path: &Path, file: &File, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let version = || file.metadata().map(|file| (file.len(), file.modified().ok())).ok();
    let before = version();
    let read = read();
    if version() == before { read } else { Err(Error::at(Code::ChangedWhileRead, path)) }
}

/// Some editors write it before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Returns the format whose signature the file begins with.
fn find_format<'f>(path: &Path, formats: &[&'f DatabaseFormat]) -> std::io::Result<Option<&'f DatabaseFormat>> {
    let longest = formats.iter().map(|format| format.signature.len()).max().unwrap_or(0);
    let mut start = Vec::new();
    File::open(path)?.take(longest as u64).read_to_end(&mut start)?;
    Ok(formats.iter().copied().find(|format| start.starts_with(format.signature)))
}

/// Is there a database at this path?
fn is_database(path: &Path, formats: &[&DatabaseFormat]) -> bool {
    // Opening a pipe could block.
    fs::metadata(path).is_ok_and(|file| file.is_file())
        && find_format(path, formats).is_ok_and(|format| format.is_some())
}

/// The error for a line, counted from 1.
fn invalid_line(path: &Path, line: u64, problem: &str) -> Error {
    Error::at(Code::InvalidLine, path).with(format!("({line}): {problem}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_is_written_while_it_is_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let handle = File::open(&path).unwrap();
        assert_eq!(read_unchanged(&path, &handle, || Ok(7)).unwrap(), 7);
        let write = || {
            file.write_all(b"planted").map_err(|error| Error::from_io(&path, &error))?;
            // The half-written file may have another error. That is not the cause.
            Err::<(), _>(Error::at(Code::NotATokenFile, &path))
        };
        assert_eq!(read_unchanged(&path, &handle, write).unwrap_err().code(), Code::ChangedWhileRead);
    }
}
