//! One connection to the server, and the runtime that drives it.
//!
//! The runtime runs on the thread that uses the connection, while that thread waits for an answer. So there are no
//! threads that a fork could lose, and every answer is waited for under a deadline.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::process;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_postgres::{Client, Row as ServerRow, SimpleQueryMessage, SimpleQueryRow};

use super::address::Address;
use super::connect::{Driver, connect};
use super::error::{ServerFailure, lost};
use super::sql::BEGIN_SNAPSHOT;
use super::statement::Statement;
use crate::store::backend::Location;
use crate::store::deadline::Deadline;

/// A call about one row makes no more statements. One that makes more in a transaction works on many rows, such as an
/// import. It may take any time, as long as the server answers each statement in the time of the first one.
const MOST_STATEMENTS_OF_A_CALL: usize = 10;

/// The least time for an answer, if there is as much: to look a name up, to connect and to ask.
const MIN_ANSWER_TIME: Duration = Duration::from_secs(1);

/// The longest `lock_timeout` of a server.
const MAX_LOCK_TIMEOUT_MS: u128 = i32::MAX as u128;

/// A connection.
pub(super) struct Link {
    /// `None` while the link is dropped.
    connection: Option<Driven>,
    process: u32,
    location: Location,
    /// It leaves this machine without TLS.
    is_exposed: bool,
    /// When the call ends that uses the connection.
    deadline: Cell<Deadline>,
    /// When the next answer has to be here.
    limit: Cell<Deadline>,
    /// How long the first answer of the attempt may take.
    length: Cell<Duration>,
    /// How many statements the attempt has made.
    statements: Cell<usize>,
    /// Whatever follows on this connection would be the answer to something else, or would be lost.
    is_broken: Cell<bool>,
    in_transaction: Cell<bool>,
    /// A change was sent, and its answer was lost.
    is_change_unanswered: Cell<bool>,
}

struct Driven {
    client: Client,
    // Before the runtime, which its socket is registered with.
    driver: RefCell<Driver>,
    runtime: Runtime,
}

