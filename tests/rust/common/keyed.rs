//! Stores with keys, on any backend.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zoho_token_store::domain::check::Finding;
use zoho_token_store::domain::key_ring::{Ring, RingEntry};
use zoho_token_store::domain::seal_key::SealKey;
use zoho_token_store::domain::{Key, Row};
use zoho_token_store::store::backend::{Backend, Change, Durability, Location, Reading};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::keys::StoreKeys;
use zoho_token_store::store::sealed::Sealed;
use zoho_token_store::store::{Result, Store};

use super::TIMEOUT;

/// The key with this letter.
pub(crate) fn seal_key(letter: char) -> SealKey {
    SealKey::derive(&[u8::try_from(letter).unwrap(); 32]).unwrap()
}

/// The id of the key with this letter.
pub(crate) fn key_id(letter: char) -> String {
    seal_key(letter).id().to_string()
}

/// The ring of these keys. "p" stands for rows in clear text.
pub(crate) fn ring(letters: &str) -> Ring {
    let entry = |letter| match letter {
        'p' => RingEntry::ClearText,
        letter => RingEntry::Key(Box::new(seal_key(letter))),
    };
    Ring::new(letters.chars().map(entry).collect()).unwrap()
}

pub(crate) fn fixed(letters: &str) -> StoreKeys {
    StoreKeys::fixed(ring(letters))
}

/// A store with these keys on a backend that others use, too.
pub(crate) fn store_with(letters: &str, backend: &Arc<dyn Backend>) -> Store {
    Store::new(shared(backend), TIMEOUT).with_keys(fixed(letters))
}

/// The same backend, to be used by one more store. It is not closed with that store.
pub(crate) fn shared(backend: &Arc<dyn Backend>) -> Box<dyn Backend> {
    Box::new(Shared(Arc::clone(backend)))
}

struct Shared(Arc<dyn Backend>);

impl Backend for Shared {
    fn location(&self) -> &Location {
        self.0.location()
    }

    fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    fn groups_saves(&self) -> bool {
        self.0.groups_saves()
    }

    fn answers_at_once(&self) -> bool {
        self.0.answers_at_once()
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.0.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.0.read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.0.write(deadline, durability, work)
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        self.0.online_backup(target, deadline)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        self.0.check(deadline)
    }

    fn scrub(&self, deadline: Deadline) -> Result<()> {
        self.0.scrub(deadline)
    }
}

/// Which keys the store of a test has.
#[derive(Clone, Copy)]
pub(crate) enum TestKeys {
    /// None.
    Plain,
    /// One.
    One,
    /// A new one and an old one.
    Two,
    /// Rows are in turn written under two keys and in clear text, as by programs with different lists of keys.
    Mixed,
}

impl TestKeys {
    /// A store over `backend`.
    pub(crate) fn store(self, backend: Box<dyn Backend>) -> Store {
        match self {
            Self::Plain => Store::new(backend, TIMEOUT),
            Self::One => Store::new(backend, TIMEOUT).with_keys(fixed("a")),
            Self::Two => Store::new(backend, TIMEOUT).with_keys(fixed("ba")),
            Self::Mixed => Store::new(Box::new(InTurn::new(&Arc::from(backend))), TIMEOUT),
        }
    }

    /// What another program with the same keys sees of `backend`.
    pub(crate) fn backend(self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        match self {
            Self::Plain => backend,
            Self::One => Arc::new(Sealed::new(backend, fixed("a"))),
            Self::Two => Arc::new(Sealed::new(backend, fixed("ba"))),
            Self::Mixed => Arc::new(InTurn::new(&backend)),
        }
    }

    /// The same store, with keys that read its rows.
    pub(crate) fn reading(self, store: Store) -> Store {
        match self {
            Self::Plain => store,
            Self::One | Self::Two => store.with_keys(fixed("ab")),
            Self::Mixed => store.with_keys(fixed("abp")),
        }
    }
}

/// Programs with the same keys in another order, which write in turn.
struct InTurn {
    programs: [Sealed; 3],
    turn: AtomicUsize,
}

impl InTurn {
    fn new(backend: &Arc<dyn Backend>) -> Self {
        let programs = ["abp", "pab", "bpa"].map(|letters| Sealed::new(Arc::clone(backend), fixed(letters)));
        Self { programs, turn: AtomicUsize::new(0) }
    }

    fn next(&self) -> &Sealed {
        &self.programs[self.turn.fetch_add(1, Ordering::Relaxed) % 3]
    }
}

impl Backend for InTurn {
    fn location(&self) -> &Location {
        self.programs[0].location()
    }

    fn is_shared(&self) -> bool {
        self.programs[0].is_shared()
    }

    fn groups_saves(&self) -> bool {
        self.programs[0].groups_saves()
    }

    fn answers_at_once(&self) -> bool {
        self.programs[0].answers_at_once()
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.next().read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.next().write(deadline, durability, work)
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        self.programs[0].online_backup(target, deadline)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        self.programs[0].check(deadline)
    }

    fn close(&self, deadline: Deadline) {
        self.programs[0].close(deadline);
    }
}
