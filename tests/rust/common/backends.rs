//! The backends that the contract, lease and backup suites run on.

/// Calls the macro `$suite` once for each backend, with a name and a function from [`super::Setup`] to the backend.
///
/// To test another backend, add one line. Every backend has to pass every test of every suite.
macro_rules! for_each_backend {
    ($suite:ident) => {
        $suite!(list, |_| zoho_token_store::backends::list::List::new());
        $suite!(miniature, |setup| $crate::common::Miniature::new(setup.clock.clone()));
        $suite!(cell, |setup| $crate::common::cells::backend(
            $crate::common::cells::MemoryCell::default(),
            std::time::Duration::ZERO,
            &setup.clock
        ));
        $suite!(cell_with_cache, |setup| $crate::common::cells::backend(
            $crate::common::cells::MemoryCell::default(),
            std::time::Duration::from_mins(1),
            &setup.clock
        ));
        $suite!(cell_unreliable, |setup| $crate::common::cells::backend(
            $crate::common::cells::UnreliableCell($crate::common::cells::MemoryCell::default()),
            std::time::Duration::ZERO,
            &setup.clock
        ));
        #[cfg(all(unix, feature = "postgres"))]
        $suite!(postgres, |setup| $crate::common::postgres::TestPostgres::new(setup));
        #[cfg(feature = "sqlite")]
        $suite!(memory, |_| zoho_token_store::backends::sqlite::Memory::new().unwrap());
        #[cfg(feature = "sqlite")]
        $suite!(file, |setup| $crate::common::sqlite::with_journal(
            setup,
            zoho_token_store::backends::sqlite::Journal::Wal
        ));
        #[cfg(feature = "sqlite")]
        $suite!(file_without_wal, |setup| $crate::common::sqlite::with_journal(
            setup,
            zoho_token_store::backends::sqlite::Journal::Rollback
        ));
    };
}

/// Calls the macro `$suite` once for each kind of keys that a store can have, with a name, `$make` and the
/// [`super::TestKeys`].
macro_rules! for_all_keys {
    ($suite:ident, $make:expr) => {
        $suite!(plain, $make, $crate::common::TestKeys::Plain);
        $suite!(one_key, $make, $crate::common::TestKeys::One);
        $suite!(two_keys, $make, $crate::common::TestKeys::Two);
        $suite!(mixed, $make, $crate::common::TestKeys::Mixed);
    };
}

pub(crate) use {for_all_keys, for_each_backend};
