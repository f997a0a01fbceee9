//! `docs/troubleshooting.md` has an entry for each error of the catalogue and for each finding, with its text and its
//! hint, and no other entries among them. `tests/test_troubleshooting.py` compares the rest of the page.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use common::{NOW, token};
use zoho_token_store::domain::check::{Finding, RowChecker, failed_saves};
use zoho_token_store::domain::key_ring::{PLAINTEXT, Ring, RingEntry};
use zoho_token_store::domain::seal_key::SealKey;
use zoho_token_store::domain::{Field, Row};
use zoho_token_store::store::Error;
use zoho_token_store::store::error::{Code, PAIR_KEPT};

/// An entry of the page.
struct Entry {
    /// The heading.
    code: String,
    /// The lines that are quoted first, as one paragraph for each message.
    quotes: Vec<String>,
    /// The text below.
    explanation: String,
}

/// The entries of one section of the page.
fn entries(section: &str) -> Vec<Entry> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md");
    let page = fs::read_to_string(page).unwrap().replace("\r\n", "\n");
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    section.split("\n### ").skip(1).map(entry).collect()
}

fn entry(text: &str) -> Entry {
    let (code, body) = text.split_once('\n').unwrap();
    let mut lines = body.lines().skip_while(|line| line.is_empty());
    let marked: Vec<_> = lines.by_ref().map_while(|line| line.strip_prefix('>')).map(str::trim).collect();
    let quotes = marked.split(|line| line.is_empty()).map(|lines| lines.join(" ")).collect();
    Entry { code: code.to_owned(), quotes, explanation: lines.collect::<Vec<_>>().join("\n").trim().to_owned() }
}

/// The message of an error, with dots for what differs.
fn message(code: Code) -> String {
    let subject = if code.text().starts_with("{}") { "" } else { "…" };
    Error::new(code, subject).with("…").to_string()
}

#[test]
fn each_error_of_the_catalogue_has_an_entry_with_its_text_and_hint() {
    let entries = entries("Errors");
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(entries.iter().map(|entry| &entry.code).collect::<Vec<_>>(), codes, "in the order of the catalogue");
    for (entry, &code) in entries.iter().zip(Code::ALL) {
        assert_eq!(entry.quotes, [message(code)], "{}", entry.code);
        assert!(entry.quotes[0].contains(code.hint()) && !entry.explanation.is_empty(), "{}", entry.code);
    }
}

#[test]
fn the_page_explains_that_a_pair_was_kept() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/troubleshooting.md")).unwrap();
    assert!(page.lines().any(|line| line.strip_prefix("> ") == Some(PAIR_KEPT)));
}

/// The message and the hint of a finding as the page quotes them.
fn quotes(finding: &Finding, subject: &str) -> [String; 2] {
    [finding.message.replace(subject, "…"), format!("Fix: {}", finding.hint)]
}

fn row_findings() -> impl Iterator<Item = (&'static str, [String; 2])> {
    let rows = [
        "id=1 user_name=u refresh_token=r",
        "id=2 user_name=u refresh_token=s",
        "id=3 refresh_token=t access_token=a",
        "id=4 refresh_token=u access_token=b expiry_time=9000000000000",
        "id=5 access_token=c expiry_time=1",
        "id=6 user_name=v",
        "id=7 refresh_token=w access_token=d expiry_time=soon",
        "id=8 access_token=d expiry_time=1795300000001",
    ];
    let mut checker = RowChecker::new(NOW);
    for row in rows {
        checker.add(&Row::new(token(row), 1, None));
    }
    let subject = |finding: &Finding| if finding.ids.len() == 1 { "1 row" } else { "2 rows" };
    let of_rows =
        checker.findings().into_iter().map(move |finding| (finding.code, quotes(&finding, subject(&finding))));
    let failed = failed_saves(9, "disk-full").map(|mut finding| {
        finding.message = finding.message.replace("disk-full", "…");
        (finding.code, quotes(&finding, "9"))
    });
    of_rows.chain(sealing_findings()).chain(failed)
}

/// What a check finds about how rows are stored, apart from the code of an error.
fn sealing_findings() -> impl Iterator<Item = (&'static str, [String; 2])> {
    let key = |byte| RingEntry::Key(Box::new(SealKey::derive(&[byte; 32]).unwrap()));
    let (first, old) = (Ring::new(vec![key(1), key(2)]).unwrap(), Ring::new(vec![key(2)]).unwrap());
    let clear = token("id=1 refresh_token=r");
    let sealed = old.seal(clear, [0; 12]).unwrap().unwrap();
    let altered = sealed.stored(clear).with(Field::Id, Some("2"));
    let mut checker = RowChecker::new(NOW);
    for row in [clear, sealed.stored(clear), altered] {
        checker.add_stored(&first, Row::new(row, 1, None));
    }
    // The two rows that can be read are one login.
    let mut findings = checker.all_findings(&first);
    findings.retain(|finding| finding.code != "duplicate");
    let mut unfinished = RowChecker::new(NOW);
    unfinished.add_record(Some(&BTreeSet::from([PLAINTEXT.to_owned()])));
    findings.extend(unfinished.all_findings(&first));
    assert_eq!(findings.len(), 4);
    let id = old.writes().to_owned();
    findings.into_iter().map(move |mut finding| {
        finding.message = finding.message.replace(&id, "…");
        (finding.code, quotes(&finding, "1 row"))
    })
}

