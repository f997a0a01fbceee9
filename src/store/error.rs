//! The error catalogue: each failure of a store has one code, one text and one hint, and they stand in this file.
//!
//! No message holds a secret. Constructors take names, ids, paths and numbers, never a token's value.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::location::Location;
use crate::domain::check::{self, Finding, Severity};
use crate::domain::key_ring::RowFlaw;
use crate::domain::seal_key::KeyId;

/// The result of every operation of a store.
pub type Result<T> = std::result::Result<T, Error>;

/// What a message says about the stored data after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataState {
    /// The call did nothing.
    Unchanged,
    /// The call did nothing, and every earlier save is still there.
    Kept,
    /// The database does not belong to this store, or is damaged. It was not written.
    Untouched,
    /// The row was found or saved. Only the caller's token object is incomplete.
    RowCorrect,
    /// Some rows were rewritten, and the others can be later.
    Partial,
    /// The answer of a server may be lost. A change is repeated safely, because it finds what it has written.
    Unknown,
}

impl DataState {
    const fn text(self) -> &'static str {
        match self {
            Self::Unchanged => "Nothing was changed.",
            Self::Kept => "Nothing was changed, and nothing that was saved is lost.",
            Self::Untouched => "It was left untouched.",
            Self::RowCorrect => "The row in the store is correct.",
            Self::Partial => "Rows may have been rewritten, and none is lost. Run rekey again to do the rest.",
            Self::Unknown => "Whether the last change was made is not known. Repeating it does no harm.",
        }
    }
}

/// Builds [`Code`] from one table: variant, code, text (`{}` stands for the detail), state of the data, hint.
macro_rules! catalogue {
    ($($code:ident $name:literal $text:literal $state:ident $hint:literal)*) => {
        /// The code of a failure. `docs/troubleshooting.md` has an entry for each one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "`")] $code,)*
        }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as programs see it, for example `"disk-full"`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name),* }
            }

            /// What failed. `{}` stands for a detail: a number, an id, the name of an error.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$code => $text),* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$code => $hint),* }
            }

            const fn state(self) -> DataState {
                match self { $(Self::$code => DataState::$state),* }
            }
        }
    };
}

