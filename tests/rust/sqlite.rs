//! What a SQLite file adds to the contract (docs/contract.md, sections 7, 9, 10): which files are accepted, what other
//! programs write, and what remains on the disk. Tests with several processes are written in Python.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod any_file;
mod common;
mod replaced_files;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::sqlite::{open, try_open};
use common::{Folder, NOW, deadline};
use rusqlite::Connection;
use zoho_token_store::backends::DATABASE_FORMATS;
use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::error::Code;
use zoho_token_store::store::transfer;
use zoho_token_store::store::{Store, Wait};

fn refresh(value: &str) -> Token<'_> {
    Token::default().with(Field::RefreshToken, Some(value))
}

fn save(store: &Store, refresh_token: &str) -> String {
    store.save(refresh(refresh_token), NOW).unwrap()
}

fn has(store: &Store, refresh_token: &str) -> bool {
    store.find(refresh(refresh_token), Wait::Yes).unwrap().is_some()
}

fn query_number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Asserts that the file cannot be opened, and that nothing was written.
#[track_caller]
fn assert_refused(folder: &Folder, path: &Path, code: Code, detail: &str) {
    let before = (fs::read(path).unwrap(), folder.names());
    let Err(error) = try_open(path) else { panic!("{} was opened", path.display()) };
    let message = error.to_string();
    assert_eq!(error.code(), code, "{message}");
    assert!(message.contains(detail), "{message}");
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains("untouched"), "{message}");
    assert!((fs::read(path).unwrap(), folder.names()) == before, "the file was changed");
}

