//! One suite over every backend, without Python: what a store promises (docs/contract.md, sections 2, 5, 6, 10).
//!
//! Which row a token names and how the two merge is the domain's, with its own truth tables; here it is only seen that
//! every backend lets the domain decide.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use zoho_token_store::backends::list::List;
#[cfg(feature = "sqlite")]
use zoho_token_store::backends::sqlite::{Journal, Memory, Sqlite};
use zoho_token_store::domain::{Field, Key, Row, Token};
use zoho_token_store::store::administration::ImportCounts;
use zoho_token_store::store::backend::{Backend, Durability};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Error, Store, Wait};

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const NOW: i64 = 1_795_300_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A token with these values, written as `"refresh_token=r user_name=u"`.
fn token(values: &str) -> Token<'_> {
    Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
}

/// All rows, written the same way, `saved_at` left out.
fn rows(store: &Store) -> Vec<String> {
    let line = |token: Token<'_>| {
        let values = Field::ALL.into_iter().filter_map(|field| Some(format!("{}={}", field.name(), token.get(field)?)));
        values.collect::<Vec<_>>().join(" ")
    };
    store.all().unwrap().iter().map(|row| line(row.token())).collect()
}

/// A row of another store's.
fn row(values: &str) -> Row {
    Row::new(token(values), 0, None)
}

fn save(store: &Store, values: &str) -> String {
    store.save(token(values), NOW).unwrap()
}

fn found(store: &Store, values: &str) -> Option<String> {
    let found = store.find(token(values), Wait::Yes).unwrap()?;
    found.row().get(Field::Id).map(str::to_owned)
}