catalogue! {
    // Waiting, and the life of a store.
    Busy "busy"
        "was in use by another program or thread for {} s" Kept
        "Try again, raise busy_timeout, or find the program that keeps a transaction open."
    Closed "closed"
        "was closed: this store object cannot be used any more" Unchanged
        "Open another store."
    RefreshFailing "refresh-failing"
        "has a token that cannot be refreshed: {}" Kept
        "What get_token raised before says why: invalid_code means that the user has to log in again, and Access Denied \
         ends after ten minutes. A later request tries again by itself, and a new login is never delayed."
    Unsupported "unsupported"
        "{} is not available in this build" Unchanged
        "Install a build of zoho-token-store that has it."

    // Arguments, tokens and ids.
    InvalidArgument "invalid-argument"
        "{}" Unchanged
        "Correct the argument, and call again."
    InvalidKey "invalid-key"
        "{}" Unchanged
        "Give the whole text of a key. To make a key: zoho-token-store key new --out FILE."
    KeysUnavailable "keys-unavailable"
        "{}" Unchanged
        "Check what keys= names: the file, its permissions, the variable or the function. A program without its keys does \
         not start."
    MissingId "missing-id"
        "has no token with {}" Unchanged
        "Check that it is the right store, and list its tokens. After a logout, the user has to log in again."
    EmptyToken "empty-token"
        "has no row for the token, and the token has no refresh token, grant token or access token" Unchanged
        "Save a token that has at least one of the three."
    TokenNotUpdated "token-not-updated"
        "{}" RowCorrect
        "Do not use this token object. Find the token again."

    // Paths.
    MissingFile "missing-file"
        "does not exist" Unchanged
        "Give the path of a file that exists."
    MissingFolder "missing-folder"
        "is in a folder that does not exist" Unchanged
        "Make the folder first."
    IsFolder "is-a-folder"
        "is a folder" Unchanged
        "Give the path of a file in it."
    NotARegularFile "not-a-regular-file"
        "is not a regular file" Unchanged
        "Give the path of a regular file. Write the output of a pipe into a file first."
    BrokenLink "broken-link"
        "is a symbolic link to a file that does not exist" Unchanged
        "Make that file, or remove the link."
    SecondName "second-name"
        "is a hard link to a file that is in use under another name" Unchanged
        "Use the name that is already in use. Two names would mean two separate WAL files."
    ReservedName "reserved-name"
        "has a name that the database uses for its own files" Unchanged
        "Give another path."
    InvalidPath "invalid-path"
        "cannot be the path of a file ({})" Unchanged
        "Give another path."
    PathTooLong "path-too-long"
        "has too long a path ({})" Unchanged
        "Give a shorter path. A symbolic link to the file does not help, because its real path counts."
    FileExists "file-exists"
        "exists already" Unchanged
        "Give another path, or allow that the file is overwritten."
    SameFile "same-file"
        "is the token database itself" Unchanged
        "Give the path of another file."
    TargetIsDatabase "target-is-database"
        "is a database, and an export is a text file" Unchanged
        "Give another path."
    TargetNotABackup "target-not-a-backup"
        "cannot be replaced by a backup: {}" Unchanged
        "Give the path of an older backup, or of a file that does not exist yet."

    // The operating system.
    CannotOpen "cannot-open"
        "cannot be opened ({})" Kept
        "Give this user read and write permission on the file and on its folder."
    TooManyOpenFiles "too-many-open-files"
        "cannot be opened: {} has too many open files" Kept
        "Raise the limit (ulimit -n, LimitNOFILE of systemd), or call close() on stores that are not needed."
    PermissionDenied "permission-denied"
        "cannot be opened: permission denied" Kept
        "Give this user read and write permission on the file and on its folder."
    ReadOnly "read-only"
        "cannot be written: {}" Kept
        "Give this user write permission on the file and on its folder, or use a path that can be written."
    NeedsRecovery "needs-recovery"
        "has saves in its -wal, which cannot be read in a read-only folder or on a read-only medium" Kept
        "Copy the file and its -wal into a folder that can be written, and open it there once."
    DiskFull "disk-full"
        "cannot be written: the disk or the quota is full" Kept
        "Free some space, and try again. A restart is not needed."
    IoError "io-error"
        "cannot be read or written: the system reported an error ({})" Kept
        "Check the disk, its quota and the system's log, and try again."
    OutOfMemory "out-of-memory"
        "ran out of memory" Kept
        "Free some memory, and try again."
    ValueTooLarge "value-too-large"
        "cannot hold a value of this size" Kept
        "Save a smaller value."

    // The connection to a database server.
    Unreachable "unreachable"
        "cannot be reached: {}" Unchanged
        "Check that the server runs and that this machine can connect to it, and try again."
    AccessDenied "access-denied"
        "denied access: {}" Kept
        "Correct the user or the password, or grant the missing rights to this user (the documentation lists them: \
         Minimum rights)."
    InsecureConnection "insecure-connection"
        "cannot be connected to securely: {}" Kept
        "Give the server a certificate for this host name, name the authority that signed it in sslrootcert, or set \
         another sslmode."
    WrongDatabase "wrong-database"
        "cannot be used as a token store: {}" Unchanged
        "Give another database or schema, or have its owner make the tables (\"zoho-token-store init\")."

    // A cell: a place with compare-and-swap.
    CellFailed "cell-failed"
        "failed: {}" Kept
        "The exception that caused this error says why. Check the client of the cell, its rights and its network, and try \
         again."
    OutcomeUnknown "outcome-unknown"
        "may have taken the last change or not: {}" Unknown
        "Check that the place of the document can be reached, and that the cell is correct, and try again."
    DocumentTooLarge "document-too-large"
        "does not take a document of this size ({})" Kept
        "Purge rows that are not used any more, or move to a place for larger documents or to a database server."
    NotADocument "not-a-document"
        "holds something that is not a document of this library ({})" Untouched
        "Give the cell a place of its own, or restore what was there before."

    // The contents of a database.
    NotADatabase "not-a-database"
        "is not a token database" Untouched
        "Give the path of a token database, or of a file that does not exist yet."
    Damaged "damaged"
        "is a damaged database ({})" Untouched
        "Restore a backup, or move the file away to begin with an empty one."
    DamagedRow "damaged-row"
        "has a row that cannot be read: {}" Kept
        "Delete that row, or restore a backup."
    UnknownKey "unknown-key"
        "has rows that are sealed under a key which this store does not have: {}" Kept
        "Give the store this key, too (keys=). If the key is lost, restore a backup that another key opens, or delete \
         the rows under it: zoho-token-store forget-key ID."
    AlteredRow "altered-row"
        "has a row that was altered after it was sealed: {}" Kept
        "Find out who can write there. Restore the row from a backup, or delete it and have its user log in again."
    PlaintextRow "plaintext-row"
        "has a row in clear text, and this store takes sealed rows alone: {}" Kept
        "If the rows were never sealed, add PLAINTEXT at the end of keys, and seal them: zoho-token-store rekey. \
         Otherwise find out who wrote the row, and delete it."
    NewerSchema "newer-schema"
        "was written by a newer version of zoho-token-store ({})" Untouched
        "Upgrade zoho-token-store, or restore a backup that the older version made."
    StrayWal "stray-wal"
        "has a -wal beside it that belongs to another file" Untouched
        "If this is a restored backup, remove the -wal and the -shm. If the file was moved away, move them after it."
    OtherProgram "other-program"
        "is the database of another program ({})" Untouched
        "Give the path of a token database, or of a file that does not exist yet."
    UnusualTable "unusual-table"
        "has a table oauthtoken that cannot be used as it is: {}" Untouched
        "Import its rows into a new file: zoho-token-store --db NEW import PATH."
    UnexpectedTables "unexpected-tables"
        "has tables that this library did not make" Kept
        "Restore a backup, or move the file away."
    DatabaseError "database-error"
        "reported an unexpected error ({})" Kept
        "Try again. Report it if it happens again."

    // Files to import or to restore.
    NotATokenFile "not-a-token-file"
        "is neither a file of the SDK's FileStore, nor a token database, nor an export of this library: {}" Untouched
        "Give the path of one of these."
    DatabaseInStream "database-in-stream"
        "is a database, and a database cannot be read from a stream" Unchanged
        "Write it into a file, and give the path of that file."
    NoTokenTable "no-token-table"
        "is an empty database without a table of tokens" Untouched
        "Give the path of a token database."
    InvalidLine "invalid-line"
        "has an invalid line {}" Untouched
        "Correct that line, or write the file again. Without the line, its user has to log in again."
    UnfinishedLine "unfinished-line"
        "has a last line {} without a line break, so it may be cut short" Untouched
        "If that line is complete, end it with a line break. If it is not, its user has to log in again."
    IncompleteExport "incomplete-export"
        "does not have all the rows that were exported: {}" Untouched
        "Export again. If you have added or removed rows yourself, correct the number in the first line."
    ChangedWhileRead "changed-while-read"
        "was written while it was read" Untouched
        "Stop the program that writes it, and try again."
    NotABackup "not-a-backup"
        "is not a backup, so it cannot be restored" Untouched
        "Import it. An import keeps the rows that are already there."
    DuplicateIds "duplicate-ids"
        "has several rows with {}, so it cannot be restored" Unchanged
        "Import it. An import gives each row an id of its own."
}

