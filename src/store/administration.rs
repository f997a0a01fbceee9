//! Operations for administrators, beyond what the SDK needs: look at rows, import, restore, check.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::backend::{Location, Snapshot, Transaction};
use super::error::{Code, describe_id};
use super::rekey::Rekeyed;
use super::{Error, Result, Store, Wait, present, save};
use crate::domain::backoff::{self, RefreshFailures};
use crate::domain::check::{self, FailingRefresh, Finding, RowChecker, Severity};
use crate::domain::identity::{self, Key};
use crate::domain::import::Remark;
use crate::domain::key_ring::{self, Ring, RowFlaw};
use crate::domain::lease::{self, Lease};
use crate::domain::{Field, Row, expiry, import, merge, purge, saved_order};

/// How many rows of an import had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Rows that were not here before.
    pub new: usize,
    /// Rows that were newer than the row here, or had a value that the row here lacked.
    pub updated: usize,
    /// Rows that had nothing new.
    pub unchanged: usize,
    /// Rows that were not taken: without any refresh, grant or access token, or of a login that is not newer than the
    /// user's login here. Each has a [`Remark`].
    pub skipped: usize,
}

/// The result of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// How many rows were read, from the first one on.
    pub rows: usize,
    /// How many of them had which result.
    pub counts: ImportCounts,
    /// What its user should know. The number is the index of the row, counted from 0.
    pub remarks: Vec<(usize, Remark)>,
}

impl Store {
    /// Returns the row with this id. It is an error if there is none.
    pub fn row(&self, id: &str) -> Result<Row> {
        let found = self.find_by_id(Some(id), Wait::Yes)?;
        found.map(|found| found.0).ok_or_else(|| Error::missing_id(self.location(), id))
    }

    /// Deletes the row with this id. It is an error if there is none.
    pub fn delete_existing(&self, id: &str) -> Result<()> {
        self.write(|transaction, deleted| {
            *deleted |= present(Some(id)).is_some() && transaction.delete(id)?;
            if *deleted { Ok(()) } else { Err(Error::missing_id(self.location(), id)) }
        })?;
        self.unsaved.discard_id(id);
        Ok(())
    }

    /// Writes without changing anything. Fails where a save would fail: a read-only file, a full disk, a lock.
    pub fn try_to_write(&self) -> Result<()> {
        // A lease without a holder. A transaction that changes nothing would write nothing, even to a full disk.
        let lease = Lease { owner: String::new(), until: 0 };
        self.write(|transaction, (): &mut ()| {
            transaction.acquire_lease(WRITE_CHECK, &lease)?;
            transaction.release_lease(WRITE_CHECK, &lease.owner)
        })
    }

    /// Returns the rows that [`Store::purge`] would delete, the oldest first.
    pub fn purgeable(&self, now: i64, idle_for: Option<i64>) -> Result<Vec<Row>> {
        let mut rows = self.all()?;
        rows.retain(|row| purge::may_purge(row, now, idle_for));
        Ok(rows)
    }

    /// Purges the rows with these ids, as far as they may still be purged. So a purge deletes only rows that a user has
    /// seen and confirmed, even if more rows have become purgeable since.
    pub fn purge_confirmed(&self, ids: &BTreeSet<String>, now: i64, idle_for: Option<i64>) -> Result<usize> {
        self.delete_where(|row| ids.contains(row.id()) && purge::may_purge(row, now, idle_for))
    }

    /// Deletes the rows with these ids, whatever their age. Rows that were saved since a user has confirmed the ids
    /// stay.
    pub fn delete_confirmed(&self, ids: &BTreeSet<String>) -> Result<usize> {
        self.delete_where(|row| ids.contains(row.id()))
    }

    /// Imports rows of another store in one transaction. Importing the same rows again changes nothing. Placeholders
    /// such as `NULL` count as absent values.
    ///
    /// Ids of another store mean nothing here, so no row is found by its id. A new row keeps its id if no row has it.
    pub fn import_rows(&self, rows: &[Row], now: i64) -> Result<ImportReport> {
        self.import_batch(rows, now, Duration::MAX)
    }

