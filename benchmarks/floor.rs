//! The lower bound for a find: a point `SELECT` by refresh token that copies ten strings, and nothing else.
//!
//! `floor FILE BATCHES CALLS` prints the nanoseconds per call of each batch. `make floor` builds it.
#![allow(clippy::print_stdout, reason = "the program prints its result")]

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

const KEYS: &str = "SELECT refresh_token FROM oauthtoken";
const SELECT: &str = "SELECT id, user_name, client_id, client_secret, refresh_token, access_token, grant_token, \
     expiry_time, redirect_url, api_domain FROM oauthtoken WHERE refresh_token = ?1";
const COLUMNS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, batches, calls] = arguments.as_slice() else {
        return Err("floor FILE BATCHES CALLS".into());
    };
    let (batches, calls): (usize, u32) = (batches.parse()?, calls.parse()?);
    let connection = Connection::open_with_flags(Path::new(file), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Err(format!("{file} is in mode {mode}, not in WAL").into());
    }
    let keys: Vec<String> = connection.prepare(KEYS)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare(SELECT)?;
    // The keys are drawn before the clock starts, because a caller of a store already has its key in memory.
    fastrand::seed(7);
    for _ in 0..batches {
        let drawn: Vec<&String> = (0..calls).map(|_| &keys[fastrand::usize(..keys.len())]).collect();
        let begun = Instant::now();
        for key in drawn {
            let mut rows = statement.query([key])?;
            let row = rows.next()?.ok_or("a key has no row")?;
            for column in 0..COLUMNS {
                black_box(row.get_ref(column)?.as_str_or_null()?.map(str::to_owned));
            }
        }
        println!("{:.1}", begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    Ok(())
}
