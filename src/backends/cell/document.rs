//! The document: what a cell holds. JSON Lines, as an export has them: a header, a line for each row, and a line for
//! each lease and each record of failures.
//!
//! It is ASCII text, so that any text column of a database can hold it. It is written as a whole, in a stable order:
//! the oldest row first, leases and failures by their keys. A reader refuses what it does not know, because it would
//! write back a document without it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::ser::Formatter;

use super::super::records::Records;
use super::lease_clock::{LeaseClock, Moment};
use super::marks::Marks;
use crate::domain::backoff::RefreshFailures;
use crate::domain::lease::Lease;
use crate::domain::saved_order;
use crate::store::backend::Location;
use crate::store::error::{Code, Error, Result};
use crate::store::transfer::{Exposed, parse_row};

/// The version of the format that this library writes, and the highest one that it reads.
pub const VERSION: i32 = 1;

/// What to do about a damaged document.
const RESTORE: &str = "Restore the document from an older version or a backup of the place that holds it.";

/// What the first line says it is.
const FORMAT: &str = "zoho-token-store";

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentHeader {
    format: String,
    version: i32,
    marks: Marks,
    /// The highest number that an id ever had.
    last_id: i64,
    /// The number of the last save.
    last_order: i64,
    /// The numbers of lines that follow. A document that was cut short has fewer.
    rows: usize,
    leases: usize,
    failures: usize,
    /// The names of the keys of sealed rows. A document without such rows has none, and a version of this library that
    /// does not know them refuses the document.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    key_names: BTreeSet<String>,
}

/// The part of the header that every version has.
#[derive(Deserialize)]
struct HeaderOfAnyVersion {
    format: String,
    version: i32,
}

/// A lease. A document has no time at which it ends: the clocks of two machines differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLease {
    #[serde(rename = "lease")]
    key: String,
    owner: String,
    /// How long it lasts.
    length_ms: i64,
    /// The mark of the change that acquired it.
    mark: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFailures {
    #[serde(rename = "failures")]
    key: String,
    count: u32,
    /// By the wall clock, like `last`.
    since: i64,
    last: i64,
    fingerprint: String,
}

/// A document that was read.
#[derive(Default)]
pub(super) struct Document {
    pub(super) records: Records,
    pub(super) marks: Marks,
    moment: Moment,
    /// The leases as they stand in the document, and as the requesters of this process see them.
    leases: BTreeMap<String, (StoredLease, Lease)>,
}

impl Document {
    /// The records of a place without a document.
    pub(super) fn empty(clock: &LeaseClock) -> Self {
        Self::at(clock.moment())
    }

    fn at(moment: Moment) -> Self {
        let mut document = Self { moment, ..Self::default() };
        document.records.now = Some(moment.now);
        document
    }

    /// Reads a document.
    pub(super) fn parse(text: &[u8], clock: &LeaseClock, location: &Location) -> Result<Self> {
        let other = |reason: &str| Error::new(Code::NotADocument, location).with(reason);
        let damaged = |reason: String| Error::new(Code::Damaged, location).with(reason).with_hint(RESTORE);
        let text = str::from_utf8(text).map_err(|_| other("it is no text"))?;
        let mut lines = (1..).zip(text.lines());
        let (_, first) = lines.next().ok_or_else(|| other("it is empty"))?;
        let header: HeaderOfAnyVersion =
            serde_json::from_str(first).map_err(|_| other("its first line does not say what it is"))?;
        if header.format != FORMAT {
            return Err(other("another program has written it"));
        }
        if header.version > VERSION {
            let versions = format!("format {} instead of {VERSION}", header.version);
            return Err(Error::new(Code::NewerSchema, location).with(versions));
        }
        let header: DocumentHeader =
            serde_json::from_str(first).map_err(|_| damaged("its first line cannot be read".to_owned()))?;
        if header.version < 1 {
            return Err(damaged(format!("there is no format {}", header.version)));
        }
        let mut document = Self::at(clock.moment());
        document.marks = header.marks;
        for (number, line) in lines {
            if let Some(row) = parse_row(line) {
                if row.id().is_empty() || document.records.position_of(row.id()).is_some() {
                    return Err(damaged(format!("line {number} has no id of its own")));
                }
                let position = document.records.next_position(&row);
                document.records.put(position, row);
            } else if let Ok(lease) = serde_json::from_str::<StoredLease>(line) {
                let until = clock.first_seen(&lease.mark, document.moment).saturating_add(lease.length_ms);
                let seen = Lease { owner: lease.owner.clone(), until };
                document.records.leases.insert(lease.key.clone(), seen.clone());
                document.leases.insert(lease.key.clone(), (lease, seen));
            } else if let Ok(StoredFailures { key, count, since, last, fingerprint }) = serde_json::from_str(line) {
                let (since, last) = (document.moment.local_time(since), document.moment.local_time(last));
                document.records.failures.insert(key, RefreshFailures { count, since, last, fingerprint });
            } else {
                // The message of serde may repeat a value.
                return Err(damaged(format!("line {number} cannot be read")));
            }
        }
        let records = &mut document.records;
        let counts = [records.rows.len(), records.leases.len(), records.failures.len()];
        if counts != [header.rows, header.leases, header.failures] {
            return Err(damaged("it does not have all the lines that its first line counts".to_owned()));
        }
        records.key_names = header.key_names;
        records.last_id = records.last_id.max(header.last_id);
        records.last_order = records.last_order.max(header.last_order);
        if records.last_id.max(records.last_order) > saved_order::MAX_RESTORED {
            // Another save would need a higher number.
            return Err(damaged("its ids or orders are too high".to_owned()));
        }
        clock.forget_old(&document.leases.values().map(|(lease, _)| lease.mark.as_str()).collect(), document.moment);
        Ok(document)
    }