/// What a message adds to the state of the data if the token could not be saved, but its pair was kept
/// ([`super::Store::save`]).
pub const PAIR_KEPT: &str = "The new access token is kept in this process until it can be saved.";

impl Code {
    /// Is this about the store, and not about the token or the call? Then the same save can succeed later.
    #[must_use]
    pub const fn can_pass(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::MissingFile
                | Self::MissingFolder
                | Self::IsFolder
                | Self::NotARegularFile
                | Self::BrokenLink
                | Self::InvalidPath
                | Self::CannotOpen
                | Self::TooManyOpenFiles
                | Self::PermissionDenied
                | Self::ReadOnly
                | Self::NeedsRecovery
                | Self::DiskFull
                | Self::IoError
                | Self::OutOfMemory
                | Self::Unreachable
                | Self::AccessDenied
                | Self::InsecureConnection
                | Self::WrongDatabase
                | Self::CellFailed
                | Self::OutcomeUnknown
                | Self::DocumentTooLarge
                | Self::NotADocument
                | Self::NotADatabase
                | Self::Damaged
                | Self::DamagedRow
                | Self::UnknownKey
                | Self::AlteredRow
                | Self::PlaintextRow
                | Self::NewerSchema
                | Self::StrayWal
                | Self::OtherProgram
                | Self::UnusualTable
                | Self::UnexpectedTables
                | Self::DatabaseError
        )
    }

    /// Does this say that nothing can be written at all?
    #[must_use]
    pub const fn is_unwritable(self) -> bool {
        matches!(
            self,
            Self::CannotOpen
                | Self::TooManyOpenFiles
                | Self::PermissionDenied
                | Self::ReadOnly
                | Self::DiskFull
                | Self::IoError
                | Self::AccessDenied
                | Self::CellFailed
                | Self::DocumentTooLarge
        )
    }
}

