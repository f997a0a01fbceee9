//! What a store promises about a file with any contents. The fuzz target and the tests of its inputs share this.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::{Result, Store, Wait};

/// Separates the database from its `-wal` in one input.
const SEPARATOR: &[u8] = b"----wal----";
const TIMEOUT: Duration = Duration::from_secs(5);
const NOW: i64 = 1_795_300_000_000;

/// The database of an input, and its `-wal` if it has one.
fn split(input: &[u8]) -> (&[u8], Option<&[u8]>) {
    match input.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        Some(at) => (&input[..at], Some(&input[at + SEPARATOR.len()..])),
        None => (input, None),
    }
}

/// Opens the file and uses the store (contract, section 9).
///
/// A file that is not a token database is refused and never written. Any other file works as far as its damage allows:
/// an operation may fail with an error, but it never crashes, waits without an end, or returns a row that was not asked
/// for.
pub(crate) fn check(input: &[u8]) {
    let (database, wal) = split(input);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let wal_path = folder.path().join("tokens.db-wal");
    fs::write(&path, database).unwrap();
    if let Some(wal) = wal {
        fs::write(&wal_path, wal).unwrap();
    }
    let store = match open(&path) {
        Ok(store) => store,
        Err(error) => {
            assert!(!error.is_busy(), "{error}");
            assert_eq!(fs::read(&path).unwrap(), database, "refused, but written: {error}");
            // An empty WAL holds nothing. It may be removed.
            if wal.is_some_and(|wal| !wal.is_empty()) {
                assert_eq!(fs::read(&wal_path).ok().as_deref(), wal, "refused, but its WAL was written: {error}");
            }
            return;
        }
    };
    if use_store(&store).is_ok() {
        store.close();
        // The next store may fail to read damaged rows, but it does not crash.
        if let Ok(store) = open(&path) {
            let _ = store.all();
        }
    }
}

fn open(path: &Path) -> Result<Store> {
    let path: PathBuf = path.to_owned();
    Ok(Store::new(Box::new(Sqlite::open(&path, Deadline::after(TIMEOUT))?), TIMEOUT))
}

fn use_store(store: &Store) -> Result<()> {
    let count = store.count()?;
    for row in store.all()?.iter().take(20) {
        let token = row.token();
        if let Some(id) = token.get(Field::Id) {
            match store.find_by_id(Some(id), Wait::Yes) {
                Ok(found) => {
                    assert!(found.is_none_or(|found| found.row().get(Field::Id) == Some(id)));
                }
                Err(error) => assert!(!error.is_busy(), "{error}"),
            }
        }
        if let Ok(Some(found)) = store.find(token, Wait::Yes) {
            let _ = found.complete(token);
        }
    }
    let login = Token::default()
        .with(Field::UserName, Some("fuzz@example.com"))
        .with(Field::ClientId, Some("1000.FUZZ"))
        .with(Field::RefreshToken, Some("planted-fuzz-refresh"));
    let id = store.save(login, NOW)?;
    if let Some(found) = store.find_by_id(Some(&id), Wait::Yes)? {
        assert_eq!(found.row().get(Field::RefreshToken), Some("planted-fuzz-refresh"));
    }
    store.purge(NOW, None)?;
    match store.delete(Some(&id)) {
        Err(error) if error.is_busy() => panic!("{error}"),
        deleted => drop(deleted?),
    }
    assert!(store.count()? <= count + 1);
    store.delete_all()
}
