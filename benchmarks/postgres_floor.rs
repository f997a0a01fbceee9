//! The lower bounds for a find and for a save on PostgreSQL, and the store's own find and save beside them, in Rust.
//!
//! `postgres_floor DSN SCHEMA ROWS ROUNDS` fills a new schema, and prints a line for each call: `find store 234567` is a
//! find of the store that took 234 567 ns. The calls take turns. `make postgres-floor` builds it.
//!
//! - A find must at least `SELECT` the row by its refresh token, without a prepared statement, and copy its values.
//! - A save must at least run the statement that the store runs after it has found the row, with the server's commit.
//!   Its text is read from `pg_stat_activity`, so it is the same one.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "the program prints its result")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::Host;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row};
use zoho_token_store::backends::postgres::{Address, OwnProcess, Postgres, PostgresSettings};
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::{Store, Wait};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

const TIMEOUT: Duration = Duration::from_secs(5);
const FILL_TIMEOUT: Duration = Duration::from_secs(100);
const COLUMNS: usize = 10;
const FINDS: usize = 20; // consecutive calls, before the next contender's
const SAVES: usize = 2;
const NOW: i64 = 1_795_300_000_000;
const EXPIRY: &str = "1795303600000";
const SECRET: &str = "made-up-client-secret-0123456789abcdef012345";
const LOCK_TIMEOUT_MS: &str = "5000";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dsn, schema, rows, rounds] = arguments.as_slice() else {
        return Err("postgres_floor DSN SCHEMA ROWS ROUNDS".into());
    };
    let (rows, rounds): (usize, usize) = (rows.parse()?, rounds.parse()?);
    fastrand::seed(7);
    let store = store(dsn, schema, TIMEOUT)?;
    let mut users: Vec<User> = (0..rows).map(User::new).collect();
    let tokens: Vec<Token<'_>> = users.iter().map(User::token).collect();
    let ids = self::store(dsn, schema, FILL_TIMEOUT)?.import(&tokens, NOW)?;
    for (user, id) in users.iter_mut().zip(ids) {
        user.id = id;
    }
    let mut bare = Bare::connect(dsn, schema)?;
    bare.run(&format!("VACUUM ANALYZE \"{schema}\".oauthtoken"))?;
    save_in_store(&store, drawn(&mut users))?;
    bare.learn_save(schema)?;
    for _ in 0..rounds {
        for _ in 0..FINDS {
            report("find store", find_in_store(&store, drawn(&mut users))?);
        }
        for _ in 0..FINDS {
            report("find bare", bare.find(drawn(&mut users))?);
        }
        for _ in 0..SAVES {
            report("save store", save_in_store(&store, drawn(&mut users))?);
        }
        for _ in 0..SAVES {
            report("save bare", bare.save(drawn(&mut users))?);
        }
    }
    store.close();
    Ok(())
}

fn report(what: &str, took: Duration) {
    println!("{what} {}", took.as_nanos());
}

/// The values of one user's row. They are as long as real ones, and made up.
struct User {
    name: String,
    refresh: String,
    grant: String,
    access: String,
    id: String,
}

impl User {
    fn new(number: usize) -> Self {
        let text = |kind: &str| format!("made-up-{kind:-<8}-{number:0>53}");
        let [refresh, grant, access] = ["refresh", "grant", "access"].map(text);
        Self { name: format!("user{number}@example.com"), refresh, grant, access, id: String::new() }
    }

    fn token(&self) -> Token<'_> {
        Token::from_fn(|field| {
            let value = match field {
                Field::Id => &self.id,
                Field::UserName => &self.name,
                Field::ClientId => "1000.MADEUPCLIENT0123456789ABCDEFGHIJ",
                Field::ClientSecret => SECRET,
                Field::RefreshToken => &self.refresh,
                Field::AccessToken => &self.access,
                Field::GrantToken => &self.grant,
                Field::ExpiryTime => EXPIRY,
                Field::RedirectUrl => "https://www.example.com/oauth/callback",
                Field::ApiDomain => "https://www.zohoapis.com",
            };
            Some(value).filter(|value| !value.is_empty())
        })
    }

    /// Gets a new access token.
    fn refresh(&mut self) {
        self.access = format!("made-up-{:0>62x}", fastrand::u128(..));
    }
}

/// Any of the users. It is drawn before the clock starts, because a caller of a store already has its token.
fn drawn(users: &mut [User]) -> &mut User {
    let index = fastrand::usize(..users.len());
    &mut users[index]
}

