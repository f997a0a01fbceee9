//! Cells in memory: one that works, and one that loses answers and reports conflicts at random.

use parking_lot::Mutex;
use zoho_token_store::backends::cell::{Cell, CellBackend, Moment};
use zoho_token_store::store::backend::Location;
use zoho_token_store::store::error::{Code, Error, Result};

use std::any::type_name;
use std::sync::Arc;
use std::time::Duration;

use super::Clock;

pub(crate) static LOCATION: Location = Location::named("the cell of a test");

/// Where an [`UnreliableCell`] is.
pub(crate) static UNRELIABLE: Location = Location::named("the unreliable cell of a test");

/// A place in memory. Clones are the same place.
#[derive(Clone, Default)]
pub(crate) struct MemoryCell(Arc<Mutex<(Option<Vec<u8>>, u64)>>);

impl MemoryCell {
    pub(crate) fn document(&self) -> String {
        String::from_utf8(self.0.lock().0.clone().unwrap_or_default()).unwrap()
    }

    pub(crate) fn set(&self, document: &str) {
        let mut place = self.0.lock();
        *place = (Some(document.as_bytes().to_vec()), place.1 + 1);
    }

    /// Removes the document, as a cache does that evicts it.
    pub(crate) fn empty(&self) {
        let mut place = self.0.lock();
        *place = (None, place.1 + 1);
    }

    /// How often the document was changed.
    pub(crate) fn version(&self) -> u64 {
        self.0.lock().1
    }
}

impl Cell for MemoryCell {
    type Version = u64;

    fn load(&self) -> Result<(Option<Vec<u8>>, u64)> {
        Ok(self.0.lock().clone())
    }

    fn swap(&self, document: &[u8], version: &u64) -> Result<bool> {
        let mut place = self.0.lock();
        if place.1 != *version {
            return Ok(false);
        }
        *place = (Some(document.to_vec()), version + 1);
        Ok(true)
    }
}

/// A place whose network repeats requests, and loses answers and requests. An answer that is lost after the change was
/// made is the answer `false`, as a client that repeats its request gives it, or an error.
pub(crate) struct UnreliableCell(pub(crate) MemoryCell);

impl Cell for UnreliableCell {
    type Version = u64;

    fn load(&self) -> Result<(Option<Vec<u8>>, u64)> {
        self.0.load()
    }

    fn swap(&self, document: &[u8], version: &u64) -> Result<bool> {
        match fastrand::u8(0..6) {
            // Another writer comes first.
            0 => {
                let mut place = self.0.0.lock();
                place.1 += 1;
                Ok(false)
            }
            1 => self.0.swap(document, version).map(|_| false),
            2 if self.0.swap(document, version)? => {
                Err(Error::new(Code::CellFailed, &LOCATION).with("the answer was lost"))
            }
            2 => Ok(false),
            _ => self.0.swap(document, version),
        }
    }
}

/// A backend over a cell, whose clocks are the clock of the test.
pub(crate) fn backend<C: Cell>(cell: C, cache_for: Duration, clock: &Clock) -> CellBackend<C> {
    let clock = clock.clone();
    let read = Box::new(move || Moment { now: clock.now(), wall: clock.now() });
    let is_unreliable = type_name::<C>() == type_name::<UnreliableCell>();
    let location = if is_unreliable { &UNRELIABLE } else { &LOCATION };
    CellBackend::new(cell, location.clone(), cache_for).with_clocks(read)
}
