//! A database that is deleted, replaced, renamed or linked while stores use it (docs/contract.md, section 9).

use std::fs;

use rusqlite::Connection;
use zoho_token_store::store::error::Code;

use super::common::sqlite::{open, try_open};
use super::common::{Folder, back_up};
use super::{has, query_number, save};

#[test]
fn a_deleted_file_is_made_again() {
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
fn a_store_uses_the_file_that_replaced_its_own() {
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
    assert_eq!(query_number(&path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
}

#[test]
fn two_stores_of_one_process_switch_to_the_new_file_together() {
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
fn a_renamed_file_keeps_its_rows_and_gets_no_new_ones() {
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
fn a_renamed_file_can_be_opened_and_written_under_its_new_name() {
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
fn a_save_is_not_lost_in_a_deleted_wal() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let stores = [open(&path), open(&path)];
    save(&stores[0], "before");
    // A backup opens and closes the file. Then another process checkpoints the WAL, and deletes it as the last one to
    // close the file would.
    back_up(&stores[0], &folder.path("backup.db")).unwrap();
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
