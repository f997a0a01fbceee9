//! What Python sees. Every method converts its arguments, works without Python objects, and converts the result.
//!
//! Three rules keep locks, forks and the GIL apart (`store/lock_order.rs` has the order of all locks):
//!
//! - No lock of a store is held while Python code runs. Operations take and return plain values.
//! - No thread waits for a lock while it holds the GIL. A find first tries without waiting
//!   ([`crate::store::Wait::No`]), because releasing the GIL costs more than the find. Every other operation releases
//!   the GIL (`detach`). The three locks of this layer are acquired with `lock_py_attached`, which releases the GIL
//!   while it waits.
//! - No Python object is made lazily (`intern!`, `PyOnceLock`, or a class that is not exported). PyO3 releases the GIL
//!   while it makes one, and a child that is forked at that moment would wait for it for ever. So names are plain strings.
//!   What is needed often is made when the module or the SDK is imported.

mod address;
mod administration;
mod arguments;
mod base;
mod caller_functions;
mod cell;
mod clock;
mod convert;
mod dictionaries;
mod error;
mod exit;
mod fork;
mod gil;
mod keys;
mod lease_guard;
#[cfg(feature = "postgres")]
mod password;
mod records;
mod refresh_ahead;
mod refresh_wait;
mod stores;
mod token_functions;

use pyo3::prelude::*;

/// The native half of the package `zoho_token_store`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::address::PyStoreAddress;
    #[pymodule_export]
    use super::administration::{Administration, PySource, check, init_sql, read_source, read_stdin, schema_version};
    #[pymodule_export]
    use super::base::TokenStoreBase;
    #[pymodule_export]
    use super::dictionaries::{token_from_dict, token_to_dict};
    #[pymodule_export]
    use super::error::error_codes;
    #[pymodule_export]
    use super::keys::{
        PyKeySource, PyPlaintext, PyRekeyed, key_environment, key_file, key_id, key_names, new_key, write_new_key,
    };
    #[pymodule_export]
    use super::records::{Imported, PyFinding, PyRefreshState, Record};
    #[pymodule_export]
    use super::refresh_ahead::{
        Refreshed, RowRefresh, find_to_refresh, is_refresh_wanted, log_refresh_ahead, report_refresh, save_refreshed,
        select_to_refresh,
    };
    #[pymodule_export]
    use super::refresh_wait::LeaseInfo;
    #[cfg(feature = "sqlite")]
    #[pymodule_export]
    use super::stores::{CustomStoreInMemory, CustomStoreSQLite};
    #[pymodule_export]
    use super::stores::{CustomStoreList, CustomStoreShared, StoreAtAddress};

    #[cfg(feature = "postgres")]
    #[pymodule_export]
    use super::stores::CustomStorePostgreSQL;
    use super::{Bound, PyModule, PyModuleMethods, PyResult, error, fork, keys, lease_guard};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("__profile__", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        error::register(module)?;
        keys::register(module)?;
        lease_guard::register(module.py());
        fork::register(module.py())
    }
}
