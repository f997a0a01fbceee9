//! Operations on rows as they are stored: a row that cannot be opened does not end them.

use super::administration::{RefreshState, refresh_state};
use super::backend::{Durability, Snapshot, Transaction};
use super::keys::Renewal;
use super::sealed_view::{names_in_use, without_lone_clear_text};
use super::{Attempts, Error, Result, Store, Wait, all_rows};
use crate::domain::key_ring::{ListedRow, Ring, RowFlaw};
use crate::domain::{Row, saved_order};

impl Store {
    /// Returns all rows, the oldest first, also those that cannot be read: one row whose key is missing must not hide
    /// the others.
    pub fn list(&self) -> Result<Vec<ListedRow>> {
        self.listed(|_, row| row)
    }

    /// Returns the row with this id, also if it cannot be read. It is an error if there is none.
    pub fn list_row(&self, id: &str) -> Result<ListedRow> {
        match self.row(id) {
            Ok(row) => Ok(ListedRow { row, flaw: None }),
            Err(error) if error.is_about_sealed_row() => {
                let mut rows = self.list()?.into_iter();
                rows.find(|listed| listed.row.id() == id).ok_or_else(|| Error::missing_id(self.location(), id))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns what `of_row` makes of each row in one snapshot.
    fn listed<T>(&self, mut of_row: impl FnMut(&dyn Snapshot, ListedRow) -> T) -> Result<Vec<T>> {
        self.with_all_keys(|| {
            let (mut listed, mut lacks_key) = (Vec::new(), false);
            self.read_stored(|rows, ring| {
                (listed, lacks_key) = (Vec::new(), false);
                for stored in all_rows(rows)? {
                    let row = ring.list(stored);
                    lacks_key |= matches!(row.flaw, Some(RowFlaw::UnknownKey(_)));
                    listed.push(of_row(rows, row));
                }
                Ok(())
            })?;
            Ok((listed, lacks_key))
        })
    }

    /// Runs `work`, which returns whether it lacked a key. If the source of keys has another one by now, runs it again.
    pub(super) fn with_all_keys<T>(&self, mut work: impl FnMut() -> Result<(T, bool)>) -> Result<T> {
        loop {
            let seen = self.backend.keys.generation();
            let (found, lacks_key) = work()?;
            if !lacks_key || self.backend.keys.renew(seen, self.deadline(Wait::Yes)) != Renewal::Renewed {
                return Ok(found);
            }
        }
    }

    /// [`Store::list`], each row with who refreshes it at `now` (milliseconds since the epoch).
    pub fn list_with_refresh_states(&self, now: i64) -> Result<Vec<(ListedRow, RefreshState)>> {
        self.listed(|rows, listed| {
            let state = refresh_state(rows, &listed.row, now);
            (listed, state)
        })
    }

    /// Adds rows as they are stored elsewhere, sealed or not. What is tried on this store then ends as it would there.
    pub fn copy_stored(&self, rows: &[Row], last_id: i64) -> Result<()> {
        let orders = saved_order::restored(&rows.iter().map(|row| row.saved_order).collect::<Vec<_>>());
        self.write_stored(|stored, _, (): &mut ()| {
            stored.raise_last_id(last_id)?;
            for (row, &saved_order) in rows.iter().zip(&orders) {
                let mut row = row.clone();
                row.saved_order = saved_order;
                stored.copy(&row)?;
            }
            let names = without_lone_clear_text(names_in_use(&*stored)?);
            if names.is_empty() { Ok(()) } else { stored.set_key_names(&names) }
        })
    }

    /// Runs `work` on one snapshot of the rows as they are stored.
    pub(super) fn read_stored(&self, mut work: impl FnMut(&dyn Snapshot, &Ring) -> Result<()>) -> Result<()> {
        self.run(self.deadline(Wait::Yes), |_, deadline| {
            let ring = self.backend.ring(deadline)?;
            self.backend.inner().read(deadline, &mut |rows| work(rows, &ring))
        })
    }

    /// [`Store::write`] on the rows as they are stored.
    pub(super) fn write_stored<T: Clone + Default>(
        &self,
        mut work: impl FnMut(&mut dyn Transaction, &Ring, &mut T) -> Result<()>,
    ) -> Result<T> {
        let mut attempts = Attempts::default();
        self.run(self.deadline(Wait::Yes), |_, deadline| {
            attempts.start_again();
            let ring = self.backend.ring(deadline)?;
            let mut change = |rows: &mut dyn Transaction| {
                let found = attempts.begin(rows);
                work(rows, &ring, found)
            };
            self.backend.inner().write(deadline, Durability::Full, &mut change)
        })?;
        Ok(attempts.found)
    }
}
