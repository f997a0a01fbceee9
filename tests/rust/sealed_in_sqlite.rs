//! What only a SQLite file has: its version, triggers, and the text of deleted rows.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use zoho_token_store::backends::sqlite::{Sqlite, check};
use zoho_token_store::domain::Field;
use zoho_token_store::domain::check::Finding;
use zoho_token_store::domain::key_ring::PLAINTEXT;
use zoho_token_store::store::backend::{Backend, Durability};
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Error, Store};

use super::common::keyed::{fixed, key_id, ring, store_with};
use super::common::sqlite::open;
use super::common::{Folder, Miniature, NOW, Setup, back_up, deadline, token};
use super::{ADA, BOB, LOOKUPS, find, hit, rotation_of, save};

fn backend(path: &Path) -> Arc<dyn Backend> {
    Arc::new(Sqlite::open(path, deadline()).unwrap())
}

fn version(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// The statements of all tables, indexes and triggers, apart from leases.
fn schema(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
    let found = statement.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

/// Executes statements as another program. Returns whether the file took them.
fn execute(path: &Path, sql: &str) -> bool {
    Connection::open(path).unwrap().execute_batch(sql).is_ok()
}

#[test]
fn a_file_without_keys_stays_as_it_was() {
    let folder = Folder::new();
    let (plain, sealed) = (folder.path("plain.db"), folder.path("sealed.db"));
    save(&open(&plain), ADA);
    assert_eq!(version(&plain), 1);
    save(&open(&sealed).with_keys(fixed("a")), ADA);
    assert_eq!(version(&sealed), 2);
    assert_eq!(schema(&sealed).len(), schema(&plain).len() + 3);
    // Going back leaves no trace.
    assert_eq!(rotation_of(&open(&sealed).with_keys(fixed("pa"))), (1, 0));
    assert_eq!((version(&sealed), schema(&sealed)), (1, schema(&plain)));
    assert_eq!(find(&open(&sealed), "refresh_token=r-ada"), hit("a-ada"));
}

#[test]
fn the_version_changes_in_the_transaction_of_the_first_sealed_row() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let backend = backend(&path);
    let sealed = zoho_token_store::store::sealed::Sealed::new(Arc::clone(&backend), fixed("a"));
    let insert = |fail: bool| {
        sealed.write(deadline(), Durability::Full, &mut |rows| {
            rows.insert(token("id=1 refresh_token=r"), NOW)?;
            if fail { Err(Error::invalid_argument("injected")) } else { Ok(()) }
        })
    };
    assert!(insert(true).is_err());
    assert_eq!((version(&path), super::stored(&backend).len()), (1, 0));
    insert(false).unwrap();
    assert_eq!((version(&path), super::stored(&backend).len()), (2, 1));
}

#[test]
fn a_file_refuses_what_a_program_that_knows_no_seals_would_write() {
    let refresh = "UPDATE oauthtoken SET access_token = 'made-up', expiry_time = '1' WHERE id = '1'";
    let overwrite = "UPDATE oauthtoken SET client_secret = 's', refresh_token = 'r', access_token = 'a', \
                     grant_token = NULL WHERE id = '1'";
    let without_seal = "UPDATE oauthtoken SET client_secret = 's' WHERE id = '1'";
    let insert = "INSERT INTO oauthtoken (id, refresh_token) VALUES ('77', 'r')";
    let rename = "UPDATE oauthtoken SET user_name = 'eve' WHERE id = '1'";
    let lose_token = "UPDATE oauthtoken SET access_token = NULL WHERE id = '1'";
    let table = [
        // statement, does the file take it if all rows are sealed? And if rows in clear text may be there?
        (refresh, false, false),
        (overwrite, false, true),
        (without_seal, false, false),
        (insert, false, true),
        // Changes that the store notices.
        (rename, true, true),
        (lose_token, true, true),
    ];
    for (statement, if_sealed, if_mixed) in table {
        for (with_clear_text, expected) in [(false, if_sealed), (true, if_mixed)] {
            let folder = Folder::new();
            let path = folder.path("tokens.db");
            save(&open(&path).with_keys(fixed("a")), ADA);
            if with_clear_text {
                save(&open(&path).with_keys(fixed("pa")), BOB);
            }
            assert_eq!(execute(&path, statement), expected, "{statement} ({with_clear_text})");
            if !expected {
                assert_eq!(find(&open(&path).with_keys(fixed("ap")), "refresh_token=r-ada"), hit("a-ada"));
            }
        }
    }
}

#[test]
fn a_row_of_another_program_in_a_mixed_file_counts_as_saved() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    save(&open(&path).with_keys(fixed("p")), "user_name=u client_id=c refresh_token=r access_token=old");
    save(&open(&path).with_keys(fixed("ap")), "user_name=u client_id=d refresh_token=s access_token=other");
    assert!(execute(&path, "UPDATE oauthtoken SET access_token = 'new' WHERE id = '1'"));
    assert_eq!(find(&open(&path).with_keys(fixed("ap")), "user_name=u"), hit("new"));
}

