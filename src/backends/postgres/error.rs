//! What a failed statement or connection means: repeat it on a new connection, repeat it, or report it at once.
//!
//! A message of the server is never repeated, because it may hold a value of a row. Our own text and the SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) are reported instead.

use std::io::{self, ErrorKind};

use crate::store::backend::Location;
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error};

/// Why something failed that may succeed if it is repeated. It becomes an [`Error`] when the time for that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    code: Code,
    detail: String,
    is_timeout: bool,
    /// What to do about it, if it is not what the code says.
    hint: Option<&'static str>,
}

impl Cause {
    /// The server cannot be reached. `detail` holds no value and no secret.
    pub(super) fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, detail)
    }

    /// The address leads to no server. `detail` holds no value and no secret.
    pub(super) fn misnamed(detail: impl Into<String>) -> Self {
        Self { hint: Some(MISNAMED_HINT), ..Self::unreachable(detail) }
    }

    /// The server is a standby, or its transactions are read-only.
    pub(super) fn read_only() -> Self {
        Self { hint: Some(READ_ONLY_HINT), ..Self::new(Code::ReadOnly, READ_ONLY) }
    }

    /// What a transaction has read was changed before it could write.
    pub(super) fn conflict() -> Self {
        Self::new(Code::Busy, "")
    }

    /// Nothing came in time.
    pub(super) fn timeout(detail: impl Into<String>) -> Self {
        Self { is_timeout: true, ..Self::unreachable(detail) }
    }

    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), is_timeout: false, hint: None }
    }

    /// The cause that says more: this one, unless it is a timeout and there was another cause before.
    #[must_use]
    pub(super) fn or_earlier(self, earlier: Option<Self>) -> Self {
        // "Busy" says that nothing was changed. After a timeout that is not known.
        let says_more = |earlier: &Self| !earlier.is_timeout && earlier.code != Code::Busy;
        earlier.filter(|earlier| self.is_timeout && says_more(earlier)).unwrap_or(self)
    }

    /// The same cause, for one of several hosts.
    #[must_use]
    pub(super) fn of_host(mut self, host: &str) -> Self {
        if self.code == Code::Unreachable {
            self.detail = format!("{host}: {}", self.detail);
        }
        self
    }

    /// The error to report when `deadline` is over.
    #[must_use]
    pub(super) fn into_error(self, location: &Location, deadline: Deadline) -> Error {
        if self.code == Code::Busy {
            return deadline.busy(location);
        }
        let error = Error::new(self.code, location).with(self.detail);
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// A failed statement or connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerFailure {
    /// The connection is lost, was never there, or cannot be used any more. A new one may succeed.
    Lost(Cause),
    /// The connection is fine, once its transaction is rolled back. The same work may succeed if it is repeated.
    Retry(Cause),
    /// Repeating it does not help.
    Final(Error),
}

impl ServerFailure {
    /// Nothing came in time, so the connection cannot be used any more: a late answer would be taken for that of the
    /// next statement.
    pub(super) fn timeout() -> Self {
        Self::Lost(Cause::timeout("the server did not answer in time"))
    }

    /// What an error of the client means at `location`.
    pub(super) fn from_client(location: &Location, error: &tokio_postgres::Error) -> Self {
        if let Some(code) = error.code() {
            return Self::from_sqlstate(location, code.code());
        }
        let source = std::error::Error::source(error);
        if let Some(error) = source.and_then(|source| source.downcast_ref::<io::Error>()) {
            return Self::Lost(lost(error));
        }
        if error.is_closed() {
            return Self::Lost(Cause::unreachable(CLOSED));
        }
        // The client has no other way to tell an authentication that it cannot do from a wrong answer.
        if error.to_string() == "authentication error" {
            let detail = "the server asks for an authentication that this client does not have, or failed its own part";
            return Self::Final(Error::new(Code::AccessDenied, location).with(detail));
        }
        Self::Final(Error::new(Code::DatabaseError, location).with(NOT_UNDERSTOOD))
    }

    /// What a SQLSTATE means at `location`.
    pub(super) fn from_sqlstate(location: &Location, sqlstate: &str) -> Self {
        let verdict = verdict(sqlstate);
        let detail = match verdict.text {
            "" => shown(sqlstate).to_owned(),
            READ_ONLY => return Self::Lost(Cause::read_only()),
            text => format!("{text} ({})", shown(sqlstate)),
        };
        let hint = hint(sqlstate);
        match verdict.then {
            Then::Reconnect => Self::Lost(Cause { hint, ..Cause::new(verdict.code, detail) }),
            Then::Repeat => Self::Retry(Cause { hint, ..Cause::new(verdict.code, detail) }),
            Then::Report => {
                let error = Error::new(verdict.code, location).with(detail);
                Self::Final(if let Some(hint) = hint { error.with_hint(hint) } else { error })
            }
        }
    }

