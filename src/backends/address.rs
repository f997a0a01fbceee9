//! Where a store is: the path of a file, or the address of a database on a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(feature = "postgres")]
use super::postgres::{Address, OwnProcess, PostgresSettings};
#[cfg(feature = "postgres")]
use crate::domain::look_alike;
use crate::store::backend::{Backend, Location};
use crate::store::error::Result;
#[cfg(not(feature = "postgres"))]
use crate::store::error::{Code, Error};

/// Where a store is. It may hold a password, which nothing shows.
#[derive(Clone, Debug)]
pub enum StoreAddress {
    /// The path of a database file.
    File(PathBuf),
    /// A cell, which the program has made.
    Cell(CellAddress),
    /// A database on a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresAddress>),
}

/// A cell that a program has made.
#[derive(Clone)]
pub struct CellAddress {
    location: Location,
    open: OpenCell,
}

/// Returns a backend over a cell.
pub type OpenCell = Arc<dyn Fn() -> Box<dyn Backend> + Send + Sync>;

impl CellAddress {
    /// A cell at this location.
    #[must_use]
    pub fn new(location: Location, open: OpenCell) -> Self {
        Self { location, open }
    }

    /// Opens the store.
    #[must_use]
    pub fn open(&self) -> Box<dyn Backend> {
        (self.open)()
    }
}

impl fmt::Debug for CellAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CellAddress").field(&self.location).finish()
    }
}

/// The address of a database on a PostgreSQL server.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
pub struct PostgresAddress {
    /// The address itself.
    pub address: Address,
}

#[cfg(feature = "postgres")]
impl PostgresAddress {
    /// Reads a text (`postgresql://…` or keywords) and arguments, which override it. What is missing comes from the
    /// environment of this process.
    pub fn new(dsn: Option<&str>, arguments: &[(String, String)]) -> Result<Self> {
        Ok(Self { address: Address::new(dsn, arguments, &OwnProcess)? })
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
            Self::Cell(_) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
        }
    }

    /// The schema that the address of a server names.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        match self {
            Self::File(_) | Self::Cell(_) => None,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.address.schema(),
        }
    }

    /// Does the text of the address contain a password?
    #[must_use]
    pub const fn has_password(&self) -> bool {
        match self {
            Self::File(_) | Self::Cell(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.address.is_password_given(),
        }
    }

    /// Is no password known, although the server may ask for one?
    #[must_use]
    pub fn lacks_password(&self) -> bool {
        match self {
            Self::File(_) | Self::Cell(_) => false,
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => !server.address.has_password(),
        }
    }

    /// The same address with this password.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        match self {
            Self::File(_) | Self::Cell(_) => {
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
            Self::Cell(_) => "cell",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// The location that messages name.
    #[must_use]
    pub fn location(&self) -> Location {
        match self {
            Self::File(path) => Location::path_of(path),
            Self::Cell(cell) => cell.location.clone(),
            #[cfg(feature = "postgres")]
            Self::Postgres(server) => server.address.location().clone(),
        }
    }
}

/// Is it a text of connection parameters (`host=… dbname=…`)?
#[must_use]
pub fn is_keyword_text(text: &str) -> bool {
    #[cfg(feature = "postgres")]
    return look_alike::is_keyword_text(text, super::postgres::is_parameter);
    #[cfg(not(feature = "postgres"))]
    return {
        let _ = text;
        false
    };
}

#[cfg(not(feature = "postgres"))]
pub(super) fn without_servers() -> Error {
    Error::new(Code::Unsupported, "").with("a token database on a server")
}
