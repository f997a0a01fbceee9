//! Files that rows are imported from and exported to. `check.rs` and `backup.rs` are parts of this file of tests.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod backup;
mod check;
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::sqlite::open;
use common::{Folder, NOW, deadline, lines, token};
use rusqlite::Connection;
use zoho_token_store::backends::DATABASE_FORMATS;
use zoho_token_store::domain::import::Remark;
use zoho_token_store::domain::key_ring::Ring;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::atomic_write::Existing;
use zoho_token_store::store::error::{Code, Result};
use zoho_token_store::store::transfer::{self, Source, SourceKind};

/// What the SDK's `FileStore` has written: 41 rows.
const FILE_STORE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/filestore-sdk_tokens.txt");
const HEADER: &str =
    "id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_uri";

fn read(path: &Path) -> Result<Source> {
    transfer::read(path, DATABASE_FORMATS)
}

fn write(path: &Path, rows: &[Row], existing: Existing) -> Result<()> {
    transfer::write(path, rows, existing, DATABASE_FORMATS)
}

/// Asserts that the file cannot be read, and that the error repeats nothing of its contents.
#[track_caller]
fn assert_refused(path: &Path, code: Code, detail: &str) {
    let Err(error) = read(path) else { panic!("{} was read", path.display()) };
    let message = error.to_string();
    assert_eq!(error.code(), code, "{message}");
    assert!(message.contains(detail) && message.contains(path.to_str().unwrap()), "{message}");
    assert!(!message.contains("planted"), "{message}");
}

#[test]
fn the_contents_decide_the_kind_of_a_file() {
    let folder = Folder::new();
    let source = read(Path::new(FILE_STORE)).unwrap();
    assert_eq!((source.kind, source.rows.len()), (SourceKind::FileStore, 41));
    assert_eq!(source.rows[0].get(Field::RedirectUrl), Some("https://app.example.com/oauth"));
    assert_eq!(source.rows[0].get(Field::GrantToken), None);
    let sample = folder.with_sample();
    let before = folder.contents();
    let from_sample = read(&sample).unwrap();
    assert_eq!((from_sample.kind, from_sample.rows.len()), (SourceKind::Database("SQLite"), 10));
    assert!(folder.contents() == before, "the file was changed");
    assert_eq!(lines(&from_sample.rows), lines(&open(&sample).all().unwrap()));
}

#[test]
fn an_export_has_every_value_and_only_its_owner_can_read_it() {
    let folder = Folder::new();
    let path = folder.path("tokens.jsonl");
    let awkward = "O'Brien\n\"\0\u{1F511},{}";
    let all_fields = Token::from_fn(|field| Some(field.name())).with(Field::UserName, Some(awkward));
    let rows = [Row::new(all_fields, 3, Some(NOW)), Row::new(token("id=2 refresh_token=r"), 1, None)];
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
    assert_eq!(folder.contents().len(), 1, "a temporary file is left");
}

#[test]
fn a_stream_has_the_same_rows_as_a_file() {
    let folder = Folder::new();
    let source = read(Path::new(FILE_STORE)).unwrap();
    let mut exported = Vec::new();
    transfer::write_lines(&mut exported, &source.rows).unwrap();
    let target = folder.path("export.jsonl");
    write(&target, &source.rows, Existing::Keep).unwrap();
    assert!(exported == fs::read(&target).unwrap());
    let stream = |contents: &[u8]| transfer::read_stream("the stream", contents, DATABASE_FORMATS);
    for (contents, kind) in [(fs::read(FILE_STORE).unwrap(), SourceKind::FileStore), (exported, SourceKind::JsonLines)]
    {
        let read = stream(&contents).unwrap();
        assert_eq!((read.kind, read.file), (kind, None));
        assert_eq!((lines(&read.rows), &read.order), (lines(&source.rows), &source.order));
    }
    let database = fs::read(folder.with_sample()).unwrap();
    let wrong_line = format!("{HEADER}\r\n1,planted\r\n");
    let table: [(&[u8], Code, &str); 4] = [
        (&database, Code::DatabaseInStream, "database"),
        (b"", Code::NotATokenFile, "neither"),
        (b"{}\n{\"planted\": 1}\n", Code::InvalidLine, "(2)"),
        (wrong_line.as_bytes(), Code::InvalidLine, "(2)"),
    ];
    for (contents, code, detail) in table {
        let Err(error) = stream(contents) else { panic!("{code:?}: the stream was read") };
        let message = error.to_string();
        assert_eq!(error.code(), code, "{message}");
        assert!(message.starts_with("the stream ") && message.contains(detail), "{message}");
        assert!(!message.contains("planted"), "{message}");
    }
}

