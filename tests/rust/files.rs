//! Files that are only looked at: what is imported from and exported to them, and what a check finds in them.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use zoho_token_store::backends::DATABASE_FORMATS;
use zoho_token_store::backends::sqlite::{Journal, Sqlite, check};
use zoho_token_store::domain::check::Severity;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::Store;
use zoho_token_store::store::deadline::Deadline;
use zoho_token_store::store::error::{Code, Result};
use zoho_token_store::store::files::Existing;
use zoho_token_store::store::transfer::{self, Source, SourceKind};

const NOW: i64 = 1_795_300_000_000;
const TIMEOUT: Duration = Duration::from_secs(20);
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
const HEADER: &str =
    "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn with(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    fn with_sample(&self) -> PathBuf {
        self.with("zohooauth.db", fs::read(format!("{DATA}sample-zohooauth.db")).unwrap())
    }

    /// Every file's name and contents.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn open(path: &Path) -> Store {
    Store::new(Box::new(Sqlite::open(path, Deadline::after(TIMEOUT)).unwrap()), TIMEOUT)
}

fn read(path: &Path) -> Result<Source> {
    transfer::read(path, DATABASE_FORMATS)
}

fn write(path: &Path, rows: &[Row], existing: Existing) -> Result<()> {
    transfer::write(path, rows, existing, DATABASE_FORMATS)
}

fn back_up(store: &Store, target: &Path) -> Result<()> {
    store.backup(target, DATABASE_FORMATS.first().copied())
}

fn token(values: &str) -> Token<'_> {
    Token::from_fn(|field| values.split(' ').find_map(|value| value.strip_prefix(field.name())?.strip_prefix('=')))
}

fn lines(rows: &[Row]) -> Vec<String> {
    let line = |row: &Row| {
        let values = Field::ALL.into_iter().filter_map(|field| Some(format!("{}={}", field.name(), row.get(field)?)));
        values.collect::<Vec<_>>().join(" ")
    };
    rows.iter().map(line).collect()
}

/// What reading a file complains of. It repeats nothing of what is in the file.
#[track_caller]
fn refused(path: &Path, code: Code, detail: &str) {
    let Err(error) = read(path) else { panic!("{} was read", path.display()) };
    let message = error.to_string();
    assert_eq!(error.code(), code, "{message}");
    assert!(message.contains(detail) && message.contains(path.to_str().unwrap()), "{message}");
    assert!(!message.contains("planted"), "{message}");
}

#[test]
fn each_kind_of_file_is_known_by_what_is_in_it() {
    let folder = Folder::new();
    let source = read(Path::new(&format!("{DATA}filestore-sdk_tokens.txt"))).unwrap();
    assert_eq!((source.kind, source.rows.len()), (SourceKind::FileStore, 41));
    assert_eq!(source.rows[0].get(Field::RedirectUrl), Some("https://app.example.com/oauth"));
    assert_eq!(source.rows[0].get(Field::GrantToken), None);
    let sample = folder.with_sample();
    let before = folder.contents();
    let from_sample = read(&sample).unwrap();
    assert_eq!((from_sample.kind, from_sample.rows.len()), (SourceKind::Database("SQLite"), 10));
    assert!(folder.contents() == before, "a file that is read stays as it is");
    assert_eq!(lines(&from_sample.rows), lines(&open(&sample).all().unwrap()));
}

