//! Two groups of tests. The first shows on the backend in miniature what a backend on a server needs beyond the
//! contract. The second compares the section "How to add a backend" of CONTRIBUTING.md with the sources that it
//! explains.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Clock, Folder, Miniature, NOW, TIMEOUT, token};
use zoho_token_store::backends::list::List;
use zoho_token_store::domain::Row;
use zoho_token_store::domain::lease::{Requester, Settings};
use zoho_token_store::store::administration::ImportCounts;
use zoho_token_store::store::backend::{Backend, Durability};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::Code;
use zoho_token_store::store::lease::{Lookup, Outcome};
use zoho_token_store::store::{Store, Wait};

mod a_backend_on_a_server {
    use super::*;

    const EXPIRED: &str = "user_name=ada client_id=c refresh_token=r access_token=old expiry_time=1";

    /// A store over a new server with one expired row, and the server's counter of round trips.
    fn store() -> (Store, Arc<AtomicUsize>) {
        let server = Miniature::new(Clock::new());
        let round_trips = Arc::clone(&server.network.round_trips);
        let store = Store::new(Box::new(server), TIMEOUT).with_refresh_settings(Settings::new(Duration::from_secs(10)));
        store.save(token(EXPIRED), NOW).unwrap();
        (store, round_trips)
    }

    /// Runs `work`, and returns the number of its round trips.
    fn round_trips(counter: &AtomicUsize, work: impl FnOnce()) -> usize {
        let before = counter.load(Ordering::SeqCst);
        work();
        counter.load(Ordering::SeqCst) - before
    }

    #[test]
    fn a_find_makes_one_round_trip_for_all_keys() {
        let (store, counter) = store();
        // Only the last of two keys finds the row.
        let keys = token("id=9 refresh_token=r user_name=ada");
        let find = || assert!(store.find(keys, Wait::Yes).unwrap().is_some());
        assert_eq!(round_trips(&counter, find), 1);
        let find_by_id = || assert!(store.find_by_id(Some("1"), Wait::Yes).unwrap().is_some());
        assert_eq!(round_trips(&counter, find_by_id), 1);
    }

    #[test]
    fn a_find_makes_two_round_trips_if_one_of_the_tokens_finds_nothing() {
        // It may be that of a sealed row. This store has no keys, so it looks whether there is any.
        let (store, counter) = store();
        let find = || assert!(store.find(token("grant_token=g refresh_token=r"), Wait::Yes).unwrap().is_some());
        assert_eq!(round_trips(&counter, find), 2);
    }

