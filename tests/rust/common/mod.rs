//! What several files of tests share: tokens as text, a clock, folders, and the list of backends.

#![allow(dead_code, unused_imports, unused_macros, reason = "each file of tests uses a part of this module")]

mod backends;
pub(crate) mod cells;
pub(crate) mod keyed;
#[path = "../miniature.rs"]
mod miniature;
mod network;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod postgres;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod postgres_proxy;
#[cfg(all(unix, feature = "postgres"))]
pub(crate) mod postgres_server;
mod unwritable;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use zoho_token_store::backends::DATABASE_FORMATS;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::backend::Backend;
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::{Result, Store};

pub(crate) use backends::{for_all_keys, for_each_backend};
pub(crate) use keyed::TestKeys;
pub(crate) use miniature::Miniature;
pub(crate) use unwritable::{Unwritable, WriteFault};

/// The time of the tests, in milliseconds since the epoch.
pub(crate) const NOW: i64 = 1_795_300_000_000;

/// How long an operation may wait. A test that needs all of it has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn deadline() -> Deadline {
    Deadline::after(TIMEOUT)
}

/// Parses a token that is written as `"refresh_token=r user_name=u"`.
pub(crate) fn token(values: &str) -> Token<'_> {
    Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
}

/// Writes the rows in the same way. The order and time of their last save are left out.
pub(crate) fn lines(rows: &[Row]) -> Vec<String> {
    let line = |row: &Row| {
        let values = Field::ALL.into_iter().filter_map(|field| Some(format!("{}={}", field.name(), row.get(field)?)));
        values.collect::<Vec<_>>().join(" ")
    };
    rows.iter().map(line).collect()
}

/// Writes a backup of the store in the first format of this build.
pub(crate) fn back_up(store: &Store, target: &Path) -> Result<()> {
    store.backup(target, DATABASE_FORMATS.first().copied())
}

/// A clock that moves only when a test moves it, in milliseconds since the epoch. Clones are the same clock.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOW)))
    }

    pub(crate) fn now(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, now: i64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

/// An empty folder, which is removed at the end of the test.
pub(crate) struct Folder(pub(crate) TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and returns its path.
    pub(crate) fn with(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    /// The paths and contents of all files, sorted.
    pub(crate) fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let read = |name: &String| (self.path(name), fs::read(self.path(name)).unwrap());
        self.names().iter().map(read).collect()
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What a backend under test is made from.
pub(crate) struct Setup {
    pub(crate) clock: Clock,
    pub(crate) folder: Folder,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self { clock: Clock::new(), folder: Folder::new() }
    }
}

/// Makes the backend of a test. It is a function because `make` is a closure whose argument has no type annotation.
pub(crate) fn make<B: Backend>(setup: &Setup, make: impl FnOnce(&Setup) -> B) -> B {
    make(setup)
}

#[cfg(feature = "sqlite")]
pub(crate) mod sqlite {
    use std::fs;
    use std::path::{Path, PathBuf};

    use zoho_token_store::backends::sqlite::{Journal, Sqlite};
    use zoho_token_store::store::{Result, Store};

    use super::{Folder, Setup, TIMEOUT, deadline};

    /// The database that came with the vendor's sample store: ten rows.
    pub(crate) const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sample-zohooauth.db");

    impl Folder {
        /// Copies the sample's database into the folder.
        pub(crate) fn with_sample(&self) -> PathBuf {
            self.with("zohooauth.db", fs::read(SAMPLE).unwrap())
        }
    }

    pub(crate) fn try_open(path: &Path) -> Result<Store> {
        Ok(Store::new(Box::new(Sqlite::open(path, deadline())?), TIMEOUT))
    }

    pub(crate) fn open(path: &Path) -> Store {
        try_open(path).unwrap()
    }

    pub(crate) fn with_journal(setup: &Setup, journal: Journal) -> Sqlite {
        Sqlite::with_journal(&setup.folder.path("tokens.db"), journal, deadline()).unwrap()
    }
}
