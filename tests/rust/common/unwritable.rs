//! A backend that can be read, and whose writes fail while a test says so: a full disk, a read-only file.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use zoho_token_store::domain::check::Finding;
use zoho_token_store::domain::identity::Keys;
use zoho_token_store::domain::lease::LookCost;
use zoho_token_store::domain::{Key, Row};
use zoho_token_store::store::backend::{Backend, Change, Durability, Location, Reading};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::{Error, Result};

/// With what code each write fails. Clones are the same switch.
#[derive(Clone, Default)]
pub(crate) struct WriteFault {
    code: Arc<Mutex<Option<Code>>>,
    /// How many writes have begun.
    writes: Arc<Mutex<usize>>,
    /// Runs at the begin of the next write.
    at_next: Arc<Mutex<Option<Hook>>>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl WriteFault {
    pub(crate) fn set(&self, code: Option<Code>) {
        *self.code.lock() = code;
    }

    pub(crate) fn run_at_next_write(&self, hook: impl FnOnce() + Send + 'static) {
        *self.at_next.lock() = Some(Box::new(hook));
    }

    pub(crate) fn writes(&self) -> usize {
        *self.writes.lock()
    }
}

pub(crate) struct Unwritable {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) fault: WriteFault,
}

impl Backend for Unwritable {
    fn location(&self) -> &Location {
        self.backend.location()
    }

    fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    fn groups_saves(&self) -> bool {
        self.backend.groups_saves()
    }

    fn answers_at_once(&self) -> bool {
        self.backend.answers_at_once()
    }

    fn look_cost(&self) -> LookCost {
        self.backend.look_cost()
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.backend.by_key(key, value, deadline)
    }

    fn by_keys(
        &self,
        keys: &Keys<'_>,
        deadline: Deadline,
        accept: &mut dyn FnMut(Key, Vec<Row>) -> bool,
    ) -> Result<()> {
        self.backend.by_keys(keys, deadline, accept)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.backend.read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        *self.fault.writes.lock() += 1;
        let hook = self.fault.at_next.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        let code = *self.fault.code.lock();
        match code {
            Some(code) => Err(Error::new(code, self.location()).with("injected")),
            None => self.backend.write(deadline, durability, work),
        }
    }

    fn online_backup(&self, target: &Path, deadline: Deadline) -> Result<bool> {
        self.backend.online_backup(target, deadline)
    }

    fn check(&self, deadline: Deadline) -> Result<Vec<Finding>> {
        self.backend.check(deadline)
    }

    fn scrub(&self, deadline: Deadline) -> Result<()> {
        self.backend.scrub(deadline)
    }

    fn before_fork(&self, deadline: Deadline) {
        self.backend.before_fork(deadline);
    }

    fn after_fork_in_child(&self) {
        self.backend.after_fork_in_child();
    }

    fn before_exit(&self, deadline: Deadline) {
        self.backend.before_exit(deadline);
    }

    fn close(&self, deadline: Deadline) {
        self.backend.close(deadline);
    }
}
