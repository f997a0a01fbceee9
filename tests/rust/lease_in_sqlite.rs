//! The table of leases in a SQLite file, and what other programs may do to it (docs/lease.md, rules 1 and 9).

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::domain::Field;
use zoho_token_store::domain::lease::{Requester, Settings};
use zoho_token_store::store::Store;
use zoho_token_store::store::lease::{Lookup, Outcome};

use super::common::{Folder, NOW, TIMEOUT, deadline, token};
use super::{EXPIRED, FRESH, LENGTH, acquired, another_process, describe, me};

fn with_expired_row(path: &Path) -> Store {
    let sqlite = Sqlite::open(path, deadline()).unwrap();
    let store = Store::new(Box::new(sqlite), TIMEOUT).with_refresh_settings(Settings::new(LENGTH));
    store.save(token(EXPIRED), NOW).unwrap();
    store
}

fn try_acquire(store: &Store, lookup: Lookup<'_>, requester: &Requester, now: i64) -> Outcome {
    store.try_acquire(lookup, requester, 1, &|| now, TIMEOUT).unwrap().outcome
}

const ROW: Lookup<'_> = Lookup::Id(Some("1"));

/// What another program does to the file, in words and in SQL, and the outcome of the next attempt to acquire a lease.
const DAMAGE: [(&str, &str, &str); 8] = [
    ("drops the table", "DROP TABLE IF EXISTS zoho_token_lease", "refresh id:1"),
    ("deletes all leases", "DELETE FROM zoho_token_lease", "refresh id:1"),
    (
        "replaces the table by a view",
        "DROP TABLE IF EXISTS zoho_token_lease; CREATE VIEW zoho_token_lease AS SELECT 1 AS one",
        "no lease",
    ),
    (
        "replaces the table by another table",
        "DROP TABLE IF EXISTS zoho_token_lease; CREATE TABLE zoho_token_lease (one)",
        "no lease",
    ),
    (
        "writes values that are no lease",
        "DELETE FROM zoho_token_lease; INSERT INTO zoho_token_lease VALUES ('id:1', x'ff', 'soon')",
        "no lease",
    ),
    (
        "aborts the statement that acquires a lease",
        "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE INSERT ON zoho_token_lease \
         BEGIN SELECT RAISE(ABORT, 'no'); END",
        "no lease",
    ),
    (
        "rolls back the transaction that acquires a lease",
        "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE INSERT ON zoho_token_lease \
         BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "no lease",
    ),
    (
        "rolls back the transaction that releases a lease",
        "DELETE FROM zoho_token_lease; CREATE TRIGGER no BEFORE DELETE ON zoho_token_lease \
         BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
        "refresh id:1",
    ),
];

#[test]
fn finds_and_saves_work_whatever_happens_to_the_table_of_leases() {
    for (damage, sql, outcome) in DAMAGE {
        let folder = Folder::new();
        let path = folder.path("tokens.db");
        let store = with_expired_row(&path);
        // The table exists from now on, and so do prepared statements on it.
        let first = acquired(try_acquire(&store, ROW, &me(), NOW));
        assert!(store.release_lease(&first), "{damage}");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let attempt = store.try_acquire(ROW, &me(), 1, &|| NOW, TIMEOUT).unwrap();
        assert_eq!(describe(&attempt.outcome), outcome, "{damage}");
        assert_eq!(attempt.found.unwrap().row().get(Field::AccessToken), Some("old"), "{damage}");
        let (id, _) = store.save_and_release(token(FRESH), NOW, me().owner(), None).unwrap();
        assert_eq!(id, "1", "{damage}");
        assert_eq!(store.all().unwrap()[0].token().get(Field::AccessToken), Some("new"), "{damage}");
    }
}