    /// Writes the document after a change with this mark. The leases that the change has acquired begin now.
    pub(super) fn write(&self, mark: &str, clock: &LeaseClock) -> io::Result<Vec<u8>> {
        let Self { records, moment, .. } = self;
        let mut out = Vec::new();
        write_line(
            &mut out,
            &DocumentHeader {
                format: FORMAT.to_owned(),
                version: VERSION,
                marks: self.marks.with(mark),
                last_id: records.last_id,
                last_order: records.last_order,
                rows: records.rows.len(),
                leases: records.leases.len(),
                failures: records.failures.len(),
                key_names: records.key_names.clone(),
            },
        )?;
        for row in records.rows.values() {
            write_line(&mut out, &Exposed { row, with_order: true })?;
        }
        for (key, lease) in &records.leases {
            match self.leases.get(key) {
                Some((stored, seen)) if seen == lease => write_line(&mut out, stored)?,
                _ => {
                    clock.first_seen(mark, *moment);
                    let length_ms = lease.until.saturating_sub(moment.now);
                    let (key, owner, mark) = (key.clone(), lease.owner.clone(), mark.to_owned());
                    write_line(&mut out, &StoredLease { key, owner, length_ms, mark })?;
                }
            }
        }
        for (key, RefreshFailures { count, since, last, fingerprint }) in &records.failures {
            let (since, last) = (moment.wall_time(*since), moment.wall_time(*last));
            let (key, fingerprint) = (key.clone(), fingerprint.clone());
            write_line(&mut out, &StoredFailures { key, count: *count, since, last, fingerprint })?;
        }
        Ok(out)
    }
}

fn write_line(out: &mut Vec<u8>, line: &impl Serialize) -> io::Result<()> {
    line.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Ascii))?;
    out.push(b'\n');
    Ok(())
}

