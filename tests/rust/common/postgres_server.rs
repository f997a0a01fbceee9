//! A PostgreSQL server of one test, which the test stops, kills or halts. `tests/postgres_server.py` keeps it, and ends
//! it when this process ends.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

pub(crate) struct Server {
    keeper: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Server {
    /// Starts a server. `settings` are lines of `postgresql.conf`.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres_server.py");
        let binaries = env::var("TEST_POSTGRES_BIN").unwrap_or_else(|_| {
            panic!(
                "These tests stop servers of their own: python tests/postgres_server.py -- cargo test … finds one, or set \
                 TEST_POSTGRES_BIN to the folder of postgres and initdb"
            )
        });
        let mut all = json!({
            "listen_addresses": "", "shared_buffers": "16MB", "max_connections": "20", "fsync": "off",
            "full_page_writes": "off", "jit": "off",
        });
        for (name, value) in settings {
            all[name] = json!(value);
        }
        let order = json!({"binaries": binaries, "settings": all, "access": []}).to_string();
        let mut keeper = Command::new(env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned()))
            .arg(script)
            .args(["--keep", &order])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (requests, answers) = (keeper.stdin.take(), BufReader::new(keeper.stdout.take().unwrap()));
        let mut server = Self { keeper, requests, answers, folder: PathBuf::new() };
        server.folder = server.answer()[0].as_str().unwrap().into();
        server.ask("start");
        server
    }

    /// The address of the database `postgres`, for the superuser.
    pub(crate) fn dsn(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.folder.display())
    }

    /// Asks the keeper: `start`, `stop fast`, `stop immediate`, `kill`, `pause` or `resume`.
    pub(crate) fn ask(&mut self, request: &str) {
        let requests = self.requests.as_mut().unwrap();
        writeln!(requests, "{request}").unwrap();
        requests.flush().unwrap();
        self.answer();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer[0], "done", "{line}");
        answer[1].clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its stdin is the request to end.
        drop(self.requests.take());
        let _ = self.keeper.wait();
    }
}
