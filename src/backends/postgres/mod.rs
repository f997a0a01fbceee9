//! Rows in a PostgreSQL database that programs on many machines can use.
//!
//! A find is one statement. A save is a find and one guarded statement ([`guarded`]); after a conflict it is a
//! transaction under a lock ([`locked`]). Whether work is repeated after a failure is a rule of [`error`].

mod address;
mod connect;
mod error;
mod guarded;
mod inspect;
mod link;
mod locked;
mod missing;
mod parameters;
mod parts;
mod password_file;
mod pool;
mod schema;
mod session;
mod sql;
mod statement;
mod tls;
mod writes;

use std::cell::Cell;
use std::time::Duration;

use self::error::{Cause, ServerFailure};
use self::guarded::Attempted;
use self::link::Link;
use self::pool::{CallBudget, NoLink, Pool};
use self::sql::Tables;
use crate::domain::check::Finding;
use crate::store::backend::{Backend, Change, Durability, Location, Reading};
use crate::store::deadline::Deadline;
use crate::store::error::{Error, Result};
use crate::store::fork_state;

pub use self::address::{Address, AskPassword, Environment, OwnProcess, PasswordFile};
pub use self::inspect::{check, schema_version};
pub use self::parameters::is_parameter;
pub use self::schema::INIT_SQL;

/// The time of a call whose timeout is 0: a call over a network cannot take no time.
const MIN_CALL: Duration = Duration::from_secs(1);

/// An attempt with less time than this would probably end in a timeout, and then it is not known what was changed.
const WORTH_AN_ATTEMPT: Duration = Duration::from_millis(20);

/// The longest name of a schema, in bytes (NAMEDATALEN - 1).
const MAX_NAME: usize = 63;

/// How a store uses a database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The schema with the tables. `None`: the first one of the search path.
    pub schema: Option<String>,
    /// The most connections of a process.
    pub connections: usize,
    /// Makes the tables if they are missing.
    pub create: bool,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self { schema: None, connections: 4, create: true }
    }
}

/// Rows in tables on a server.
pub struct Postgres {
    pool: Pool,
    tables: Tables,
}

impl Postgres {
    /// Connects to a database, and makes or migrates the tables if that is needed.
    pub fn open(address: Address, settings: PostgresSettings, deadline: Deadline) -> Result<Self> {
        let PostgresSettings { schema, connections, create } = settings;
        // The server cuts a longer name short, so the schema would not be found again.
        let is_name = |schema: &String| (1..=MAX_NAME).contains(&schema.len()) && !schema.contains(['\0', '\\']);
        if !schema.as_ref().is_none_or(is_name) {
            let message = "schema must be a name of at most 63 bytes, without NUL and without a backslash";
            return Err(Error::invalid_argument(message));
        }
        let pool = Pool::new(address.in_schema(schema.as_deref()), connections);
        let tables = run(&pool, deadline, |link| schema::prepare(link, schema.as_deref(), create))?;
        Ok(Self { pool, tables })
    }

    /// Returns the finding about the clock of this machine, if it differs from the server's.
    pub fn check_clock(&self, deadline: Deadline) -> Result<Option<Finding>> {
        run(&self.pool, deadline, inspect::check_clock)
    }
}

/// Runs an attempt on a connection. Repeats it after a failure that can pass, until the deadline.
fn run<T>(
    pool: &Pool,
    deadline: Deadline,
    mut attempt: impl FnMut(&Link) -> std::result::Result<T, ServerFailure>,
) -> Result<T> {
    let mut is_unanswered = false;
    let noting = |link: &Link| {
        let tried = attempt(link);
        // Also if a later attempt fails for another reason.
        is_unanswered |= link.take_unanswered_change();
        tried
    };
    let done = repeat(pool, deadline, noting);
    done.map_err(|error| if is_unanswered { error.after_unanswered_change() } else { error })
}

fn repeat<T>(
    pool: &Pool,
    deadline: Deadline,
    mut attempt: impl FnMut(&Link) -> std::result::Result<T, ServerFailure>,
) -> Result<T> {
    let location = pool.address().location();
    // A caller that may not wait cannot wait for a network either. Without any time, a connection would be given up.
    if !deadline.allows_slow_work() || (deadline.left().is_none() && !deadline.is_zero()) {
        return Err(deadline.busy(location));
    }
    let mut budget = CallBudget::new(if deadline.is_zero() { Deadline::after(MIN_CALL) } else { deadline });
    let mut earlier: Option<Cause> = None;
    for number in 0.. {
        let acquired = pool.acquire(&mut budget);
        let deadline = budget.deadline;
        let tried = match acquired {
            Ok(link) => {
                let tried = attempt(&link);
                pool.release(link);
                tried
            }
            Err(NoLink::Failed(failure)) => Err(failure),
            Err(NoLink::Busy) => break,
        };
        let failure = match tried {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        let pause = match &failure {
            ServerFailure::Final(_) => return Err(failure.into_error(location, deadline, earlier)),
            _ if number == 0 => 0..1,
            ServerFailure::Retry(_) => 1_000..20_000,
            // A server takes some time to come back.
            ServerFailure::Lost(_) => 50_000..150_000,
        };
        if let ServerFailure::Lost(_) = failure {
            pool.drop_idle();
        }
        deadline.sleep(pause);
        if fork_state::is_fork_awaited() {
            break;
        }
        if deadline.left().is_none_or(|left| left < WORTH_AN_ATTEMPT) {
            return Err(failure.into_error(location, deadline, earlier));
        }
        if let ServerFailure::Lost(cause) | ServerFailure::Retry(cause) = failure {
            earlier = Some(cause.or_earlier(earlier));
        }
    }
    let cause = earlier.filter(|_| !fork_state::is_fork_awaited());
    let deadline = budget.deadline;
    Err(cause.map_or_else(|| deadline.busy(location), |cause| cause.into_error(location, deadline)))
}

impl Backend for Postgres {
    fn location(&self) -> &Location {
        self.pool.address().location()
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        run(&self.pool, deadline, |link| {
            session::read(link, &self.tables, work).map_err(|failure| missing::explained(link, &self.tables, failure))
        })
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        let mut locks = false;
        let lost_commit = Cell::new(false);
        run(&self.pool, deadline, |link| {
            if !locks {
                let attempted = guarded::write(link, &self.tables, durability, &lost_commit, work);
                locks = matches!(attempted, Ok(Attempted::NeedsLock) | Err(ServerFailure::Retry(_)));
                if !locks || attempted.is_err() {
                    return attempted.map(drop).map_err(|failure| missing::explained(link, &self.tables, failure));
                }
            }
            let done = locked::write(link, &self.tables, durability, &lost_commit, work);
            done.map_err(|failure| missing::explained(link, &self.tables, failure))
        })
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        run(&self.pool, deadline, |link| inspect::findings(link, &self.tables))
    }

    // `scrub` does nothing: only the owner of the table can rewrite it, which locks it, and the WAL, its archive and standbys
    // keep the former values anyway. The documentation has the statement.

    fn after_fork_in_child(&self) {
        self.pool.after_fork();
    }

    fn close(&self, deadline: Deadline) {
        self.pool.close(deadline);
    }
}
