//! What a check of a file finds. It changes nothing, and its findings repeat no secret.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use zoho_token_store::backends::sqlite::{Journal, Sqlite, check};
use zoho_token_store::domain::check::Severity;
use zoho_token_store::domain::key_ring::Ring;
use zoho_token_store::store::Store;
use zoho_token_store::store::error::Code;

use super::common::sqlite::open;
use super::common::{Folder, NOW, TIMEOUT, back_up, deadline, token};
use super::make_database;

/// Checks the file, and returns the codes and severities of the findings. Asserts that the check changes nothing.
#[track_caller]
fn found(folder: &Folder, path: &Path) -> Vec<(&'static str, Severity)> {
    let before = folder.contents();
    let findings = check(path, NOW, &Ring::clear_text()).unwrap();
    assert!(folder.contents() == before, "the file was changed");
    for finding in &findings {
        assert!(!finding.message.contains("planted") && !finding.hint.is_empty(), "{finding:?}");
    }
    findings.into_iter().map(|finding| (finding.code, finding.severity)).collect()
}

#[test]
fn a_check_of_a_correct_file_finds_nothing() {
    let folder = Folder::new();
    let path = make_database(&folder);
    assert_eq!(found(&folder, &path), []);
    let store = open(&path);
    assert_eq!(store.check(NOW).unwrap(), []);
}

#[test]
fn a_check_finds_that_a_file_is_unusable() {
    type Damage = fn(&Folder, &Path);
    let table: [(&str, Severity, Damage); 4] = [
        ("not-a-database", Severity::Error, |_, path| fs::write(path, "planted ".repeat(200)).unwrap()),
        ("newer-schema", Severity::Error, |_, path| {
            Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        }),
        ("other-program", Severity::Error, |_, path| {
            Connection::open(path).unwrap().execute_batch("PRAGMA application_id = 1").unwrap();
        }),
        ("damaged", Severity::Error, |_, path| {
            // The index names another user than the row. SQLite can read the file, but finds wrong rows.
            let connection = Connection::open(path).unwrap();
            connection
                .execute_batch(
                    "PRAGMA writable_schema = ON;
                     UPDATE sqlite_schema SET sql = replace(sql, '(user_name)', '(client_id)')
                     WHERE name = 'zoho_token_store_user_name'",
                )
                .unwrap();
        }),
    ];
    for (code, severity, damage) in table {
        let folder = Folder::new();
        let path = make_database(&folder);
        damage(&folder, &path);
        assert_eq!(found(&folder, &path), [(code, severity)]);
    }
}

#[test]
fn a_check_finds_that_a_file_was_not_migrated_and_checks_its_rows() {
    let folder = Folder::new();
    let path = folder.with_sample();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(found(&folder, &path), [("older-schema", Severity::Warning)]);
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET expiry_time = NULL WHERE id = '3'").unwrap();
    let findings = check(&path, NOW, &Ring::clear_text()).unwrap();
    assert_eq!((findings[1].code, findings[1].ids.as_slice()), ("no-expiry", ["3".to_owned()].as_slice()));
}

#[cfg(unix)]
#[test]
fn a_check_finds_files_that_other_users_can_read() {
    let folder = Folder::new();
    let path = make_database(&folder);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(found(&folder, &path), [("permissions", Severity::Warning)]);
    let store = open(&path);
    store.save(token("user_name=v refresh_token=s"), NOW).unwrap();
    let codes: Vec<_> = store.check(NOW).unwrap().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["permissions"; 3], "the file, its WAL and its shared memory");
}

#[test]
fn a_check_finds_that_a_file_has_no_wal() {
    let folder = Folder::new();
    let sqlite = Sqlite::with_journal(&folder.path("tokens.db"), Journal::Rollback, deadline()).unwrap();
    let store = Store::new(Box::new(sqlite), TIMEOUT);
    let codes: Vec<_> = store.check(NOW).unwrap().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["no-wal"]);
}

#[test]
fn a_check_of_a_backup_finds_nothing() {
    let folder = Folder::new();
    let backup = folder.path("backup.db");
    back_up(&open(&make_database(&folder)), &backup).unwrap();
    assert_eq!(found(&folder, &backup), [], "the next program that opens it turns WAL on");
}

#[test]
fn a_missing_file_cannot_be_checked() {
    let folder = Folder::new();
    for path in [folder.path("missing.db"), folder.0.path().to_owned()] {
        assert!(check(&path, NOW, &Ring::clear_text()).is_err());
    }
    assert!(folder.contents().is_empty());
}

#[test]
fn an_unreadable_row_is_found_and_can_be_deleted() {
    let folder = Folder::new();
    let path = make_database(&folder);
    open(&path).save(token("user_name=v refresh_token=planted-2"), NOW).unwrap();
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET user_name = x'FF' WHERE id = '1'").unwrap();
    assert_eq!(found(&folder, &path), [("damaged", Severity::Error)]);
    let store = open(&path);
    assert_eq!(store.check(NOW).unwrap(), check(&path, NOW, &Ring::clear_text()).unwrap());
    assert_eq!(store.check(NOW).unwrap()[0].ids, ["1"]);
    let error = store.all().unwrap_err();
    assert_eq!(error.code(), Code::DamagedRow);
    assert!(error.to_string().contains("the user_name of the row with the id 1 is not UTF-8 text"), "{error}");
    store.delete_existing("1").unwrap();
    assert_eq!((store.check(NOW).unwrap(), store.all().unwrap().len()), (vec![], 1));
    assert_eq!(store.delete_existing("1").unwrap_err().code(), Code::MissingId);
}
