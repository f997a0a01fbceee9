//! Running an operation on a file: several attempts, because the file and its WAL can be replaced at any time.

use super::Sqlite;
use super::connection::OpenConnection;
use super::database::{Database, Role};
use super::waiting::{LOCK_POLL, with_deadline};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error, Result};
use crate::store::files::{self, FileId};
use crate::store::fork_state;

/// The outcome of one attempt at an operation.
///
/// | What happened | Outcome |
/// | --- | --- |
/// | The operation succeeded, and its effect is in the file that the path names. | `Done` |
/// | Another process is creating, removing or replacing the file just now. | `Retry` |
/// | The connection is not usable ([`Database::is_usable`]). | `Reopen` |
/// | The operation succeeded, but the path named another file by the end. | `Reopen` |
/// | It read a frozen file ([`super::read_only`]), which was changed meanwhile. | `Reopen` |
/// | It failed, and the path or the WAL was replaced meanwhile, so the failure says nothing. | `Reopen` |
/// | It read a file that cannot be written, and failed in one of the first attempts (2). | `Reopen` |
/// | It failed with `Busy`, but there is time left (1). | `Reopen` |
/// | It failed with `Busy`, and the deadline is over or a thread waits to fork. | `Fail` |
/// | It failed in any other way. | `Fail` |
///
/// (1) SQLite does not call the busy handler where two connections would wait for each other
/// (<https://www.sqlite.org/c3ref/busy_handler.html>).
///
/// (2) A writer of another user may add or remove the WAL just then ([`Sqlite::may_be_a_writer`]).
///
/// When the deadline is over and [`MIN_ATTEMPTS`] were made, `Retry` and `Reopen` become `Fail`. So `Busy` is returned
/// before the deadline only while [`fork_state::is_fork_awaited`].
pub(super) enum AttemptOutcome<T> {
    /// The operation is done.
    Done(T),
    /// Nothing of this attempt counts. The connections must be closed before the next attempt.
    Reopen,
    /// Nothing was done yet. A pause is enough before the next attempt.
    Retry,
    /// The operation failed.
    Fail(Error),
}

impl<T> AttemptOutcome<T> {
    /// Converts the result.
    pub(super) fn map<U>(self, convert: impl FnOnce(T) -> U) -> AttemptOutcome<U> {
        match self {
            Self::Done(done) => AttemptOutcome::Done(convert(done)),
            Self::Reopen => AttemptOutcome::Reopen,
            Self::Retry => AttemptOutcome::Retry,
            Self::Fail(error) => AttemptOutcome::Fail(error),
        }
    }
}

/// How often an operation is attempted when files are replaced or added under it, even if its deadline is over.
const MIN_ATTEMPTS: usize = 8;

impl Sqlite {
    /// Runs `work` on an open connection to the file that the path names, until an attempt is `Done` or `Fail`.
    ///
    /// `work` returns `Reopen` if its effect did not reach the file. The table says what its errors mean.
    pub(super) fn run<T>(
        &self,
        role: Role,
        deadline: Deadline,
        mut work: impl FnMut(&Database, &OpenConnection) -> Result<AttemptOutcome<T>>,
    ) -> Result<T> {
        with_deadline(deadline, || {
            let mut attempts = 0;
            loop {
                attempts += 1;
                let is_last = attempts >= MIN_ATTEMPTS && deadline.left().is_none();
                match self.attempt(role, deadline, attempts, is_last, &mut work) {
                    AttemptOutcome::Done(done) => return Ok(done),
                    AttemptOutcome::Fail(error) => return Err(error),
                    AttemptOutcome::Reopen if is_last => return Err(deadline.busy(&self.location)),
                    AttemptOutcome::Reopen if attempts > 1 => _ = deadline.sleep(LOCK_POLL),
                    AttemptOutcome::Reopen => {}
                    AttemptOutcome::Retry if !is_last && deadline.sleep(LOCK_POLL) => {}
                    AttemptOutcome::Retry => return Err(deadline.busy(&self.location)),
                }
            }
        })
    }

    /// Makes one attempt. Closes the connections if the outcome says so.
    fn attempt<T>(
        &self,
        role: Role,
        deadline: Deadline,
        attempts: usize,
        is_last: bool,
        work: &mut impl FnMut(&Database, &OpenConnection) -> Result<AttemptOutcome<T>>,
    ) -> AttemptOutcome<T> {
        let database = match self.database(deadline) {
            Ok(database) => database,
            Err(error) if error.is_busy() => return AttemptOutcome::Retry,
            Err(error) => return AttemptOutcome::Fail(error),
        };
        let Some(mut slot) = database.slot(role).lock(deadline) else {
            return AttemptOutcome::Fail(deadline.busy(&self.location));
        };
        let reads = role == Role::Reader || slot.is_none();
        let attempt = match self.attempt_on(&database, role, deadline, &mut slot, work) {
            Ok(attempt) => attempt,
            Err(error) if reads && attempts < MIN_ATTEMPTS && self.may_be_a_writer(&error) => AttemptOutcome::Reopen,
            Err(error) => self.judge(error, &database, slot.as_ref(), deadline, is_last),
        };
        let close = match &attempt {
            AttemptOutcome::Reopen => !is_last,
            // If the file becomes writable later, only a new connection can write it.
            AttemptOutcome::Fail(error) => !error.is_busy() && slot.as_ref().is_some_and(OpenConnection::is_read_only),
            AttemptOutcome::Done(_) | AttemptOutcome::Retry => false,
        };
        drop(slot);
        if !close {
            return attempt;
        }
        match (database.close_for_reopen(deadline), attempt) {
            (Err(error), AttemptOutcome::Reopen) => AttemptOutcome::Fail(error),
            (_, attempt) => attempt,
        }
    }