// Errors of open(2) that the standard library has no stable name for. Linux and macOS differ in the last one.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };

/// A failed operation. It lost nothing that was saved. It changed nothing, unless [`Error::after_unanswered_change`] says
/// that this is not known.
///
/// The message reads `<subject> <text>. <state of the data>. <hint>.` Before the hint it may say [`PAIR_KEPT`].
#[expect(clippy::struct_excessive_bools, reason = "each is about another part of what was done")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    /// What the text is about: a location or a path. Empty where the detail says everything.
    subject: String,
    detail: String,
    /// The id of the row that cannot be read.
    row: Option<String>,
    pair_kept: bool,
    /// A change was sent to a server, and its answer was lost.
    is_change_unanswered: bool,
    /// Transactions before the one that failed were committed.
    is_partial: bool,
    /// The source of keys has to be asked before the change is made.
    asks_for_keys: bool,
    /// What to do about it, if it is not what the code says.
    hint: Option<&'static str>,
    source: Option<Origin>,
}

/// What caused a failure, such as the exception of a caller's function. No message repeats its text, because the text
/// may hold a secret.
#[derive(Clone)]
struct Origin(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Origin")
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Origin {}

impl Error {
    /// A failure of `subject`, which is a location or the display of a path.
    pub fn new(code: Code, subject: impl fmt::Display) -> Self {
        let (subject, detail) = (subject.to_string(), String::new());
        Self {
            code,
            subject,
            detail,
            row: None,
            pair_kept: false,
            is_change_unanswered: false,
            is_partial: false,
            asks_for_keys: false,
            hint: None,
            source: None,
        }
    }

    /// A failure about a file.
    #[must_use]
    pub fn at(code: Code, path: &Path) -> Self {
        Self::new(code, path.display())
    }

    /// The same failure with the detail that its text asks for.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same failure with another hint than that of its code.
    #[must_use]
    pub const fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The same failure of a rotation of keys that may have rewritten rows.
    #[must_use]
    pub const fn after_rewriting(mut self) -> Self {
        self.is_partial = true;
        self
    }

    /// The same failure after a change was sent whose answer was lost. So it is not known whether the change was made.
    #[must_use]
    pub const fn after_unanswered_change(mut self) -> Self {
        self.is_change_unanswered = true;
        self
    }

    /// The same failure, with what has caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Origin(Arc::new(source)));
        self
    }

    /// The same failure with another code.
    #[must_use]
    pub const fn with_code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// What the text says beyond the kind of failure, such as the error of the operating system.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The same failure, which concerns the row with this id.
    #[must_use]
    pub fn in_row(mut self, id: String) -> Self {
        self.row = Some(id);
        self
    }

    /// The same failure of a save, whose pair was kept.
    #[must_use]
    pub const fn with_pair_kept(mut self) -> Self {
        self.pair_kept = true;
        self
    }

    /// Was the pair of the token kept that could not be saved?
    #[must_use]
    pub const fn is_pair_kept(&self) -> bool {
        self.pair_kept
    }

    /// An argument that cannot be used. `what` names the argument and the rule, and never repeats the value.
    pub fn invalid_argument(what: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "").with(what)
    }

    /// A key that cannot be used. `what` names its position, and never repeats its text.
    pub fn invalid_key(what: impl Into<String>) -> Self {
        Self::new(Code::InvalidKey, "").with(what)
    }

    /// An operation waited for `waited` and did not get what it waited for.
    #[must_use]
    pub fn busy(location: &Location, waited: Duration) -> Self {
        Self::new(Code::Busy, location).with(waited.as_secs_f64().to_string())
    }

    /// The last `count` refreshes of a token have failed, the first of them `failing_for` ago. The next one may begin
    /// after `next`. `what` names the token without a secret.
    #[must_use]
    pub fn refresh_failing(location: &Location, what: &str, count: u32, failing_for: Duration, next: Duration) -> Self {
        let (failing_for, next) = (failing_for.as_secs_f64(), next.as_secs_f64());
        Self::new(Code::RefreshFailing, location).with(format!(
            "the last {count} refreshes for {what} have failed, the first one {failing_for:.0} s ago, and the next one \
             may begin in {next:.1} s"
        ))
    }

    /// The row with this id, and `others` others, could not be refreshed. `reason` holds no secret.
    #[must_use]
    pub fn not_refreshed(location: &Location, id: &str, others: usize, reason: &str) -> Self {
        let others = if others == 0 { String::new() } else { format!(" (and {others} more)") };
        Self::new(Code::RefreshFailing, location).with(format!("{}{others}: {reason}", describe_id(id)))
    }

    /// No row has this id.
    #[must_use]
    pub fn missing_id(location: &Location, id: &str) -> Self {
        Self::new(Code::MissingId, location).with(describe_id(id))
    }

    /// The stored row with this id cannot be read.
    #[must_use]
    pub fn unreadable_row(location: &Location, id: &str, flaw: &RowFlaw) -> Self {
        let row = describe_id(id);
        let error = match flaw {
            RowFlaw::UnknownKey(key) => {
                Self::new(Code::UnknownKey, location).with(format!("the row with {row} needs the key {key}"))
            }
            RowFlaw::Altered => Self::new(Code::AlteredRow, location).with(format!("the row with {row}")),
            RowFlaw::ClearText => Self::new(Code::PlaintextRow, location).with(format!("the row with {row}")),
        };
        error.in_row(id.to_owned())
    }

    /// A change has to wait until the source of keys was asked ([`crate::domain::key_ring::ask_first`]). No caller gets
    /// this error, because [`super::Store`] asks, and tries again.
    #[must_use]
    pub fn keys_to_ask_for(location: &Location) -> Self {
        let what = "the source of keys has to be asked whether another key comes first now";
        Self { asks_for_keys: true, ..Self::new(Code::KeysUnavailable, location).with(what) }
    }

    /// Is it that of [`Error::keys_to_ask_for`]?
    #[must_use]
    pub const fn asks_for_keys(&self) -> bool {
        self.asks_for_keys
    }

    /// There may be rows under the key with this id, so it is not certain that a row does not exist.
    #[must_use]
    pub fn unknown_key(location: &Location, key: &str) -> Self {
        // Another program can have written any text there.
        let key = KeyId::parse(key).map_or_else(|| "with an id that is not one".to_owned(), |id| id.to_string());
        Self::new(Code::UnknownKey, location).with(format!("there may be rows that need the key {key}"))
    }

    /// The operating system refused an operation on the file at `path`.
    #[must_use]
    pub fn from_io(path: &Path, error: &io::Error) -> Self {
        let at = |code| Self::at(code, path);
        match error.raw_os_error() {
            _ if !cfg!(unix) => {}
            Some(EMFILE) => return at(Code::TooManyOpenFiles).with("this process"),
            Some(ENFILE) => return at(Code::TooManyOpenFiles).with("this system"),
            Some(ELOOP) => return at(Code::InvalidPath).with("its symbolic links form a loop"),
            _ => {}
        }
        match error.kind() {
            ErrorKind::NotFound => at(Code::MissingFile),
            ErrorKind::IsADirectory => at(Code::IsFolder),
            ErrorKind::PermissionDenied => at(Code::PermissionDenied),
            ErrorKind::ReadOnlyFilesystem => at(Code::ReadOnly).with("the file system is read-only"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => at(Code::DiskFull),
            ErrorKind::NotADirectory => at(Code::InvalidPath).with("a part of it is not a folder"),
            // ENAMETOOLONG of path_resolution(7).
            ErrorKind::InvalidFilename if cfg!(unix) => {
                at(Code::PathTooLong).with("the file system takes shorter ones only")
            }
            ErrorKind::InvalidFilename | ErrorKind::InvalidInput => {
                at(Code::InvalidPath).with("no file can have this name")
            }
            _ => at(Code::IoError).with(error.to_string()),
        }
    }

    /// The failure's code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What to do about the failure.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self.hint {
            Some(hint) => hint,
            None => self.code.hint(),
        }
    }

    const fn state(&self) -> DataState {
        match (self.is_partial, self.is_change_unanswered) {
            (true, _) => DataState::Partial,
            (false, true) => DataState::Unknown,
            (false, false) => self.code.state(),
        }
    }

    /// Did the operation only run out of time? Then another attempt with a longer timeout can succeed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.code == Code::Busy
    }

    /// Can another attempt succeed a moment later? The store is busy, its server does not answer, or it is not known
    /// what became of the last attempt.
    #[must_use]
    pub const fn may_pass_soon(&self) -> bool {
        matches!(self.code, Code::Busy | Code::Unreachable | Code::OutcomeUnknown)
    }

    /// Are keys missing that the source of keys may have?
    #[must_use]
    pub const fn is_about_missing_keys(&self) -> bool {
        matches!(self.code, Code::KeysUnavailable | Code::UnknownKey)
    }

    /// Is a row of the store unreadable, because of a missing key, a change, or clear text?
    #[must_use]
    pub const fn is_about_sealed_row(&self) -> bool {
        matches!(self.code, Code::UnknownKey | Code::AlteredRow | Code::PlaintextRow)
    }

    /// What failed, without the state of the data and without the hint.
    #[must_use]
    pub fn problem(&self) -> String {
        let text = self.code.text().replacen("{}", &self.detail, 1);
        if self.subject.is_empty() { text } else { format!("{} {text}", self.subject) }
    }

    /// The failure as a finding of `check`, if it says that the contents are wrong. Every other failure means that
    /// the store could not be checked, and is returned as it is.
    pub fn into_finding(self) -> Result<Finding> {
        let code = match self.code {
            Code::NotADatabase | Code::NotATokenFile | Code::NoTokenTable | Code::NotADocument => "not-a-database",
            Code::Damaged | Code::DamagedRow => "damaged",
            Code::UnknownKey => check::UNKNOWN_KEY,
            Code::AlteredRow => check::ALTERED,
            Code::PlaintextRow => check::PLAINTEXT_ROW,
            Code::NewerSchema => "newer-schema",
            Code::OtherProgram => "other-program",
            Code::WrongDatabase => "wrong-database",
            _ => return Err(self),
        };
        let (message, hint) = (self.problem(), self.hint());
        Ok(Finding { code, severity: Severity::Error, ids: self.row.into_iter().collect(), message, hint })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {} ", self.problem(), self.state().text())?;
        if self.pair_kept {
            write!(f, "{PAIR_KEPT} ")?;
        }
        f.write_str(self.hint())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &*source.0 as &(dyn std::error::Error + 'static))
    }
}

