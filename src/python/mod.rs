//! What Python sees. Every method has one shape: convert in, work, convert out.
//!
//! Two rules keep locks and the GIL apart. No lock of a store is held while Python code runs: operations take and return
//! plain values. And nothing waits for a lock with the GIL held: a find first tries without waiting
//! ([`crate::store::Wait::No`]; giving the GIL up costs more than the find), everything else detaches.

mod administration;
mod arguments;
mod calls;
mod clock;
mod convert;
mod error;
mod fork;
mod lease;
mod stores;
mod turn;

use pyo3::prelude::*;

/// The native half of the package `zoho_token_store`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::administration::{Administration, Finding, Imported, Record, Source, check, read_source};
    #[pymodule_export]
    use super::error::StoreError;
    #[pymodule_export]
    use super::lease::LeaseInfo;
    #[pymodule_export]
    use super::stores::{CustomStoreInMemory, CustomStoreList, CustomStoreSQLite, TokenStoreBase};

    use super::{Bound, PyModule, PyModuleMethods, PyResult, fork};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("__profile__", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        fork::register(module.py())
    }
}