    /// Is it that a right is missing, and is it not known which?
    pub(super) fn lacks_right(&self, location: &Location) -> bool {
        *self == Self::from_sqlstate(location, LACKS_RIGHT)
    }

    /// Is it that a table is missing?
    pub(super) fn lacks_table(&self, location: &Location) -> bool {
        *self == Self::from_sqlstate(location, LACKS_TABLE)
    }

    /// The same failure with the rights that are missing, if it is that a right is missing. They come from our own
    /// statements, never from a message of the server.
    #[must_use]
    pub(super) fn lacking(self, location: &Location, rights: &str) -> Self {
        self.lacking_with(location, rights, GRANT_HINT)
    }

    /// The same, with another hint.
    #[must_use]
    pub(super) fn lacking_with(self, location: &Location, rights: &str, hint: &'static str) -> Self {
        if !self.lacks_right(location) {
            return self;
        }
        let detail = format!("the user lacks rights ({LACKS_RIGHT}): {rights}");
        Self::Final(Error::new(Code::AccessDenied, location).with(detail).with_hint(hint))
    }

    /// If a commit has failed in this way, it may have been made nevertheless: its answer was lost, or was no answer.
    pub(super) fn leaves_commit_unknown(&self) -> bool {
        match self {
            Self::Lost(cause) | Self::Retry(cause) => cause.code == Code::Unreachable,
            Self::Final(error) => error.detail() == NOT_UNDERSTOOD,
        }
    }

    /// The error to report when `deadline` is over. `earlier` is the cause of the attempt before.
    pub(super) fn into_error(self, location: &Location, deadline: Deadline, earlier: Option<Cause>) -> Error {
        match self {
            Self::Final(error) => error,
            Self::Lost(cause) | Self::Retry(cause) => cause.or_earlier(earlier).into_error(location, deadline),
        }
    }
}

const CLOSED: &str = "the server closed the connection";
const NOT_UNDERSTOOD: &str = "an answer that this client does not understand";
const READ_ONLY: &str = "it is a standby, or its transactions are read-only";
const READ_ONLY_HINT: &str = "Give the address of the primary, or all hosts and target_session_attrs=read-write. If it is \
     the primary, turn off default_transaction_read_only for this database and this user.";
const TOO_MANY_HINT: &str = "Use fewer connections for each store (connections=1 suffices for one thread), close stores that \
     are not needed, or raise max_connections of the server or the limit of the user.";

const MISNAMED_HINT: &str = "Correct the host name, or the folder of the socket, and check that the server runs.";
const GRANT_HINT: &str = "Grant the missing rights to this user (the documentation lists them: Minimum rights).";
/// If the password is wrong or missing.
pub(super) const PASSWORD_HINT: &str = "Correct the user or the password.";

/// What to do after a failure with this SQLSTATE, if it is not what the code says.
fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "53300" => TOO_MANY_HINT,
        "28P01" => PASSWORD_HINT,
        "28000" => "Correct the user, or have an administrator allow the connection in pg_hba.conf.",
        "3D000" => "Correct the name of the database, or have an administrator run CREATE DATABASE.",
        "3F000" => "Correct the search path, or name a schema.",
        LACKS_RIGHT => GRANT_HINT,
        _ => return None,
    })
}

/// The SQLSTATE of a missing right, and that of a missing table.
pub(super) const LACKS_RIGHT: &str = "42501";
pub(super) const LACKS_TABLE: &str = "42P01";

/// Why an operation on a socket failed.
pub(super) fn lost(error: &io::Error) -> Cause {
    // A text that is not the system's comes from a library, and may repeat what the server sent.
    let text = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => CLOSED,
        ErrorKind::TimedOut => return Cause::timeout("the connection timed out"),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no route to it",
        ErrorKind::NotFound => return Cause::misnamed("there is no socket in that folder"),
        ErrorKind::InvalidData => "the connection carried something that is not the server's protocol",
        _ if error.raw_os_error().is_some() => return Cause::unreachable(error.to_string()),
        _ => "the connection failed",
    };
    Cause::unreachable(text)
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Reconnect,
    Repeat,
    Report,
}

