//! What a SQLite file adds to the contract: whose it is, how it changes hands, what is left on the disk (docs/contract.md,
//! sections 7, 9, 10). What takes several processes is tested from Python.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

mod any_file;

use rusqlite::Connection;
use tempfile::TempDir;
use zoho_token_store::backends::DATABASE_FORMATS;
use zoho_token_store::backends::list::List;
use zoho_token_store::backends::sqlite::{Memory, Sqlite};
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::backend::Backend;
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Result, Store, Wait};

const NOW: i64 = 1_795_300_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sample-zohooauth.db");

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with_sample(&self) -> PathBuf {
        let path = self.path("zohooauth.db");
        fs::copy(SAMPLE, &path).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn try_open(path: &Path) -> Result<Store> {
    Ok(Store::new(Box::new(Sqlite::open(path, Deadline::after(TIMEOUT))?), TIMEOUT))
}

fn open(path: &Path) -> Store {
    try_open(path).unwrap()
}

fn back_up(store: &Store, target: &Path) -> Result<()> {
    store.backup(target, DATABASE_FORMATS.first().copied())
}

fn refresh(value: &str) -> Token<'_> {
    Token::default().with(Field::RefreshToken, Some(value))
}

fn save(store: &Store, refresh_token: &str) -> String {
    store.save(refresh(refresh_token), NOW).unwrap()
}

