//! What is promised of a file that anybody may have written: shared by the fuzz target and by the tests of what it found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::domain::{Field, Token};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::{Result, Store, Wait};

/// What stands between a database and the `-wal` beside it in one input.
const WAL: &[u8] = b"----wal----";
const TIMEOUT: Duration = Duration::from_secs(5);
const NOW: i64 = 1_795_300_000_000;

/// A database and what may be in its `-wal`.
fn split(input: &[u8]) -> (&[u8], Option<&[u8]>) {
    match input.windows(WAL.len()).position(|window| window == WAL) {
        Some(at) => (&input[..at], Some(&input[at + WAL.len()..])),
        None => (input, None),
    }
}

/// Opens it and works with it. Contract 9: a file that is not ours is refused and never overwritten; one that is taken
/// works, as far as its damage lets it: with errors that say so, never with a crash, an endless wait or a row that is
/// not the one asked for.
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
            assert_eq!(fs::read(&path).unwrap(), database, "refused, and written to: {error}");
            // An empty one says nothing, and goes with whoever looks.
            if wal.is_some_and(|wal| !wal.is_empty()) {
                assert_eq!(fs::read(&wal_path).ok().as_deref(), wal, "refused, and its log written to: {error}");
            }
            return;
        }
    };
    if work(&store).is_ok() {
        store.close();
        // Whatever stood in it, what was saved is there for the next one.
        if let Ok(store) = open(&path) {
            let _ = store.all();
        }
    }
}

fn open(path: &Path) -> Result<Store> {
    let path: PathBuf = path.to_owned();
    Ok(Store::new(Box::new(Sqlite::open(&path, Deadline::after(TIMEOUT))?), TIMEOUT))
}

fn work(store: &Store) -> Result<()> {
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
        deleted => deleted?,
    }
    assert!(store.count()? <= count + 1);
    store.delete_all()
}
