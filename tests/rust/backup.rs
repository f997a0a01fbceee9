//! Backups are complete and private, and replace nothing but an older backup.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::store::Store;
use zoho_token_store::store::error::Code;

use super::common::sqlite::open;
use super::common::{self, Folder, NOW, Setup, TestKeys, back_up, deadline, token};
use super::{make_database, read};

#[test]
fn a_backup_has_the_highest_id_that_was_used() {
    let folder = Folder::new();
    let store = open(&folder.path("tokens.db"));
    for number in 1..=3 {
        store.save(token(&format!("refresh_token=r{number}")), NOW).unwrap();
    }
    store.delete(Some("3")).unwrap();
    let backup = folder.path("backup.db");
    back_up(&store, &backup).unwrap();
    let source = read(&backup).unwrap();
    assert_eq!((source.rows.len(), source.last_id), (2, 3));
    assert_eq!(read(&folder.with_sample()).unwrap().last_id, 0, "the sample does not record it");
}

#[cfg(unix)]
#[test]
fn a_backup_follows_a_symbolic_link() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let store = open(&make_database(&folder));
    let (elsewhere, link, broken) = (Folder::new(), folder.path("latest.db"), folder.path("broken.db"));
    let backup = elsewhere.with("backup.db", "");
    symlink(&backup, &link).unwrap();
    back_up(&store, &link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(read(&backup).unwrap().rows.len(), 1);
    symlink(elsewhere.path("missing.db"), &broken).unwrap();
    assert_eq!(back_up(&store, &broken).unwrap_err().code(), Code::BrokenLink);
    assert!(broken.is_symlink() && fs::read_dir(&elsewhere.0).unwrap().count() == 1);
}

#[test]
fn a_backup_over_a_locked_backup_fails_with_busy() {
    let folder = Folder::new();
    let path = make_database(&folder);
    let backup = folder.path("backup.db");
    back_up(&open(&path), &backup).unwrap();
    let other = Connection::open(&backup).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let store = Store::new(Box::new(Sqlite::open(&path, deadline()).unwrap()), Duration::from_millis(50));
    assert!(back_up(&store, &backup).unwrap_err().is_busy());
    drop(other);
    back_up(&store, &backup).unwrap();
}

fn save(store: &Store, values: &str) -> String {
    store.save(token(values), NOW).unwrap()
}

/// Backs up a store over any backend, and opens the backup.
fn assert_complete_and_private(setup: &Setup, store: &Store, keys: TestKeys) {
    let folder = &setup.folder;
    for n in 1..=3 {
        save(store, &format!("refresh_token=r{n}"));
    }
    store.delete(Some("3")).unwrap();
    let path = folder.path("backup.db");
    back_up(store, &path).unwrap();
    save(store, "refresh_token=later");
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    let names = folder.names();
    assert!(!names.iter().any(|name| name.starts_with("backup.db-") || name.starts_with('.')), "{names:?}");
    let copy = keys.reading(open(&path));
    let orders = |store: &Store| {
        store.all().unwrap().iter().map(|row| (row.id().to_owned(), row.saved_order)).collect::<Vec<_>>()
    };
    assert_eq!(orders(&copy), orders(store)[..2]);
    assert_eq!(save(&copy, "refresh_token=new"), "4");
}

macro_rules! suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;

            common::for_all_keys!(suite_with_keys, $make);
        }
    };
}

macro_rules! suite_with_keys {
    ($name:ident, $make:expr, $keys:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn a_backup_is_complete_and_private() {
                let setup = Setup::new();
                let backend = common::make(&setup, $make);
                assert_complete_and_private(&setup, &$keys.store(Box::new(backend)), $keys);
            }
        }
    };
}

common::for_each_backend!(suite);

#[test]
fn a_backup_replaces_an_older_backup_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    save(&store, "refresh_token=r");
    let assert_refused = |target: &Path, code: Code, detail: &str| {
        let error = back_up(&store, target).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(detail), "{error}");
    };
    assert_refused(&path, Code::TargetNotABackup, "is the store's own file");
    assert_refused(folder.0.path(), Code::IsFolder, "");
    assert_refused(&folder.path("no/such/backup.db"), Code::MissingFolder, "");
    fs::write(folder.path("notes.txt"), "made-up notes").unwrap();
    assert_refused(&folder.path("notes.txt"), Code::TargetNotABackup, "is not a token database");
    assert_eq!(fs::read(folder.path("notes.txt")).unwrap(), b"made-up notes");
    assert_refused(&folder.with_sample(), Code::TargetNotABackup, "is not a token database of this library");
    for ending in ["-wal", "-shm", "-journal"] {
        assert_refused(&folder.path(&format!("tokens.db{ending}")), Code::ReservedName, "");
    }
    let live = open(&folder.path("live.db"));
    save(&live, "refresh_token=s");
    assert_refused(&folder.path("live.db"), Code::TargetNotABackup, "is a database in use");
    let older = folder.path("older.db");
    back_up(&store, &older).unwrap();
    save(&store, "refresh_token=later");
    back_up(&store, &older).unwrap();
    assert_eq!(open(&older).count().unwrap(), 2);
}