#[test]
fn an_export_is_written_only_to_a_new_file_or_over_a_plain_file() {
    let folder = Folder::new();
    let database = make_database(&folder);
    let before = fs::read(&database).unwrap();
    for (path, code) in [
        (database.clone(), Code::TargetIsDatabase),
        (folder.path("."), Code::IsFolder),
        (folder.path("no/x"), Code::MissingFolder),
        // Overwriting the WAL of a database would lose the last saves.
        (folder.path("tokens.db-wal"), Code::ReservedName),
        (folder.path("tokens.db-journal"), Code::ReservedName),
    ] {
        assert_eq!(write(&path, &[], Existing::Replace).unwrap_err().code(), code, "{}", path.display());
    }
    assert!(fs::read(&database).unwrap() == before);
}

#[test]
fn files_with_nine_and_with_ten_columns_are_read() {
    let folder = Folder::new();
    let row = "1,ada,c,s,r,a,,5,https://app.example.com";
    let nine = folder.with("nine.txt", format!("{HEADER}\r\n{row}\r\n\r\n"));
    let ten = folder.with("ten.txt", format!("{HEADER},api_domain\n{row},https://www.zohoapis.eu\n"));
    let mixed = folder.with("mixed.txt", format!("{HEADER}\n{row},https://www.zohoapis.eu\n"));
    let older = folder.with("older.txt", format!("{}\n{row}\n", HEADER.replace("user_name", "user_mail")));
    let expected = "id=1 user_name=ada client_id=c client_secret=s refresh_token=r access_token=a expiry_time=5 \
                  redirect_url=https://app.example.com";
    for path in [&nine, &mixed, &older] {
        assert_eq!(lines(&read(path).unwrap().rows), [expected], "{}", path.display());
    }
    assert_eq!(lines(&read(&ten).unwrap().rows), [format!("{expected} api_domain=https://www.zohoapis.eu")]);
    let empty = folder.with("empty.txt", format!("{HEADER}\n"));
    assert!(read(&empty).unwrap().rows.is_empty());
}

