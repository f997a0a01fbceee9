//! A PostgreSQL server for tests: a schema for each test, and statements beside the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, process};

use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use zoho_token_store::backends::postgres::{Address, OwnProcess, Postgres, PostgresSettings};
use zoho_token_store::domain::backoff::RefreshFailures;
use zoho_token_store::domain::check::Finding;
use zoho_token_store::domain::identity::Keys;
use zoho_token_store::domain::lease::Lease;
use zoho_token_store::domain::{Key, Row, Token};
use zoho_token_store::store::Result;
use zoho_token_store::store::backend::{
    Backend, Change, Durability, Location, Reading, SeenLease, Snapshot, Transaction,
};
use zoho_token_store::store::deadline::Deadline;

use super::{Clock, Setup, deadline};

/// The address of the server of the tests, as keyword text: tests append keywords to it.
pub(crate) fn dsn() -> String {
    let dsn = env::var("TEST_POSTGRES_DSN").unwrap_or_else(|_| {
        panic!(
            "These tests need a PostgreSQL server: python tests/postgres_server.py -- cargo test … starts one, or set \
             TEST_POSTGRES_DSN to the address of an empty database"
        )
    });
    let config = parse(&dsn);
    let host = match config.get_hosts().first() {
        Some(Host::Unix(folder)) => folder.display().to_string(),
        Some(Host::Tcp(name)) => name.clone(),
        None => panic!("TEST_POSTGRES_DSN names no host"),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let password = config.get_password().map(|password| String::from_utf8_lossy(password));
    let values = [("user", config.get_user()), ("password", password.as_deref()), ("dbname", config.get_dbname())];
    let quoted = values
        .into_iter()
        .filter_map(|(name, value)| Some(format!(" {name}='{}'", value?.replace('\\', r"\\").replace('\'', r"\'"))));
    format!("host={host} port={port}{}", quoted.collect::<String>())
}

fn parse(dsn: &str) -> Config {
    dsn.parse().unwrap_or_else(|_| panic!("TEST_POSTGRES_DSN is no address"))
}

/// A connection of its own, beside those of the store.
pub(crate) struct Admin {
    runtime: Runtime,
    client: Client,
}

impl Admin {
    pub(crate) fn new() -> Self {
        Self::connect(&dsn())
    }

    pub(crate) fn connect(dsn: &str) -> Self {
        let config = parse(dsn);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let port = config.get_ports().first().copied().unwrap_or(5432);
            match config.get_hosts().first() {
                Some(Host::Unix(folder)) => {
                    let socket = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await.unwrap();
                    let (client, connection) = config.connect_raw(socket, NoTls).await.unwrap();
                    tokio::spawn(connection);
                    client
                }
                Some(Host::Tcp(name)) => {
                    let socket = tokio::net::TcpStream::connect((name.as_str(), port)).await.unwrap();
                    let (client, connection) = config.connect_raw(socket, NoTls).await.unwrap();
                    tokio::spawn(connection);
                    client
                }
                None => panic!("TEST_POSTGRES_DSN names no host"),
            }
        });
        Self { runtime, client }
    }

    /// Runs statements, and returns the values of their rows.
    pub(crate) fn sql(&self, text: &str) -> Vec<Vec<String>> {
        self.try_sql(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    pub(crate) fn try_sql(&self, text: &str) -> std::result::Result<Vec<Vec<String>>, tokio_postgres::Error> {
        let messages = self.runtime.block_on(self.client.simple_query(text))?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("NULL").to_owned()).collect())
            }
            _ => None,
        };
        Ok(messages.iter().filter_map(row).collect())
    }

    /// The single value of a single row.
    pub(crate) fn value(&self, text: &str) -> String {
        let rows = self.sql(text);
        assert_eq!((rows.len(), rows[0].len()), (1, 1), "{text}");
        rows[0][0].clone()
    }
}

/// A schema that no other test uses. It is dropped at the end.
pub(crate) struct Schema(pub(crate) String);

impl Schema {
    /// A name. The store makes the schema.
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self(format!("test_{}_{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn settings(&self) -> PostgresSettings {
        PostgresSettings { schema: Some(self.0.clone()), ..PostgresSettings::default() }
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let admin = Admin::new();
        // A store that a test has left open may be at work.
        let drop = format!(
            "SET client_min_messages = error; SET lock_timeout = '5s'; DROP SCHEMA IF EXISTS {} CASCADE",
            self.0
        );
        let _ = admin.try_sql(&drop);
    }
}

pub(crate) fn address(dsn: &str) -> Address {
    Address::new(Some(dsn), &[], &OwnProcess).unwrap()
}

pub(crate) fn open(schema: &Schema) -> Postgres {
    Postgres::open(address(&dsn()), schema.settings(), deadline()).unwrap()
}

/// The backend of the suites: tables in a schema of their own, and leases that expire by the clock of the test.
pub(crate) struct TestPostgres {
    postgres: Postgres,
    clock: Clock,
    // Dropped last.
    _schema: Schema,
}

impl TestPostgres {
    pub(crate) fn new(setup: &Setup) -> Self {
        let schema = Schema::new();
        Self { postgres: open(&schema), clock: setup.clock.clone(), _schema: schema }
    }
}

/// What a transaction reads, with the clock of the test in place of the server's.
struct Clocked<T>(T, Clock);

macro_rules! delegate_reads {
    () => {
        fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
            self.0.by_key(key, value)
        }

        fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
            self.0.by_keys(keys, accept)
        }

        fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
            self.0.each(visit)
        }

        fn count(&self) -> Result<usize> {
            self.0.count()
        }

        fn last_id(&self) -> Result<i64> {
            self.0.last_id()
        }

        fn announce_lease(&self, key: Option<&str>) {
            self.0.announce_lease(key);
        }

        fn lease(&self, key: &str) -> Result<SeenLease> {
            let seen = self.0.lease(key)?;
            assert!(seen.now.is_some(), "the server has a clock");
            Ok(SeenLease { now: Some(self.1.now()), ..seen })
        }

        fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
            self.0.key_names()
        }
    };
}

impl Snapshot for Clocked<&dyn Snapshot> {
    delegate_reads!();
}

impl Snapshot for Clocked<&mut dyn Transaction> {
    delegate_reads!();
}

impl Transaction for Clocked<&mut dyn Transaction> {
    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.0.raise_last_id(number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.0.insert(token, now)
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        self.0.update(row, token, now)
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        self.0.rewrite(row, token)
    }

    fn set_key_names(&mut self, names: &BTreeSet<String>) -> Result<()> {
        self.0.set_key_names(names)
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        self.0.copy(row)
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        self.0.delete(id)
    }

    fn delete_all(&mut self) -> Result<()> {
        self.0.delete_all()
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.0.acquire_lease(key, lease)
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.0.release_lease(key, owner)
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.0.record_failures(key, failures)
    }
}

impl Backend for TestPostgres {
    fn location(&self) -> &Location {
        self.postgres.location()
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.postgres.read(deadline, &mut |rows| work(&Clocked(rows, self.clock.clone())))
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.postgres.write(deadline, durability, &mut |rows| work(&mut Clocked(rows, self.clock.clone())))
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        self.postgres.check(deadline)
    }

    fn after_fork_in_child(&self) {
        self.postgres.after_fork_in_child();
    }

    fn close(&self, deadline: Deadline) {
        self.postgres.close(deadline);
    }
}