#[test]
fn a_new_file_has_our_application_id_and_uses_wal() {
    let folder = Folder::new();
    let path = folder.path("new.db");
    let store = open(&path);
    save(&store, "r");
    assert_eq!(folder.names(), ["new.db", "new.db-shm", "new.db-wal"]);
    drop(store);
    assert_eq!(query_number(&path, "PRAGMA application_id"), 0x5A54_6F4B);
    assert_eq!(query_number(&path, "PRAGMA user_version"), 1);
    assert_eq!(query_number(&path, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

#[test]
fn the_last_store_that_closes_the_file_removes_the_wal() {
    let folder = Folder::new();
    let store = open(&folder.path("new.db"));
    save(&store, "r");
    drop(store);
    assert_eq!(folder.names(), ["new.db"]);
    assert!(has(&open(&folder.path("new.db")), "r"));
}

#[test]
fn a_file_of_the_sample_can_be_opened_and_grows() {
    let folder = Folder::new();
    let store = open(&folder.with_sample());
    assert_eq!(store.count().unwrap(), 10);
    assert_eq!(save(&store, "1000.refresh.11"), "11");
    for n in 0..2_000 {
        assert_eq!(save(&store, &format!("more.{n}")), (12 + n).to_string());
    }
    assert_eq!(store.count().unwrap(), 2_011);
    let columns = "SELECT group_concat(name) = 'id,user_name,client_id,client_secret,refresh_token,access_token,\
                   grant_token,expiry_time,redirect_url,api_domain,saved_order,saved_at' \
                   FROM pragma_table_info('oauthtoken')";
    assert_eq!(query_number(&folder.path("zohooauth.db"), columns), 1);
}

#[test]
fn rows_of_the_sample_count_as_saved_in_their_order_at_the_migration() {
    let folder = Folder::new();
    let before = now();
    let rows = open(&folder.with_sample()).all().unwrap();
    assert!(rows.iter().map(|row| row.saved_order).eq(1..=10));
    // SQLite's clock is rounded.
    assert!(rows.iter().all(|row| row.saved_at.is_some_and(|at| (before - 5..=now() + 5).contains(&at))));
}

/// The time, in milliseconds since the epoch.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

#[test]
fn rows_that_another_program_writes_count_as_saved_and_their_ids_as_used() {
    let folder = Folder::new();
    let path = folder.with_sample();
    let store = open(&path);
    let before = now();
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE oauthtoken SET access_token = 'b' WHERE user_name = 'user03@example.com'", []).unwrap();
    other.execute("INSERT INTO oauthtoken (id, user_name) VALUES ('20', 'sample')", []).unwrap();
    other.execute("INSERT INTO oauthtoken (id, user_name) VALUES ('30', 'gone')", []).unwrap();
    other.execute("DELETE FROM oauthtoken WHERE id = '30'", []).unwrap();
    let rows = store.all().unwrap();
    let row = |id| rows.iter().find(|row| row.id() == id).unwrap();
    assert_eq!((row("3").saved_order, row("20").saved_order), (11, 12));
    assert!(row("3").saved_at >= Some(before - 5) && row("20").saved_at >= Some(before - 5));
    assert_eq!(save(&store, "new"), "31");
}

#[test]
fn a_file_that_is_not_a_token_database_is_refused_and_left_untouched() {
    let folder = Folder::new();
    let text = folder.path("notes.txt");
    fs::write(&text, "made-up notes, longer than the header of a database: ".repeat(40)).unwrap();
    assert_refused(&folder, &text, Code::NotADatabase, "");

    let other = folder.path("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE photos (name)").unwrap();
    assert_refused(&folder, &other, Code::OtherProgram, "");

    let marked = folder.path("marked.db");
    Connection::open(&marked)
        .unwrap()
        .execute_batch("PRAGMA application_id = 7; CREATE TABLE oauthtoken (id)")
        .unwrap();
    assert_refused(&folder, &marked, Code::OtherProgram, "");

    let odd = folder.path("odd.db");
    Connection::open(&odd).unwrap().execute_batch("CREATE TABLE oauthtoken (id, user_name, client_id)").unwrap();
    assert_refused(&folder, &odd, Code::OtherProgram, "does not have the columns client_secret, refresh_token");
}

/// Ten columns as a program may declare them: `id` as given, the others with `of_others`.
fn columns(id: &str, of_others: &str) -> String {
    let others = ["user_name", "client_id", "client_secret", "refresh_token", "access_token"];
    let more = ["grant_token", "expiry_time", "redirect_url", "api_domain"];
    let others: Vec<_> = others.into_iter().chain(more).map(|name| format!("{name} {of_others}")).collect();
    format!("{id}, {}", others.join(", "))
}

/// A file with this table and the rows 1 (ada) and 7 (bob), as another program made it.
fn unusual(folder: &Folder, name: &str, table: &str) -> std::path::PathBuf {
    let path = folder.path(name);
    let rows = "INSERT INTO oauthtoken (id, user_name, refresh_token) VALUES (1, 'ada', 'ra'), (7, 'bob', 'rb');";
    Connection::open(&path).unwrap().execute_batch(&format!("{table}; {rows}")).unwrap();
    path
}

#[test]
fn the_rows_of_an_unusual_table_are_found_by_every_key() {
    let folder = Folder::new();
    let tables = [
        ("no types", format!("CREATE TABLE oauthtoken ({})", columns("id", ""))),
        ("no types, a key", format!("CREATE TABLE oauthtoken ({})", columns("id PRIMARY KEY", ""))),
        ("blob", format!("CREATE TABLE oauthtoken ({})", columns("id BLOB PRIMARY KEY", "BLOB"))),
        ("integer", format!("CREATE TABLE oauthtoken ({})", columns("id INTEGER PRIMARY KEY", "TEXT"))),
        ("bigint", format!("CREATE TABLE oauthtoken ({})", columns("id BIGINT NOT NULL UNIQUE", "TEXT"))),
        ("strict", format!("CREATE TABLE oauthtoken ({}) STRICT", columns("id TEXT PRIMARY KEY", "TEXT"))),
        ("strict any", format!("CREATE TABLE oauthtoken ({}) STRICT", columns("id ANY PRIMARY KEY", "ANY"))),
        ("strict int", format!("CREATE TABLE oauthtoken ({}) STRICT", columns("id INTEGER PRIMARY KEY", "TEXT"))),
        ("case", format!("CREATE TABLE OAuthToken ({})", columns("ID VARCHAR PRIMARY KEY", "TEXT"))),
        (
            "collation",
            format!("CREATE TABLE oauthtoken ({})", columns("id TEXT COLLATE NOCASE", "TEXT COLLATE NOCASE")),
        ),
        (
            "more columns",
            format!(
                "CREATE TABLE oauthtoken (note DEFAULT 'x' NOT NULL, twice AS (id || id), {})",
                columns("id", "TEXT")
            ),
        ),
        (
            "a trigger",
            format!(
                "CREATE TABLE oauthtoken ({}); CREATE TABLE log (id); \
                 CREATE TRIGGER logs AFTER INSERT ON oauthtoken BEGIN INSERT INTO log VALUES (NEW.id); END",
                columns("id varchar(10) PRIMARY KEY", "TEXT")
            ),
        ),
    ];
    for (name, table) in tables {
        let path = unusual(&folder, name, &table);
        // Twice: the second store opens a file that is current.
        for round in 0..2 {
            let store = open(&path);
            let ids: Vec<_> = store.all().unwrap().iter().map(|row| row.id().to_owned()).collect();
            assert_eq!(ids[..2], ["1", "7"], "{name}");
            for (id, user, refresh_token) in [("1", "ada", "ra"), ("7", "bob", "rb")] {
                let by_id = store.find_by_id(Some(id), Wait::Yes).unwrap();
                assert!(by_id.is_some_and(|found| found.row().get(Field::UserName) == Some(user)), "{name} {id}");
                assert!(has(&store, refresh_token), "{name} {refresh_token}");
                let upper = user.to_uppercase();
                let upper = Token::default().with(Field::UserName, Some(&upper));
                assert!(store.find(upper, Wait::Yes).unwrap().is_none(), "{name}: another user");
            }
            assert_eq!(save(&store, &format!("new {round}")), (8 + round).to_string(), "{name}");
            let update = Token::default().with(Field::Id, Some("7")).with(Field::AccessToken, Some("new"));
            assert_eq!(store.save(update, NOW).unwrap(), "7", "{name}");
            assert_eq!(store.count().unwrap(), 3 + round, "{name}");
        }
        let store = open(&path);
        store.delete(Some("7")).unwrap();
        assert!(store.find_by_id(Some("7"), Wait::Yes).unwrap().is_none() && store.count().unwrap() == 3, "{name}");
    }
}

#[test]
fn ids_that_version_0_1_0_left_as_numbers_are_found() {
    let folder = Folder::new();
    let path = unusual(&folder, "tokens.db", &format!("CREATE TABLE oauthtoken ({})", columns("id PRIMARY KEY", "")));
    drop(open(&path));
    // Version 0.1.0 did not convert ids. The sample may also write a number later.
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET id = CAST(id AS INTEGER)").unwrap();
    assert_eq!(query_number(&path, "SELECT count(*) FROM oauthtoken WHERE typeof(id) = 'integer'"), 2);
    let store = open(&path);
    assert!(store.find_by_id(Some("7"), Wait::Yes).unwrap().is_some());
    assert_eq!(save(&store, "new"), "8");
}

#[test]
fn an_unusual_table_that_cannot_be_used_is_refused_with_the_reason_and_can_be_imported() {
    let folder = Folder::new();
    let plain = columns("id", "");
    let of = |kind: &str| format!("CREATE TABLE oauthtoken ({plain}){kind}");
    let tables = [
        (
            "wr",
            format!("CREATE TABLE oauthtoken ({}) WITHOUT ROWID", columns("id TEXT PRIMARY KEY", "")),
            "WITHOUT ROWID",
        ),
        (
            "view",
            format!(
                "CREATE TABLE tokens ({plain}); CREATE VIEW oauthtoken AS SELECT * FROM tokens; \
                 CREATE TRIGGER inserts INSTEAD OF INSERT ON oauthtoken BEGIN INSERT INTO tokens (id, user_name, \
                 refresh_token) VALUES (NEW.id, NEW.user_name, NEW.refresh_token); END"
            ),
            "it is a view",
        ),
        ("ours", of("").replace("(id", "(saved_at, id"), "it has a column saved_at already"),
        (
            "no id",
            of("") + "; INSERT INTO oauthtoken (user_name, refresh_token) VALUES ('eve', 're')",
            "a row has no id",
        ),
        (
            "empty id",
            of("") + "; INSERT INTO oauthtoken (id, user_name, refresh_token) VALUES ('', 'eve', 're')",
            "a row has no id",
        ),
        (
            "equal ids",
            of("") + "; INSERT INTO oauthtoken (id, user_name, refresh_token) VALUES ('7', 'eve', 're')",
            "several rows have the same id",
        ),
    ];
    for (name, table, reason) in tables {
        let path = unusual(&folder, name, &table);
        assert_refused(&folder, &path, Code::UnusualTable, reason);
        let rows = transfer::read(&path, DATABASE_FORMATS).unwrap().rows;
        let store = open(&folder.path(&format!("{name} imported")));
        assert_eq!(store.import_rows(&rows, NOW).unwrap().counts.new, rows.len(), "{name}");
        assert!(has(&store, "ra") && has(&store, "rb"), "{name}");
        let ids: std::collections::BTreeSet<_> = store.all().unwrap().iter().map(|row| row.id().to_owned()).collect();
        assert!(ids.len() == rows.len() && !ids.contains(""), "{name}");
    }
    let path = folder.path("needs a value");
    let table = of("").replace("(id", "(tenant NOT NULL, id");
    Connection::open(&path).unwrap().execute_batch(&table).unwrap();
    assert_refused(&folder, &path, Code::UnusualTable, "its column tenant needs a value");
}

#[test]
fn the_wal_of_a_killed_program_is_not_replayed_into_another_file() {
    for with_shm in [true, false] {
        let (live, folder) = (Folder::new(), Folder::new());
        let store = open(&live.path("tokens.db"));
        save(&store, "before the backup");
        common::back_up(&store, &live.path("backup.db")).unwrap();
        save(&store, "after the backup");
        // What a killed program leaves, without its database.
        for ending in ["-wal"].into_iter().chain(with_shm.then_some("-shm")) {
            fs::copy(live.path(&format!("tokens.db{ending}")), folder.path(&format!("tokens.db{ending}"))).unwrap();
        }
        let path = folder.path("tokens.db");
        let names = folder.names();
        let error = try_open(&path).err().unwrap();
        assert_eq!((error.code(), folder.names()), (Code::StrayWal, names), "{error}");

        // A backup takes the place of the file.
        fs::copy(live.path("backup.db"), &path).unwrap();
        assert_refused(&folder, &path, Code::StrayWal, "remove the -wal and the -shm");
        assert_eq!(transfer::read(&path, DATABASE_FORMATS).err().unwrap().code(), Code::StrayWal);
        fs::remove_file(folder.path("tokens.db-wal")).unwrap();
        let restored = open(&path);
        assert!(has(&restored, "before the backup") && !has(&restored, "after the backup"));
    }
}

#[test]
fn a_newer_file_is_refused_and_left_untouched() {
    let folder = Folder::new();
    let path = folder.path("newer.db");
    save(&open(&path), "r");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 3").unwrap();
    assert_refused(&folder, &path, Code::NewerSchema, "(schema 3, this version knows 2)");
}

#[test]
fn a_file_that_is_cut_short_is_refused_and_left_untouched() {
    let folder = Folder::new();
    let path = folder.with_sample();
    let whole = fs::read(&path).unwrap();
    for length in [100, 2_000, 4_096, 8_192, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let before = fs::read(&path).unwrap();
        let Err(error) = try_open(&path) else { panic!("opened with {length} bytes") };
        assert!([Code::Damaged, Code::NotADatabase].contains(&error.code()), "{length}: {error}");
        assert!(fs::read(&path).unwrap() == before, "{length}: the file was changed");
    }
}

#[test]
fn the_error_says_what_is_wrong_with_a_path() {
    let folder = Folder::new();
    let code = |path: &Path| try_open(path).err().unwrap().code();
    assert_eq!(code(&folder.path("no/such/new.db")), Code::MissingFolder);
    assert_eq!(code(folder.0.path()), Code::IsFolder);
    fs::write(folder.path("plain"), "").unwrap();
    assert_eq!(code(&folder.path("plain/new.db")), Code::InvalidPath);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("link")).unwrap();
        assert_eq!(code(&folder.path("link")), Code::BrokenLink);
        assert_eq!(code(Path::new("/dev/null")), Code::NotARegularFile);
        std::os::unix::fs::symlink(folder.path("loop"), folder.path("loop")).unwrap();
        assert_eq!(code(&folder.path("loop")), Code::InvalidPath);
    }
    assert_eq!(folder.names().len(), if cfg!(unix) { 3 } else { 1 });
}

#[cfg(unix)]
#[test]
fn a_path_that_sqlite_cannot_open_is_refused_before_a_file_is_created() {
    let folder = Folder::new();
    let refused = |path: &Path| {
        let error = try_open(path).err().unwrap();
        assert_eq!(error.code(), Code::PathTooLong, "{error}");
        error.problem()
    };
    for (length, over) in [(248, "1 too many for the -journal"), (252, "5 too many"), (300, "53 too many")] {
        assert!(refused(&folder.path(&"n".repeat(length))).contains(over));
    }
    assert!(folder.names().is_empty());
    // The longest names that work, also with the temporary name of a new file.
    drop(open(&folder.path(&"n".repeat(247))));
    let in_folder_of = |length: usize| {
        let mut deep = folder.0.path().to_owned();
        while deep.as_os_str().len() + 1 < length {
            deep.push("d".repeat((length - deep.as_os_str().len() - 1).min(200)));
        }
        fs::create_dir_all(&deep).unwrap();
        deep
    };
    let deepest = in_folder_of(465);
    drop(open(&deepest.join("n".repeat(38))));
    assert!(refused(&deepest.join("n".repeat(39))).contains("it has 505 bytes, 1 more than SQLite can open"));
    assert!(refused(&in_folder_of(466).join("new.db")).contains("its folder has 466 bytes, 1 too many"));
    assert_eq!(fs::read_dir(deepest).unwrap().count(), 1);
    // The real path counts.
    std::os::unix::fs::symlink(in_folder_of(490), folder.path("link")).unwrap();
    assert!(refused(&folder.path("link/new.db")).contains("its folder has 490 bytes"));
    fs::copy(folder.path(&"n".repeat(247)), in_folder_of(490).join("n".repeat(20))).unwrap();
    assert!(refused(&folder.path("link").join("n".repeat(20))).contains("it has 511 bytes, 7 more"));
}

#[test]
fn a_token_database_without_its_tables_is_refused_and_left_untouched() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    drop(open(&path));
    Connection::open(&path).unwrap().execute_batch("DROP TABLE oauthtoken").unwrap();
    assert_refused(&folder, &path, Code::Damaged, "its tables are not the ones that this library made");
}