/// The longest id that a message repeats, in characters. A longer text may be a token that was passed as an id.
const MAX_SHOWN_ID_LENGTH: usize = 24;

/// Describes an id for a message. A text that may be a token is not repeated: Zoho's tokens are longer and contain
/// dots.
#[must_use]
pub fn describe_id(id: &str) -> String {
    if id.is_empty() {
        "an absent id".to_owned()
    } else if id.chars().count() <= MAX_SHOWN_ID_LENGTH && !id.contains('.') {
        format!("the id {id:?}")
    } else {
        format!("that id ({} characters)", id.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_is_shown_only_if_it_cannot_be_a_token() {
        assert_eq!(describe_id("17"), "the id \"17\"");
        assert_eq!(describe_id(""), "an absent id");
        assert_eq!(describe_id("1000.made.up"), "that id (12 characters)");
        assert_eq!(describe_id(&"a".repeat(64)), "that id (64 characters)");
    }

    #[test]
    fn a_message_has_the_subject_the_text_the_state_and_the_hint() {
        let error = Error::busy(&Location::named("the store in memory"), Duration::from_millis(1500));
        assert_eq!(
            error.to_string(),
            "the store in memory was in use by another program or thread for 1.5 s. Nothing was changed, and nothing \
             that was saved is lost. Try again, raise busy_timeout, or find the program that keeps a transaction open."
        );
        assert!(error.is_busy() && error.to_string().ends_with(error.hint()));
    }

    #[test]
    fn a_message_says_whether_a_change_may_have_been_made() {
        let error = Error::new(Code::Unreachable, "the server").with("connection refused");
        let hint = Code::Unreachable.hint();
        let begin = "the server cannot be reached: connection refused.";
        assert_eq!(error.to_string(), format!("{begin} Nothing was changed. {hint}"));
        let state = "Whether the last change was made is not known. Repeating it does no harm.";
        let unknown = error.clone().after_unanswered_change();
        assert_eq!(unknown.to_string(), format!("{begin} {state} {hint}"));
        // Whatever the last attempt failed with.
        assert!(Error::new(Code::DiskFull, "the server").after_unanswered_change().to_string().contains(state));
        let other = error.with_hint("Do something else.");
        assert_eq!(other.to_string(), format!("{begin} Nothing was changed. Do something else."));
        assert_eq!(other.hint(), "Do something else.");
    }

    #[test]
    fn a_message_says_that_the_pair_was_kept() {
        let error = Error::new(Code::DiskFull, "tokens.db");
        assert!(!error.is_pair_kept() && !error.to_string().contains(PAIR_KEPT));
        let error = error.with_pair_kept();
        assert_eq!(
            error.to_string(),
            "tokens.db cannot be written: the disk or the quota is full. Nothing was changed, and nothing that was \
             saved is lost. The new access token is kept in this process until it can be saved. Free some space, and \
             try again. A restart is not needed."
        );
        assert!(error.is_pair_kept());
    }

    #[test]
    fn a_failure_of_the_store_can_pass_and_one_of_the_call_cannot() {
        // Of the call, of the token, or of another file than the store's.
        let of_the_call = [
            "closed refresh-failing unsupported invalid-argument invalid-key keys-unavailable missing-id",
            "empty-token token-not-updated",
            "second-name reserved-name path-too-long file-exists same-file target-is-database target-not-a-backup",
            "value-too-large not-a-token-file database-in-stream no-token-table invalid-line unfinished-line",
            "incomplete-export changed-while-read not-a-backup duplicate-ids",
        ];
        let of_the_call: BTreeSet<&str> = of_the_call.iter().flat_map(|names| names.split(' ')).collect();
        let cannot: BTreeSet<&str> = Code::ALL.iter().filter(|code| !code.can_pass()).map(|code| code.name()).collect();
        assert_eq!(cannot, of_the_call);
        let unwritable: Vec<&str> =
            Code::ALL.iter().filter(|code| code.is_unwritable()).map(|code| code.name()).collect();
        let expected = [
            "cannot-open",
            "too-many-open-files",
            "permission-denied",
            "read-only",
            "disk-full",
            "io-error",
            "access-denied",
            "cell-failed",
            "document-too-large",
        ];
        assert_eq!(unwritable, expected);
    }

    #[test]
    fn codes_are_unique_lowercase_words_and_every_hint_is_a_sentence() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(code.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code:?}");
            assert!(code.hint().ends_with('.') && !code.text().ends_with('.'), "{code:?}");
        }
    }

    #[test]
    fn the_system_error_decides_the_code() {
        let table = [
            (ErrorKind::NotFound, Code::MissingFile),
            (ErrorKind::IsADirectory, Code::IsFolder),
            (ErrorKind::PermissionDenied, Code::PermissionDenied),
            (ErrorKind::ReadOnlyFilesystem, Code::ReadOnly),
            (ErrorKind::StorageFull, Code::DiskFull),
            (ErrorKind::QuotaExceeded, Code::DiskFull),
            (ErrorKind::NotADirectory, Code::InvalidPath),
            (ErrorKind::InvalidFilename, if cfg!(unix) { Code::PathTooLong } else { Code::InvalidPath }),
            (ErrorKind::InvalidInput, Code::InvalidPath),
            (ErrorKind::Other, Code::IoError),
        ];
        for (kind, code) in table {
            let error = Error::from_io(Path::new("tokens.db"), &kind.into());
            assert_eq!(error.code(), code, "{kind:?}");
            assert!(error.to_string().starts_with("tokens.db ") && !error.problem().contains("{}"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_number_of_a_system_error_decides_the_code() {
        use nix::libc;
        let table = [
            (libc::ENOENT, Code::MissingFile, ""),
            (libc::EISDIR, Code::IsFolder, ""),
            (libc::EACCES, Code::PermissionDenied, ""),
            (libc::EPERM, Code::PermissionDenied, ""),
            (libc::EROFS, Code::ReadOnly, "the file system is read-only"),
            (libc::ENOSPC, Code::DiskFull, ""),
            (libc::EDQUOT, Code::DiskFull, ""),
            (libc::ENOTDIR, Code::InvalidPath, "a part of it is not a folder"),
            (libc::ELOOP, Code::InvalidPath, "its symbolic links form a loop"),
            (libc::ENAMETOOLONG, Code::PathTooLong, "the file system takes shorter ones only"),
            (libc::EMFILE, Code::TooManyOpenFiles, "this process has too many open files"),
            (libc::ENFILE, Code::TooManyOpenFiles, "this system has too many open files"),
            (libc::EIO, Code::IoError, ""),
        ];
        for (number, code, detail) in table {
            let error = Error::from_io(Path::new("tokens.db"), &io::Error::from_raw_os_error(number));
            assert_eq!(error.code(), code, "{number}");
            assert!(error.problem().contains(detail), "{error}");
        }
    }

    #[test]
    fn only_wrong_contents_are_a_finding() {
        let of = |code| Error::new(code, "tokens.db").with("detail").in_row("7".to_owned()).into_finding();
        for code in Code::ALL {
            let expected = match code {
                Code::NotADatabase | Code::NotATokenFile | Code::NoTokenTable | Code::NotADocument => {
                    Some("not-a-database")
                }
                Code::Damaged | Code::DamagedRow => Some("damaged"),
                Code::UnknownKey => Some("unknown-key"),
                Code::AlteredRow => Some("altered"),
                Code::PlaintextRow => Some("plaintext"),
                Code::NewerSchema => Some("newer-schema"),
                Code::OtherProgram => Some("other-program"),
                Code::WrongDatabase => Some("wrong-database"),
                _ => None,
            };
            assert_eq!(of(*code).ok().map(|finding| finding.code), expected, "{code:?}");
        }
        assert_eq!(of(Code::DamagedRow).unwrap().ids, ["7"]);
    }
}