fn store(dsn: &str, schema: &str, timeout: Duration) -> Outcome<Store> {
    let address = Address::new(Some(dsn), &[], &OwnProcess)?;
    let settings = PostgresSettings { schema: Some(schema.to_owned()), ..PostgresSettings::default() };
    Ok(Store::open(timeout, |deadline| Ok(Box::new(Postgres::open(address.clone(), settings.clone(), deadline)?)))?)
}

fn find_in_store(store: &Store, user: &User) -> Outcome<Duration> {
    let token = Token::from_fn(|field| (field == Field::RefreshToken).then_some(user.refresh.as_str()));
    let begun = Instant::now();
    let found = store.find(token, Wait::Yes)?;
    let took = begun.elapsed();
    let found = found.ok_or("the store has not found a row")?;
    if found.row().get(Field::AccessToken) != Some(&user.access) {
        return Err("the store has found a wrong row".into());
    }
    Ok(took)
}

fn save_in_store(store: &Store, user: &mut User) -> Outcome<Duration> {
    user.refresh();
    let begun = Instant::now();
    store.save(user.token(), NOW)?;
    Ok(begun.elapsed())
}

/// A connection without a store.
struct Bare {
    runtime: Runtime,
    client: Client,
    find: String,
    order: String,
    save: String,
}

impl Bare {
    fn connect(dsn: &str, schema: &str) -> Outcome<Self> {
        let config: Config = dsn.parse()?;
        let Some(Host::Unix(folder)) = config.get_hosts().first() else {
            return Err("the server must be on a Unix socket".into());
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let socket = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?;
            let (client, connection) = config.connect_raw(socket, NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, Box<dyn Error>>(client)
        })?;
        let columns = Field::ALL.map(Field::name).join(", ");
        Ok(Self {
            runtime,
            client,
            find: format!("SELECT {columns} FROM \"{schema}\".oauthtoken WHERE refresh_token = $1"),
            order: format!("SELECT saved_order FROM \"{schema}\".oauthtoken WHERE id = $1"),
            save: String::new(),
        })
    }

    fn run(&self, text: &str) -> Outcome<()> {
        self.runtime.block_on(self.client.batch_execute(text))?;
        Ok(())
    }

    fn query(&self, text: &str, parameters: &[Parameter<'_>]) -> Outcome<Row> {
        let mut rows = self.runtime.block_on(self.client.query_typed(text, parameters))?;
        rows.pop().ok_or_else(|| "a statement has returned no row".into())
    }

    /// Reads the text of the statement with which the store has just saved a refreshed token.
    fn learn_save(&mut self, schema: &str) -> Outcome<()> {
        let text = "SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE 'WITH %' \
                    AND position($1 IN query) > 0";
        let table = format!("UPDATE \"{schema}\".oauthtoken");
        self.save = self.query(text, &[(&table, Type::TEXT)])?.try_get(0)?;
        Ok(())
    }

    fn find(&self, user: &User) -> Outcome<Duration> {
        let begun = Instant::now();
        let row = self.query(&self.find, &[(&user.refresh, Type::TEXT)])?;
        for column in 0..COLUMNS {
            black_box(row.try_get::<_, Option<&str>>(column)?.map(str::to_owned));
        }
        Ok(begun.elapsed())
    }

    fn save(&self, user: &mut User) -> Outcome<Duration> {
        user.refresh();
        let id: Parameter<'_> = (&user.id, Type::TEXT);
        let order: i64 = self.query(&self.order, std::slice::from_ref(&id))?.try_get(0)?;
        let order: Parameter<'_> = (&order, Type::INT8);
        let key: Parameter<'_> = (&"plaintext", Type::TEXT);
        let parameters = [
            (&LOCK_TIMEOUT_MS as _, Type::TEXT),
            id.clone(),
            order.clone(),
            key.clone(),
            (&SECRET as _, Type::TEXT),
            (&user.access as _, Type::TEXT),
            (&EXPIRY as _, Type::TEXT),
            (&NOW as _, Type::INT8),
            id,
            order,
            key,
        ];
        let begun = Instant::now();
        let row = self.query(&self.save, &parameters)?;
        let took = begun.elapsed();
        if !row.try_get::<_, bool>(0)? {
            return Err("the statement of the store's save has saved nothing".into());
        }
        Ok(took)
    }
}