#[test]
fn a_find_sees_every_change_of_another_program_despite_the_read_cache() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "r");
    save(&store, "other");
    // Each key is looked up twice. The read cache answers the second lookup.
    let found = |key: &str| -> Option<String> {
        let [first, second] = [(); 2].map(|()| {
            let found = store.find(refresh(key), Wait::Yes).unwrap();
            found.map(|found| found.row().get(Field::AccessToken).unwrap_or("none").to_owned())
        });
        assert_eq!(first, second);
        first
    };
    let other = Connection::open(&path).unwrap();
    let set = |access: &str| {
        other.execute("UPDATE oauthtoken SET access_token = ?1 WHERE refresh_token = 'r'", [access]).unwrap();
    };
    assert_eq!(found("r").as_deref(), Some("none"));
    for access in ["a", "b", "c"] {
        set(access);
        assert_eq!(found("r").as_deref(), Some(access));
        // A restart of the WAL, or a rewrite of the file, changes no row.
        for maintenance in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(PASSIVE)"] {
            other.execute_batch(maintenance).unwrap();
            assert_eq!(found("r").as_deref(), Some(access));
        }
    }
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    set("not yet");
    assert_eq!(found("r").as_deref(), Some("c"));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(found("r").as_deref(), Some("not yet"));
    assert_eq!(found("new"), None);
    other.execute("UPDATE oauthtoken SET refresh_token = 'new' WHERE refresh_token = 'r'", []).unwrap();
    assert_eq!((found("new").as_deref(), found("r")), (Some("not yet"), None));
    other.execute_batch("DELETE FROM oauthtoken").unwrap();
    assert_eq!((found("new"), found("other")), (None, None));
}

