//! Servers that stop, crash, hang or refuse. Each test has a server of its own ([`common::postgres_server`]).

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::postgres::{Admin, address};
use common::postgres_server::Server;
use common::{Folder, NOW, TIMEOUT, deadline, token};
use zoho_token_store::backends::postgres::{Postgres, PostgresSettings};
use zoho_token_store::domain::Field;
use zoho_token_store::domain::lease::{Requester, Settings};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Store, Wait};

fn try_open(dsn: &str, deadline: Deadline) -> zoho_token_store::store::Result<Postgres> {
    Postgres::open(address(dsn), PostgresSettings::default(), deadline)
}

fn open(server: &Server, timeout: Duration) -> Store {
    Store::new(Box::new(try_open(&server.dsn(), deadline()).unwrap()), timeout)
}

/// The access tokens by the users.
fn saved(store: &Store) -> BTreeMap<String, String> {
    let rows = store.all().unwrap();
    let text = |row: &zoho_token_store::domain::Row, field| row.get(field).unwrap_or_default().to_owned();
    let by_user: BTreeMap<_, _> =
        rows.iter().map(|row| (text(row, Field::UserName), text(row, Field::AccessToken))).collect();
    assert_eq!(by_user.len(), rows.len(), "a user has two rows");
    by_user
}

#[test]
fn no_acknowledged_save_is_lost_and_no_call_fails_when_the_server_restarts_or_crashes() {
    let mut server = Server::start(&[]);
    let store = open(&server, TIMEOUT);
    let (ends, saves) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acknowledged = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|user| {
                let (store, ends, saves) = (&store, &ends, &saves);
                scope.spawn(move || {
                    let mut number = 0;
                    while !ends.load(Ordering::SeqCst) {
                        number += 1;
                        let values = format!("user_name=u{user} refresh_token=r{user} access_token=a{number}");
                        store.save(token(&values), NOW).unwrap();
                        let found = store.find(token(&format!("user_name=u{user}")), Wait::Yes).unwrap().unwrap();
                        assert_eq!(found.row().get(Field::AccessToken), Some(format!("a{number}").as_str()));
                        saves.fetch_add(1, Ordering::SeqCst);
                    }
                    (format!("u{user}"), format!("a{number}"))
                })
            })
            .collect();
        for how in ["stop fast", "stop immediate", "kill", "stop fast"] {
            // Some saves between two faults.
            let before = saves.load(Ordering::SeqCst);
            let end = Deadline::after(TIMEOUT);
            while saves.load(Ordering::SeqCst) < before + 40 && end.sleep(1_000..5_000) {}
            server.ask(how);
            server.ask("start");
        }
        thread::sleep(Duration::from_millis(200));
        ends.store(true, Ordering::SeqCst);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<BTreeMap<_, _>>()
    });
    assert_eq!(saved(&store), acknowledged);
}

#[test]
fn a_server_that_is_down_is_tried_again_until_the_deadline() {
    let mut server = Server::start(&[]);
    let store = open(&server, Duration::from_secs(1));
    server.ask("stop fast");
    let error = try_open(&server.dsn(), Deadline::after(Duration::from_millis(500))).err().unwrap();
    assert_eq!(error.code(), Code::Unreachable, "{error}");
    let errors = [
        store.find(token("refresh_token=r"), Wait::Yes).err().unwrap(),
        store.save(token("refresh_token=r"), NOW).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::Unreachable, "{error}");
    }
    let patient = Deadline::after(TIMEOUT);
    let dsn = server.dsn();
    thread::scope(|scope| {
        let opened = scope.spawn(|| try_open(&dsn, patient).map(drop));
        thread::sleep(Duration::from_millis(300));
        server.ask("start");
        opened.join().unwrap().unwrap();
    });
    store.save(token("refresh_token=r"), NOW).unwrap();
}

