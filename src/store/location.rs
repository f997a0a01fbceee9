//! Where rows are kept, as messages name it.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// The place where a backend keeps its rows. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(LocationKind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum LocationKind {
    Path(PathBuf),
    Name(Cow<'static, str>),
}

impl Location {
    /// A path of this machine.
    pub fn path_of(path: impl Into<PathBuf>) -> Self {
        Self(LocationKind::Path(path.into()))
    }

    /// A location without a path, for example `"the store in memory"`.
    #[must_use]
    pub const fn named(name: &'static str) -> Self {
        Self(LocationKind::Name(Cow::Borrowed(name)))
    }

    /// A database on a server. `name` holds no user name and no password.
    pub fn on_server(name: impl Into<String>) -> Self {
        Self(LocationKind::Name(Cow::Owned(name.into())))
    }

    /// The path, if the location is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            LocationKind::Path(path) => Some(path),
            LocationKind::Name(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            LocationKind::Path(path) => path.display().fmt(f),
            LocationKind::Name(name) => f.write_str(name),
        }
    }
}