#[test]
fn deleted_and_replaced_secrets_are_not_readable_in_any_file() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    // The first bytes identify a secret. A long value continues in other pages.
    let on_disk = |secret: &str| {
        folder.names().iter().any(|name| {
            let bytes = fs::read(folder.path(name)).unwrap();
            String::from_utf8_lossy(&bytes).contains(&secret[..17])
        })
    };
    let secrets: Vec<String> = (0..40).map(|n| format!("made-up-secret-{n:02}-{}", "x".repeat(n * 150))).collect();
    let ids: Vec<String> = secrets.iter().map(|secret| save(&store, secret)).collect();
    assert!(secrets.iter().all(|secret| on_disk(secret)));
    for id in ids.iter().step_by(2) {
        store.delete(Some(id)).unwrap();
    }
    for (n, secret) in secrets.iter().enumerate() {
        assert_eq!(on_disk(secret), n % 2 == 1, "{n}");
    }
    let replaced = refresh("made-up-successor").with(Field::Id, Some(&ids[1]));
    store.save(replaced, NOW).unwrap();
    assert!(!on_disk(&secrets[1]));
    store.delete_all().unwrap();
    assert!(!secrets.iter().any(|secret| on_disk(secret)));
}

#[test]
fn stores_that_make_the_same_file_at_the_same_time_all_work() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (path, start) = (&path, &start);
            scope.spawn(move || {
                start.wait();
                save(&open(path), &format!("r{thread}"));
            });
        }
    });
    assert_eq!(open(&path).count().unwrap(), 8);
}

