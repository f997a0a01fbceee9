//! What whoever looks after a store does with it, beyond what the SDK does: look, import, restore, check.

use std::collections::BTreeSet;

use super::{Change, Error, Result, Store, Wait, present};
use crate::domain::check::{Examination, Finding};
use crate::domain::{Field, Row, identity, import, merge, purge};

/// What became of rows that were imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Had no row here.
    pub new: usize,
    /// Were newer than their row here, or had something that it lacked.
    pub updated: usize,
    /// Brought nothing to their row here.
    pub unchanged: usize,
    /// Had nothing that a row would be good for.
    pub skipped: usize,
}

impl Store {
    /// The row with this id.
    pub fn row(&self, id: &str) -> Result<Row> {
        let found = self.find_by_id(Some(id), Wait::Yes)?;
        found.map(|found| found.0).ok_or_else(|| self.no_such_id(id))
    }

    /// Deletes the row with this id, which has to be there.
    pub fn delete_existing(&self, id: &str) -> Result<()> {
        let missing = || self.no_such_id(id);
        let mut deleted = false;
        self.write(|change| {
            // A second attempt may find that the first has deleted it.
            deleted |= present(Some(id)).is_some() && change.delete(id)?;
            if deleted { Ok(()) } else { Err(missing()) }
        })
    }

    fn no_such_id(&self, id: &str) -> Error {
        Error::NoSuchId { place: self.place().clone(), id: id.to_owned() }
    }

    /// The rows that [`Store::purge`] would delete, the oldest first.
    pub fn purgeable(&self, now: i64, idle_for: Option<i64>) -> Result<Vec<Row>> {
        let mut rows = self.all()?;
        rows.retain(|row| purge::may_go(row, now, idle_for));
        Ok(rows)
    }

    /// Deletes those of the rows with these ids that may still go: what somebody has seen, and agreed to, is not what
    /// [`Store::purge`] would find by then.
    pub fn purge_those(&self, ids: &BTreeSet<String>, now: i64, idle_for: Option<i64>) -> Result<usize> {
        self.delete_where(|row| ids.contains(row.id()) && purge::may_go(row, now, idle_for))
    }

    /// Brings the rows of another store to this one's, all of them or none. The same rows once more change nothing.
    ///
    /// An id says nothing of a row of another store, so no row is found by it; a new row keeps its id if that is free.
    pub fn import_rows(&self, rows: &[Row], now: i64) -> Result<Imported> {
        let mut imported = Imported::default();
        self.write(|change| {
            imported = Imported::default();
            for row in rows {
                match import_row(change, row, now)? {
                    Some(Outcome::New) => imported.new += 1,
                    Some(Outcome::Updated) => imported.updated += 1,
                    Some(Outcome::Unchanged) => imported.unchanged += 1,
                    None => imported.skipped += 1,
                }
            }
            Ok(())
        })?;
        Ok(imported)
    }

    /// Puts these rows in the place of all there are, in one change, and returns how many they are. No id that was given
    /// out before is given out again, be it here or, up to `last_id`, where the rows come from.
    pub fn restore(&self, rows: &[Row], last_id: i64) -> Result<usize> {
        let mut ids = BTreeSet::new();
        if let Some(row) = rows.iter().find(|row| row.id().is_empty() || !ids.insert(row.id())) {
            let id = super::error::describe_id(row.id());
            return Err(Error::BadInput(format!("the rows to restore are not told apart by their ids ({id})")));
        }
        self.write(|change| {
            change.delete_all()?;
            change.raise_last_id(last_id)?;
            rows.iter().try_for_each(|row| change.copy(row))
        })?;
        Ok(rows.len())
    }

    /// What is not as it should be at `now` (milliseconds since the epoch). Changes nothing.
    pub fn check(&self, now: i64) -> Result<Vec<Finding>> {
        let mut findings = self.enter(self.deadline(Wait::Yes), |backend, deadline| backend.check(deadline))?;
        let mut examination = Examination::at(now);
        match self.read(|rows| {
            examination = Examination::at(now);
            rows.each(&mut |row| examination.look(&row))
        }) {
            Ok(()) => findings.extend(examination.findings()),
            Err(error) => findings.push(error.into_finding()?),
        }
        Ok(findings)
    }
}

/// What became of one row that was imported.
enum Outcome {
    New,
    Updated,
    Unchanged,
}

fn import_row(change: &mut dyn Change, incoming: &Row, now: i64) -> Result<Option<Outcome>> {
    let token = incoming.token().with(Field::Id, None);
    let saved_at = incoming.saved_at.unwrap_or(now);
    if !merge::is_worth_a_row(token) {
        return Ok(None);
    }
    let Some(row) = identity::find_brought(token, |key, value| change.by_key(key, value))? else {
        super::insert(change, incoming.token(), saved_at)?;
        return Ok(Some(Outcome::New));
    };
    let brought = import::bring(token, row.token());
    if brought == row.token() {
        return Ok(Some(Outcome::Unchanged));
    }
    if merge::replaces_lasting_secret(row.token(), brought) {
        change.leave_no_trace();
    }
    change.update(&row, brought, row.saved_at.map_or(saved_at, |before| before.max(saved_at)))?;
    Ok(Some(Outcome::Updated))
}
