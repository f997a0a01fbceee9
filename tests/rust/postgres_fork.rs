//! A store before and after a fork. A child must leave its parent's connections alone.
//!
//! Not a test harness: a child has only the thread that forked, so this program has only one when it forks.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![allow(clippy::wildcard_imports, reason = "the lint knows only tests with a harness")]

#[cfg(unix)]
mod common;

#[cfg(unix)]
fn main() {
    unix::main();
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod unix {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;
    use std::{process, thread};

    use fork::{Fork, WEXITSTATUS, WIFEXITED, fork, waitpid};
    use zoho_token_store::backends::postgres::Postgres;
    use zoho_token_store::store::deadline::Deadline;
    use zoho_token_store::store::{Store, Wait, fork as gate};

    use super::common::postgres::{Admin, Schema, address, dsn};
    use super::common::{NOW, TIMEOUT, deadline, token};

    /// Runs `work` in a child, and waits for it. With `has_hooks` the fork runs the hooks that Python runs. A fork in C
    /// code does not.
    fn in_child(has_hooks: bool, work: impl FnOnce()) {
        if has_hooks {
            gate::before();
        }
        match fork().unwrap() {
            Fork::Child => {
                if has_hooks {
                    gate::after_in_child();
                }
                work();
                process::exit(0);
            }
            Fork::Parent(child) => {
                if has_hooks {
                    gate::after_in_parent();
                }
                let status = waitpid(child).unwrap();
                assert!(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child has failed");
            }
        }
    }

    fn find(store: &Store) {
        assert!(store.find(token("refresh_token=r"), Wait::Yes).unwrap().is_some());
    }

    fn save(store: &Store) {
        assert_eq!(store.save(token("refresh_token=r access_token=a"), NOW).unwrap(), "1");
    }

    /// The sessions of the stores on the server.
    fn sessions(schema: &Schema) -> Vec<Vec<String>> {
        let name = &schema.0;
        let query = format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' ORDER BY pid");
        Admin::new().sql(&query)
    }

    /// What a child does with the store of its parent.
    type Work = fn(Store);

    /// A fork does not wait for an operation that waits for the program's own function.
    fn fork_while_an_operation_is_away() {
        let (is_away, starts) = mpsc::channel();
        let (has_forked, ends) = mpsc::channel();
        let operation = thread::spawn(move || {
            let _pass = gate::enter(deadline()).unwrap();
            let waited = gate::away(|| {
                is_away.send(()).unwrap();
                // Less than a fork waits for.
                ends.recv_timeout(Duration::from_secs(5))
            });
            waited.is_ok()
        });
        starts.recv().unwrap();
        gate::before();
        has_forked.send(()).unwrap();
        gate::after_in_parent();
        assert!(operation.join().unwrap(), "the fork has waited");
    }

    /// The function that returns the password may fork, too.
    fn fork_in_the_function_for_the_password(schema: &Schema) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let address = address(&dsn()).with_password(Arc::new(move || {
            in_child(true, || ());
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(String::new())
        }));
        let store = Store::open(TIMEOUT, |deadline| {
            Ok(Box::new(Postgres::open(address.clone(), schema.settings(), deadline)?))
        });
        save(&store.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    pub(super) fn main() {
        fork_while_an_operation_is_away();
        let schema = Schema::new();
        fork_in_the_function_for_the_password(&schema);
        let children: [(&str, Work); 5] = [
            ("does nothing", std::mem::forget),
            ("drops the store", drop),
            ("finds and saves", |store| {
                find(&store);
                save(&store);
            }),
            ("closes the store", |store| store.close()),
            ("forks again", |store| {
                find(&store);
                in_child(true, || find(&store));
                find(&store);
            }),
        ];
        for has_hooks in [true, false] {
            for (name, work) in children {
                let address = address(&format!("{} application_name={}", dsn(), schema.0));
                let backend = Postgres::open(address, schema.settings(), deadline()).unwrap();
                let store = Store::new(Box::new(backend), TIMEOUT);
                save(&store);
                let before = sessions(&schema);
                assert_eq!(before.len(), 1, "{name}");
                // The child gets the store of its parent, and may drop it.
                let mut store = Some(store);
                in_child(has_hooks, || work(store.take().unwrap()));
                let store = store.unwrap();
                find(&store);
                save(&store);
                // A session of the child ends a moment after it.
                let end = Deadline::after(TIMEOUT);
                while sessions(&schema).len() > 1 && end.sleep(1_000..5_000) {}
                assert_eq!(sessions(&schema), before, "a child that {name} has ended a session of its parent");
                store.close();
                while !sessions(&schema).is_empty() {
                    assert!(end.sleep(1_000..5_000), "a session is left");
                }
            }
        }
    }
}