#[test]
fn a_caller_that_may_not_wait_fails_while_another_program_writes() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "r");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.find(refresh("r"), Wait::No).unwrap().is_some(), "a find never waits for a write");
    let impatient = Store::new(Box::new(Sqlite::open(&path, deadline()).unwrap()), Duration::from_millis(30));
    assert!(impatient.save(refresh("s"), NOW).unwrap_err().is_busy());
    other.execute_batch("ROLLBACK").unwrap();
    impatient.save(refresh("s"), NOW).unwrap();
}

/// The first inputs of `make fuzz`, and the inputs with which it found errors.
fn fuzz_inputs() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fuzz");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn any_file_is_refused_and_left_untouched_or_works() {
    let files = fuzz_inputs();
    assert!(files.len() >= 10);
    for file in &files {
        any_file::check(file);
    }
}

#[test]
fn any_file_with_changed_bytes_is_refused_and_left_untouched_or_works() {
    let mut random = fastrand::Rng::with_seed(1);
    for file in fuzz_inputs().iter().filter(|file| !file.is_empty()) {
        for _ in 0..15 {
            let mut changed = file.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..changed.len());
                changed[at] = random.u8(..);
            }
            changed.truncate(random.usize(..8 * changed.len()));
            any_file::check(&changed);
        }
    }
}