#[test]
fn an_export_holds_every_value_and_is_its_owners_alone() {
    let folder = Folder::new();
    let path = folder.path("tokens.jsonl");
    let awkward = "O'Brien\n\"\0\u{1F511},{}";
    let every = Token::from_fn(|field| Some(field.name())).with(Field::UserName, Some(awkward));
    let rows = [Row::new(every, 3, Some(NOW)), Row::new(token("id=2 refresh_token=r"), 1, None)];
    write(&path, &rows, Existing::Keep).unwrap();
    let source = read(&path).unwrap();
    assert_eq!((source.kind, lines(&source.rows)), (SourceKind::JsonLines, lines(&rows)));
    assert_eq!(source.rows.iter().map(|row| row.saved_at).collect::<Vec<_>>(), [Some(NOW), None]);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    let before = folder.contents();
    assert_eq!(write(&path, &rows[1..], Existing::Keep).unwrap_err().code(), Code::FileExists);
    assert!(folder.contents() == before);
    write(&path, &rows[1..], Existing::Replace).unwrap();
    assert_eq!(read(&path).unwrap().rows.len(), 1);
    assert_eq!(folder.contents().len(), 1, "no draft is left");
}

#[test]
fn an_export_goes_nowhere_but_into_a_file() {
    let folder = Folder::new();
    let database = good(&folder);
    let before = fs::read(&database).unwrap();
    for (path, code) in [
        (database.clone(), Code::TargetIsDatabase),
        (folder.path("."), Code::IsFolder),
        (folder.path("no/x"), Code::MissingFolder),
        // Over the first of these it would take what was saved last away from who uses the database.
        (folder.path("tokens.db-wal"), Code::ReservedName),
        (folder.path("tokens.db-journal"), Code::ReservedName),
    ] {
        assert_eq!(write(&path, &[], Existing::Replace).unwrap_err().code(), code, "{}", path.display());
    }
    assert!(fs::read(&database).unwrap() == before);
}

#[test]
fn a_file_of_nine_columns_and_one_of_ten_are_read() {
    let folder = Folder::new();
    let row = "1,ada,c,s,r,a,,5,https://app.example.com";
    let nine = folder.with("nine.txt", format!("{HEADER}\r\n{row}\r\n\r\n"));
    let ten = folder.with("ten.txt", format!("{HEADER},api_domain\n{row},https://www.zohoapis.eu\n"));
    let mixed = folder.with("mixed.txt", format!("{HEADER}\n{row},https://www.zohoapis.eu\n"));
    let older = folder.with("older.txt", format!("{}\n{row}\n", HEADER.replace("user_name", "user_mail")));
    let wanted = "id=1 user_name=ada client_id=c client_secret=s refresh_token=r access_token=a expiry_time=5 \
                  redirect_url=https://app.example.com";
    for path in [&nine, &mixed, &older] {
        assert_eq!(lines(&read(path).unwrap().rows), [wanted], "{}", path.display());
    }
    assert_eq!(lines(&read(&ten).unwrap().rows), [format!("{wanted} api_domain=https://www.zohoapis.eu")]);
    let empty = folder.with("empty.txt", format!("{HEADER}\n"));
    assert!(read(&empty).unwrap().rows.is_empty());
}