    #[test]
    fn a_lost_connection_costs_time_and_no_error() {
        let (store, counter) = store();
        let find = || assert!(store.find(token("refresh_token=r"), Wait::Yes).unwrap().is_some());
        let costs: Vec<_> = (0..8).map(|_| round_trips(&counter, find)).collect();
        // The save was the first session. Every fourth session is lost. The second lost one has no second request.
        assert_eq!(costs, [1, 1, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_caller_that_may_not_wait_makes_no_round_trip() {
        let (store, counter) = store();
        let find = || assert!(store.find(token("refresh_token=r"), Wait::No).is_err_and(|error| error.is_busy()));
        assert_eq!(round_trips(&counter, find), 0);
    }

    #[test]
    fn a_backend_that_keeps_losing_connections_is_busy_at_the_deadline() {
        let server = Miniature::new(Clock::new());
        let attempt = || server.write(Deadline::after(Duration::ZERO), Durability::Full, &mut |_| Ok(()));
        let codes: Vec<_> = (0..4).map(|_| attempt().err().map(|error| error.code())).collect();
        assert_eq!(codes, [None, None, None, Some(Code::Busy)]);
    }

    /// `clock` is the clock of the machine that asks.
    fn outcome(store: &Store, process: &str, clock: i64) -> Outcome {
        let requester = Requester::new(process, 0, 0, true);
        store.try_acquire(Lookup::Id(Some("1")), &requester, 1, &|| clock, TIMEOUT).unwrap().outcome
    }

    #[test]
    fn the_servers_clock_decides_whether_a_lease_is_valid() {
        const HOUR_MS: i64 = 3_600_000;
        let (store, _) = store();
        assert!(matches!(outcome(&store, "1-a", NOW), Outcome::Refresh(_)));
        // By each of these clocks the lease has expired, or it ends too far in the future to be valid.
        for clock in [NOW - HOUR_MS, NOW, NOW + HOUR_MS / 2, NOW + 2 * HOUR_MS] {
            assert!(matches!(outcome(&store, "2-b", clock), Outcome::Wait(..)), "{clock}");
        }
    }

    #[test]
    fn a_lease_expires_by_the_servers_clock() {
        let clock = Clock::new();
        let server = Miniature::new(clock.clone());
        let store = Store::new(Box::new(server), TIMEOUT).with_refresh_settings(Settings::new(Duration::from_secs(10)));
        store.save(token(EXPIRED), NOW).unwrap();
        assert!(matches!(outcome(&store, "1-a", NOW), Outcome::Refresh(_)));
        clock.set(NOW + 9_999);
        assert!(matches!(outcome(&store, "2-b", NOW), Outcome::Wait(..)));
        clock.set(NOW + 10_000);
        assert!(matches!(outcome(&store, "2-b", NOW), Outcome::Refresh(_)));
    }

    #[test]
    fn a_lease_is_released_even_if_the_answer_to_its_commit_was_lost() {
        // Each time another request is lost. One of them is the commit of the lease.
        for finds in 0..16 {
            let (store, _) = store();
            for _ in 0..finds {
                store.find_by_id(Some("1"), Wait::Yes).unwrap();
            }
            let requester = Requester::new("1-a", 0, 0, true);
            assert!(matches!(outcome(&store, "1-a", NOW), Outcome::Refresh(_)));
            let fresh = token("id=1 access_token=new expiry_time=1795303600000");
            let (_, released) = store.save_and_release(fresh, NOW, requester.owner(), None).unwrap();
            assert_eq!(released.len(), 1, "{finds}");
        }
    }

    #[test]
    fn an_import_counts_its_changes_even_if_the_answer_to_its_commit_was_lost() {
        let table = [
            ("id=9 refresh_token=new", ImportCounts { new: 1, ..ImportCounts::default() }),
            ("refresh_token=r redirect_url=added", ImportCounts { updated: 1, ..ImportCounts::default() }),
        ];
        // Each time another request is lost. One of them is the commit of the import.
        for (finds, (values, expected)) in (0..16).flat_map(|finds| table.map(|case| (finds, case))) {
            let (store, _) = store();
            for _ in 0..finds {
                store.find_by_id(Some("1"), Wait::Yes).unwrap();
            }
            let report = store.import_rows(&[Row::new(token(values), 0, None)], NOW).unwrap();
            assert_eq!(report.counts, expected, "{finds}: {values}");
        }
    }

    #[test]
    fn an_import_says_the_same_if_the_answer_to_its_commit_was_lost() {
        // The second row replaces the first one, which a repeated import would leave out.
        let rows: Vec<Row> = [
            "id=5 user_name=bob client_id=c refresh_token=b1 access_token=a1 expiry_time=1",
            "id=6 user_name=bob client_id=c refresh_token=b2 access_token=a2 expiry_time=2",
            "id=7 user_name=eve client_id=c refresh_token=e",
        ]
        .map(|values| Row::new(token(values), 0, None))
        .into();
        let expected = Store::new(Box::new(List::new()), TIMEOUT).import_rows(&rows, NOW).unwrap();
        for finds in 0..16 {
            let (store, _) = store();
            for _ in 0..finds {
                store.find_by_id(Some("1"), Wait::Yes).unwrap();
            }
            assert_eq!(store.import_rows(&rows, NOW).unwrap(), expected, "{finds}");
        }
    }

    #[test]
    fn a_removal_counts_even_if_the_answer_to_its_commit_was_lost() {
        type Removal = fn(&Store) -> bool;
        let removals: [Removal; 2] =
            [|store| store.delete(Some("1")).unwrap(), |store| store.refuse("old", NOW).unwrap()];
        // Each time another request is lost. One of them is the commit.
        for (finds, remove) in (0..16).flat_map(|finds| removals.map(|remove| (finds, remove))) {
            let (store, _) = store();
            for _ in 0..finds {
                store.find_by_id(Some("1"), Wait::Yes).unwrap();
            }
            assert!(remove(&store), "{finds}");
            assert!(!remove(&store), "{finds}");
        }
    }

    #[test]
    fn a_backup_needs_a_format_of_database_files() {
        let (store, _) = store();
        let folder = Folder::new();
        let path = folder.path("backup.db");
        assert_eq!(store.backup(&path, None).unwrap_err().code(), Code::Unsupported);
        assert!(folder.names().is_empty());
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn a_backup_copies_row_by_row() {
        use zoho_token_store::store::transfer;

        let folder = Folder::new();
        let path = folder.path("backup.db");
        assert!(!Miniature::new(Clock::new()).online_backup(&path, common::deadline()).unwrap());
        let (store, _) = store();
        common::back_up(&store, &path).unwrap();
        let source = transfer::read(&path, zoho_token_store::backends::DATABASE_FORMATS).unwrap();
        assert_eq!(common::lines(&source.rows), [format!("id=1 {EXPIRED}")]);
        assert_eq!(source.last_id, 1);
    }
}

mod the_guide {
    use std::collections::BTreeSet;

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(ROOT).join(path)).unwrap().replace("\r\n", "\n")
    }

    /// The section "How to add a backend" of CONTRIBUTING.md.
    fn section() -> String {
        let page = read("CONTRIBUTING.md");
        let (_, rest) = page.split_once("\n## How to add a backend\n").unwrap();
        rest.split_once("\n## ").unwrap().0.to_owned()
    }

    /// The code blocks of the section, and its text without them.
    fn blocks() -> (Vec<String>, String) {
        let section = section();
        let parts: Vec<_> = section.split("```").collect();
        let (text, code): (Vec<_>, Vec<_>) = parts.iter().enumerate().partition(|(number, _)| number % 2 == 0);
        let code = code.iter().map(|(_, block)| block.strip_prefix("rust\n").unwrap().to_owned()).collect();
        (code, text.iter().map(|(_, part)| **part).collect())
    }

    /// The texts between backticks.
    fn names() -> BTreeSet<String> {
        let (_, text) = blocks();
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The methods of the traits in `backend.rs`, and whether a backend must have them.
    fn methods() -> BTreeSet<(String, bool)> {
        let source = read("src/store/backend.rs");
        let mut methods = BTreeSet::new();
        for part in source.split("\npub trait ").skip(1) {
            let name = part.split([':', ' ']).next().unwrap();
            let body = part.split("\n}\n").next().unwrap();
            for method in body.split("\n    fn ").skip(1) {
                let is_required = method.chars().find(|char| [';', '{'].contains(char)) == Some(';');
                methods.insert((format!("{name}::{}", method.split(['(', '<']).next().unwrap()), is_required));
            }
        }
        methods
    }

    #[test]
    fn its_table_has_every_method_of_the_traits() {
        let mut table = BTreeSet::new();
        for line in section().lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let is_required = match cells[2] {
                "must have it" => true,
                "can have it" => false,
                other => panic!("{other}"),
            };
            assert!(!cells[3].is_empty(), "{line}");
            table.insert((cells[1].trim_matches('`').to_owned(), is_required));
        }
        assert_eq!(table, methods());
        assert!(table.len() > 20);
    }

    #[test]
    fn its_code_is_the_code_of_the_backend_in_miniature() {
        let files = ["tests/rust/miniature.rs", "tests/rust/common/network.rs", "tests/rust/common/backends.rs"];
        let sources = files.map(read);
        let (code, _) = blocks();
        assert!(code.len() >= 4);
        for block in code {
            assert!(sources.iter().any(|source| source.contains(&block)), "{block}");
        }
    }

    #[test]
    fn every_file_that_it_names_exists() {
        let files: Vec<_> = names().into_iter().filter(|name| name.contains('/') || name == "Cargo.toml").collect();
        assert!(files.len() > 15);
        for file in files {
            assert!(Path::new(ROOT).join(&file).exists(), "{file}");
        }
    }

    #[test]
    fn every_item_that_it_names_exists() {
        let names = names();
        let is_file = |name: &&String| name.contains('/') || *name == "Cargo.toml";
        let sources: Vec<String> = names
            .iter()
            .filter(is_file)
            .filter(|file| Path::new(ROOT).join(file).is_file())
            .map(|file| read(file))
            .chain([read("src/store/deadline.rs"), read("Makefile")])
            .collect();
        let methods = methods();
        for name in names.iter().filter(|name| !is_file(name)) {
            let defines = |source: &String| match name.split_once("::").map_or(&**name, |(_, item)| item) {
                target if target.starts_with("make ") => source.contains(&format!("\n{}:", &target[5..])),
                item => ["fn ", "struct ", "enum ", "trait "]
                    .iter()
                    .map(|kind| format!("{kind}{item}"))
                    .chain([format!("    {item},"), format!("    {item} \"")])
                    .any(|definition| source.contains(&definition)),
            };
            let is_method = methods.iter().any(|(method, _)| method == name);
            assert!(is_method || sources.iter().any(defines), "{name}");
        }
    }

    #[test]
    fn every_suite_that_it_names_runs_on_the_list_of_backends() {
        for suite in ["contract", "lease", "backup"] {
            let path = format!("tests/rust/{suite}.rs");
            assert!(names().contains(&path), "{path}");
            assert!(read(&path).contains("\ncommon::for_each_backend!(suite);\n"), "{path}");
        }
    }
}