#[test]
fn a_store_without_keys_that_is_open_already_gets_errors() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let open_before = open(&path);
    save(&open_before, BOB);
    assert_eq!(find(&open_before, "refresh_token=r-bob"), hit("a-bob"));
    for _ in 0..2 {
        assert_eq!(find(&open_before, "refresh_token=r-ada"), Ok(None), "certain, and remembered");
    }
    save(&open(&path).with_keys(fixed("ap")), ADA);
    for (lookup, _) in LOOKUPS {
        let lookup = lookup.replace("id=1", "id=2");
        assert_eq!(find(&open_before, &lookup), Err(Code::UnknownKey), "{lookup}");
    }
    assert_eq!(open_before.save(token(ADA), NOW).unwrap_err().code(), Code::UnknownKey);
    assert_eq!(open_before.save(token("refresh_token=r-ada"), NOW).unwrap_err().code(), Code::UnknownKey);
    assert_eq!(open_before.count().unwrap(), 2);
    assert_eq!(find(&open_before, "user_name=bob"), hit("a-bob"), "its own row is still in clear text");
    assert_eq!(rotation_of(&open(&path).with_keys(fixed("pa"))), (1, 0));
    assert_eq!(find(&open_before, "refresh_token=r-ada"), hit("a-ada"));
    assert_eq!(find(&open_before, "refresh_token=other"), Ok(None));
}

#[test]
fn a_miss_is_not_certain_if_the_record_of_keys_was_deleted() {
    for damage in ["DELETE FROM zoho_token_key", "DROP TABLE zoho_token_key"] {
        let folder = Folder::new();
        let path = folder.path("tokens.db");
        save(&open(&path).with_keys(fixed("a")), ADA);
        assert!(execute(&path, damage));
        for keys in ["b", "p"] {
            let store = open(&path).with_keys(fixed(keys));
            assert_eq!(find(&store, "refresh_token=r-ada"), Err(Code::UnknownKey), "{keys} {damage}");
            assert_eq!(find(&store, "refresh_token=other"), Err(Code::UnknownKey), "{keys} {damage}");
        }
        let store = open(&path).with_keys(fixed("a"));
        assert_eq!(find(&store, "refresh_token=other"), Ok(None), "all rows are under a known key");
        assert_eq!(save(&store, BOB), "2");
        assert_eq!(super::names(&backend(&path)), [key_id('a')], "a save records it again");
    }
}

/// Removes what says that a file has sealed rows, apart from the rows.
const FORGET: &str = "DROP TRIGGER zoho_token_store_insert_sealed; DROP TRIGGER zoho_token_store_update_sealed; \
                      DROP TABLE zoho_token_key; PRAGMA user_version = 1";

#[test]
fn a_miss_is_not_certain_if_the_version_of_the_file_was_lost() {
    let columns = Field::ALL.map(Field::name).join(", ");
    for damage in ["PRAGMA user_version = 1", FORGET, "copy"] {
        let folder = Folder::new();
        let mut path = folder.path("tokens.db");
        let store = open(&path).with_keys(fixed("a"));
        save(&store, ADA);
        save(&store, BOB);
        drop(store);
        if damage == "copy" {
            // The ten columns of the rows, in a new file.
            let source = std::mem::replace(&mut path, folder.path("copy.db"));
            let source = source.display();
            assert!(execute(
                &path,
                &format!(
                    "CREATE TABLE oauthtoken ({columns}, PRIMARY KEY (id)); ATTACH '{source}' AS source; \
                     INSERT INTO oauthtoken SELECT {columns} FROM source.oauthtoken"
                )
            ));
        } else {
            assert!(execute(&path, damage));
        }
        for keys in ["b", "p", "bp"] {
            for lookup in ["refresh_token=r-ada", "access_token=a-bob", "grant_token=other"] {
                let store = open(&path).with_keys(fixed(keys));
                assert_eq!(find(&store, lookup), Err(Code::UnknownKey), "{keys} {damage}");
                assert_eq!(store.save(token(lookup), NOW).unwrap_err().code(), Code::UnknownKey, "{keys} {damage}");
            }
        }
        let plain = open(&path);
        for _ in 0..2 {
            assert_eq!(find(&plain, "refresh_token=r-ada"), Err(Code::UnknownKey), "{damage}");
        }
        drop(plain);
        // A save records all names again.
        save(&open(&path).with_keys(fixed("ba")), ADA);
        assert_eq!((version(&path), super::names(&backend(&path))), (2, super::sorted(vec![key_id('a'), key_id('b')])));
        let store = open(&path).with_keys(fixed("b"));
        assert_eq!(find(&store, "refresh_token=r-bob"), Err(Code::UnknownKey), "{damage}");
        assert_eq!(find(&store, "refresh_token=r-ada"), hit("a-ada"), "{damage}");
    }
}

