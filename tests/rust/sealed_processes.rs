//! Programs with different keys on one file at the same time, and a rotation that is killed at any point.
//!
//! Each program is this test binary, which runs the test [`program`] alone.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, thread};

use zoho_token_store::backends::sqlite::Sqlite;
use zoho_token_store::domain::key_ring::PLAINTEXT;
use zoho_token_store::domain::{Key, Row};
use zoho_token_store::store::backend::{Backend, Change, Durability, Location, Reading};
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::{Result, Store};

use super::common::keyed::{fixed, key_id};
use super::common::sqlite::open;
use super::common::{Folder, TIMEOUT, deadline, lines};
use super::rotation::{fill, positions};
use super::{ADA, find, hit, names, rotation_of, rounds_of_a_rollout, save};

/// What the program does: `rollout KEYS`, or `rotate KEYS POINT NUMBER`.
const TASK: &str = "TEST_SEALED_TASK";
/// The file that it works on.
const FILE: &str = "TEST_SEALED_FILE";
/// What it prints when it has reached the point where it is to be killed.
const REACHED: &str = "reached the point";

fn start(task: &str, path: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "sealed_processes::program", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .env(FILE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The body of each program. It is no test by itself.
#[test]
fn program() {
    let (Ok(task), Some(path)) = (env::var(TASK), env::var_os(FILE)) else { return };
    match *task.split(' ').collect::<Vec<_>>() {
        ["rollout", keys] => rounds_of_a_rollout(&open(Path::new(&path)).with_keys(fixed(keys)), keys, 25),
        ["rotate", keys, point, number] => {
            let sqlite = Sqlite::open(Path::new(&path), deadline()).unwrap();
            let stops = Stops { sqlite, at: point.to_owned(), left: AtomicUsize::new(number.parse().unwrap()) };
            rotation_of(&Store::new(Box::new(stops), TIMEOUT).with_keys(fixed(keys)));
        }
        _ => panic!("{task}"),
    }
}

/// A file that stops at a point: "before" the commit of a transaction, "after" it, or before its text is "scrub"bed.
struct Stops {
    sqlite: Sqlite,
    at: String,
    /// How many times it passes the point.
    left: AtomicUsize,
}

impl Stops {
    fn pass(&self, point: &str) {
        if self.at == point && self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            let mut output = io::stdout();
            writeln!(output, "{REACHED}").unwrap();
            output.flush().unwrap();
            // It is killed now. If not, it ends by itself.
            thread::sleep(TIMEOUT);
            std::process::exit(3);
        }
    }
}

impl Backend for Stops {
    fn location(&self) -> &Location {
        self.sqlite.location()
    }

    fn answers_at_once(&self) -> bool {
        true
    }

    fn by_key(&self, key: Key, value: &str, deadline: Deadline) -> Result<Vec<Row>> {
        self.sqlite.by_key(key, value, deadline)
    }

    fn read(&self, deadline: Deadline, work: &mut Reading<'_>) -> Result<()> {
        self.sqlite.read(deadline, work)
    }

    fn write(&self, deadline: Deadline, durability: Durability, work: &mut Change<'_>) -> Result<()> {
        self.sqlite.write(deadline, durability, &mut |rows| {
            work(rows)?;
            self.pass("before");
            Ok(())
        })?;
        self.pass("after");
        Ok(())
    }

    fn scrub(&self, deadline: Deadline) -> Result<()> {
        self.pass("scrub");
        self.sqlite.scrub(deadline)
    }
}

#[test]
fn no_program_of_a_rollout_misses_a_row_or_adds_one() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    save(&open(&path).with_keys(fixed("a")), ADA);
    let programs = ["a", "ab", "ba", "b"].map(|keys| (keys, start(&format!("rollout {keys}"), &path)));
    for (keys, program) in programs {
        let done = program.wait_with_output().unwrap();
        assert!(done.status.success(), "{keys}: {}", String::from_utf8_lossy(&done.stdout));
    }
    let store = open(&path).with_keys(fixed("ba"));
    assert_eq!(store.count().unwrap(), 1);
    assert!(find(&store, "refresh_token=r-ada").unwrap().is_some());
}

#[test]
fn a_rotation_that_is_killed_loses_nothing_and_goes_on() {
    const ROWS: usize = 120;
    // Three batches of rows, and the record of keys at the end.
    let transactions = (0..4).flat_map(|number| [("before", number), ("after", number)]);
    for (point, number) in transactions.chain([("scrub", 0)]) {
        let what = format!("killed {point} {number}");
        let folder = Folder::new();
        let path = folder.path("tokens.db");
        let backend: Arc<dyn Backend> = Arc::new(Sqlite::open(&path, deadline()).unwrap());
        fill(&backend, "p", ROWS);
        let before = (positions(&backend), lines(&open(&path).all().unwrap()));
        let mut program = start(&format!("rotate ap {point} {number}"), &path);
        let mut output = BufReader::new(program.stdout.take().unwrap()).lines();
        let is_reached = output.any(|line| line.unwrap().contains(REACHED));
        program.kill().unwrap();
        program.wait().unwrap();
        assert!(is_reached, "{what}");

        let store = open(&path).with_keys(fixed("ap"));
        for number in [1, 50, 51, 100, 101, 120] {
            assert_eq!(find(&store, &format!("refresh_token=r{number}")), hit(&format!("a{number}")), "{what}");
        }
        assert!((positions(&backend), lines(&store.all().unwrap())) == before, "{what}");
        let rewritten = if point == "before" { 50 * number } else { 50 * (number + 1) }.min(ROWS);
        let rewritten = if point == "scrub" { ROWS } else { rewritten };
        assert_eq!(store.key_usage().unwrap().get(PLAINTEXT).copied().unwrap_or_default(), ROWS - rewritten, "{what}");
        if rewritten > 0 {
            let other = open(&path).with_keys(fixed("bp"));
            assert!(find(&other, "refresh_token=none").is_err(), "{what}: the key is recorded");
        }
        assert_eq!(rotation_of(&store), (ROWS - rewritten, 0), "{what}");
        assert_eq!(names(&backend), [key_id('a')], "{what}");
        drop((store, backend));
        let is_left = |text: &str| folder.contents().iter().any(|(_, bytes)| contains(bytes, text.as_bytes()));
        // A client secret, which the tags and names of other columns do not contain.
        assert!(!is_left("made-up-secret"), "{what}");
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