fn has(store: &Store, refresh_token: &str) -> bool {
    store.find(refresh(refresh_token), Wait::Yes).unwrap().is_some()
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A file refused is a file untouched, whatever was to be done with it.
#[track_caller]
fn refused(folder: &Folder, path: &Path, code: Code, detail: &str) {
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
fn a_new_file_is_marked_as_ours_and_uses_wal() {
    let folder = Folder::new();
    let path = folder.path("new.db");
    let store = open(&path);
    save(&store, "r");
    assert_eq!(folder.names(), ["new.db", "new.db-shm", "new.db-wal"]);
    drop(store);
    assert_eq!(number(&path, "PRAGMA application_id"), 0x5A54_6F4B);
    assert_eq!(number(&path, "PRAGMA user_version"), 1);
    assert_eq!(number(&path, "SELECT journal_mode = 'wal' FROM pragma_journal_mode"), 1);
}

#[test]
fn the_file_holds_everything_by_itself_once_the_last_store_is_closed() {
    let folder = Folder::new();
    let store = open(&folder.path("new.db"));
    save(&store, "r");
    drop(store);
    assert_eq!(folder.names(), ["new.db"]);
    assert!(has(&open(&folder.path("new.db")), "r"));
}

#[test]
fn a_samples_file_opens_as_it_is_and_takes_more_users() {
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
    assert_eq!(number(&folder.path("zohooauth.db"), columns), 1);
}

#[test]
fn rows_of_a_sample_count_as_saved_in_their_order_when_they_were_first_seen() {
    let folder = Folder::new();
    let before = chrono_free_now();
    let rows = open(&folder.with_sample()).all().unwrap();
    assert!(rows.iter().map(|row| row.saved_order).eq(1..=10));
    assert!(rows.iter().all(|row| row.saved_at.is_some_and(|at| (before - 5..=chrono_free_now() + 5).contains(&at))));
}

fn chrono_free_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

#[test]
fn what_another_program_writes_counts_as_saved_then_and_its_ids_as_given_out() {
    let folder = Folder::new();
    let path = folder.with_sample();
    let store = open(&path);
    let before = chrono_free_now();
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
fn a_file_that_is_no_token_database_is_refused_and_untouched() {
    let folder = Folder::new();
    let text = folder.path("notes.txt");
    fs::write(&text, "made-up notes, longer than the header of a database: ".repeat(40)).unwrap();
    refused(&folder, &text, Code::NotADatabase, "");

    let other = folder.path("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE photos (name)").unwrap();
    refused(&folder, &other, Code::OtherProgram, "");

    let marked = folder.path("marked.db");
    Connection::open(&marked)
        .unwrap()
        .execute_batch("PRAGMA application_id = 7; CREATE TABLE oauthtoken (id)")
        .unwrap();
    refused(&folder, &marked, Code::OtherProgram, "");

    let odd = folder.path("odd.db");
    Connection::open(&odd).unwrap().execute_batch("CREATE TABLE oauthtoken (id, user_name, client_id)").unwrap();
    refused(&folder, &odd, Code::OtherProgram, "does not have the columns client_secret, refresh_token");
}

#[test]
fn a_newer_file_is_refused_and_untouched() {
    let folder = Folder::new();
    let path = folder.path("newer.db");
    save(&open(&path), "r");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 2").unwrap();
    refused(&folder, &path, Code::NewerSchema, "(schema 2, this version knows 1)");
}

#[test]
fn a_damaged_file_is_refused_and_untouched() {
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
fn a_path_that_leads_nowhere_says_what_is_wrong_with_it() {
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
    }
    assert_eq!(folder.names().len(), if cfg!(unix) { 2 } else { 1 });
}

#[test]
fn a_file_deleted_under_a_running_store_is_made_anew() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "before");
    fs::remove_file(&path).unwrap();
    assert!(!has(&store, "before"));
    save(&store, "after");
    drop(store);
    let store = open(&path);
    assert!(has(&store, "after") && !has(&store, "before"));
}

#[test]
fn a_file_replaced_under_a_running_store_is_the_one_used_from_then_on() {
    let folder = Folder::new();
    let (path, other) = (folder.path("tokens.db"), folder.path("other.db"));
    save(&open(&other), "other");
    let store = open(&path);
    save(&store, "before");
    fs::rename(&other, &path).unwrap();
    assert!(has(&store, "other") && !has(&store, "before"));
    save(&store, "after");
    drop(store);
    let store = open(&path);
    assert!(has(&store, "other") && has(&store, "after") && !has(&store, "before"));
    assert_eq!(number(&path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
}

#[test]
fn a_file_renamed_under_a_running_store_keeps_what_was_saved_in_it() {
    let folder = Folder::new();
    let (path, other) = (folder.path("tokens.db"), folder.path("other.db"));
    let store = open(&path);
    save(&store, "before");
    fs::rename(&path, &other).unwrap();
    save(&store, "after");
    assert!(has(&open(&other), "before") && !has(&open(&other), "after"));
    assert!(has(&store, "after") && !has(&store, "before"));
}

#[test]
fn a_renamed_file_is_written_under_its_new_name() {
    let folder = Folder::new();
    let (path, renamed) = (folder.path("tokens.db"), folder.path("renamed.db"));
    let old = open(&path);
    save(&old, "before");
    fs::rename(&path, &renamed).unwrap();
    let new = open(&renamed);
    save(&new, "after");
    assert_eq!(folder.names(), ["renamed.db", "renamed.db-shm", "renamed.db-wal"]);
    assert!(has(&new, "before") && has(&new, "after"));
    save(&old, "elsewhere");
    drop((old, new));
    assert_eq!((open(&path).count().unwrap(), open(&renamed).count().unwrap()), (1, 2));
}

#[test]
fn a_second_name_of_a_file_in_use_is_refused() {
    let folder = Folder::new();
    let (path, link) = (folder.path("tokens.db"), folder.path("link.db"));
    let store = open(&path);
    save(&store, "r");
    fs::hard_link(&path, &link).unwrap();
    assert_eq!(try_open(&link).err().unwrap().code(), Code::SecondName);
    drop(store);
    assert!(has(&open(&link), "r"));
}

#[test]
fn a_file_of_ours_without_its_tables_is_refused_and_untouched() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    drop(open(&path));
    Connection::open(&path).unwrap().execute_batch("DROP TABLE oauthtoken").unwrap();
    refused(&folder, &path, Code::Damaged, "its tables are not the ones that this library made");
}

#[test]
fn two_stores_of_one_process_follow_a_replaced_file_together() {
    let folder = Folder::new();
    let (path, other) = (folder.path("tokens.db"), folder.path("other.db"));
    save(&open(&other), "other");
    let stores = [open(&path), open(&path)];
    save(&stores[0], "before");
    assert!(has(&stores[1], "before"));
    fs::rename(&other, &path).unwrap();
    save(&stores[0], "after");
    for store in &stores {
        assert!(has(store, "other") && has(store, "after") && !has(store, "before"));
    }
}

#[test]
fn what_another_program_changes_is_found_at_once_however_often_it_was_asked_for() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "r");
    save(&store, "other");
    // Each find twice: the second is answered from what the first one found.
    let found = |key: &str| -> Option<String> {
        let [one, again] = [(); 2].map(|()| {
            let found = store.find(refresh(key), Wait::Yes).unwrap();
            found.map(|found| found.row().get(Field::AccessToken).unwrap_or("none").to_owned())
        });
        assert_eq!(one, again);
        one
    };
    let other = Connection::open(&path).unwrap();
    let set = |access: &str| {
        other.execute("UPDATE oauthtoken SET access_token = ?1 WHERE refresh_token = 'r'", [access]).unwrap();
    };
    assert_eq!(found("r").as_deref(), Some("none"));
    for access in ["a", "b", "c"] {
        set(access);
        assert_eq!(found("r").as_deref(), Some(access));
        // What begins the log anew, or rewrites the file, changes no row.
        for tidying in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(PASSIVE)"] {
            other.execute_batch(tidying).unwrap();
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
fn a_save_does_not_go_into_a_log_that_nobody_reads() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let stores = [open(&path), open(&path)];
    save(&stores[0], "before");
    // What another process does that closes the file last, once our locks were dropped.
    back_up(&stores[0], &folder.path("whole.db")).unwrap();
    fs::copy(folder.path("whole.db"), folder.path("copy.db")).unwrap();
    let checkpoint = Connection::open(&path).unwrap();
    checkpoint.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    fs::remove_file(folder.path("tokens.db-wal")).unwrap();
    fs::remove_file(folder.path("tokens.db-shm")).unwrap();
    drop(checkpoint);
    save(&stores[1], "after");
    assert!(has(&stores[0], "after") && has(&stores[0], "before"));
    drop(stores);
    let store = open(&path);
    assert!(has(&store, "before") && has(&store, "after"));
}

#[test]
fn what_is_deleted_or_replaced_is_not_readable_any_more() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    // By its beginning: a long value goes on in other pages.
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
    let renewed = refresh("made-up-successor").with(Field::Id, Some(&ids[1]));
    store.save(renewed, NOW).unwrap();
    assert!(!on_disk(&secrets[1]));
    store.delete_all().unwrap();
    assert!(!secrets.iter().any(|secret| on_disk(secret)));
}