#[test]
fn a_search_for_tags_reads_no_row() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    save(&open(&path), ADA);
    let source = include_str!("../../src/backends/sqlite/sql.rs");
    let statement = source.split("const HAS_TAGS: &str = \"").nth(1).unwrap().split("\";").next().unwrap();
    let plan = format!("EXPLAIN QUERY PLAN {}", statement.replace("\\\n", ""));
    let connection = Connection::open(&path).unwrap();
    let mut statement = connection.prepare(&plan).unwrap();
    let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap().map(Result::unwrap);
    let steps: Vec<String> = steps.filter(|step| step.contains("oauthtoken")).collect();
    assert!(steps.len() == 3 && steps.iter().all(|step| step.contains("USING COVERING INDEX")), "{steps:?}");
}

/// Do the files of the folder contain the text?
fn contains(folder: &Folder, text: &str) -> bool {
    folder.contents().iter().any(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

const SECRETS: [&str; 4] =
    ["made-up-client-secret", "made-up-refresh-token", "made-up-access-token", "made-up-grant-token"];

fn secrets() -> String {
    let [client_secret, refresh, access, grant] = SECRETS;
    format!(
        "user_name=u client_secret={client_secret} refresh_token={refresh} access_token={access} grant_token={grant}"
    )
}

#[test]
fn no_secret_is_in_a_file_at_any_time() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path).with_keys(fixed("a"));
    let assert_private = |step: &str| {
        assert!(SECRETS.iter().all(|secret| !contains(&folder, secret)), "{step}");
        assert!(contains(&folder, "zts1."), "{step}");
    };
    save(&store, &secrets());
    assert_private("a save");
    save(&store, &format!("{} expiry_time=5", secrets()));
    assert_private("a refresh");
    back_up(&store, &folder.path("backup.db")).unwrap();
    assert_private("a backup");
    assert_eq!(rotation_of(&open(&path).with_keys(fixed("ba"))), (1, 0));
    assert_private("a rotation");
    store.close();
    assert_private("a close");
}

#[test]
fn sealing_a_file_leaves_nothing_of_its_clear_text() {
    for rotates in [false, true] {
        let folder = Folder::new();
        let path = folder.path("tokens.db");
        let before = open(&path);
        save(&before, &secrets());
        for number in 0..200 {
            save(&before, &format!("user_name=v{number} refresh_token=made-up-refresh-token-of-{number}"));
        }
        assert!(contains(&folder, SECRETS[1]));
        drop(before);
        let store = open(&path).with_keys(fixed("ap"));
        if rotates {
            assert_eq!(rotation_of(&store), (201, 0));
        } else {
            // A save seals its row, and the others stay in clear text.
            save(&store, "user_name=u access_token=other");
        }
        for (index, secret) in SECRETS.iter().enumerate() {
            // The beginning of the other tokens is the same text.
            let is_left = if index == 1 && !rotates {
                contains(&folder, &format!("{secret}made"))
            } else {
                contains(&folder, secret)
            };
            assert!(!is_left, "{secret} ({rotates})");
        }
        if rotates {
            let wal = std::fs::metadata(folder.path("tokens.db-wal")).unwrap();
            assert_eq!(wal.len(), 0);
        }
    }
}