impl Link {
    /// Connects, for a call that ends at `deadline`. `asked`: the password that a function has returned.
    pub(super) fn open(address: &Address, asked: Option<&str>, deadline: Deadline) -> Result<Self, ServerFailure> {
        let limit = answer_limit(deadline);
        let location = address.location();
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| ServerFailure::Lost(lost(&error)))?;
        let connecting = connect(address, asked, limit);
        let connecting = async { timeout(limit.left().unwrap_or_default(), connecting).await };
        let (client, driver) = runtime.block_on(connecting).unwrap_or_else(|_| Err(ServerFailure::timeout()))?;
        let is_exposed = driver.is_exposed;
        let connection = Driven { client, driver: RefCell::new(driver), runtime };
        let link = Self {
            connection: Some(connection),
            process: process::id(),
            location: location.clone(),
            is_exposed,
            deadline: Cell::new(deadline),
            limit: Cell::new(limit),
            length: Cell::default(),
            statements: Cell::default(),
            is_broken: Cell::default(),
            in_transaction: Cell::default(),
            is_change_unanswered: Cell::default(),
        };
        link.begin_attempt(deadline);
        Ok(link)
    }

    pub(super) const fn location(&self) -> &Location {
        &self.location
    }

    /// Does the connection leave this machine without TLS?
    pub(super) const fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    /// Begins an attempt of a call that ends at `deadline`.
    pub(super) fn begin_attempt(&self, deadline: Deadline) {
        let limit = answer_limit(deadline);
        self.deadline.set(deadline);
        self.limit.set(limit);
        self.length.set(limit.left().unwrap_or_default());
        self.statements.set(0);
    }

    /// Counts a statement that was answered. So the connection is alive, and the next answer gets time of its own.
    fn count_statement(&self) {
        self.statements.set(self.statements.get() + 1);
        let is_of_many_rows = self.in_transaction.get() && self.statements.get() > MOST_STATEMENTS_OF_A_CALL;
        self.limit.set(if is_of_many_rows {
            Deadline::after(self.length.get())
        } else {
            answer_limit(self.deadline.get())
        });
    }

    /// How long a statement of the current attempt may wait for a lock. It is less than its answer may take, so that
    /// the server says what it has waited for. (0 would be no limit.)
    pub(super) fn lock_timeout_ms(&self) -> u128 {
        self.limit.get().left().map_or(0, |left| left.as_millis() * 3 / 4).clamp(1, MAX_LOCK_TIMEOUT_MS)
    }

    /// Can another attempt use this connection?
    pub(super) const fn is_usable(&self) -> bool {
        !self.is_broken.get() && !self.in_transaction.get()
    }

    /// Runs one statement in one round trip, and returns its rows.
    pub(super) fn query(&self, statement: &Statement<'_>) -> Result<Vec<ServerRow>, ServerFailure> {
        let parameters = statement.parameters();
        self.wait(|client| client.query_typed(statement.text(), &parameters))
    }

    /// Runs statements without parameters in one round trip, and returns their rows.
    pub(super) fn script(&self, text: &str) -> Result<Vec<SimpleQueryRow>, ServerFailure> {
        let messages = self.wait(|client| client.simple_query(text))?;
        let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    /// Sends what changes something, and notes if the answer is lost.
    pub(super) fn changing<T>(&self, send: impl FnOnce() -> Result<T, ServerFailure>) -> Result<T, ServerFailure> {
        let answer = send();
        if answer.as_ref().is_err_and(ServerFailure::leaves_commit_unknown) {
            self.is_change_unanswered.set(true);
        }
        answer
    }

    /// Was a change sent whose answer was lost? Forgets it.
    pub(super) const fn take_unanswered_change(&self) -> bool {
        self.is_change_unanswered.replace(false)
    }

    /// Runs `begin`, which begins a transaction, then `work`, then the statement that `work` returns, and commits.
    /// Rolls back if one of them fails.
    pub(super) fn transaction(
        &self,
        begin: &str,
        work: impl FnOnce(Vec<SimpleQueryRow>) -> Result<Option<String>, ServerFailure>,
    ) -> Result<(), ServerFailure> {
        self.in_transaction.set(true);
        let done = self.script(begin).and_then(work).and_then(|last| {
            let last = last.map_or_else(String::new, |last| format!("{last}; "));
            let commit = || self.script(&format!("{last}COMMIT")).map(drop);
            if begin == BEGIN_SNAPSHOT { commit() } else { self.changing(commit) }
        });
        // After an error the server refuses everything but this. A connection that cannot do it is not used again.
        if (done.is_ok() || self.script("ROLLBACK").is_ok()) && !self.is_broken.get() {
            self.in_transaction.set(false);
        }
        done
    }

    /// Sends a request, waits for its answer, and drives the connection meanwhile.
    fn wait<'a, T, F>(&'a self, request: impl FnOnce(&'a Client) -> F) -> Result<T, ServerFailure>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let left = self.limit.get().left().filter(|_| !self.is_broken.get());
        let (Some(connection), Some(left)) = (&self.connection, left) else {
            return Err(self.noted(ServerFailure::timeout()));
        };
        let mut driver = connection.driver.borrow_mut();
        let mut answer = pin!(request(&connection.client));
        let answered = poll_fn(|context| {
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            let end = Pin::new(&mut *driver).poll(context);
            // The driver has sent the request, or has received the answer.
            match (answer.as_mut().poll(context), end) {
                (Poll::Ready(answer), _) => Poll::Ready(answer),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Pending, _) => Poll::Pending,
            }
        });
        match connection.runtime.block_on(async { timeout(left, answered).await }) {
            Ok(Ok(answer)) => {
                self.count_statement();
                Ok(answer)
            }
            Ok(Err(error)) => {
                // Not an error of the server: the rest of its answer may be still to come.
                self.is_broken.set(self.is_broken.get() || error.code().is_none());
                Err(self.noted(ServerFailure::from_client(&self.location, &error)))
            }
            Err(_) => Err(self.noted(ServerFailure::timeout())),
        }
    }

    /// Notes what the failure means for the connection.
    fn noted(&self, failure: ServerFailure) -> ServerFailure {
        if matches!(failure, ServerFailure::Lost(_)) {
            self.is_broken.set(true);
        }
        failure
    }

    /// Ends the session. Otherwise the server may log that its client has disappeared. `time`: how long that may take.
    pub(super) fn close(mut self, time: Duration) {
        if self.process != process::id() {
            return;
        }
        if let Some(Driven { client, driver, runtime }) = self.connection.take() {
            drop(client);
            let mut driver = driver.into_inner();
            let _ = runtime.block_on(async { timeout(time, &mut driver).await });
        }
    }
}

/// An answer may take at most half of the time that a call has left, so that a dead connection leaves time for another.
fn answer_limit(deadline: Deadline) -> Deadline {
    let left = deadline.left().unwrap_or_default();
    Deadline::after((left / 2).max(MIN_ANSWER_TIME).min(left))
}

impl Drop for Link {
    /// A forked child forgets the connection of its parent. To close it would end the parent's session, and even to
    /// drop the runtime would change what the parent waits for, because a child shares the file descriptors of its
    /// parent.
    fn drop(&mut self) {
        if self.process != process::id() {
            mem::forget(self.connection.take());
        }
    }
}