/// A change that is under way in another thread for as long as this lives, and is then taken back.
struct HeldChange<'scope> {
    end: mpsc::Sender<()>,
    thread: Option<thread::ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> HeldChange<'scope> {
    fn begin<'env>(scope: &'scope thread::Scope<'scope, 'env>, backend: &'env dyn Backend) -> Self {
        let (end, ended) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let thread = scope.spawn(move || {
            let result = backend.write(Deadline::after(TIMEOUT), Durability::Full, &mut |change| {
                change.insert(token("id=held access_token=a"), NOW)?;
                begun.send(()).unwrap();
                ended.recv_timeout(TIMEOUT).unwrap();
                Err(Error::invalid_argument("taken back"))
            });
            assert!(result.is_err());
        });
        has_begun.recv_timeout(TIMEOUT).unwrap();
        Self { end, thread: Some(thread) }
    }

    fn end(mut self) {
        self.end.send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

mod promises {
    use super::*;

    pub(super) fn a_token_is_saved_and_found_again_by_each_of_its_keys(store: &Store) {
        let id = save(store, "user_name=u client_id=c refresh_token=r grant_token=g access_token=a");
        for key in ["user_name=u", "id=1", "grant_token=g", "refresh_token=r", "access_token=a"] {
            assert_eq!(found(store, key), Some(id.clone()), "{key}");
        }
        for other in ["user_name=v", "id=2", "grant_token=r", "refresh_token=g", "access_token=r", "client_id=c"] {
            assert_eq!(found(store, other), None, "{other}");
        }
    }

    pub(super) fn a_token_is_found_by_its_next_key_when_the_first_finds_nothing(store: &Store) {
        save(store, "refresh_token=r");
        assert_eq!(found(store, "user_name=u refresh_token=r"), Some("1".to_owned()));
    }

    pub(super) fn a_row_saved_before_its_user_was_known_is_claimed_and_not_written_twice(store: &Store) {
        save(store, "client_id=c refresh_token=r");
        assert_eq!(save(store, "client_id=c refresh_token=r user_name=u"), "1");
        assert_eq!(rows(store), ["id=1 user_name=u client_id=c refresh_token=r"]);
    }

    pub(super) fn an_update_keeps_the_id_and_the_place_of_its_row(store: &Store) {
        save(store, "user_name=u refresh_token=r access_token=a expiry_time=1");
        save(store, "user_name=v refresh_token=s");
        save(store, "user_name=u access_token=b expiry_time=2");
        assert_eq!(
            rows(store),
            ["id=1 user_name=u refresh_token=r access_token=b expiry_time=2", "id=2 user_name=v refresh_token=s"]
        );
    }

    pub(super) fn of_several_rows_the_one_saved_last_is_found(store: &Store) {
        save(store, "user_name=u client_id=c refresh_token=r");
        save(store, "user_name=u client_id=d refresh_token=s");
        assert_eq!(found(store, "user_name=u"), Some("2".to_owned()));
        save(store, "user_name=u client_id=c access_token=a");
        assert_eq!(found(store, "user_name=u"), Some("1".to_owned()));
    }

    pub(super) fn new_ids_rise_and_never_return(store: &Store) {
        for n in 1..=12 {
            assert_eq!(save(store, &format!("refresh_token=r{n}")), n.to_string());
        }
        store.delete(Some("12")).unwrap();
        assert_eq!(save(store, "refresh_token=after-a-delete"), "13");
        store.delete_all().unwrap();
        assert_eq!(save(store, "refresh_token=after-all-deletes"), "14");
    }

    pub(super) fn a_new_row_gets_the_id_its_token_brings_if_no_row_has_it(store: &Store) {
        assert_eq!(save(store, "id=41 user_name=u refresh_token=r"), "41");
        assert_eq!(save(store, "id=41 user_name=v refresh_token=s"), "42");
        assert_eq!(save(store, "id=mine user_name=w refresh_token=t"), "mine");
        assert_eq!(save(store, "id=1000000000000000000 user_name=x refresh_token=u"), "1000000000000000000");
        assert_eq!(save(store, "user_name=y refresh_token=v"), "43");
    }

    pub(super) fn the_next_id_is_above_the_longest_that_counts_and_free(store: &Store) {
        save(store, "id=999999999999999999 user_name=u refresh_token=r");
        save(store, "id=1000000000000000000 user_name=v refresh_token=s");
        assert_eq!(save(store, "user_name=w refresh_token=t"), "1000000000000000001");
        store.delete_all().unwrap();
        assert_eq!(save(store, "user_name=w refresh_token=t"), "1000000000000000002");
    }

    pub(super) fn an_id_that_only_begins_with_digits_does_not_count(store: &Store) {
        save(store, "id=7\0 user_name=u refresh_token=r");
        save(store, "id=8x user_name=v refresh_token=s");
        save(store, "id=007 user_name=w refresh_token=t");
        assert_eq!(save(store, "refresh_token=u"), "8");
    }

    pub(super) fn a_token_that_holds_no_credential_makes_no_row(store: &Store) {
        let refused = store.save(token("id=1 user_name=u client_id=c client_secret=s"), NOW);
        assert_eq!(refused.unwrap_err().code(), Code::EmptyToken);
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn an_import_saves_all_tokens_or_none(store: &Store) {
        save(store, "user_name=u refresh_token=r");
        let good = ["user_name=u refresh_token=s", "user_name=v refresh_token=t"].map(token);
        let bad = [good[0], good[1], token("user_name=w")];
        let before = rows(store);
        assert!(store.import(&bad, NOW).is_err());
        assert_eq!(rows(store), before);
        assert_eq!(store.import(&good, NOW).unwrap(), ["1", "2"]);
        assert_eq!(rows(store), ["id=1 user_name=u refresh_token=s", "id=2 user_name=v refresh_token=t"]);
    }

    pub(super) fn a_row_is_found_by_its_id_and_an_absent_id_finds_none(store: &Store) {
        save(store, "refresh_token=r");
        let by_id = |id| store.find_by_id(id, Wait::Yes).unwrap().is_some();
        assert!(by_id(Some("1")));
        for missing in [None, Some(""), Some("2"), Some("01"), Some("1 or 1=1"), Some("' or ''='")] {
            assert!(!by_id(missing), "{missing:?}");
        }
    }

    pub(super) fn a_delete_takes_one_row_and_an_id_that_is_not_there_is_no_error(store: &Store) {
        for n in 1..=3 {
            save(store, &format!("refresh_token=r{n}"));
        }
        for id in [Some("2"), Some("2"), Some("1 or 1=1"), Some(""), None] {
            store.delete(id).unwrap();
        }
        assert_eq!(rows(store), ["id=1 refresh_token=r1", "id=3 refresh_token=r3"]);
        store.delete_all().unwrap();
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn a_purge_deletes_what_is_spent_and_with_idle_for_what_is_idle(store: &Store) {
        for (saved_at, values) in [
            (NOW - 5000, "user_name=idle refresh_token=r"),
            (NOW, "user_name=spent grant_token=g access_token=a expiry_time=1795300000000"),
            (NOW, "user_name=fresh access_token=b expiry_time=1795300000001"),
            (NOW, "user_name=unused grant_token=h"),
        ] {
            store.save(token(values), saved_at).unwrap();
        }
        assert_eq!(store.purge(NOW, None).unwrap(), 1);
        assert_eq!(store.purge(NOW, Some(5001)).unwrap(), 0);
        assert_eq!(store.purge(NOW, Some(5000)).unwrap(), 1);
        assert_eq!(rows(store).len(), 2);
    }

    pub(super) fn rows_of_another_store_are_brought_once_and_find_no_row_by_an_id(store: &Store) {
        save(store, "user_name=u refresh_token=r access_token=a expiry_time=10");
        let incoming = [
            // An older token of the same user, under an id of another store's: it fills up and replaces nothing.
            row("id=7 user_name=u client_id=c refresh_token=q access_token=b expiry_time=9"),
            // The id of a row here, and another user: a new row, and a new id.
            row("id=1 refresh_token=s"),
            row("id=5 user_name=v refresh_token=t access_token=c expiry_time=5"),
            row("id=6 user_name=w"),
        ];
        let first = store.import_rows(&incoming, NOW).unwrap();
        assert_eq!(first, ImportCounts { new: 2, updated: 1, unchanged: 0, skipped: 1 });
        let after = [
            "id=1 user_name=u client_id=c refresh_token=r access_token=a expiry_time=10",
            "id=2 refresh_token=s",
            "id=5 user_name=v refresh_token=t access_token=c expiry_time=5",
        ];
        assert_eq!(rows(store), after);
        let again = store.import_rows(&incoming, NOW).unwrap();
        assert_eq!(again, ImportCounts { new: 0, updated: 0, unchanged: 3, skipped: 1 });
        assert_eq!(rows(store), after);
        let newer = [row("user_name=v refresh_token=x access_token=y expiry_time=11")];
        assert_eq!(store.import_rows(&newer, NOW).unwrap().updated, 1);
        assert_eq!(rows(store)[2], "id=5 user_name=v refresh_token=x access_token=y expiry_time=11");
    }

    pub(super) fn a_users_rows_get_nothing_of_each_others_the_second_time(store: &Store) {
        let incoming = [
            // Known to be of one data centre only by the next row; by then the last row is the one saved last.
            row("user_name=u client_id=c refresh_token=r1 access_token=a1 expiry_time=30"),
            row("user_name=u client_id=c refresh_token=r2 access_token=a2 expiry_time=20 api_domain=EU"),
            row("user_name=u client_id=c refresh_token=r3 access_token=a3 expiry_time=10 api_domain=US"),
            row("user_name=u client_id=c api_domain=IN"),
        ];
        let after = [
            "id=1 user_name=u client_id=c refresh_token=r1 access_token=a1 expiry_time=30 api_domain=EU",
            "id=2 user_name=u client_id=c refresh_token=r3 access_token=a3 expiry_time=10 api_domain=US",
        ];
        let first = store.import_rows(&incoming, NOW).unwrap();
        assert_eq!(
            (first, rows(store)),
            (ImportCounts { new: 2, updated: 1, unchanged: 0, skipped: 1 }, after.map(String::from).to_vec())
        );
        let again = store.import_rows(&incoming, NOW).unwrap();
        assert_eq!(
            (again, rows(store)),
            (ImportCounts { new: 0, updated: 0, unchanged: 3, skipped: 1 }, after.map(String::from).to_vec())
        );
    }

    pub(super) fn an_imported_row_is_as_old_as_it_was(store: &Store) {
        let old = Row::new(token("id=1 refresh_token=r"), 0, Some(NOW - 1000));
        store.import_rows(&[old, row("id=2 refresh_token=s")], NOW).unwrap();
        let saved: Vec<_> = store.all().unwrap().iter().map(|row| row.saved_at).collect();
        assert_eq!(saved, [Some(NOW - 1000), Some(NOW)]);
    }

    pub(super) fn a_restore_leaves_the_backups_rows_alone_and_no_id_returns(store: &Store) {
        for number in 1..=3 {
            save(store, &format!("user_name=u{number} refresh_token=r{number}"));
        }
        let backup = [
            Row::new(token("id=2 user_name=u2 refresh_token=old"), 9, Some(NOW - 5)),
            Row::new(token("id=1 user_name=u2 refresh_token=older"), 8, None),
        ];
        assert_eq!(store.restore(&backup, 0).unwrap(), 2);
        assert_eq!(rows(store), ["id=2 user_name=u2 refresh_token=old", "id=1 user_name=u2 refresh_token=older"]);
        assert_eq!(store.all().unwrap()[0].saved_at, Some(NOW - 5));
        assert_eq!(found(store, "user_name=u2"), Some("2".to_owned()), "the one saved last");
        assert_eq!(found(store, "user_name=u1"), None);
        assert_eq!(save(store, "refresh_token=new"), "4", "3 was given out before");
        save(store, "id=1 user_name=u2 access_token=a");
        assert_eq!(found(store, "user_name=u2"), Some("1".to_owned()), "saved after what was restored");
    }

    pub(super) fn an_id_that_was_deleted_before_the_backup_does_not_return(store: &Store) {
        let backup = [row("id=1 refresh_token=r")];
        store.restore(&backup, 7).unwrap();
        assert_eq!(save(store, "refresh_token=new"), "8");
        store.restore(&backup, 0).unwrap();
        assert_eq!(save(store, "refresh_token=newer"), "9");
    }

    pub(super) fn a_restore_that_fails_never_happened(store: &Store) {
        save(store, "refresh_token=r");
        let twice = [row("id=5 refresh_token=s"), row("id=5 refresh_token=t")];
        assert!(store.restore(&twice, 0).is_err());
        assert!(store.restore(&[row("refresh_token=s")], 0).is_err());
        assert_eq!(rows(store), ["id=1 refresh_token=r"]);
    }

    pub(super) fn a_row_that_has_to_be_there_is_looked_at_and_deleted_or_missed(store: &Store) {
        save(store, "refresh_token=r");
        assert_eq!(store.row("1").unwrap().token(), token("id=1 refresh_token=r"));
        for missing in ["2", ""] {
            assert_eq!(store.row(missing).unwrap_err().code(), Code::MissingId);
            assert_eq!(store.delete_existing(missing).unwrap_err().code(), Code::MissingId);
        }
        store.delete_existing("1").unwrap();
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn a_purge_of_what_was_seen_deletes_no_more_and_nothing_that_came_to_life(store: &Store) {
        for user in ["u", "v"] {
            save(store, &format!("user_name={user} access_token=a expiry_time=1"));
        }
        let seen = store.purgeable(NOW, None).unwrap().iter().map(|row| row.id().to_owned()).collect();
        save(store, "user_name=v refresh_token=r");
        save(store, "user_name=w access_token=a expiry_time=1");
        assert_eq!(store.purge_confirmed(&seen, NOW, None).unwrap(), 1);
        let left: Vec<_> = store.all().unwrap().iter().map(|row| row.id().to_owned()).collect();
        assert_eq!(left, ["2", "3"]);
    }

    pub(super) fn what_a_purge_would_delete_is_what_it_deletes(store: &Store) {
        save(store, "user_name=u refresh_token=r");
        save(store, "user_name=v access_token=a expiry_time=1");
        for idle_for in [None, Some(0)] {
            let shown: Vec<_> = store.purgeable(NOW, idle_for).unwrap().iter().map(|row| row.id().to_owned()).collect();
            let before = store.all().unwrap();
            assert_eq!(store.purge(NOW, idle_for).unwrap(), shown.len());
            let left: Vec<_> = store.all().unwrap().iter().map(|row| row.id().to_owned()).collect();
            assert!(before.iter().all(|row| left.iter().chain(&shown).filter(|id| *id == row.id()).count() == 1));
        }
        assert_eq!(store.count().unwrap(), 0);
    }

    pub(super) fn a_check_finds_what_is_wrong_with_rows_and_changes_nothing(store: &Store) {
        save(store, "user_name=u refresh_token=r access_token=a expiry_time=1795300001000");
        save(store, "user_name=v refresh_token=s access_token=a2");
        save(store, "access_token=a3 expiry_time=1");
        let before = rows(store);
        let found: Vec<_> = store.check(NOW).unwrap().into_iter().map(|finding| (finding.code, finding.ids)).collect();
        let of_rows: Vec<_> = found.iter().filter(|(code, _)| *code != "no-wal").cloned().collect();
        assert_eq!(of_rows, [("no-expiry", vec!["2".to_owned()]), ("unusable", vec!["3".to_owned()])]);
        assert_eq!(rows(store), before);
    }

    pub(super) fn awkward_values_are_stored_and_found_as_they_are(store: &Store) {
        let megabyte = "m".repeat(1 << 20);
        for value in ["O'Brien", "\"", "a\nb\r\n", "a\0b", "\0", "🦀 e\u{301}", "' or 1=1 --", "%", " ", &megabyte] {
            let token = Token::default().with(Field::UserName, Some(value)).with(Field::RefreshToken, Some(value));
            let id = store.save(token, NOW).unwrap();
            let found =
                store.find(Token::default().with(Field::RefreshToken, Some(value)), Wait::Yes).unwrap().unwrap();
            assert_eq!((found.row().get(Field::Id), found.row().get(Field::UserName)), (Some(&*id), Some(value)));
        }
        assert_eq!(store.count().unwrap(), 10);
    }

    pub(super) fn a_closed_store_says_so(store: &Store) {
        store.close();
        store.close();
        assert_eq!(store.find(token("id=1"), Wait::Yes).err().unwrap().code(), Code::Closed);
        assert_eq!(store.save(token("access_token=a"), NOW).unwrap_err().code(), Code::Closed);
        assert_eq!(store.count().unwrap_err().code(), Code::Closed);
    }

    pub(super) fn threads_that_save_at_once_lose_nothing_and_share_no_id(store: &Store) {
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..25).for_each(|n| drop(save(store, &format!("refresh_token=r{thread}.{n}")))));
            }
            for _ in 0..25 {
                store.find(token("refresh_token=r0.0"), Wait::Yes).unwrap();
            }
        });
        let rows = store.all().unwrap();
        let mut ids: Vec<i64> = rows.iter().map(|row| row.id().parse().unwrap()).collect();
        assert!(ids.is_sorted());
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }

    pub(super) fn a_change_that_fails_never_happened(backend: &dyn Backend) {
        let deadline = || Deadline::after(TIMEOUT);
        backend
            .write(deadline(), Durability::Full, &mut |change| change.insert(token("id=1 refresh_token=r"), NOW))
            .unwrap();
        let failed = backend.write(deadline(), Durability::Full, &mut |change| {
            change.insert(token("id=2 refresh_token=s"), NOW)?;
            let row = change.by_key(Key::Id, "1")?.remove(0);
            change.update(&row, token("id=1 refresh_token=t"), NOW)?;
            change.delete("1")?;
            change.delete_all()?;
            change.insert(token("id=3 refresh_token=u"), NOW)?;
            Err(Error::invalid_argument("made to fail"))
        });
        assert!(failed.is_err());
        backend
            .write(deadline(), Durability::Full, &mut |change| {
                assert_eq!((change.count()?, change.last_id()?), (1, 1));
                change.each(&mut |row| {
                    assert_eq!(row.token(), token("id=1 refresh_token=r"));
                    assert_eq!((row.saved_order, row.saved_at), (1, Some(NOW)));
                    Ok(())
                })
            })
            .unwrap();
    }

    pub(super) fn nobody_sees_a_change_before_it_is_done(backend: &dyn Backend) {
        thread::scope(|scope| {
            let change = HeldChange::begin(scope, backend);
            // In memory one lock serves all, and a find that would have to wait has not seen anything either.
            match backend.by_key(Key::Id, "held", Deadline::now()) {
                Ok(rows) => assert!(rows.is_empty()),
                Err(error) => assert!(error.is_busy()),
            }
            change.end();
            assert!(backend.by_key(Key::Id, "held", Deadline::now()).unwrap().is_empty());
        });
    }

    pub(super) fn who_may_not_wait_is_told_at_once(backend: &dyn Backend) {
        thread::scope(|scope| {
            let held = HeldChange::begin(scope, backend);
            let refused = backend.write(Deadline::now(), Durability::Full, &mut |_| Ok(()));
            assert!(refused.is_err_and(|error| error.is_busy()));
            held.end();
        });
    }

    pub(super) fn who_may_wait_is_served_in_the_end(backend: &dyn Backend) {
        thread::scope(|scope| {
            let held = HeldChange::begin(scope, backend);
            let waiting = scope.spawn(|| {
                backend.write(Deadline::after(TIMEOUT), Durability::Full, &mut |change| change.delete("held").map(drop))
            });
            held.end();
            waiting.join().unwrap().unwrap();
        });
    }
}

