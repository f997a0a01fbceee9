//! The rows of one snapshot or transaction, as a store with keys sees them: in clear text, and under no key.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};

use super::backend::{SeenLease, Snapshot, Transaction};
use super::error::{Code, Error, Result, describe_id};
use super::keys::StoreKeys;
use super::sealed_view::{SealedView, without_lone_clear_text};
use crate::domain::backoff::RefreshFailures;
use crate::domain::identity::Keys;
use crate::domain::key_ring::{self, PLAINTEXT};
use crate::domain::lease::Lease;
use crate::domain::{Field, Key, Row, Token};

/// The rows of a snapshot.
pub(super) struct SealedRows<'a> {
    inner: &'a dyn Snapshot,
    view: SealedView<'a>,
}

impl<'a> SealedRows<'a> {
    pub(super) fn new(inner: &'a dyn Snapshot, view: SealedView<'a>) -> Self {
        Self { inner, view }
    }
}

impl Snapshot for SealedRows<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.view.by_key(self.inner, key, value)
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        self.view.by_keys(self.inner, keys, accept)
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.inner.each(&mut |row| visit(self.view.open(row)?))
    }

    fn count(&self) -> Result<usize> {
        self.inner.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.inner.last_id()
    }

    fn announce_lease(&self, key: Option<&str>) {
        self.inner.announce_lease(key);
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.inner.lease(key)
    }
}

/// A change of sealed rows.
pub(super) struct SealedTransaction<'a> {
    inner: &'a mut dyn Transaction,
    view: SealedView<'a>,
    /// The rows that this transaction has looked up, as they are stored, by their ids. An update needs them. Empty if
    /// there is no key: then the rows are the stored ones.
    looked_up: RefCell<HashMap<String, Row>>,
    /// Is the name recorded under which rows are written?
    is_recorded: Cell<bool>,
    /// Knows when the source of keys was asked. `None`: it need not be asked.
    keys: Option<&'a StoreKeys>,
}

impl<'a> SealedTransaction<'a> {
    pub(super) fn new(inner: &'a mut dyn Transaction, view: SealedView<'a>, keys: Option<&'a StoreKeys>) -> Self {
        Self { inner, view, looked_up: RefCell::default(), is_recorded: Cell::new(false), keys }
    }

    fn has_keys(&self) -> bool {
        !self.view.ring.is_without_keys()
    }

    /// Keeps the stored form of rows that are looked up.
    fn with_kept<T>(&self, work: impl FnOnce(&dyn Snapshot) -> T) -> T {
        if !self.has_keys() {
            return work(&*self.inner);
        }
        work(&Keeping { inner: &*self.inner, kept: &self.looked_up })
    }