#[test]
fn a_file_without_tokens_is_refused_and_no_error_repeats_its_contents() {
    let folder = Folder::new();
    let json = r#"{"refresh_token":"planted-1"}"#;
    let good = "1,u,c,s,r,a,g,5,https://app.example.com";
    let table: [(&str, Vec<u8>, Code, &str); 28] = [
        ("text", b"planted".to_vec(), Code::NotATokenFile, ""),
        ("nothing", Vec::new(), Code::NotATokenFile, "it is empty"),
        ("csv", format!("{HEADER}\n1,planted,c\n").into(), Code::InvalidLine, "(2): it has too few columns"),
        // The number is exact, because a user removes the line that the message names.
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
            Code::UnfinishedLine,
            "(2) without a line break",
        ),
        // The advice must be safe: a user who removes a complete line loses a login.
        (
            "no end of nine",
            format!("{HEADER}\n{good}\n{good}").into(),
            Code::UnfinishedLine,
            "(3) without a line break, so it may be cut short. It was left untouched. If that line is complete, end",
        ),
        ("cut elsewhere", format!("{HEADER},api_domain\n{good}").into(), Code::InvalidLine, "(2): it has too few"),
        ("no header", format!("{good}planted\n{good}\n").into(), Code::NotATokenFile, "its first line does not have"),
        ("other", format!("{HEADER},planted\n{good},\n").into(), Code::NotATokenFile, "column 10 is not one"),
        ("twice", format!("{HEADER},Redirect URL\n{good},\n").into(), Code::NotATokenFile, "column 10 is there twice"),
        ("array", format!("[{json}]").into(), Code::NotATokenFile, "it is a JSON array"),
        ("pretty", json.replace('{', "{\n ").into(), Code::NotATokenFile, "several lines for an object"),
        ("xlsx", b"PK\x03\x04planted".to_vec(), Code::NotATokenFile, "it is a spreadsheet"),
        ("pickle", b"\x80\x04planted".to_vec(), Code::NotATokenFile, "before version 3 wrote it with Python's pickle"),
        ("php", b"a:1:{s:7:planted".to_vec(), Code::NotATokenFile, "before version 3 wrote it with PHP's serialize"),
        ("utf-16", b"\xFF\xFEp\0l\0a".to_vec(), Code::NotATokenFile, "it is not UTF-16 text"),
        (
            "export",
            format!("{}\n{json}\n", r#"{"rows":2}"#).into(),
            Code::IncompleteExport,
            "its first line counts 2, and it has 1",
        ),
        ("all cut", br#"{"rows":1}"#.to_vec(), Code::IncompleteExport, "its first line counts 1, and it has 0"),
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
        assert_refused(&path, code, detail);
        assert!(folder.contents() == before, "{name} was changed");
    }
    assert_refused(&folder.path("missing"), Code::MissingFile, "");
    assert_refused(folder.0.path(), Code::IsFolder, "");
}

#[test]
fn additions_of_editors_and_newer_sdks_are_ignored() {
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

#[test]
fn a_placeholder_in_a_csv_file_is_an_absent_value_and_elsewhere_a_value() {
    let folder = Folder::new();
    let text = format!("{HEADER},api_domain\n1,NULL,c,s,r,a,\\N,20,null,https://www.zohoapis.eu\n2,u,c,s,q,b,,20,,\n");
    let source = read(&folder.with("oauthtoken.csv", &text)).unwrap();
    let rows = [
        "id=1 client_id=c client_secret=s refresh_token=r access_token=a expiry_time=20 api_domain=https://www.zohoapis.eu",
        "id=2 user_name=u client_id=c client_secret=s refresh_token=q access_token=b expiry_time=20",
    ];
    assert_eq!(lines(&source.rows), rows);
    assert_eq!(source.remarks, [(0, Remark::Placeholders)]);
    // An export and a database have a way to say that a value is absent.
    let named = Row::new(token("id=1 user_name=NULL refresh_token=r redirect_url=-"), 1, None);
    let (export, database) = (folder.path("export"), folder.path("database"));
    write(&export, std::slice::from_ref(&named), Existing::Keep).unwrap();
    (DATABASE_FORMATS[0].write)(std::slice::from_ref(&named), 1, &database, deadline()).unwrap();
    for path in [export, database] {
        let source = read(&path).unwrap();
        assert_eq!((lines(&source.rows), source.remarks), (lines(std::slice::from_ref(&named)), vec![]));
    }
}

#[test]
fn a_file_that_is_cut_anywhere_never_gives_a_wrong_value_silently() {
    let folder = Folder::new();
    let row =
        |number, domain| format!("{number},u{number},c,s,r{number},a,,1795300001000,https://a.example,{domain}\r\n");
    let text = format!(
        "{HEADER},api_domain\r\n{}{}",
        row(1, "https://www.zohoapis.com"),
        row(2, "https://www.zohoapis.com.au")
    );
    let path = folder.with("whole", &text);
    let whole = lines(&read(&path).unwrap().rows);
    let export = folder.path("export");
    write(&export, &read(&path).unwrap().rows, Existing::Keep).unwrap();
    for length in 1..text.len() {
        let Ok(source) = read(&folder.with("cut", &text[..length])) else { continue };
        let rows = lines(&source.rows);
        let last_is_marked = source.remarks == [(rows.len().saturating_sub(1), Remark::NoLineBreak)];
        assert_eq!(rows, whole[..rows.len()], "{length}");
        assert!(last_is_marked || text[..length].ends_with(['\r', '\n']) || rows.is_empty(), "{length}");
    }
    let text = fs::read(&export).unwrap();
    for length in 1..text.len() - 1 {
        assert!(read(&folder.with("cut", &text[..length])).is_err(), "{length}");
    }
    assert_eq!(lines(&read(&folder.with("cut", &text[..text.len() - 1])).unwrap().rows), whole);
}

#[test]
fn files_of_other_sdks_and_of_spreadsheets_are_read() {
    let folder = Folder::new();
    let row = "1,ada,c,s,r,a,g,1795300001000,https://app.example.com,https://www.zohoapis.eu";
    let all = format!("{HEADER},api_domain\n{row}\n");
    let expected = "id=1 user_name=ada client_id=c client_secret=s refresh_token=r access_token=a grant_token=g \
                    expiry_time=1795300001000 redirect_url=https://app.example.com";
    let ten = format!("{expected} api_domain=https://www.zohoapis.eu");
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("\u{FEFF}{all}").replace(',', "\t").encode_utf16().flat_map(bytes).collect()
    };
    let table: [(&str, Vec<u8>, &str); 15] = [
        ("semicolons", all.replace(',', ";").into(), &ten),
        ("tabs", all.replace(',', "\t").into(), &ten),
        ("Unicode text", utf_16(u16::to_le_bytes), &ten),
        ("big-endian", utf_16(u16::to_be_bytes), &ten),
        ("CR only", all.replace('\n', "\r").into(), &ten),
        ("quoted", format!("\"{}\"\n", all.trim_end().replace(',', "\",\"").replace('\n', "\"\n\"")).into(), &ten),
        ("other case", all.replace("user_name", " User_Name").replace("access_token", "accessToken").into(), &ten),
        (
            "other order",
            all.replace("id,user", "user")
                .replace("api_domain", "api_domain,id")
                .replace("1,ada", "ada")
                .replace(".eu\n", ".eu,1\n")
                .into(),
            &ten,
        ),
        ("trailing delimiter", all.replace("n\n", "n,\n").replace(".eu\n", ".eu,\n").into(), &ten),
        ("index column", all.replace("id,user", ",id,user").replace("1,ada", "0,1,ada").into(), &ten),
        ("blank lines", all.replace('\n', "\n\n , ,\n").into(), &ten),
        // Node.js and PHP write the line break before each line.
        ("no line break", all.trim_end().into(), &ten),
        (
            "six columns",
            b"user_mail,client_id,refresh_token,access_token,grant_token,expiry_time\r\nada,c,r,a,,1795300001000\r\n"
                .to_vec(),
            "user_name=ada client_id=c refresh_token=r access_token=a expiry_time=1795300001000",
        ),
        (
            "six columns without a line break",
            b"user_mail,client_id,refresh_token,access_token,grant_token,expiry_time\nada,c,r,a,,1795300001000"
                .to_vec(),
            "user_name=ada client_id=c refresh_token=r access_token=a expiry_time=1795300001000",
        ),
        (
            "four columns",
            b"useridentifier,accesstoken,refreshtoken,expirytime\nada,a,r,1795300001000\n".to_vec(),
            "user_name=ada refresh_token=r access_token=a expiry_time=1795300001000",
        ),
    ];
    for (name, contents, expected) in table {
        let source = read(&folder.with(name, contents)).unwrap();
        assert_eq!((source.kind, lines(&source.rows)), (SourceKind::FileStore, vec![expected.to_owned()]), "{name}");
        let remarks = if name.ends_with("no line break") || name.ends_with("without a line break") {
            vec![(0, Remark::NoLineBreak)]
        } else {
            vec![]
        };
        assert_eq!(source.remarks, remarks, "{name}");
        assert_eq!(source.position(0), if name == "blank lines" { "line 4" } else { "line 2" }, "{name}");
    }
    // The header of the PHP SDKs has no line break before the first row is saved.
    assert!(read(&folder.with("header", HEADER)).unwrap().rows.is_empty());
}

#[test]
fn a_row_has_the_number_of_its_line_or_its_id_in_a_database() {
    let folder = Folder::new();
    let json = folder.with("json", "{\"rows\":2}\n{\"id\":\"7\"}\n\n{}\n");
    let source = read(&json).unwrap();
    assert_eq!([source.position(0), source.position(1)], ["line 2", "line 4"]);
    let csv = format!("{HEADER}\r\n1,\"a\r\nda\",c,s,r,a,,5,u\r\n\r\n2,bob,c,s,r,a,,5,u\r\n");
    let source = read(&folder.with("csv", csv)).unwrap();
    assert_eq!([source.position(0), source.position(1)], ["line 2", "line 5"]);
    let path = make_database(&folder);
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET id = '12'").unwrap();
    assert_eq!(read(&path).unwrap().position(0), "row 12");
    Connection::open(&path).unwrap().execute_batch("UPDATE oauthtoken SET id = '1000.planted'").unwrap();
    assert_eq!(read(&path).unwrap().position(0), "row number 1");
}

#[test]
fn an_export_says_how_many_rows_it_has_and_older_exports_are_read() {
    let folder = Folder::new();
    let path = folder.path("tokens.jsonl");
    write(
        &path,
        &["refresh_token=r", "refresh_token=s"].map(|values| Row::new(token(values), 1, None)),
        Existing::Keep,
    )
    .unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let written: Vec<&str> = text.lines().collect();
    assert_eq!(written, [r#"{"rows":2}"#, r#"{"refresh_token":"r"}"#, r#"{"refresh_token":"s"}"#]);
    for (lines, rows) in [
        (vec![1, 2], 2),             // version 0.1.0
        (vec![0, 1, 2, 0, 2, 1], 4), // two exports in one file
    ] {
        let text: Vec<_> = lines.iter().map(|&line: &usize| written[line]).collect();
        assert_eq!(read(&folder.with("other", text.join("\n"))).unwrap().rows.len(), rows, "{lines:?}");
    }
    write(&path, &[], Existing::Replace).unwrap();
    assert!(read(&path).unwrap().rows.is_empty());
}

#[cfg(unix)]
#[test]
fn a_device_is_not_read() {
    // It has no end.
    assert_refused(Path::new("/dev/zero"), Code::NotARegularFile, "");
}

#[test]
fn a_database_without_a_table_of_tokens_is_refused() {
    let folder = Folder::new();
    let path = folder.path("empty.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (planted); DROP TABLE t").unwrap();
    assert_refused(&path, Code::NoTokenTable, "");
}

// On other systems the library cannot tell that two names are one file.
#[cfg(target_os = "linux")]
#[test]
fn a_second_name_of_a_file_in_use_is_not_read() {
    let folder = Folder::new();
    let path = folder.path("tokens.db");
    let store = open(&path);
    store.save(token("refresh_token=planted"), NOW).unwrap();
    let link = folder.path("link.db");
    fs::hard_link(&path, &link).unwrap();
    assert_refused(&link, Code::SecondName, "");
    assert_eq!(
        zoho_token_store::backends::sqlite::check(&link, NOW, &Ring::clear_text()).unwrap_err().code(),
        Code::SecondName
    );
    assert_eq!(read(&path).unwrap().rows.len(), 1, "by the name that is in use");
    let exists = |ending: &str| folder.path(&format!("link.db{ending}")).exists();
    assert!(!exists("-wal") && !exists("-shm"));
}

#[test]
fn a_database_of_another_program_is_refused() {
    let folder = Folder::new();
    let path = folder.path("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (planted)").unwrap();
    assert_refused(&path, Code::OtherProgram, "");
}

#[test]
fn the_name_of_the_table_may_have_capital_letters() {
    let folder = Folder::new();
    let path = folder.with_sample();
    let rows = read(&path).unwrap().rows.len();
    Connection::open(&path)
        .unwrap()
        .execute_batch("ALTER TABLE oauthtoken RENAME TO other; ALTER TABLE other RENAME TO OAuthToken")
        .unwrap();
    assert_eq!(read(&path).unwrap().rows.len(), rows);
}

/// Makes a token database with one row, and closes it.
fn make_database(folder: &Folder) -> PathBuf {
    let path = folder.path("tokens.db");
    open(&path).save(token("user_name=u refresh_token=planted access_token=a expiry_time=1795300001000"), NOW).unwrap();
    path
}