/// What another program does to the table of failed refreshes.
const DAMAGE_TO_FAILURES: [(&str, &str); 5] = [
    ("drops the table", "DROP TABLE zoho_token_failure"),
    (
        "replaces the table by a view",
        "DROP TABLE zoho_token_failure; CREATE VIEW zoho_token_failure AS SELECT 1 AS one",
    ),
    ("replaces the table by another table", "DROP TABLE zoho_token_failure; CREATE TABLE zoho_token_failure (one)"),
    ("writes values that are no failure", "UPDATE zoho_token_failure SET count = -1, since = 'long ago', last = x'ff'"),
    (
        "aborts the statement that records a failure",
        "CREATE TRIGGER no BEFORE INSERT ON zoho_token_failure BEGIN SELECT RAISE(ABORT, 'no'); END",
    ),
];

#[test]
fn leases_work_whatever_happens_to_the_table_of_failures() {
    for (damage, sql) in DAMAGE_TO_FAILURES {
        let folder = Folder::new();
        let path = folder.path("tokens.db");
        let settings = Settings { longest_backoff: LENGTH, ..Settings::new(LENGTH) };
        let store = with_expired_row(&path).with_refresh_settings(settings);
        assert!(store.release_lease(&acquired(try_acquire(&store, ROW, &me(), NOW))), "{damage}");
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        assert!(store.release_lease(&acquired(try_acquire(&store, ROW, &me(), NOW))), "{damage}: the next failure");
        assert_eq!(store.lease_counters().failed, 2, "{damage}");
        assert_eq!(describe(&try_acquire(&store, ROW, &another_process(1), NOW)), "refresh id:1", "{damage}");
    }
}

#[test]
fn failures_of_long_ago_are_deleted() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let settings = Settings { longest_backoff: LENGTH, ..Settings::new(LENGTH) };
    let store = with_expired_row(&path).with_refresh_settings(settings);
    assert!(store.release_lease(&acquired(try_acquire(&store, ROW, &me(), NOW))));
    let count = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection
            .query_row("SELECT count(*) FROM zoho_token_failure WHERE key = 'id:1'", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(count(), 1);
    store.save(token("user_name=bob refresh_token=r2 access_token=old expiry_time=1"), NOW).unwrap();
    let bobs = Lookup::Id(Some("2"));
    assert!(store.release_lease(&acquired(try_acquire(&store, bobs, &me(), NOW + 86_400_000 + 60_000))));
    assert_eq!(count(), 0);
}

#[test]
fn a_release_does_not_end_the_lease_of_the_next_holder() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let [one, other] = [with_expired_row(&path), with_expired_row(&path)];
    let first = acquired(try_acquire(&one, ROW, &me(), NOW));
    // The first lease has expired, and another process holds the next one.
    acquired(try_acquire(&other, ROW, &another_process(1), NOW + 10_000));
    assert!(one.release_lease(&first));
    assert_eq!(describe(&try_acquire(&one, ROW, &another_process(2), NOW + 10_000)), "wait id:1");
}

#[test]
fn leases_that_expired_long_ago_are_deleted() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = with_expired_row(&path);
    let acquire = |values, now| acquired(try_acquire(&store, Lookup::Token(token(values)), &another_process(1), now));
    let count = || -> i64 {
        let connection = Connection::open(&path).unwrap();
        connection.query_row("SELECT count(*) FROM zoho_token_lease", [], |row| row.get(0)).unwrap()
    };
    acquire("client_id=c refresh_token=lost", NOW);
    acquire("client_id=c refresh_token=other", NOW + 1_000);
    assert_eq!(count(), 2);
    acquire("client_id=c refresh_token=later", NOW + 2 * 86_400_000);
    assert_eq!(count(), 1);
}

#[test]
fn a_locked_file_is_read_without_a_lease() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = with_expired_row(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let attempt = store.try_acquire(ROW, &me(), 1, &|| NOW, Duration::from_millis(1)).unwrap();
    assert_eq!((describe(&attempt.outcome), attempt.found.is_some()), ("try again".to_owned(), true));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(describe(&try_acquire(&store, ROW, &me(), NOW)), "refresh id:1");
}
