//! Rules of the operations for administrators (docs/contract.md, section 10). `contract.rs` runs them on every backend.

use std::time::Duration;

use zoho_token_store::domain::Row;
use zoho_token_store::domain::import::Remark;
use zoho_token_store::store::Store;
use zoho_token_store::store::administration::ImportCounts;
use zoho_token_store::store::error::Code;

use super::common::{NOW, token};
use super::{found, ids, rows, save};

/// A row of another store. The time of its last save is unknown.
fn row(values: &str) -> Row {
    Row::new(token(values), 0, None)
}

fn purgeable(store: &Store, idle_for: Option<i64>) -> Vec<String> {
    store.purgeable(NOW, idle_for).unwrap().iter().map(|row| row.id().to_owned()).collect()
}

pub(super) fn a_purge_deletes_unusable_rows_and_with_idle_for_idle_rows_too(store: &Store) {
    for (saved_at, values) in [
        (NOW - 5000, "user_name=idle refresh_token=r"),
        (NOW, "user_name=unusable grant_token=g access_token=a expiry_time=1795300000000"),
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

pub(super) fn a_confirmed_purge_deletes_only_shown_rows_that_are_still_purgeable(store: &Store) {
    for user in ["u", "v"] {
        save(store, &format!("user_name={user} access_token=a expiry_time=1"));
    }
    let shown = purgeable(store, None).into_iter().collect();
    save(store, "user_name=v refresh_token=r");
    save(store, "user_name=w access_token=a expiry_time=1");
    assert_eq!(store.purge_confirmed(&shown, NOW, None).unwrap(), 1);
    assert_eq!(ids(store), ["2", "3"]);
}

pub(super) fn a_confirmed_delete_deletes_the_shown_rows_and_no_others(store: &Store) {
    for user in ["u", "v", "w"] {
        save(store, &format!("user_name={user} refresh_token={user}"));
    }
    let shown = ["1", "3", "99"].map(str::to_owned).into();
    assert_eq!(store.delete_confirmed(&shown).unwrap(), 2);
    assert_eq!(ids(store), ["2"]);
}

pub(super) fn a_purge_deletes_exactly_the_purgeable_rows(store: &Store) {
    save(store, "user_name=u refresh_token=r");
    save(store, "user_name=v access_token=a expiry_time=1");
    for idle_for in [None, Some(0)] {
        let shown = purgeable(store, idle_for);
        let before = ids(store);
        assert_eq!(store.purge(NOW, idle_for).unwrap(), shown.len());
        let left = ids(store);
        assert!(before.iter().all(|id| left.contains(id) != shown.contains(id)), "{before:?} {shown:?} {left:?}");
    }
    assert_eq!(store.count().unwrap(), 0);
}

pub(super) fn an_import_ignores_foreign_ids_and_a_second_import_changes_nothing(store: &Store) {
    save(store, "user_name=u refresh_token=r access_token=a expiry_time=10");
    let incoming = [
        // An older token of the same user under another id. Only absent values are filled in.
        row("id=7 user_name=u client_id=c refresh_token=q access_token=b expiry_time=9"),
        // Another user. A row here has this id already, so the new row gets a new id.
        row("id=1 refresh_token=s"),
        row("id=5 user_name=v refresh_token=t access_token=c expiry_time=5"),
        row("id=6 user_name=w"),
    ];
    let first = store.import_rows(&incoming, NOW).unwrap().counts;
    assert_eq!(first, ImportCounts { new: 2, updated: 1, unchanged: 0, skipped: 1 });
    let after = [
        "id=1 user_name=u client_id=c refresh_token=r access_token=a expiry_time=10",
        "id=2 refresh_token=s",
        "id=5 user_name=v refresh_token=t access_token=c expiry_time=5",
    ];
    assert_eq!(rows(store), after);
    let again = store.import_rows(&incoming, NOW).unwrap().counts;
    assert_eq!(again, ImportCounts { new: 0, updated: 0, unchanged: 2, skipped: 2 });
    assert_eq!(rows(store), after);
    let newer = [row("user_name=v refresh_token=x access_token=y expiry_time=11")];
    assert_eq!(store.import_rows(&newer, NOW).unwrap().counts.updated, 1);
    assert_eq!(rows(store)[2], "id=5 user_name=v refresh_token=x access_token=y expiry_time=11");
}

pub(super) fn a_second_import_does_not_mix_the_rows_of_a_user(store: &Store) {
    let incoming = [
        // Only the second row tells the data centre of this one. When the import starts again, the third row is the one
        // that was saved last.
        row("user_name=u client_id=c refresh_token=r1 access_token=a1 expiry_time=30"),
        row("user_name=u client_id=c refresh_token=r2 access_token=a2 expiry_time=20 api_domain=EU"),
        row("user_name=u client_id=c refresh_token=r3 access_token=a3 expiry_time=10 api_domain=US"),
        row("user_name=u client_id=c api_domain=IN"),
    ];
    let after = [
        "id=1 user_name=u client_id=c refresh_token=r1 access_token=a1 expiry_time=30 api_domain=EU",
        "id=2 user_name=u client_id=c refresh_token=r3 access_token=a3 expiry_time=10 api_domain=US",
    ];
    let first = store.import_rows(&incoming, NOW).unwrap().counts;
    assert_eq!(first, ImportCounts { new: 2, updated: 1, unchanged: 0, skipped: 1 });
    assert_eq!(rows(store), after);
    let again = store.import_rows(&incoming, NOW).unwrap().counts;
    assert_eq!(again, ImportCounts { new: 0, updated: 0, unchanged: 2, skipped: 2 });
    assert_eq!(rows(store), after);
}

pub(super) fn an_import_reports_each_row_that_it_does_not_take(store: &Store) {
    let incoming = [
        row("id=1 client_id=c refresh_token=r access_token=a expiry_time=20 api_domain=EU"),
        row("id=2 client_id=c refresh_token=s access_token=b expiry_time=20 api_domain=EU"),
        row("id=3 user_name=u client_id=c refresh_token=t access_token=c expiry_time=20"),
        // An older login of the same user, and a row of which nothing is left.
        row("id=4 user_name=u client_id=c refresh_token=q access_token=d expiry_time=10"),
        row("id=5 user_name=v"),
    ];
    let after = [
        "id=1 client_id=c refresh_token=r access_token=a expiry_time=20 api_domain=EU",
        "id=2 client_id=c refresh_token=s access_token=b expiry_time=20 api_domain=EU",
        "id=3 user_name=u client_id=c refresh_token=t access_token=c expiry_time=20",
    ];
    for (new, unchanged) in [(3, 0), (0, 3)] {
        let report = store.import_rows(&incoming, NOW).unwrap();
        assert_eq!(report.counts, ImportCounts { new, updated: 0, unchanged, skipped: 2 });
        let remarks: Vec<_> =
            report.remarks.into_iter().filter(|(_, remark)| *remark != Remark::NoClientSecret).collect();
        assert_eq!(remarks, [(3, Remark::OlderLogin), (4, Remark::NoCredentials)]);
        assert_eq!(rows(store), after);
    }
}

pub(super) fn an_imported_login_is_not_merged_into_another_one_with_the_same_text_in_place_of_a_token(store: &Store) {
    let incoming = ["r", "s"].map(|token| row(&format!("refresh_token={token} access_token=hidden grant_token=x")));
    for new in [2, 0] {
        let counts = store.import_rows(&incoming, NOW).unwrap().counts;
        assert_eq!(counts, ImportCounts { new, updated: 0, unchanged: 2 - new, skipped: 0 });
        assert_eq!(store.count().unwrap(), 2);
    }
}

pub(super) fn an_imported_row_keeps_the_time_of_its_last_save(store: &Store) {
    let old = Row::new(token("id=1 refresh_token=r"), 0, Some(NOW - 1000));
    store.import_rows(&[old, row("id=2 refresh_token=s")], NOW).unwrap();
    let saved: Vec<_> = store.all().unwrap().iter().map(|row| row.saved_at).collect();
    assert_eq!(saved, [Some(NOW - 1000), Some(NOW)]);
}

pub(super) fn a_restore_copies_rows_exactly_and_no_id_is_used_again(store: &Store) {
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
    assert_eq!(found(store, "user_name=u2"), Some("2".to_owned()), "it was saved last");
    assert_eq!(found(store, "user_name=u1"), None);
    assert_eq!(save(store, "refresh_token=new"), "4", "3 was used before the restore");
    save(store, "id=1 user_name=u2 access_token=a");
    assert_eq!(found(store, "user_name=u2"), Some("1".to_owned()), "it was saved after the restore");
}

pub(super) fn a_restore_leaves_room_for_the_orders_of_later_saves(store: &Store) {
    let backup = [
        Row::new(token("id=1 user_name=u refresh_token=r1"), i64::MAX, None),
        Row::new(token("id=2 user_name=u refresh_token=r2"), i64::MAX - 1, None),
    ];
    store.restore(&backup, 2).unwrap();
    assert_eq!(found(store, "user_name=u"), Some("1".to_owned()), "it was saved last");
    for id in ["2", "1", "2"] {
        assert_eq!(save(store, &format!("id={id} user_name=u access_token=a")), id);
        assert_eq!(found(store, "user_name=u").as_deref(), Some(id), "it was saved last");
    }
}

pub(super) fn an_import_in_batches_reads_each_row_once_and_at_least_one_at_a_time(store: &Store) {
    let incoming: Vec<Row> = (1..=3).map(|number| row(&format!("id={number} refresh_token=r{number}"))).collect();
    let batch = |first: usize, time| store.import_batch(&incoming[first..], NOW, time).unwrap();
    for first in 0..2 {
        let report = batch(first, Duration::ZERO);
        assert_eq!((report.rows, report.counts.new), (1, 1));
        assert_eq!(rows(store).len(), first + 1);
    }
    let report = batch(0, Duration::MAX);
    assert_eq!((report.rows, report.counts.new, report.counts.unchanged), (3, 1, 2));
    assert_eq!(store.import_batch(&[], NOW, Duration::ZERO).unwrap().rows, 0);
}

pub(super) fn an_id_that_was_deleted_before_the_backup_is_not_used_again(store: &Store) {
    let backup = [row("id=1 refresh_token=r")];
    store.restore(&backup, 7).unwrap();
    assert_eq!(save(store, "refresh_token=new"), "8");
    store.restore(&backup, 0).unwrap();
    assert_eq!(save(store, "refresh_token=newer"), "9");
}

pub(super) fn a_failed_restore_changes_nothing(store: &Store) {
    save(store, "refresh_token=r");
    let duplicates = [row("id=5 refresh_token=s"), row("id=5 refresh_token=t")];
    for refused in [&duplicates[..], &[row("refresh_token=s")]] {
        assert_eq!(store.restore(refused, 0).unwrap_err().code(), Code::DuplicateIds);
    }
    assert_eq!(rows(store), ["id=1 refresh_token=r"]);
}

pub(super) fn looking_at_or_deleting_a_missing_row_is_an_error(store: &Store) {
    save(store, "refresh_token=r");
    assert_eq!(store.row("1").unwrap().token(), token("id=1 refresh_token=r"));
    for missing in ["2", ""] {
        assert_eq!(store.row(missing).unwrap_err().code(), Code::MissingId);
        assert_eq!(store.delete_existing(missing).unwrap_err().code(), Code::MissingId);
    }
    store.delete_existing("1").unwrap();
    assert_eq!(store.count().unwrap(), 0);
}

pub(super) fn a_check_reports_problems_of_rows_and_changes_nothing(store: &Store) {
    save(store, "user_name=u refresh_token=r access_token=a expiry_time=1795300001000");
    save(store, "user_name=v refresh_token=s access_token=a2");
    save(store, "access_token=a3 expiry_time=1");
    let before = rows(store);
    let mut findings = store.check(NOW).unwrap();
    // A file without WAL has a finding of its own.
    findings.retain(|finding| finding.code != "no-wal");
    let found: Vec<_> = findings.into_iter().map(|finding| (finding.code, finding.ids)).collect();
    assert_eq!(found, [("no-expiry", vec!["2".to_owned()]), ("unusable", vec!["3".to_owned()])]);
    assert_eq!(rows(store), before);
}