    fn attempt_on<T>(
        &self,
        database: &Database,
        role: Role,
        deadline: Deadline,
        slot: &mut Option<OpenConnection>,
        work: &mut impl FnMut(&Database, &OpenConnection) -> Result<AttemptOutcome<T>>,
    ) -> Result<AttemptOutcome<T>> {
        if slot.is_none() {
            self.require_slow_work(deadline)?;
            *slot = Some(database.open(role, self.journal)?);
        }
        let attempt = match slot.as_ref().filter(|open| database.is_usable(open)) {
            Some(open) => {
                let done = work(database, open)?;
                if database.was_not_torn(open) { done } else { AttemptOutcome::Reopen }
            }
            None => AttemptOutcome::Reopen,
        };
        if let Some(young) = slot.take_if(|open| open.is_young()) {
            young.disconnect();
        }
        Ok(attempt)
    }

    /// Can a writer have caused this failure of a read? A file that this process cannot write is read with the WAL and
    /// `-shm` of a writer, or as frozen if there is none. Between the look at them and the read, both may come or go.
    fn may_be_a_writer(&self, error: &Error) -> bool {
        matches!(error.code(), Code::ReadOnly | Code::CannotOpen | Code::NeedsRecovery)
            && files::is_read_only(&self.path)
    }

    /// Decides what a failed attempt means. See the table at [`AttemptOutcome`].
    fn judge<T>(
        &self,
        error: Error,
        database: &Database,
        open: Option<&OpenConnection>,
        deadline: Deadline,
        is_last: bool,
    ) -> AttemptOutcome<T> {
        if error.is_busy() {
            let may_wait = deadline.left().is_some() && !fork_state::is_fork_awaited();
            return if may_wait { AttemptOutcome::Reopen } else { AttemptOutcome::Fail(error) };
        }
        let nothing_was_replaced = match open {
            Some(open) => self.reaches_the_file(database, open),
            None => FileId::of(&self.path) == Some(database.id),
        };
        if nothing_was_replaced || is_last { AttemptOutcome::Fail(error) } else { AttemptOutcome::Reopen }
    }
}

/// Runs `work`, which opens a connection of its own, until it does not fail with `Busy` or the deadline is over.
pub(super) fn retry_while_busy<T>(deadline: Deadline, work: impl Fn() -> Result<T>) -> Result<T> {
    with_deadline(deadline, || {
        loop {
            match work() {
                Err(error) if error.is_busy() && deadline.sleep(LOCK_POLL) => {}
                result => return result,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Runs `work` on a new file, and returns the result and how often `work` ran. `work` gets the number of the
    /// attempt.
    fn run(
        deadline: impl Fn() -> Deadline,
        mut work: impl FnMut(&Sqlite, usize) -> Result<AttemptOutcome<()>>,
    ) -> (Result<()>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("tokens.db"), Deadline::after(TIMEOUT)).unwrap();
        let mut attempts = 0;
        let result = sqlite.run(Role::Writer, deadline(), |_, _| {
            attempts += 1;
            work(&sqlite, attempts)
        });
        (result, attempts)
    }

    fn in_time() -> Deadline {
        Deadline::after(TIMEOUT)
    }

    #[test]
    fn busy_is_tried_again_until_the_deadline() {
        let busy = |sqlite: &Sqlite| Err(Deadline::now().busy(&sqlite.location));
        let (result, attempts) =
            run(in_time, |sqlite, attempt| if attempt < 4 { busy(sqlite) } else { Ok(AttemptOutcome::Done(())) });
        assert_eq!((result, attempts), (Ok(()), 4));
        let (result, attempts) = run(Deadline::now, |sqlite, _| busy(sqlite));
        assert_eq!((result.unwrap_err().code(), attempts), (Code::Busy, 1));
    }

    #[test]
    fn a_failure_counts_only_if_nothing_was_replaced_meanwhile() {
        let damaged = |sqlite: &Sqlite| Err(Error::new(Code::Damaged, &sqlite.location));
        let (result, attempts) = run(in_time, |sqlite, _| damaged(sqlite));
        assert_eq!((result.unwrap_err().code(), attempts), (Code::Damaged, 1));
        let (result, attempts) = run(in_time, |sqlite, attempt| {
            if attempt > 1 {
                return Ok(AttemptOutcome::Done(()));
            }
            std::fs::remove_file(&sqlite.path).unwrap();
            damaged(sqlite)
        });
        assert_eq!((result, attempts), (Ok(()), 2));
    }

    #[test]
    fn a_connection_that_is_never_usable_is_given_up_after_the_deadline() {
        let over = || Deadline::after(Duration::from_nanos(1));
        let (result, attempts) = run(over, |_, _| Ok(AttemptOutcome::Reopen));
        assert_eq!((result.unwrap_err().code(), attempts), (Code::Busy, MIN_ATTEMPTS));
    }
}