    /// The stored form of a row that this transaction has read.
    fn stored<'r>(&self, row: &'r Row) -> Result<Cow<'r, Row>> {
        if !self.has_keys() {
            return Ok(Cow::Borrowed(row));
        }
        if let Some(stored) = self.looked_up.borrow_mut().remove(row.id()) {
            return Ok(Cow::Owned(stored));
        }
        let stored = self.inner.by_key(Key::Id, row.id())?.pop();
        let what = || format!("the row with {} is not there any more", describe_id(row.id()));
        let missing = || Error::new(Code::DamagedRow, self.view.location).with(what()).in_row(row.id().to_owned());
        stored.map(Cow::Owned).ok_or_else(missing)
    }

    /// Fails if the source of keys has to be asked before a row is written. `before`: the row as it is stored now.
    fn require_answer(&self, before: Option<&Row>) -> Result<()> {
        let Some(keys) = self.keys else { return Ok(()) };
        let before = before.and_then(|before| key_ring::name_of(before.token()));
        let asks = key_ring::ask_first(self.view.ring.writes(), self.view.names(&*self.inner)?, before.as_deref());
        if keys.has_answered(asks) { Ok(()) } else { Err(Error::keys_to_ask_for(self.view.location)) }
    }

    /// Records the name under which rows are written, before the first one is.
    fn record_name(&mut self) -> Result<()> {
        if self.is_recorded.replace(true) {
            return Ok(());
        }
        let writes = self.view.ring.writes();
        let mut names = self.view.names(&*self.inner)?.clone();
        if let Some(unused) = self.view.unused.take() {
            // From now on a miss is certain without a look at all rows.
            names.retain(|name| !unused.contains(name));
            names.insert(writes.to_owned());
            return self.set_names(without_lone_clear_text(names));
        }
        // A row in clear text needs no name as long as no row was ever sealed.
        let needs_no_name = names.is_empty() && writes == PLAINTEXT;
        if needs_no_name || (names.contains(writes) && !self.view.is_record_lost.get()) {
            return Ok(());
        }
        if names.is_empty() && self.inner.count()? > 0 {
            names.insert(PLAINTEXT.to_owned());
        }
        names.insert(writes.to_owned());
        self.set_names(names)
    }

    fn set_names(&mut self, names: BTreeSet<String>) -> Result<()> {
        self.inner.set_key_names(&names)?;
        self.view.names = OnceCell::from(names);
        self.view.is_record_lost.set(false);
        Ok(())
    }

    /// Seals a row, and runs `write` on it as it is to be stored. `before`: the stored row that it replaces.
    fn write_sealed(
        &mut self,
        before: Option<&Row>,
        token: Token<'_>,
        write: impl FnOnce(&mut dyn Transaction, Token<'_>) -> Result<()>,
    ) -> Result<()> {
        let sealed = self.view.seal(token)?;
        if self.has_keys() {
            self.require_answer(before)?;
            self.record_name()?;
        }
        write(self.inner, sealed.as_ref().map_or(token, |sealed| sealed.stored(token)))
    }

    /// Seals the row with this id under the first key. Returns whether it did: a row that is under that key already, or that
    /// cannot be read, stays as it is.
    pub(super) fn reseal(&mut self, id: &str) -> Result<bool> {
        let Some(stored) = self.inner.by_key(Key::Id, id)?.pop() else { return Ok(false) };
        if key_ring::name_of(stored.token()).as_deref() == Some(self.view.ring.writes()) {
            return Ok(false);
        }
        let Ok(opened) = self.view.ring.open(&stored) else { return Ok(false) };
        let row = opened.unwrap_or_else(|| stored.clone());
        self.looked_up.borrow_mut().insert(id.to_owned(), stored);
        self.rewrite(&row, row.token())?;
        Ok(true)
    }

    /// Has the row secrets in clear text that are going to be sealed? They must not stay readable.
    fn seals_clear_text(&self, before: &Row) -> bool {
        self.view.ring.seals().is_some() && key_ring::name_of(before.token()).as_deref() == Some(PLAINTEXT)
    }
}

impl Snapshot for SealedTransaction<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        self.with_kept(|rows| self.view.by_key(rows, key, value))
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        self.with_kept(|rows| self.view.by_keys(rows, keys, accept))
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.inner.each(&mut |row| visit(self.view.open(row)?))
    }

    fn count(&self) -> Result<usize> {
        self.inner.count()
    }

    fn last_id(&self) -> Result<i64> {
        self.inner.last_id()
    }

    fn announce_lease(&self, key: Option<&str>) {
        self.inner.announce_lease(key);
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.inner.lease(key)
    }
}