    /// Like [`Store::import_rows`], but with the rows that it can import in `time`, and at least one: others wait for
    /// the transaction, and on a server each row takes some round trips.
    pub fn import_batch(&self, rows: &[Row], now: i64, time: Duration) -> Result<ImportReport> {
        type Found = (Vec<RowImport>, Vec<(usize, Remark)>);
        let opened = self.open_rows(rows)?;
        let (results, remarks) = self.write(|transaction, (results, remarks): &mut Found| {
            // If the attempt before may have been committed, its rows are imported again, and its results count: this
            // attempt may find what that one has written.
            let done = results.len();
            let begun = Instant::now();
            for (index, row) in opened.iter().enumerate() {
                if index >= done.max(1) && begun.elapsed() >= time {
                    break;
                }
                let mut found = Vec::new();
                let result = match row {
                    Ok(row) => import_row(transaction, row, now, |remark| found.push((index, remark)))?,
                    Err(flaw) => {
                        let is_unknown = matches!(flaw, RowFlaw::UnknownKey(_));
                        found.push((index, if is_unknown { Remark::UnknownKey } else { Remark::Altered }));
                        RowImport::Skipped
                    }
                };
                if index >= done {
                    results.push(result);
                    remarks.append(&mut found);
                }
            }
            Ok(())
        })?;
        let count = |result| results.iter().filter(|&&other| other == result).count();
        let counts = ImportCounts {
            new: count(RowImport::New),
            updated: count(RowImport::Updated),
            unchanged: count(RowImport::Unchanged),
            skipped: count(RowImport::Skipped),
        };
        Ok(ImportReport { rows: results.len(), counts, remarks })
    }

    /// Replaces all rows by these in one transaction, and returns their number. `last_id` is the highest number that an
    /// id had where the rows come from. No id that was ever used, here or there, is given out again.
    pub fn restore(&self, rows: &[Row], last_id: i64) -> Result<usize> {
        let mut ids = BTreeSet::new();
        if let Some(row) = rows.iter().find(|row| row.id().is_empty() || !ids.insert(row.id())) {
            return Err(Error::new(Code::DuplicateIds, "the backup").with(describe_id(row.id())));
        }
        let opened = self.open_rows(rows)?.into_iter().zip(rows).map(|(opened, row)| {
            opened.map_err(|flaw| {
                let error = Error::unreadable_row(&Location::named("the backup"), row.id(), &flaw);
                // Not that of the code, which is about rows of the store.
                if error.code() == Code::UnknownKey { error.with_hint(NEEDED_BY_BACKUP) } else { error }
            })
        });
        let opened = opened.collect::<Result<Vec<_>>>()?;
        let orders = saved_order::restored(&rows.iter().map(|row| row.saved_order).collect::<Vec<_>>());
        self.write(|transaction, (): &mut ()| {
            transaction.delete_all()?;
            transaction.raise_last_id(last_id)?;
            opened.iter().zip(&orders).try_for_each(|(row, &saved_order)| {
                let mut row = Row::clone(row);
                row.saved_order = saved_order;
                transaction.copy(&row)
            })
        })?;
        self.unsaved.discard(|_, _| true);
        Ok(rows.len())
    }

    /// Returns what [`Store::rekey`] would do with the rows as they are now. Changes nothing.
    pub fn rekey_preview(&self) -> Result<Rekeyed> {
        let mut preview = Rekeyed::default();
        self.read_stored(|rows, ring| {
            preview = Rekeyed::default();
            rows.each(&mut |row| {
                if ring.open(&row).is_err() {
                    preview.left += 1;
                } else if key_ring::name_of(row.token()).as_deref() != Some(ring.writes()) {
                    preview.rewritten += 1;
                }
                Ok(())
            })
        })?;
        Ok(preview)
    }

    /// Opens the sealed ones among rows that come from elsewhere, with the keys of this store. Rows in clear text are taken
    /// as they are: their user has chosen the file.
    fn open_rows<'r>(&self, rows: &'r [Row]) -> Result<Vec<std::result::Result<Cow<'r, Row>, RowFlaw>>> {
        self.with_all_keys(|| {
            let ring = self.backend.ring(self.deadline(Wait::Yes))?;
            let open = |row: &'r Row| match ring.open(row) {
                Ok(None) | Err(RowFlaw::ClearText) => Ok(Cow::Borrowed(row)),
                Ok(Some(opened)) => Ok(Cow::Owned(opened)),
                Err(flaw) => Err(flaw),
            };
            let opened: Vec<_> = rows.iter().map(open).collect();
            let lacks_key = opened.iter().any(|row| matches!(row, Err(RowFlaw::UnknownKey(_))));
            Ok((opened, lacks_key))
        })
    }

    /// Returns what is wrong with the store at `now` (milliseconds since the epoch). Changes nothing.
    pub fn check(&self, now: i64) -> Result<Vec<Finding>> {
        self.check_with(now, None)
    }

    /// [`Store::check`] with other keys than the store has.
    pub fn check_with(&self, now: i64, ring: Option<&Ring>) -> Result<Vec<Finding>> {
        let mut findings = self.run(self.deadline(Wait::Yes), |backend, deadline| backend.check(deadline))?;
        let (mut of_rows, mut failing) = (Vec::new(), Vec::new());
        // The rows as they are stored: those that cannot be opened are findings.
        let result = self.read_stored(|rows, own| {
            let ring = ring.unwrap_or(own);
            let mut checker = RowChecker::new(now);
            let mut due = Vec::new();
            rows.each(&mut |row| {
                let row = checker.add_stored(ring, row);
                due.extend(row.filter(|row| lease::is_due(expiry::readable(row.token()), now)));
                Ok(())
            })?;
            failing = failing_refreshes(rows, &due, now);
            checker.add_record(rows.key_names()?.as_ref());
            of_rows = checker.all_findings(ring);
            Ok(())
        });
        match result {
            Ok(()) => findings.extend(of_rows),
            Err(error) => match findings.iter_mut().find(|finding| finding.code == "missing-rights") {
                // It names the rights. Without one of them the rows cannot be read.
                Some(finding) if error.code() == Code::AccessDenied => finding.severity = Severity::Error,
                _ => findings.push(error.into_finding()?),
            },
        }
        findings.extend(check::refresh_failing(&failing, now));
        findings.extend(check::failed_saves(self.failed_saves(), self.last_failed_save().name()));
        Ok(findings)
    }
}

