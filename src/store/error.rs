//! What can go wrong in a store, said so that its reader knows what to do. No message holds a secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::check::{Finding, Severity};

/// The result of every operation of a store.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation. It changed nothing, and lost nothing that was stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program or thread held the store for longer than the caller is ready to wait.
    #[error(
        "{place} was in use by another program or thread for {} s; nothing was changed and nothing stored is lost; \
         try again, raise busy_timeout, or find the program that keeps a transaction open",
        .waited.as_secs_f64()
    )]
    Busy {
        /// The store.
        place: Place,
        /// How long it was waited for.
        waited: Duration,
    },

    /// The store was closed.
    #[error("this store on {0} is closed; what was saved is kept there; open another store on it")]
    Closed(Place),

    /// An id that no row has.
    #[error(
        "{place} has no token with {}; nothing was changed; log the user in again, or list the tokens to see \
         which ids there are",
        describe_id(.id)
    )]
    NoSuchId {
        /// The store.
        place: Place,
        /// The id.
        id: String,
    },

    /// A new token that holds nothing a row would be good for.
    #[error(
        "the token has neither a refresh token nor a grant token nor an access token, and {0} has no row for it; \
         nothing was changed; save a token that has one of the three"
    )]
    NothingToSave(Place),

    /// What the caller handed in cannot be used. The text names it, never its value.
    #[error("{0}; nothing was changed")]
    BadInput(String),

    /// The store has done its part, and the caller's token refused to hear of it.
    #[error("{0}; what the store holds is right, and the token is not to be used")]
    BadToken(String),

    /// The path leads nowhere a database can be.
    #[error("{} {what}; nothing was changed; {cure}", .path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What to do.
        cure: &'static str,
    },

    /// A file that is not ours to write.
    #[error("{} {what}; the file was left untouched; {cure}", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Which kind of flaw it is.
        flaw: Flaw,
        /// What is wrong with it.
        what: String,
        /// What to do.
        cure: &'static str,
    },

    /// A row that cannot be read. It can be deleted.
    #[error("{place}: {what}; nothing was changed and nothing stored is lost; {cure}")]
    BadRow {
        /// The store.
        place: Place,
        /// What is wrong with it.
        what: String,
        /// Its id.
        id: String,
        /// What to do.
        cure: &'static str,
    },

    /// The operating system or SQLite refused.
    #[error("{place}: {what}; nothing was changed and nothing stored is lost; {cure}")]
    Refused {
        /// The store.
        place: Place,
        /// What was refused, and why.
        what: String,
        /// What to do.
        cure: &'static str,
    },
}

impl Error {
    /// Would another attempt, with more patience, have a chance?
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// What keeps a store from being read, as a finding. Any other error is none: it could not be looked at.
    pub(super) fn into_finding(self) -> Result<Finding> {
        let (code, ids, message, cure) = match self {
            Self::BadFile { path, flaw, what, cure } => {
                let code = match flaw {
                    Flaw::NotADatabase | Flaw::NoTokens => "not-a-database",
                    Flaw::Damaged => DAMAGED,
                    Flaw::Newer => "newer-schema",
                    Flaw::AnotherPrograms => "other-program",
                };
                (code, Vec::new(), format!("{} {what}", path.display()), cure)
            }
            Self::BadRow { place, what, id, cure } => (DAMAGED, vec![id], format!("{place}: {what}"), cure),
            error => return Err(error),
        };
        Ok(Finding { code, severity: Severity::Error, ids, message, cure })
    }
}

const DAMAGED: &str = "damaged";

/// What can be wrong with a file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is something else.
    NotADatabase,
    /// Its contents contradict each other.
    Damaged,
    /// A newer version of this library wrote it.
    Newer,
    /// It is a database, and another program's.
    AnotherPrograms,
    /// It was to be imported, and there is something in it that is no token.
    NoTokens,
}

/// Where a store keeps its rows, as messages name it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Place {
    /// A file.
    #[error("{}", .0.display())]
    File(PathBuf),
    /// The memory of this process.
    #[error("the store in memory")]
    Memory,
}

impl Place {
    /// The file, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory => None,
        }
    }
}

/// Longest id that a message repeats: a caller may have handed in a token where an id belongs.
const LONGEST_ID: usize = 24;

/// An id, as messages name it.
#[must_use]
pub fn describe_id(id: &str) -> String {
    if id.is_empty() {
        "an absent id".to_owned()
    } else if id.chars().count() <= LONGEST_ID && !id.contains('.') {
        format!("the id {id:?}")
    } else {
        format!("that id ({} characters)", id.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_only_if_it_cannot_be_a_token() {
        assert_eq!(describe_id("17"), "the id \"17\"");
        assert_eq!(describe_id(""), "an absent id");
        assert_eq!(describe_id("1000.made.up"), "that id (12 characters)");
        assert_eq!(describe_id(&"a".repeat(64)), "that id (64 characters)");
    }

    #[test]
    fn a_wait_is_told_in_seconds() {
        let error = Error::Busy { place: Place::Memory, waited: Duration::from_millis(1500) };
        assert!(error.to_string().contains("for 1.5 s"));
    }
}