#[test]
fn a_server_whose_processes_are_stopped_is_given_up_at_the_deadline_and_used_again_later() {
    let mut server = Server::start(&[]);
    let store = open(&server, Duration::from_secs(2));
    store.save(token("refresh_token=r access_token=a"), NOW).unwrap();
    server.ask("pause");
    let start = Instant::now();
    let errors = [
        store.find(token("refresh_token=r"), Wait::Yes).err().unwrap(),
        store.save(token("refresh_token=r access_token=b"), NOW).unwrap_err(),
    ];
    let waited = start.elapsed();
    server.ask("resume");
    for error in errors {
        assert_eq!(error.code(), Code::Unreachable, "{error}");
    }
    assert!(waited < Duration::from_secs(15), "{waited:?} for two calls with 2 s each");
    store.save(token("refresh_token=r access_token=c"), NOW).unwrap();
    assert_eq!(store.all().unwrap()[0].get(Field::AccessToken), Some("c"));
}

#[test]
fn a_wrong_password_is_reported_at_once_and_not_shown() {
    let folder = Folder::new();
    let access = folder.with("pg_hba.conf", "local all postgres trust\nlocal all all scram-sha-256\n");
    for path in [access.parent().unwrap(), &access] {
        let mode = if path == access { 0o644 } else { 0o755 };
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    let server = Server::start(&[("hba_file", &access.display().to_string())]);
    let admin = Admin::connect(&server.dsn());
    admin.sql("CREATE ROLE app LOGIN PASSWORD 'made-up-right'; CREATE SCHEMA app AUTHORIZATION app");
    let dsn = |password: &str| format!("{} user=app password={password}", server.dsn());
    let start = Instant::now();
    let error = try_open(&dsn("made-up-wrong"), deadline()).err().unwrap();
    assert_eq!(error.code(), Code::AccessDenied, "{error}");
    assert!(start.elapsed() < TIMEOUT / 2, "it was tried again");
    assert!(!error.to_string().contains("made-up") && !format!("{error:?}").contains("made-up"), "{error:?}");
    let store = Store::new(Box::new(try_open(&dsn("made-up-right"), deadline()).unwrap()), TIMEOUT);
    store.save(token("refresh_token=r"), NOW).unwrap();
    // The password is changed while the store is open. The connection that it has goes on.
    admin.sql("ALTER ROLE app PASSWORD 'made-up-other'");
    assert_eq!(store.count().unwrap(), 1);
    admin.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    let end = Deadline::after(TIMEOUT);
    while admin.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") != "0" && end.sleep(1_000..5_000) {
    }
    assert_eq!(store.count().unwrap_err().code(), Code::AccessDenied);
}

#[test]
fn a_save_is_durable_whatever_the_server_is_set_to_and_a_lease_does_not_wait_for_the_disk() {
    // A commit that does not wait is written by a process that looks once in 10 s.
    let settings = [("synchronous_commit", "off"), ("wal_writer_delay", "10s"), ("autovacuum", "off")];
    let server = Server::start(&settings);
    let store = open(&server, TIMEOUT).with_refresh_settings(Settings::new(Duration::from_secs(10)));
    let admin = Admin::connect(&server.dsn());
    let is_flushed = || admin.value("SELECT pg_current_wal_insert_lsn() <= pg_current_wal_flush_lsn()") == "t";
    let save = |user: usize, access: &str| {
        let values = format!("user_name=u{user} refresh_token=r{user} access_token={access} expiry_time=1");
        store.save(token(&values), NOW).unwrap();
    };
    let durable = (1..=20).filter(|&user| {
        save(user, "a");
        let inserted = is_flushed();
        save(user, "b");
        inserted && is_flushed()
    });
    assert!(durable.count() >= 18, "the server itself writes to its log now and then");
    let durable = (1..=20).filter(|user| {
        let (id, requester) = (user.to_string(), Requester::new("1-a", *user, 0, true));
        let attempt = store.try_acquire(Lookup::Id(Some(&id)), &requester, 1, &|| NOW, TIMEOUT).unwrap();
        let Outcome::Refresh(acquired) = attempt.outcome else { panic!("no lease") };
        let acquired_durably = is_flushed();
        assert!(store.release_lease(&acquired));
        acquired_durably
    });
    assert!(durable.count() <= 2, "a lease waits for the disk");
    assert_eq!(admin.value("SHOW synchronous_commit"), "off", "nothing but the transaction is changed");
}