#[test]
fn a_backup_is_complete_private_and_by_itself() {
    let folder = Folder::new();
    let file = Sqlite::open(&folder.path("tokens.db"), Deadline::after(TIMEOUT)).unwrap();
    let backends: [Box<dyn Backend>; 3] = [Box::new(file), Box::new(Memory::new().unwrap()), Box::new(List::new())];
    for backend in backends {
        let store = Store::new(backend, TIMEOUT);
        for n in 1..=3 {
            save(&store, &format!("r{n}"));
        }
        store.delete(Some("3")).unwrap();
        let path = folder.path("backup.db");
        back_up(&store, &path).unwrap();
        save(&store, "later");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        assert!(
            !folder.names().iter().any(|name| name.starts_with("backup.db-") || name.starts_with('.')),
            "{:?}",
            folder.names()
        );
        let copy = open(&path);
        let of = |store: &Store| {
            store.all().unwrap().iter().map(|row| (row.id().to_owned(), row.saved_order)).collect::<Vec<_>>()
        };
        assert_eq!(of(&copy), of(&store)[..2]);
        assert_eq!(save(&copy, "new"), "4");
    }
}

#[test]
fn a_backup_replaces_an_older_one_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "r");
    let refused = |target: &Path, code: Code, detail: &str| {
        let error = back_up(&store, target).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(detail), "{error}");
    };
    refused(&path, Code::TargetNotABackup, "is the store's own file");
    refused(folder.0.path(), Code::IsFolder, "");
    refused(&folder.path("no/such/backup.db"), Code::MissingFolder, "");
    fs::write(folder.path("notes.txt"), "made-up notes").unwrap();
    refused(&folder.path("notes.txt"), Code::TargetNotABackup, "is not a token database");
    assert_eq!(fs::read(folder.path("notes.txt")).unwrap(), b"made-up notes");
    refused(&folder.with_sample(), Code::TargetNotABackup, "is not a token database of this library");
    for ending in ["-wal", "-shm", "-journal"] {
        refused(&folder.path(&format!("tokens.db{ending}")), Code::ReservedName, "");
    }
    let live = open(&folder.path("live.db"));
    save(&live, "s");
    refused(&folder.path("live.db"), Code::TargetNotABackup, "is a database in use");
    let older = folder.path("older.db");
    back_up(&store, &older).unwrap();
    save(&store, "later");
    back_up(&store, &older).unwrap();
    assert!(has(&open(&older), "later"));
}

#[test]
fn stores_that_open_the_same_missing_file_at_once_all_work() {
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
fn who_may_not_wait_does_not_wait_for_another_program() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "r");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.find(refresh("r"), Wait::No).unwrap().is_some(), "a find never waits for a change");
    let impatient =
        Store::new(Box::new(Sqlite::open(&path, Deadline::after(TIMEOUT)).unwrap()), Duration::from_millis(30));
    assert!(impatient.save(refresh("s"), NOW).unwrap_err().is_busy());
    other.execute_batch("ROLLBACK").unwrap();
    impatient.save(refresh("s"), NOW).unwrap();
}

/// What `make fuzz` found, and the files that it began with.
fn kept_files() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fuzz");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn any_file_is_refused_and_left_alone_or_worked_with() {
    let files = kept_files();
    assert!(files.len() >= 10);
    for file in &files {
        any_file::check(file);
    }
}

#[test]
fn any_file_with_bytes_changed_is_refused_and_left_alone_or_worked_with() {
    let mut random = fastrand::Rng::with_seed(1);
    for file in kept_files().iter().filter(|file| !file.is_empty()) {
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