impl Transaction for SealedTransaction<'_> {
    fn follows_lost_commit(&self) -> bool {
        self.inner.follows_lost_commit()
    }

    fn raise_last_id(&mut self, number: i64) -> Result<()> {
        self.inner.raise_last_id(number)
    }

    fn insert(&mut self, token: Token<'_>, now: i64) -> Result<()> {
        self.write_sealed(None, token, |inner, stored| inner.insert(stored, now))
    }

    fn update(&mut self, row: &Row, token: Token<'_>, now: i64) -> Result<()> {
        let before = self.stored(row)?;
        if self.seals_clear_text(&before) {
            self.inner.scrub_replaced();
        }
        let token = token.with(Field::Id, Some(row.id()));
        self.write_sealed(Some(&before), token, |inner, stored| inner.update(&before, stored, now))
    }

    fn rewrite(&mut self, row: &Row, token: Token<'_>) -> Result<()> {
        let before = self.stored(row)?;
        if self.seals_clear_text(&before) {
            // Only a rotation rewrites rows, and it scrubs in the end.
            self.inner.scrub_replaced_later();
        }
        let token = token.with(Field::Id, Some(row.id()));
        self.write_sealed(Some(&before), token, |inner, stored| inner.rewrite(&before, stored))
    }

    fn copy(&mut self, row: &Row) -> Result<()> {
        if !self.has_keys() {
            // A restore without keys must not turn a store of sealed rows into one of rows in clear text.
            self.view.require_certain_miss(&*self.inner)?;
        }
        let (order, saved_at) = (row.saved_order, row.saved_at);
        self.write_sealed(None, row.token(), |inner, stored| inner.copy(&Row::new(stored, order, saved_at)))
    }

    fn delete(&mut self, id: &str) -> Result<bool> {
        self.looked_up.borrow_mut().remove(id);
        self.inner.delete(id)
    }

    fn delete_all(&mut self) -> Result<()> {
        if self.has_keys() {
            // It records the first key.
            self.require_answer(None)?;
        }
        self.looked_up.borrow_mut().clear();
        self.inner.delete_all()?;
        // No row needs an old key any more.
        if self.has_keys() && self.inner.key_names()?.is_none_or(|names| !names.is_empty()) {
            let names: BTreeSet<String> = self.view.ring.seals().iter().map(|key| key.id().to_string()).collect();
            self.inner.set_key_names(&names)?;
            self.view.names = OnceCell::from(names);
            self.is_recorded.set(false);
        }
        Ok(())
    }

    fn acquire_lease(&mut self, key: &str, lease: &Lease) -> Result<()> {
        self.inner.acquire_lease(key, lease)
    }

    fn release_lease(&mut self, key: &str, owner: &str) -> Result<()> {
        self.inner.release_lease(key, owner)
    }

    fn record_failures(&mut self, key: &str, failures: &RefreshFailures) -> Result<()> {
        self.inner.record_failures(key, failures)
    }

    fn scrub_replaced(&mut self) {
        self.inner.scrub_replaced();
    }

    fn scrub_replaced_later(&mut self) {
        self.inner.scrub_replaced_later();
    }
}

/// A snapshot that keeps what lookups find.
struct Keeping<'a> {
    inner: &'a dyn Snapshot,
    kept: &'a RefCell<HashMap<String, Row>>,
}

impl Keeping<'_> {
    fn keep(&self, rows: &[Row]) {
        let mut kept = self.kept.borrow_mut();
        kept.extend(rows.iter().map(|row| (row.id().to_owned(), row.clone())));
    }
}

impl Snapshot for Keeping<'_> {
    fn by_key(&self, key: Key, value: &str) -> Result<Vec<Row>> {
        let rows = self.inner.by_key(key, value)?;
        self.keep(&rows);
        Ok(rows)
    }

    fn by_keys(&self, keys: &Keys<'_>, accept: &mut dyn FnMut(Key, Vec<Row>) -> bool) -> Result<()> {
        self.inner.by_keys(keys, &mut |key, rows| {
            self.keep(&rows);
            accept(key, rows)
        })
    }

    fn each(&self, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.inner.each(visit)
    }

    fn last_id(&self) -> Result<i64> {
        self.inner.last_id()
    }

    fn announce_lease(&self, key: Option<&str>) {
        self.inner.announce_lease(key);
    }

    fn lease(&self, key: &str) -> Result<SeenLease> {
        self.inner.lease(key)
    }

    fn key_names(&self) -> Result<Option<BTreeSet<String>>> {
        self.inner.key_names()
    }
}