#[test]
fn saves_go_on_while_a_rotation_waits_for_a_reader() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let before = open(&path);
    for number in 0..120 {
        save(&before, &format!("user_name=v{number} refresh_token=made-up-refresh-token-of-{number}"));
    }
    drop(before);
    // Another program with a long read. The WAL cannot be emptied before it ends.
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM oauthtoken").unwrap();
    let store = open(&path).with_keys(fixed("ap"));
    thread::scope(|scope| {
        let rotation = scope.spawn(|| rotation_of(&store));
        while store.key_usage().unwrap().contains_key(PLAINTEXT) {
            thread::yield_now();
        }
        // With the same connection, before and after the last step of the rotation begins. If that step had it until the
        // reader ends, a save and the rotation would fail.
        for number in 0..30 {
            save(&store, &format!("user_name=u access_token=made-up-{number}"));
            thread::sleep(Duration::from_millis(10));
        }
        assert!(contains(&folder, "made-up-refresh-token-of-7"), "in the WAL, because of the reader");
        drop(reader);
        assert_eq!(rotation.join().unwrap(), (120, 0));
    });
    assert!(!contains(&folder, "made-up-refresh-token-of-"));
}

#[test]
fn a_copy_of_sealed_rows_has_the_version_and_the_triggers() {
    let setup = Setup::new();
    let server: Arc<dyn Backend> = Arc::new(Miniature::new(setup.clock.clone()));
    save(&store_with("a", &server), ADA);
    let path = setup.folder.path("backup.db");
    back_up(&store_with("a", &server), &path).unwrap();
    assert_eq!(version(&path), 2);
    assert!(!execute(&path, "INSERT INTO oauthtoken (id, refresh_token) VALUES ('77', 'r')"));
    assert_eq!(find(&open(&path).with_keys(fixed("a")), "refresh_token=r-ada"), hit("a-ada"));
    assert_eq!(super::names(&backend(&path)), [key_id('a')]);
}

#[test]
fn a_check_without_a_store_opens_sealed_rows_with_the_keys() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store: Store = open(&path).with_keys(fixed("a"));
    save(&store, "user_name=u client_id=c refresh_token=r");
    save(&store, "user_name=v client_id=c refresh_token=s");
    drop(store);
    let found = |keys: &str| -> Vec<_> {
        let findings = check(&path, NOW, &super::common::keyed::ring(keys)).unwrap();
        findings.into_iter().map(|finding| finding.code).collect()
    };
    assert_eq!(found("a"), [""; 0]);
    assert_eq!(found("p"), ["unknown-key"]);
    assert_eq!(found("ba"), ["old-key"]);
}

#[test]
fn a_check_notices_an_encryption_that_has_not_ended() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    save(&open(&path), ADA);
    // A save seals its row. If a rotation was killed before its end, the rows are as they are now.
    save(&open(&path).with_keys(fixed("ap")), ADA);
    let codes = |keys: &str| {
        let store = open(&path).with_keys(fixed(keys));
        let (open, closed) = (store.check(NOW).unwrap(), check(&path, NOW, &ring(keys)).unwrap());
        let codes = |found: Vec<Finding>| -> Vec<_> {
            found.into_iter().filter(|finding| finding.ids.is_empty()).map(|finding| finding.code).collect()
        };
        let (open, closed) = (codes(open), codes(closed));
        assert_eq!(open, closed, "{keys}");
        open
    };
    assert_eq!(codes("ap"), ["unfinished-rekey"]);
    assert_eq!(codes("a"), ["unfinished-rekey"]);
    assert_eq!(codes("pa"), [""; 0], "this store does not seal");
    assert_eq!(rotation_of(&open(&path).with_keys(fixed("ap"))), (0, 0));
    assert_eq!(codes("ap"), [""; 0]);
}

#[test]
fn a_check_notices_a_rotation_that_could_not_scrub_the_file() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    save(&open(&path), ADA);
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM oauthtoken").unwrap();
    let codes = |store: &Store| -> Vec<_> {
        let found = store.check(NOW).unwrap();
        found.into_iter().filter(|finding| finding.ids.is_empty()).map(|finding| finding.code).collect()
    };
    let impatient = Store::new(Box::new(Sqlite::open(&path, deadline()).unwrap()), Duration::from_millis(200));
    let impatient = impatient.with_keys(fixed("ap"));
    assert_eq!(impatient.rekey(|_| Ok(())).unwrap_err().code(), Code::Busy);
    assert_eq!(impatient.key_usage().unwrap().into_keys().collect::<Vec<_>>(), [key_id('a')], "all rows are sealed");
    assert_eq!(codes(&impatient), ["unfinished-rekey"]);
    drop(reader);
    let store = open(&path).with_keys(fixed("ap"));
    assert_eq!(rotation_of(&store), (0, 0));
    assert_eq!(codes(&store), [""; 0]);
    assert!(!contains(&folder, "r-ada"));
}
