//! Rows in files, for import, export and restore. The contents of a file decide which kind it is.
//!
//! An error about a line names its number, and never repeats its contents: a value may be a secret.

mod filestore;
mod json_lines;

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::backend::{DatabaseFormat, DatabaseRows};
use super::error::{Code, Error, Result};
use super::files::{self, FileId};
use crate::domain::import::{self, Remark};
use crate::domain::{Row, id};
pub use json_lines::{Exposed, parse_row, write, write_lines};

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The SDK's `FileStore` wrote it, or it has the same columns.
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
    /// What its user should know about rows, besides what [`super::Store::import_rows`] says. The number is an index of
    /// a row.
    pub remarks: Vec<(usize, Remark)>,
    /// The number of the line that each row begins in, counted from 1. Empty for a database.
    lines: Vec<u64>,
}

impl Source {
    fn new(found: RowsOfText, last_id: i64, kind: SourceKind, file: Option<FileId>) -> Self {
        let RowsOfText { rows, lines, remarks } = found;
        Self { order: import::order(&rows), rows, last_id, kind, file, remarks, lines }
    }

    /// The rows of a store. `name` is what users call its kind of database.
    #[must_use]
    pub fn of_store(contents: DatabaseRows, name: &'static str) -> Self {
        let DatabaseRows { rows, last_id } = contents;
        Self::new(RowsOfText { rows, ..RowsOfText::default() }, last_id, SourceKind::Database(name), None)
    }

    /// Says where a row is: the number of its line, or its id in a database.
    #[must_use]
    pub fn position(&self, index: usize) -> String {
        let id = || self.rows.get(index).map(Row::id).filter(|id| id::number(id).is_some());
        match self.lines.get(index) {
            Some(line) => format!("line {line}"),
            None => id().map_or_else(|| format!("row number {}", index + 1), |id| format!("row {id}")),
        }
    }
}

/// The rows of a text file.
#[derive(Default)]
struct RowsOfText {
    rows: Vec<Row>,
    /// The number of the line that each row begins in, counted from 1.
    lines: Vec<u64>,
    remarks: Vec<(usize, Remark)>,
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
        let found = RowsOfText { rows, ..RowsOfText::default() };
        return Ok(Source::new(found, last_id, SourceKind::Database(format.name), file));
    }
    let mut handle = File::open(path).map_err(failed)?;
    let (found, kind) = read_unchanged(path, &handle.try_clone().map_err(failed)?, || {
        let mut contents = Vec::new();
        handle.read_to_end(&mut contents).map_err(failed)?;
        read_text(path, &contents)
    })?;
    Ok(Source::new(found, 0, kind, file))
}

/// Reads all rows of a stream, such as standard input. `name` is what messages call it.
///
/// The text stays in memory: it contains secrets, so it does not go into a temporary file. A database cannot be read
/// in this way, because a database library opens a path.
pub fn read_stream(name: &str, mut stream: impl Read, formats: &[&DatabaseFormat]) -> Result<Source> {
    let name = Path::new(name);
    let mut contents = Vec::new();
    stream.read_to_end(&mut contents).map_err(|error| Error::from_io(name, &error))?;
    if formats.iter().any(|format| contents.starts_with(format.signature)) {
        return Err(Error::at(Code::DatabaseInStream, name));
    }
    let (found, kind) = read_text(name, &contents)?;
    Ok(Source::new(found, 0, kind, None))
}

fn read_text(path: &Path, contents: &[u8]) -> Result<(RowsOfText, SourceKind)> {
    let refused = |reason| Err(Error::at(Code::NotATokenFile, path).with(reason));
    if let Some((_, reason)) = OTHER_FILES.iter().find(|(start, _)| contents.starts_with(start)) {
        return refused(*reason);
    }
    let text = decode(path, contents)?;
    match text.trim_ascii_start().bytes().next() {
        None => refused("it is empty"),
        Some(b'[') => refused("it is a JSON array. Write one object in each line: jq -c '.[]' FILE"),
        Some(b'{') if text.trim_ascii_start().lines().next().is_some_and(|line| line.trim_ascii() == "{") => {
            refused("it is JSON with several lines for an object. Write one object in each line: jq -c . FILE")
        }
        Some(b'{') => Ok((json_lines::read(path, &text)?, SourceKind::JsonLines)),
        Some(_) => Ok((filestore::read(path, &text)?, SourceKind::FileStore)),
    }
}

/// How other files begin that users try to import, and what they are.
const OTHER_FILES: [(&[u8], &str); 5] = [
    (b"PK\x03\x04", "it is a spreadsheet or another archive. Save it as CSV"),
    (b"\xD0\xCF\x11\xE0", "it is a spreadsheet. Save it as CSV"),
    // The file of the Python SDKs before version 3, and that of the PHP SDKs before version 3.
    (b"\x80", "an SDK before version 3 wrote it with Python's pickle. Write its tokens as JSON Lines"),
    (b"a:", "an SDK before version 3 wrote it with PHP's serialize. Write its tokens as JSON Lines"),
    (b"O:", "an SDK before version 3 wrote it with PHP's serialize. Write its tokens as JSON Lines"),
];

/// Returns the text of a file. A byte order mark says whether it is UTF-16, which Excel writes as "Unicode text".
fn decode<'c>(path: &Path, contents: &'c [u8]) -> Result<Cow<'c, str>> {
    let utf_16 = |number: fn([u8; 2]) -> u16| {
        let (pairs, rest) = contents[2..].as_chunks();
        let text = String::from_utf16(&pairs.iter().map(|&pair| number(pair)).collect::<Vec<_>>());
        match text {
            Ok(text) if rest.is_empty() => Ok(Cow::Owned(text)),
            _ => Err(Error::at(Code::NotATokenFile, path).with("it is not UTF-16 text, although it begins like it")),
        }
    };
    if contents.starts_with(b"\xFF\xFE") {
        return utf_16(u16::from_le_bytes);
    }
    if contents.starts_with(b"\xFE\xFF") {
        return utf_16(u16::from_be_bytes);
    }
    let text = contents.strip_prefix(BYTE_ORDER_MARK).unwrap_or(contents);
    str::from_utf8(text).map(Cow::Borrowed).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let line = before.split(|&byte| byte == b'\n').count() as u64;
        invalid_line(path, line, "it is not UTF-8 text")
    })
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