/// What a SQLSTATE means. An empty text stands for the SQLSTATE alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    then: Then,
    code: Code,
    text: &'static str,
}

/// What each SQLSTATE means. Those of one class that are not named mean the same.
#[allow(clippy::match_same_arms, reason = "the table is in the order of the classes")]
fn verdict(sqlstate: &str) -> Verdict {
    use Code::{AccessDenied, Busy, DatabaseError, DiskFull, IoError, OutOfMemory, Unreachable, ValueTooLarge};
    use Code::{ReadOnly, UnknownKey, WrongDatabase};
    use Then::{Reconnect, Repeat, Report};

    let class = sqlstate.get(..2).unwrap_or_default();
    let (then, code, text) = match (class, sqlstate) {
        ("08", _) => (Reconnect, Unreachable, "the connection was lost"),
        ("22", "22021" | "22P05") => (Report, WrongDatabase, "its encoding is not UTF-8"),
        // Two processes make the same row or the same table. The next attempt finds it.
        ("23", "23505") | ("42", "42P06" | "42P07" | "42710") => (Repeat, Busy, ""),
        // The column `key_id` refers to the names of keys.
        ("23", "23503") => (Report, UnknownKey, "it takes no row in clear text, or none under this key"),
        // A host or a name may belong to another server after a failover, so a new connection may find the primary.
        ("25", "25006") => (Reconnect, ReadOnly, READ_ONLY),
        ("25", "25P03" | "25P04") => (Reconnect, Unreachable, "the server ended a transaction that took too long"),
        // The connection is in a state that we did not leave it in.
        ("25" | "26" | "2D" | "34", _) => (Reconnect, DatabaseError, ""),
        ("28", "28P01") => (Report, AccessDenied, "the user or the password is wrong"),
        ("28", _) => (Report, AccessDenied, "the server accepts no such connection"),
        ("3D", _) => (Report, WrongDatabase, "the database does not exist"),
        ("3F", _) => (Report, WrongDatabase, "the schema does not exist"),
        // CockroachDB: it is not known whether the transaction was committed.
        ("40", "40003") => (Repeat, Unreachable, "the result of the transaction is not known"),
        ("40", _) => (Repeat, Busy, ""),
        ("42", LACKS_RIGHT) => (Report, AccessDenied, "the user lacks a right"),
        ("42", LACKS_TABLE) => (Report, WrongDatabase, "a table is missing"),
        ("42", "42703" | "42804" | "42883" | "42704" | "42809") => {
            (Report, WrongDatabase, "its tables are not the ones that this library made")
        }
        ("53", "53100") => (Report, DiskFull, ""),
        ("53", "53200") => (Repeat, OutOfMemory, ""),
        ("53", "53300") => (Reconnect, Unreachable, "the server has too many connections"),
        ("53", _) => (Repeat, Unreachable, "the server lacks resources"),
        ("54", _) => (Report, ValueTooLarge, ""),
        ("55", "55P03" | "55006") => (Repeat, Busy, ""),
        ("57", "57014") => (Repeat, DatabaseError, "the server cancelled the statement"),
        ("57", "57P01" | "57P02") => (Reconnect, Unreachable, "the server shut the connection down"),
        ("57", "57P03") => (Reconnect, Unreachable, "the server is starting or stopping"),
        ("57", "57P04") => (Report, WrongDatabase, "the database was dropped"),
        ("57", _) => (Reconnect, Unreachable, "the server ended the connection"),
        ("58", _) => (Report, IoError, "the server's disk"),
        _ => (Report, DatabaseError, ""),
    };
    Verdict { then, code, text }
}

