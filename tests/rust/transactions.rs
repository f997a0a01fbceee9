//! Rules of a backend's transactions (docs/contract.md, section 6). `contract.rs` runs them on every backend.

use std::sync::mpsc;
use std::thread;

use zoho_token_store::domain::Key;
use zoho_token_store::store::Error;
use zoho_token_store::store::backend::{Backend, Durability};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;

use super::common::{NOW, TIMEOUT, deadline, token};

/// A transaction of another thread that has inserted the row "held" and is not committed. `end` rolls it back.
struct OpenTransaction<'scope> {
    end: mpsc::Sender<()>,
    thread: thread::ScopedJoinHandle<'scope, ()>,
}

impl<'scope> OpenTransaction<'scope> {
    fn begin<'env>(scope: &'scope thread::Scope<'scope, 'env>, backend: &'env dyn Backend) -> Self {
        let (end, ended) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let thread = scope.spawn(move || {
            let result = backend.write(deadline(), Durability::Full, &mut |transaction| {
                transaction.insert(token("id=held access_token=a"), NOW)?;
                begun.send(()).unwrap();
                ended.recv_timeout(TIMEOUT).unwrap();
                Err(Error::invalid_argument("injected"))
            });
            assert!(result.is_err());
        });
        has_begun.recv_timeout(TIMEOUT).unwrap();
        Self { end, thread }
    }

    fn end(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

pub(super) fn a_failed_transaction_changes_nothing(backend: &dyn Backend) {
    backend
        .write(deadline(), Durability::Full, &mut |transaction| transaction.insert(token("id=1 refresh_token=r"), NOW))
        .unwrap();
    let failed = backend.write(deadline(), Durability::Full, &mut |transaction| {
        transaction.insert(token("id=2 refresh_token=s"), NOW)?;
        let row = transaction.by_key(Key::Id, "1")?.remove(0);
        transaction.update(&row, token("id=1 refresh_token=t"), NOW)?;
        transaction.delete("1")?;
        transaction.delete_all()?;
        transaction.insert(token("id=3 refresh_token=u"), NOW)?;
        Err(Error::invalid_argument("injected"))
    });
    assert_eq!(failed.unwrap_err().code(), Code::InvalidArgument, "the error of the work");
    backend
        .write(deadline(), Durability::Full, &mut |transaction| {
            assert_eq!((transaction.count()?, transaction.last_id()?), (1, 1));
            transaction.each(&mut |row| {
                assert_eq!(row.token(), token("id=1 refresh_token=r"));
                assert_eq!((row.saved_order, row.saved_at), (1, Some(NOW)));
                Ok(())
            })
        })
        .unwrap();
}

pub(super) fn an_uncommitted_change_is_invisible(backend: &dyn Backend) {
    thread::scope(|scope| {
        let transaction = OpenTransaction::begin(scope, backend);
        // A backend may make readers wait for the end of the transaction. Then nothing was seen either.
        match backend.by_key(Key::Id, "held", Deadline::now()) {
            Ok(rows) => assert!(rows.is_empty()),
            Err(error) => assert!(error.is_busy(), "{error}"),
        }
        transaction.end();
        assert!(backend.by_key(Key::Id, "held", deadline()).unwrap().is_empty());
    });
}

pub(super) fn a_caller_that_may_not_wait_fails_with_busy(backend: &dyn Backend) {
    thread::scope(|scope| {
        let transaction = OpenTransaction::begin(scope, backend);
        let refused = backend.write(Deadline::now(), Durability::Full, &mut |_| Ok(()));
        assert!(refused.is_err_and(|error| error.is_busy()));
        transaction.end();
    });
}

pub(super) fn a_caller_that_may_wait_gets_the_write_lock(backend: &dyn Backend) {
    thread::scope(|scope| {
        let transaction = OpenTransaction::begin(scope, backend);
        let waiting = scope.spawn(|| {
            backend.write(deadline(), Durability::Full, &mut |transaction| transaction.delete("held").map(drop))
        });
        transaction.end();
        waiting.join().unwrap().unwrap();
    });
}