/// What a check finds in files, apart from errors and from rows.
#[cfg(feature = "sqlite")]
fn file_findings() -> Vec<(&'static str, [String; 2])> {
    use zoho_token_store::backends::sqlite::{Journal, check};
    use zoho_token_store::store::backend::Backend;

    let setup = common::Setup::new();
    let older = setup.folder.with_sample();
    #[cfg(unix)]
    fs::set_permissions(&older, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut findings = check(&older, NOW, &Ring::clear_text()).unwrap();
    let without_wal = common::sqlite::with_journal(&setup, Journal::Rollback);
    findings.extend(without_wal.check(common::deadline()).unwrap());
    let subject = |finding: &Finding| {
        let path = if finding.code == "no-wal" { setup.folder.path("tokens.db") } else { older.clone() };
        path.display().to_string()
    };
    findings.iter().map(|finding| (finding.code, quotes(finding, &subject(finding)))).collect()
}

/// What a check finds on a server, apart from errors and from rows.
#[cfg(all(unix, feature = "postgres"))]
fn server_findings() -> Vec<(&'static str, [String; 2])> {
    use common::postgres::{Admin, Schema, address, dsn, open};
    use zoho_token_store::backends::postgres::check;
    use zoho_token_store::store::backend::Backend;

    let schema = Schema::new();
    let check_with = |option: &str| {
        let address = address(&format!("{} options='-c {option}'", dsn()));
        check(&address, Some(&schema.0), NOW, &Ring::clear_text(), common::deadline()).unwrap()
    };
    let mut findings = check_with("jit=off");
    let opened = open(&schema);
    findings.extend(check_with("synchronous_commit=off"));
    findings.extend(check_with("default_transaction_read_only=on"));
    Admin::new().sql(&format!("DROP INDEX {}.zoho_token_user_name", schema.0));
    findings.extend(check_with("jit=off"));
    let admin = Admin::new();
    let (role, owner) = (format!("{}_role", schema.0), format!("{}_owner", schema.0));
    admin.sql(&format!(
        "CREATE ROLE {role} LOGIN; CREATE ROLE {owner}; GRANT USAGE ON SCHEMA {0} TO {role}; \
         GRANT CREATE ON SCHEMA {0} TO {owner}; GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO {role}; \
         ALTER TABLE {0}.zoho_token_lease OWNER TO {owner}",
        schema.0
    ));
    let checked = check(
        &address(&format!("{} user={role}", dsn())),
        Some(&schema.0),
        NOW,
        &Ring::clear_text(),
        common::deadline(),
    );
    admin.sql(&format!("DROP OWNED BY {role}, {owner}; DROP ROLE {role}; DROP ROLE {owner}"));
    findings.extend(checked.unwrap().into_iter().filter(|finding| finding.code != "changed-tables"));
    let location = opened.location().to_string();
    let quote = |finding: &Finding| {
        let [message, fix] = quotes(finding, &location);
        let what = [format!("\"{}\"", schema.0), "zoho_token_user_name".to_owned(), owner.clone()];
        let message = what.iter().fold(message, |message, what| message.replace(what, "…"));
        // Which rights these are is another test's subject.
        let message = match message.split_once("that a store needs: ") {
            Some((begin, _)) => format!("{begin}that a store needs: …"),
            None => message,
        };
        (finding.code, [message, fix])
    };
    findings.iter().map(quote).collect()
}

#[test]
fn each_finding_has_an_entry_with_its_text_and_hint() {
    let mut entries: BTreeMap<_, _> =
        entries("Findings of `check`").into_iter().map(|entry| (entry.code, entry.quotes)).collect();
    let findings = row_findings();
    #[cfg(feature = "sqlite")]
    let findings = findings.chain(file_findings());
    #[cfg(all(unix, feature = "postgres"))]
    let findings = findings.chain(server_findings());
    for (code, quotes) in findings {
        assert_eq!(entries.remove(code).unwrap(), quotes, "{code}");
    }
    // No test can make a file system of another machine.
    assert!(entries.remove("network-file-system").is_some());
    // This needs a server with another clock. `tests/postgres/test_store.py` has one.
    assert!(entries.remove("clock-off").is_some());
    // No test can make a connection to another machine.
    assert!(entries.remove("no-tls").is_some());
    if cfg!(not(feature = "postgres")) {
        for code in [
            "missing-tables",
            "changed-tables",
            "missing-rights",
            "other-owner",
            "no-synchronous-commit",
            "read-only-server",
        ] {
            assert!(entries.remove(code).is_some(), "{code}");
        }
    }
    if cfg!(all(feature = "sqlite", unix)) {
        assert!(entries.is_empty(), "{:?}", entries.keys());
    }
}