/// A SQLSTATE as messages show it: what the server sends in its place may be anything.
fn shown(sqlstate: &str) -> &str {
    let is_one = sqlstate.len() == 5 && sqlstate.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_one { sqlstate } else { "an unknown error" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOCATION: Location = Location::named("PostgreSQL db.example:5432/tokens");

    fn shown_as(failure: ServerFailure) -> (&'static str, Code, String) {
        let deadline = Deadline::after(Duration::from_secs(5));
        let kind = match failure {
            ServerFailure::Lost(_) => "lost",
            ServerFailure::Retry(_) => "retry",
            ServerFailure::Final(_) => "final",
        };
        let error = failure.into_error(&LOCATION, deadline, None);
        (kind, error.code(), error.detail().to_owned())
    }

    #[test]
    fn a_sqlstate_decides_whether_work_is_repeated_and_what_is_reported() {
        let table = [
            ("08006", "lost", Code::Unreachable, "the connection was lost (08006)"),
            ("08P01", "lost", Code::Unreachable, "the connection was lost (08P01)"),
            ("22021", "final", Code::WrongDatabase, "its encoding is not UTF-8 (22021)"),
            ("22P05", "final", Code::WrongDatabase, "its encoding is not UTF-8 (22P05)"),
            ("22001", "final", Code::DatabaseError, "22001"),
            ("23505", "retry", Code::Busy, "5"),
            ("23502", "final", Code::DatabaseError, "23502"),
            ("23503", "final", Code::UnknownKey, "it takes no row in clear text, or none under this key (23503)"),
            ("23514", "final", Code::DatabaseError, "23514"),
            ("25006", "lost", Code::ReadOnly, "it is a standby, or its transactions are read-only"),
            ("25P02", "lost", Code::DatabaseError, "25P02"),
            ("25P03", "lost", Code::Unreachable, "the server ended a transaction that took too long (25P03)"),
            ("25P04", "lost", Code::Unreachable, "the server ended a transaction that took too long (25P04)"),
            ("26000", "lost", Code::DatabaseError, "26000"),
            ("28P01", "final", Code::AccessDenied, "the user or the password is wrong (28P01)"),
            ("28000", "final", Code::AccessDenied, "the server accepts no such connection (28000)"),
            ("3D000", "final", Code::WrongDatabase, "the database does not exist (3D000)"),
            ("3F000", "final", Code::WrongDatabase, "the schema does not exist (3F000)"),
            ("40001", "retry", Code::Busy, "5"),
            ("40P01", "retry", Code::Busy, "5"),
            ("40003", "retry", Code::Unreachable, "the result of the transaction is not known (40003)"),
            ("42501", "final", Code::AccessDenied, "the user lacks a right (42501)"),
            ("42601", "final", Code::DatabaseError, "42601"),
            ("42703", "final", Code::WrongDatabase, "its tables are not the ones that this library made (42703)"),
            ("42P01", "final", Code::WrongDatabase, "a table is missing (42P01)"),
            ("42P07", "retry", Code::Busy, "5"),
            ("53100", "final", Code::DiskFull, "53100"),
            ("53200", "retry", Code::OutOfMemory, "53200"),
            ("53300", "lost", Code::Unreachable, "the server has too many connections (53300)"),
            ("53400", "retry", Code::Unreachable, "the server lacks resources (53400)"),
            ("54000", "final", Code::ValueTooLarge, "54000"),
            ("55P03", "retry", Code::Busy, "5"),
            ("55000", "final", Code::DatabaseError, "55000"),
            ("57014", "retry", Code::DatabaseError, "the server cancelled the statement (57014)"),
            ("57P01", "lost", Code::Unreachable, "the server shut the connection down (57P01)"),
            ("57P02", "lost", Code::Unreachable, "the server shut the connection down (57P02)"),
            ("57P03", "lost", Code::Unreachable, "the server is starting or stopping (57P03)"),
            ("57P04", "final", Code::WrongDatabase, "the database was dropped (57P04)"),
            ("57P05", "lost", Code::Unreachable, "the server ended the connection (57P05)"),
            ("58030", "final", Code::IoError, "the server's disk (58030)"),
            ("XX000", "final", Code::DatabaseError, "XX000"),
            // What is no SQLSTATE is not repeated.
            ("made-up value", "final", Code::DatabaseError, "an unknown error"),
            ("", "final", Code::DatabaseError, "an unknown error"),
            ("é000", "final", Code::DatabaseError, "an unknown error"),
        ];
        for (sqlstate, kind, code, detail) in table {
            let expected = (kind, code, detail.to_owned());
            assert_eq!(shown_as(ServerFailure::from_sqlstate(&LOCATION, sqlstate)), expected, "{sqlstate}");
        }
    }

    #[test]
    fn an_error_of_a_socket_is_named_in_our_words_or_those_of_the_system() {
        let made_up = |kind| io::Error::new(kind, "made-up value");
        let table = [
            (made_up(ErrorKind::ConnectionRefused), "connection refused"),
            (made_up(ErrorKind::ConnectionReset), CLOSED),
            (made_up(ErrorKind::BrokenPipe), CLOSED),
            (made_up(ErrorKind::UnexpectedEof), CLOSED),
            (made_up(ErrorKind::TimedOut), "the connection timed out"),
            (made_up(ErrorKind::HostUnreachable), "there is no route to it"),
            (made_up(ErrorKind::NotFound), "there is no socket in that folder"),
            (made_up(ErrorKind::InvalidData), "the connection carried something that is not the server's protocol"),
            (made_up(ErrorKind::Other), "the connection failed"),
        ];
        for (error, detail) in table {
            assert_eq!(lost(&error).detail, detail);
        }
        let of_the_system = io::Error::from_raw_os_error(13);
        assert_eq!(lost(&of_the_system).detail, of_the_system.to_string());
    }

    #[test]
    fn a_timeout_does_not_hide_an_earlier_cause() {
        let (refused, timeout) = (Cause::unreachable("connection refused"), Cause::timeout("no answer"));
        assert_eq!(timeout.clone().or_earlier(Some(refused.clone())), refused);
        assert_eq!(timeout.clone().or_earlier(Some(Cause::timeout("earlier"))), timeout);
        assert_eq!(timeout.clone().or_earlier(None), timeout);
        assert_eq!(timeout.clone().or_earlier(Some(Cause::conflict())), timeout, "it is not known what was changed");
        assert_eq!(refused.clone().or_earlier(Some(Cause::read_only())), refused);
    }

    #[test]
    fn an_address_that_leads_to_no_server_has_a_hint_about_the_address() {
        let hint = |cause: Cause| cause.into_error(&LOCATION, Deadline::now()).hint();
        let missing = lost(&io::Error::new(ErrorKind::NotFound, "made-up value"));
        assert!(hint(missing.of_host("/made/up")).contains("folder of the socket"));
        assert_eq!(hint(lost(&ErrorKind::ConnectionRefused.into())), Code::Unreachable.hint());
    }

    #[test]
    fn a_cause_names_its_host_only_if_the_host_matters() {
        assert_eq!(Cause::unreachable("connection refused").of_host("a:5432").detail, "a:5432: connection refused");
        assert_eq!(Cause::read_only().of_host("a:5432"), Cause::read_only());
    }

    #[test]
    fn only_a_lost_answer_leaves_a_change_unknown() {
        let of = |sqlstate| ServerFailure::from_sqlstate(&LOCATION, sqlstate).leaves_commit_unknown();
        for sqlstate in ["08006", "40003", "57P01", "57P02", "25P03"] {
            assert!(of(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["40001", "40P01", "23505", "25006", "25P02", "42501", "42P01", "53100", "55P03"] {
            assert!(!of(sqlstate), "{sqlstate}");
        }
        assert!(ServerFailure::timeout().leaves_commit_unknown());
        let garbled = Error::new(Code::DatabaseError, &LOCATION).with(NOT_UNDERSTOOD);
        assert!(ServerFailure::Final(garbled).leaves_commit_unknown());
    }

    #[test]
    fn a_message_names_missing_rights() {
        let of = |sqlstate| ServerFailure::from_sqlstate(&LOCATION, sqlstate);
        let named = of("42501").lacking(&LOCATION, "UPDATE on crm.oauthtoken");
        assert_eq!(shown_as(named).2, "the user lacks rights (42501): UPDATE on crm.oauthtoken");
        for sqlstate in ["42P01", "28P01", "57P01"] {
            assert_eq!(of(sqlstate).lacking(&LOCATION, "UPDATE on crm.oauthtoken"), of(sqlstate), "{sqlstate}");
        }
    }

    #[test]
    fn a_hint_is_about_a_server() {
        let hint = |sqlstate| {
            let failure = ServerFailure::from_sqlstate(&LOCATION, sqlstate);
            failure.into_error(&LOCATION, Deadline::now(), None).hint()
        };
        assert!(hint("25006").contains("primary") && hint("25006").contains("default_transaction_read_only"));
        assert!(hint("53300").contains("max_connections") && hint("53400") == Code::Unreachable.hint());
        assert!(hint("28P01") == "Correct the user or the password." && hint("28000").contains("pg_hba.conf"));
        assert!(hint("42501").starts_with("Grant the missing rights") && hint("3D000").contains("CREATE DATABASE"));
        assert!(hint("3F000").contains("search path"));
        // No command of ours can help.
        for sqlstate in ["28P01", "42501", "3D000", "3F000"] {
            assert!(!hint(sqlstate).contains("init"), "{sqlstate}");
        }
    }
}