#[test]
fn what_is_no_file_of_tokens_is_refused_and_nothing_of_it_repeated() {
    let folder = Folder::new();
    let json = r#"{"refresh_token":"planted-1"}"#;
    let good = "1,u,c,s,r,a,g,5,https://app.example.com";
    let table: [(&str, Vec<u8>, Code, &str); 15] = [
        ("text", b"planted".to_vec(), Code::NotATokenFile, ""),
        ("nothing", Vec::new(), Code::NotATokenFile, ""),
        ("csv", format!("{HEADER}\n1,planted,c\n").into(), Code::InvalidLine, "(2): it has too few columns"),
        // Whoever removes the line that is named is to remove no other.
        (
            "csv of the SDK",
            format!("{HEADER}\r\n{good}\r\n1,planted,c\r\n").into(),
            Code::InvalidLine,
            "(3): it has too few columns",
        ),
        (
            "blank",
            format!("\u{FEFF}{HEADER}\r\n\r\n{good}\r\n\r\n1,planted\r\n").into(),
            Code::InvalidLine,
            "(5): it has too few",
        ),
        (
            "break",
            format!("{HEADER}\r\n\"1\r\n\"{}\r\n1,planted\r\n", &good[1..]).into(),
            Code::InvalidLine,
            "(4): it has too few",
        ),
        (
            "two",
            format!("{HEADER}\n{good}\n{good}2,planted,c\n").into(),
            Code::InvalidLine,
            "(3): it has too many columns",
        ),
        (
            "no end",
            format!("{HEADER},api_domain\r\n{good},https://www.planted").into(),
            Code::InvalidLine,
            "(2): it has no line break at its end",
        ),
        (
            "latin of the SDK",
            [format!("{HEADER}\r\n{good}\r\n").as_bytes(), b"1,planted\xe9,c,s,r,a,g,1,u\r\n"].concat(),
            Code::InvalidLine,
            "(3): it is not UTF-8 text",
        ),
        (
            "latin",
            [HEADER.as_bytes(), b"\n1,planted\xe9,c,s,r,a,g,1,u\n"].concat(),
            Code::InvalidLine,
            "(2): it is not UTF-8 text",
        ),
        ("cut", format!("{json}\n{}", &json[..20]).into(), Code::InvalidLine, "(2): it is not a JSON object"),
        (
            "type",
            format!("{json}\n\n{}", r#"{"refresh_token":7,"client_secret":"planted"}"#).into(),
            Code::InvalidLine,
            "(3): ",
        ),
        ("newer", br#"{"refresh_token":"planted","shoe_size":"planted"}"#.to_vec(), Code::InvalidLine, "(1): "),
        ("damaged", [b"SQLite format 3\0".as_slice(), &[7; 4096]].concat(), Code::NotADatabase, ""),
        ("short", b"SQLite format 3\0planted".to_vec(), Code::NotADatabase, ""),
    ];
    for (name, contents, code, detail) in table {
        let path = folder.with(name, &contents);
        let before = folder.contents();
        refused(&path, code, detail);
        assert!(folder.contents() == before, "{name} was changed");
    }
    refused(&folder.path("missing"), Code::MissingFile, "");
    refused(folder.0.path(), Code::IsFolder, "");
}

#[test]
fn what_editors_and_newer_sdks_add_is_no_token() {
    let folder = Folder::new();
    let json = r#"{"id":"1","refresh_token":"r"}"#;
    let csv = format!("{HEADER},api_domain\n1,,,,r,,,,,\n\"\"\n");
    for (name, contents, kind) in [
        ("marked.jsonl", format!("\u{FEFF}{json}\r\n"), SourceKind::JsonLines),
        ("spaced.jsonl", format!("\r\n {json}\n"), SourceKind::JsonLines),
        ("marked.csv", format!("\u{FEFF}{csv}"), SourceKind::FileStore),
        ("empty line.csv", csv, SourceKind::FileStore),
    ] {
        let source = read(&folder.with(name, contents)).unwrap();
        assert_eq!((source.kind, lines(&source.rows)), (kind, vec!["id=1 refresh_token=r".to_owned()]), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_read() {
    // It would be read without end.
    refused(Path::new("/dev/zero"), Code::NotARegularFile, "");
}

#[test]
fn a_database_without_tokens_table_is_no_source() {
    let folder = Folder::new();
    let path = folder.path("empty.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (planted); DROP TABLE t").unwrap();
    refused(&path, Code::NoTokenTable, "");
}

// Elsewhere it is not to be told.
#[cfg(target_os = "linux")]
#[test]
fn another_name_of_a_file_in_use_is_not_looked_at() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    store.save(token("refresh_token=planted"), NOW).unwrap();
    let link = folder.path("link.db");
    fs::hard_link(&path, &link).unwrap();
    refused(&link, Code::SecondName, "");
    assert!(check(&link, NOW).is_err());
    assert_eq!(read(&path).unwrap().rows.len(), 1, "the name that is in use");
    let beside = |ending: &str| folder.path(&format!("link.db{ending}")).exists();
    assert!(!beside("-wal") && !beside("-shm"));
}

#[test]
fn a_backup_says_which_ids_were_given_out() {
    let folder = Folder::new();
    let store = open(&folder.path("tokens.db"));
    for number in 1..=3 {
        store.save(token(&format!("refresh_token=r{number}")), NOW).unwrap();
    }
    store.delete(Some("3")).unwrap();
    let backup = folder.path("backup.db");
    back_up(&store, &backup).unwrap();
    let source = read(&backup).unwrap();
    assert_eq!((source.rows.len(), source.last_id), (2, 3));
    assert_eq!(read(&folder.with_sample()).unwrap().last_id, 0, "it does not say");
}

#[test]
fn another_programs_database_is_not_read() {
    let folder = Folder::new();
    let path = folder.path("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (planted)").unwrap();
    refused(&path, Code::OtherProgram, "");
}

/// The codes and severities of what a check of the file finds; it changes nothing.
#[track_caller]
fn found(folder: &Folder, path: &Path) -> Vec<(&'static str, Severity)> {
    let before = folder.contents();
    let findings = check(path, NOW).unwrap();
    assert!(folder.contents() == before, "the file was changed");
    for finding in &findings {
        assert!(!finding.message.contains("planted") && !finding.hint.is_empty(), "{finding:?}");
    }
    findings.into_iter().map(|finding| (finding.code, finding.severity)).collect()
}

/// A closed file of ours with one good row.
fn good(folder: &Folder) -> PathBuf {
    let path = folder.path("tokens.db");
    open(&path).save(token("user_name=u refresh_token=planted access_token=a expiry_time=1795300001000"), NOW).unwrap();
    path
}

#[test]
fn a_check_of_a_good_file_finds_nothing() {
    let folder = Folder::new();
    let path = good(&folder);
    assert_eq!(found(&folder, &path), []);
    let store = open(&path);
    assert_eq!(store.check(NOW).unwrap(), []);
}

#[test]
fn a_check_finds_what_is_wrong_with_a_file_as_a_whole() {
    type Spoil = fn(&Folder, &Path);
    let table: [(&str, Severity, Spoil); 4] = [
        ("not-a-database", Severity::Error, |_, path| fs::write(path, "planted ".repeat(200)).unwrap()),
        ("newer-schema", Severity::Error, |_, path| {
            Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
        }),
        ("other-program", Severity::Error, |_, path| {
            Connection::open(path).unwrap().execute_batch("PRAGMA application_id = 1").unwrap();
        }),
        ("damaged", Severity::Error, |_, path| {
            // An index that says another user than the row: the file can be read, and lies.
            let connection = Connection::open(path).unwrap();
            connection
                .execute_batch(
                    "PRAGMA writable_schema = ON;
                     UPDATE sqlite_schema SET sql = replace(sql, '(user_name)', '(client_id)')
                     WHERE name = 'zoho_token_store_user_name'",
                )
                .unwrap();
        }),
    ];
    for (code, severity, spoil) in table {
        let folder = Folder::new();
        let path = good(&folder);
        spoil(&folder, &path);
        assert_eq!(found(&folder, &path), [(code, severity)]);
    }
}

#[test]
fn a_check_finds_a_file_that_was_not_brought_up_to_date_and_its_rows() {
    let folder = Folder::new();
    let path = folder.with_sample();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(found(&folder, &path), [("older-schema", Severity::Warning)]);
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET expiry_time = NULL WHERE id = '3'").unwrap();
    let findings = check(&path, NOW).unwrap();
    assert_eq!((findings[1].code, findings[1].ids.as_slice()), ("no-expiry", ["3".to_owned()].as_slice()));
}

#[cfg(unix)]
#[test]
fn a_check_finds_files_that_others_can_read() {
    let folder = Folder::new();
    let path = good(&folder);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(found(&folder, &path), [("permissions", Severity::Warning)]);
    let store = open(&path);
    store.save(token("user_name=v refresh_token=s"), NOW).unwrap();
    let codes: Vec<_> = store.check(NOW).unwrap().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["permissions"; 3], "the log and the shared memory, too");
}

#[test]
fn a_store_without_wal_is_checked_as_well() {
    let folder = Folder::new();
    let sqlite = Sqlite::with_journal(&folder.path("tokens.db"), Journal::Rollback, Deadline::after(TIMEOUT)).unwrap();
    let store = Store::new(Box::new(sqlite), TIMEOUT);
    let codes: Vec<_> = store.check(NOW).unwrap().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["no-wal"]);
}

#[test]
fn a_backup_is_a_good_file() {
    let folder = Folder::new();
    let backup = folder.path("backup.db");
    back_up(&open(&good(&folder)), &backup).unwrap();
    assert_eq!(found(&folder, &backup), [], "whoever opens it next switches to WAL");
}

#[test]
fn a_file_that_is_not_there_cannot_be_checked() {
    let folder = Folder::new();
    for path in [folder.path("missing.db"), folder.0.path().to_owned()] {
        assert!(check(&path, NOW).is_err());
    }
    assert!(folder.contents().is_empty());
}

#[test]
fn a_row_that_cannot_be_read_is_found_and_can_be_deleted() {
    let folder = Folder::new();
    let path = good(&folder);
    open(&path).save(token("user_name=v refresh_token=planted-2"), NOW).unwrap();
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET user_name = x'FF' WHERE id = '1'").unwrap();
    assert_eq!(found(&folder, &path), [("damaged", Severity::Error)]);
    let store = open(&path);
    assert_eq!(store.check(NOW).unwrap(), check(&path, NOW).unwrap());
    assert_eq!(store.check(NOW).unwrap()[0].ids, ["1"]);
    let error = store.all().unwrap_err();
    assert_eq!(error.code(), Code::DamagedRow);
    assert!(error.to_string().contains("the user_name of the row with the id 1 is not UTF-8 text"), "{error}");
    store.delete_existing("1").unwrap();
    assert_eq!((store.check(NOW).unwrap(), store.all().unwrap().len()), (vec![], 1));
    assert_eq!(store.delete_existing("1").unwrap_err().code(), Code::MissingId);
}

#[test]
fn a_sample_that_writes_its_tables_name_otherwise_is_read_as_well() {
    let folder = Folder::new();
    let path = folder.with_sample();
    let rows = read(&path).unwrap().rows.len();
    Connection::open(&path)
        .unwrap()
        .execute_batch("ALTER TABLE oauthtoken RENAME TO other; ALTER TABLE other RENAME TO OAuthToken")
        .unwrap();
    assert_eq!(read(&path).unwrap().rows.len(), rows);
}

#[cfg(unix)]
#[test]
fn a_backup_goes_where_a_link_leads() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let store = open(&good(&folder));
    let (elsewhere, link, astray) = (Folder::new(), folder.path("latest.db"), folder.path("astray.db"));
    let backup = elsewhere.with("backup.db", "");
    symlink(&backup, &link).unwrap();
    back_up(&store, &link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(read(&backup).unwrap().rows.len(), 1);
    symlink(elsewhere.path("missing.db"), &astray).unwrap();
    assert_eq!(back_up(&store, &astray).unwrap_err().code(), Code::BrokenLink);
    assert!(astray.is_symlink() && fs::read_dir(&elsewhere.0).unwrap().count() == 1);
}

#[test]
fn a_backup_that_cannot_be_looked_at_is_not_called_another_file() {
    let folder = Folder::new();
    let path = good(&folder);
    let backup = folder.path("backup.db");
    back_up(&open(&path), &backup).unwrap();
    let somebody = Connection::open(&backup).unwrap();
    somebody.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let patience = Duration::from_millis(50);
    let store = Store::new(Box::new(Sqlite::open(&path, Deadline::after(TIMEOUT)).unwrap()), patience);
    assert!(back_up(&store, &backup).unwrap_err().is_busy());
    drop(somebody);
    back_up(&store, &backup).unwrap();
}