/// Writes JSON in one line, and every character outside ASCII as `\uXXXX`.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|character: char| !character.is_ascii()) {
            let (ascii, other) = rest.split_at(at);
            writer.write_all(ascii.as_bytes())?;
            let length = other.find(|character: char| character.is_ascii()).unwrap_or(other.len());
            let (other, after) = other.split_at(length);
            other.encode_utf16().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?;
            rest = after;
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Field, Row, Token};
    use crate::store::backend::{Snapshot, Transaction};

    const LOCATION: Location = Location::named("a test");
    const MARK: &str = "mark-1";

    fn clock() -> LeaseClock {
        LeaseClock::new(Box::new(|| Moment { now: 5_000, wall: 1_000_000 }))
    }

    fn row(values: &[(Field, &str)], order: i64) -> Row {
        let token = values.iter().fold(Token::default(), |token, &(field, value)| token.with(field, Some(value)));
        Row::new(token, order, Some(7))
    }

    fn sample(clock: &LeaseClock) -> Document {
        let mut document = Document::empty(clock);
        let records = &mut document.records;
        records.copy(&row(&[(Field::Id, "2"), (Field::UserName, "Zoë 🦆\n\"\0")], 4)).unwrap();
        records.copy(&row(&[(Field::Id, "1"), (Field::RefreshToken, "made-up")], 3)).unwrap();
        records.raise_last_id(9).unwrap();
        records.acquire_lease("id:1", &Lease { owner: "me".to_owned(), until: 15_000 }).unwrap();
        let failures = RefreshFailures { count: 2, since: 4_000, last: 4_500, fingerprint: "f".to_owned() };
        records.record_failures("id:2", &failures).unwrap();
        document
    }

    #[test]
    fn a_document_is_ascii_json_lines_in_a_stable_order() {
        let clock = clock();
        let written = sample(&clock).write(MARK, &clock).unwrap();
        let expected = concat!(
            r#"{"format":"zoho-token-store","version":1,"marks":["mark-1"],"last_id":9,"last_order":4,"#,
            r#""rows":2,"leases":1,"failures":1}"#,
            "\n",
            r#"{"id":"2","user_name":"Zo\u00eb \ud83e\udd86\n\"\u0000","saved_at":7,"saved_order":4}"#,
            "\n",
            r#"{"id":"1","refresh_token":"made-up","saved_at":7,"saved_order":3}"#,
            "\n",
            r#"{"lease":"id:1","owner":"me","length_ms":10000,"mark":"mark-1"}"#,
            "\n",
            r#"{"failures":"id:2","count":2,"since":999000,"last":999500,"fingerprint":"f"}"#,
            "\n",
        );
        assert_eq!(str::from_utf8(&written).unwrap(), expected);
        let read = Document::parse(&written, &clock, &LOCATION).unwrap();
        assert!(read.marks.contain(MARK));
        assert_eq!(read.records.rows[&1].get(Field::UserName), Some("Zoë 🦆\n\"\0"));
        let again = expected.replacen(r#""marks":["mark-1"]"#, r#""marks":["mark-2","mark-1"]"#, 1);
        let written = String::from_utf8(read.write("mark-2", &clock).unwrap()).unwrap();
        assert_eq!(written, again, "what was read is written again unchanged");
    }

    #[test]
    fn a_lease_lasts_from_when_it_was_first_seen_whatever_the_clock_of_its_holder() {
        let holder = clock();
        let written = sample(&holder).write(MARK, &holder).unwrap();
        let time = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(70_000));
        let seen = std::sync::Arc::clone(&time);
        // This machine's wall clock is a day behind.
        let waiter = LeaseClock::new(Box::new(move || Moment {
            now: seen.load(std::sync::atomic::Ordering::SeqCst),
            wall: 1_000_000 - 86_400_000,
        }));
        let until = || {
            let seen = Document::parse(&written, &waiter, &LOCATION).unwrap().records.lease("id:1").unwrap();
            (seen.lease.unwrap().until, seen.now)
        };
        assert_eq!(until(), (80_000, Some(70_000)));
        time.store(79_999, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(until(), (80_000, Some(79_999)));
    }

    #[test]
    fn what_is_no_whole_document_of_a_known_version_is_refused() {
        let clock = clock();
        let written = String::from_utf8(sample(&clock).write(MARK, &clock).unwrap()).unwrap();
        let mut lines: Vec<&str> = written.lines().collect();
        let without_last = lines[..lines.len() - 1].join("\n");
        let newer = written.replacen("\"version\":1", "\"version\":2,\"new\":[]", 1);
        let unknown = written.replacen("\"saved_at\"", "\"later\"", 1);
        let unknown_in_header = written.replacen("\"marks\"", "\"later\":1,\"marks\"", 1);
        let other = written.replacen("zoho-token-store", "other", 1);
        let version = |number| written.replacen("\"version\":1", &format!("\"version\":{number}"), 1);
        let (version_0, below_0) = (version(0), version(-1));
        let highest_id = written.replacen("\"last_id\":9", "\"last_id\":9223372036854775807", 1);
        let highest_order = written.replacen("\"saved_order\":4", "\"saved_order\":9223372036854775807", 1);
        lines.push(lines[1]);
        let twice = lines.join("\n");
        let table = [
            ("empty", "", Code::NotADocument),
            ("a word", "hello", Code::NotADocument),
            ("other JSON", "{\"rows\":1}\n{\"id\":\"1\"}", Code::NotADocument),
            ("another program", &other, Code::NotADocument),
            ("a newer version", &newer, Code::NewerSchema),
            ("cut short", &without_last, Code::Damaged),
            ("cut within a line", &written[..written.len() - 9], Code::Damaged),
            ("an unknown field of a row", &unknown, Code::Damaged),
            ("an unknown field of the header", &unknown_in_header, Code::Damaged),
            ("an id twice", &twice, Code::Damaged),
            ("version 0", &version_0, Code::Damaged),
            ("a version below 0", &below_0, Code::Damaged),
            ("no higher id", &highest_id, Code::Damaged),
            ("no higher order", &highest_order, Code::Damaged),
        ];
        for (case, text, code) in table {
            let error = Document::parse(text.as_bytes(), &clock, &LOCATION).err().unwrap();
            assert_eq!(error.code(), code, "{case}: {error}");
        }
        assert_eq!(Document::parse(b"\xFF", &clock, &LOCATION).err().unwrap().code(), Code::NotADocument);
    }
}