/// What to do if a backup cannot be opened.
const NEEDED_BY_BACKUP: &str = "Give this key, too (keys=), or restore a backup that another key opens.";

/// The key of the lease that a write check acquires and releases.
const WRITE_CHECK: &str = "write check";

/// Who refreshes a row, and how often that has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshState {
    /// The id of the process that holds the lease.
    pub held_by: Option<String>,
    /// The refreshes that have failed since the last one that succeeded.
    pub failing: Option<FailingRefresh>,
}

/// Returns those of the rows whose refreshes have failed since the last one that succeeded.
pub fn failing_refreshes(rows: &dyn Snapshot, due: &[Row], now: i64) -> Vec<FailingRefresh> {
    due.iter().filter_map(|row| refresh_state(rows, row, now).failing).collect()
}

/// A problem with the tables of leases and failures is no problem of the row.
pub(super) fn refresh_state(rows: &dyn Snapshot, row: &Row, now: i64) -> RefreshState {
    let token = expiry::readable(row.token());
    let Some(key) = lease::lease_key(token, Some(row.id())) else { return RefreshState::default() };
    let Ok(seen) = rows.lease(key.as_str()) else { return RefreshState::default() };
    let now = seen.now.unwrap_or(now);
    let is_held = |lease: &Lease| now < lease.until;
    let fails = |failures: &RefreshFailures| failures.counts(&backoff::fingerprint(token), now);
    RefreshState {
        held_by: seen.lease.filter(is_held).map(|lease| lease.process_id().to_owned()),
        failing: seen.failures.filter(fails).map(|failures| FailingRefresh {
            id: row.id().to_owned(),
            count: failures.count,
            since: failures.since,
        }),
    }
}

/// The result of importing one row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowImport {
    New,
    Updated,
    Unchanged,
    Skipped,
}

fn import_row(
    transaction: &mut dyn Transaction,
    incoming: &Row,
    now: i64,
    remark: impl FnMut(Remark),
) -> Result<RowImport> {
    let source = incoming.token();
    let token = source.with(Field::Id, None);
    let saved_at = incoming.saved_at.unwrap_or(now);
    if !merge::is_storable(token) {
        import::remarks(incoming.token(), None).for_each(remark);
        return Ok(RowImport::Skipped);
    }
    let mut found = None;
    if let Some(name) = token.get(Field::UserName) {
        found = identity::choose_for_import(token, transaction.by_key(Key::UserName, name)?);
    }
    if found.is_none() {
        found = identity::find_for_import(token, |keys, accept| transaction.by_keys(keys, accept))?;
    }
    let Some(row) = found else {
        import::remarks(incoming.token(), Some(token)).for_each(remark);
        save::insert(transaction, source, saved_at)?;
        return Ok(RowImport::New);
    };
    let merged = import::merge_imported(token, row.token());
    import::remarks(incoming.token(), Some(merged)).for_each(remark);
    if merged == row.token() {
        let is_kept = import::is_another_login(token, merged);
        return Ok(if is_kept { RowImport::Skipped } else { RowImport::Unchanged });
    }
    if merge::replaces_long_lived_secret(row.token(), merged) {
        transaction.scrub_replaced();
    }
    transaction.update(&row, merged, row.saved_at.map_or(saved_at, |before| before.max(saved_at)))?;
    Ok(RowImport::Updated)
}