#[cfg(feature = "sqlite")]
fn on_a_file(journal: Journal) -> (tempfile::TempDir, Box<dyn Backend>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    (folder, Box::new(Sqlite::with_journal(&path, journal, Deadline::after(TIMEOUT)).unwrap()))
}

macro_rules! suite {
    ($backend:ident, $make:expr; $($on_store:ident)*; $($on_backend:ident)*) => {
        mod $backend {
            use super::*;
            $(#[test] fn $on_store() {
                let (_folder, backend) = $make;
                promises::$on_store(&Store::new(backend, TIMEOUT));
            })*
            $(#[test] fn $on_backend() {
                let (_folder, backend) = $make;
                promises::$on_backend(&*backend);
            })*
        }
    };
}

macro_rules! for_each_backend {
    ($($promises:tt)*) => {
        suite!(list, { let backend: Box<dyn Backend> = Box::new(List::new()); ((), backend) }; $($promises)*);
        #[cfg(feature = "sqlite")]
        suite!(memory, {
            let backend: Box<dyn Backend> = Box::new(Memory::new().unwrap());
            ((), backend)
        }; $($promises)*);
        #[cfg(feature = "sqlite")]
        suite!(file, on_a_file(Journal::Wal); $($promises)*);
        #[cfg(feature = "sqlite")]
        suite!(file_without_wal, on_a_file(Journal::Rollback); $($promises)*);
    };
}

