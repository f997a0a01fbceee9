//! Where a store is: the path of a file, or the address of a database on a server.

use std::path::{Path, PathBuf};
#[cfg(feature = "postgres")]
use std::sync::Arc;

#[cfg(feature = "postgres")]
use super::postgres::{Address, Environment, OwnProcess, PasswordFile, PostgresSettings};
use crate::store::backend::Location;
use crate::store::error::Result;
#[cfg(not(feature = "postgres"))]
use crate::store::error::{Code, Error};

/// Where a store is. It may hold a password, which nothing shows.
#[derive(Clone, Debug)]
pub enum StoreAddress {
    /// The path of a database file.
    File(PathBuf),
    /// A database on a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresAddress>),
}

/// The address of a database on a PostgreSQL server.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
pub struct PostgresAddress {
    /// The address itself.
    pub address: Address,
    has_password: bool,
}

#[cfg(feature = "postgres")]
impl PostgresAddress {
    /// Reads a text (`postgresql://…` or keywords) and arguments, which override it. What is missing comes from the
    /// environment of this process.
    pub fn new(dsn: Option<&str>, arguments: &[(String, String)]) -> Result<Self> {
        let address = Address::new(dsn, arguments, &OwnProcess)?;
        let has_password = Address::new(dsn, arguments, &Nowhere).is_ok_and(|alone| alone.has_password());
        Ok(Self { address, has_password })
    }

    /// How to use the database, unless the caller says otherwise.
    #[must_use]
    pub fn settings(&self) -> PostgresSettings {
        PostgresSettings { schema: self.address.schema().map(str::to_owned), ..PostgresSettings::default() }
    }
}

impl StoreAddress {
    /// The address of a database on a server ([`crate::domain::look_alike::LookAlike::Server`]).
    #[cfg(feature = "postgres")]
    pub fn server(text: &str) -> Result<Self> {
        Ok(Self::Postgres(Box::new(PostgresAddress::new(Some(text), &[])?)))
    }

    /// This build has no stores on a server.
    #[cfg(not(feature = "postgres"))]
    pub fn server(_: &str) -> Result<Self> {
        Err(without_servers())
    }

    /// The path, if the store is in a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
        }
    }

    /// Does the text of the address contain a password?
    #[must_use]
    pub const fn has_password(&self) -> bool {
        match self {
            Self::File(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.has_password,
        }
    }

    /// Is no password known, although the server may ask for one?
    #[must_use]
    pub fn lacks_password(&self) -> bool {
        match self {
            Self::File(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => !server.address.has_password(),
        }
    }

    /// The same address with this password.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        match self {
            Self::File(_) => {
                let _ = password;
                self
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(mut server) => {
                let password = password.to_owned();
                server.address = server.address.with_password(Arc::new(move || Ok(password.clone())));
                Self::Postgres(server)
            }
        }
    }

    /// What users call the kind of database.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "SQLite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// The location that messages name.
    #[must_use]
    pub fn location(&self) -> Location {
        match self {
            Self::File(path) => Location::path_of(path),
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.address.location().clone(),
        }
    }
}

#[cfg(not(feature = "postgres"))]
pub(super) fn without_servers() -> Error {
    Error::new(Code::Unsupported, "").with("a token database on a server")
}

/// An environment that has nothing.
#[cfg(feature = "postgres")]
struct Nowhere;

#[cfg(feature = "postgres")]
impl Environment for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn user_name(&self) -> Option<String> {
        Some(String::new())
    }

    fn default_password_file(&self) -> Option<PathBuf> {
        None
    }

    fn read_password_file(&self, _: &Path) -> PasswordFile {
        PasswordFile::Missing
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }
}