for_each_backend! {
    a_token_is_saved_and_found_again_by_each_of_its_keys
    a_token_is_found_by_its_next_key_when_the_first_finds_nothing
    a_row_saved_before_its_user_was_known_is_claimed_and_not_written_twice
    an_update_keeps_the_id_and_the_place_of_its_row
    of_several_rows_the_one_saved_last_is_found
    new_ids_rise_and_never_return
    a_new_row_gets_the_id_its_token_brings_if_no_row_has_it
    the_next_id_is_above_the_longest_that_counts_and_free
    an_id_that_only_begins_with_digits_does_not_count
    a_token_that_holds_no_credential_makes_no_row
    an_import_saves_all_tokens_or_none
    a_row_is_found_by_its_id_and_an_absent_id_finds_none
    a_delete_takes_one_row_and_an_id_that_is_not_there_is_no_error
    a_purge_deletes_what_is_spent_and_with_idle_for_what_is_idle
    rows_of_another_store_are_brought_once_and_find_no_row_by_an_id
    a_users_rows_get_nothing_of_each_others_the_second_time
    an_imported_row_is_as_old_as_it_was
    a_restore_leaves_the_backups_rows_alone_and_no_id_returns
    an_id_that_was_deleted_before_the_backup_does_not_return
    a_restore_that_fails_never_happened
    a_row_that_has_to_be_there_is_looked_at_and_deleted_or_missed
    a_purge_of_what_was_seen_deletes_no_more_and_nothing_that_came_to_life
    what_a_purge_would_delete_is_what_it_deletes
    a_check_finds_what_is_wrong_with_rows_and_changes_nothing
    awkward_values_are_stored_and_found_as_they_are
    a_closed_store_says_so
    threads_that_save_at_once_lose_nothing_and_share_no_id;
    a_change_that_fails_never_happened
    nobody_sees_a_change_before_it_is_done
    who_may_not_wait_is_told_at_once
    who_may_wait_is_served_in_the_end
}
