//! The tables on the server: who makes them, what is stored in them, how durable it is, and what a check finds.

use std::thread;

use zoho_token_store::backends::postgres::{self, INIT_SQL, Postgres, PostgresSettings};
use zoho_token_store::domain::check::Severity;
use zoho_token_store::domain::key_ring::Ring;
use zoho_token_store::domain::{Field, Row, Token};
use zoho_token_store::store::error::Code;
use zoho_token_store::store::lease::Outcome;
use zoho_token_store::store::{Error, Result, Wait};

use super::common::keyed::fixed;
use super::common::postgres::{Admin, Schema, address, dsn, open};
use super::common::{NOW, deadline, token};
use super::{EXPIRED, FRESH, store, try_acquire};

/// Opens a store as another user of the server.
fn open_as(role: &str, schema: &Schema, create: bool) -> Result<Postgres> {
    let settings = PostgresSettings { create, ..schema.settings() };
    Postgres::open(address(&format!("{} user={role}", dsn())), settings, deadline())
}

/// A role of the test, with these rights on the schema. It is dropped at the end.
struct Role(String);

impl Role {
    fn new(schema: &Schema, grants: &[&str]) -> Self {
        let (admin, name) = (Admin::new(), format!("{}_role", schema.0));
        admin.sql(&format!("CREATE ROLE {name} LOGIN"));
        for grant in grants {
            admin.sql(&format!("GRANT {} TO {name}", grant.replace("{}", &schema.0)));
        }
        Self(name)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = Admin::new().try_sql(&format!("DROP OWNED BY {0}; DROP ROLE {0}", self.0));
    }
}

/// The rights that `docs/postgresql.md` lists for a role that may not make tables.
const RIGHTS: [&str; 5] = [
    "USAGE ON SCHEMA {}",
    "SELECT, INSERT, UPDATE, DELETE ON {}.oauthtoken, {}.zoho_token_lease, {}.zoho_token_failure",
    "SELECT, INSERT, DELETE ON {}.zoho_token_key",
    "SELECT, UPDATE ON {}.zoho_token_store",
    "SELECT, UPDATE ON SEQUENCE {}.zoho_token_order",
];

fn code(opened: Result<Postgres>) -> Code {
    opened.err().unwrap().code()
}

/// The text of a table, whatever is in it.
fn dump(schema: &Schema) -> Vec<Vec<String>> {
    let tables = ["oauthtoken", "zoho_token_key", "zoho_token_store", "zoho_token_lease", "zoho_token_failure"];
    let admin = Admin::new();
    tables.iter().flat_map(|table| admin.sql(&format!("SELECT * FROM {}.{table} ORDER BY 1", schema.0))).collect()
}

#[test]
fn any_number_of_programs_make_the_tables_at_the_same_time() {
    for _ in 0..3 {
        let schema = Schema::new();
        thread::scope(|scope| {
            for program in 0..6 {
                let schema = &schema;
                scope
                    .spawn(move || store(open(schema)).save(token(&format!("refresh_token=r{program}")), NOW).unwrap());
            }
        });
        assert_eq!(store(open(&schema)).count().unwrap(), 6);
    }
}

#[test]
fn tables_are_made_only_if_the_caller_allows_it() {
    let schema = Schema::new();
    let settings = || PostgresSettings { create: false, ..schema.settings() };
    let refused = Postgres::open(address(&dsn()), settings(), deadline());
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::WrongDatabase);
    assert_eq!(refused.detail(), format!("the schema \"{}\" does not exist", schema.0));
    let schemas = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{}'", schema.0);
    assert_eq!(Admin::new().value(&schemas), "0");
    store(open(&schema)).save(token(EXPIRED), NOW).unwrap();
    let opened = Postgres::open(address(&dsn()), settings(), deadline()).unwrap();
    assert_eq!(store(opened).count().unwrap(), 1);
}

#[test]
fn without_a_schema_the_first_one_of_the_search_path_has_the_tables() {
    let schema = Schema::new();
    Admin::new().sql(&format!("CREATE SCHEMA {}", schema.0));
    let dsn = format!("{} options='-c search_path={}'", dsn(), schema.0);
    let opened = Postgres::open(address(&dsn), PostgresSettings::default(), deadline()).unwrap();
    store(opened).save(token(EXPIRED), NOW).unwrap();
    assert_eq!(store(open(&schema)).count().unwrap(), 1);
}

#[test]
fn a_schema_can_have_any_name() {
    let schema = Schema::new();
    let admin = Admin::new();
    let name = format!("{} it's \"Ü\"", schema.0);
    let settings = PostgresSettings { schema: Some(name.clone()), ..PostgresSettings::default() };
    let opened = Postgres::open(address(&dsn()), settings, deadline()).unwrap();
    let store = store(opened);
    let saved = store.save(token(EXPIRED), NOW).and_then(|_| store.save(token(FRESH), NOW));
    let rows = store.all().map(|rows| rows.len());
    admin.sql(&format!("DROP SCHEMA \"{}\" CASCADE", name.replace('"', "\"\"")));
    assert_eq!((saved.unwrap().as_str(), rows.unwrap()), ("1", 1));
    for name in ["", "a\\b", "a\0b"] {
        let settings = PostgresSettings { schema: Some(name.to_owned()), ..PostgresSettings::default() };
        assert_eq!(code(Postgres::open(address(&dsn()), settings, deadline())), Code::InvalidArgument, "{name:?}");
    }
}

#[test]
fn a_role_that_may_not_make_tables_uses_those_of_an_administrator() {
    let schema = Schema::new();
    let admin = Admin::new();
    admin.sql(&format!("CREATE SCHEMA {0}; SET search_path TO {0}; {INIT_SQL}", schema.0));
    let role = Role::new(&schema, &RIGHTS);
    for create in [true, false] {
        let store = store(open_as(&role.0, &schema, create).unwrap());
        assert_eq!(store.save(token(EXPIRED), NOW).unwrap(), "1");
        let Outcome::Refresh(acquired) = try_acquire(&store, "1-a") else { panic!("no lease") };
        assert!(store.release_lease(&acquired));
        store.save(token(FRESH), NOW).unwrap();
        let rows = store.all().unwrap();
        store.restore(&rows, 1).unwrap();
        store.purge(NOW + 10_000_000, Some(1)).unwrap();
        store.delete_all().unwrap();
        assert_eq!(store.check(NOW).unwrap(), []);
        store.restore(&[], 0).unwrap();
        drop(store);
        let sealed = |keys| self::store(open_as(&role.0, &schema, create).unwrap()).with_keys(fixed(keys));
        sealed("a").save(token(EXPIRED), NOW).unwrap();
        assert_eq!(sealed("ba").rekey(|_| Ok(())).unwrap().rewritten, 1);
        assert_eq!(sealed("pb").rekey(|_| Ok(())).unwrap().rewritten, 1);
        sealed("p").restore(&[], 0).unwrap();
        admin.sql(&format!("UPDATE {}.zoho_token_store SET last_id = 0", schema.0));
    }
}

#[test]
fn the_statements_for_an_administrator_make_all_tables_or_none() {
    let schema = Schema::new();
    let admin = Admin::new();
    // A table is in the way. As psql does, each statement is sent alone, and those after an error are sent, too.
    admin.sql(&format!("CREATE SCHEMA {0}; SET search_path TO {0}; CREATE TABLE zoho_token_failure ()", schema.0));
    let failed = INIT_SQL.split_inclusive(";\n").filter(|statement| admin.try_sql(statement).is_err()).count();
    assert_eq!(failed, 1);
    let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{}'", schema.0);
    assert_eq!(admin.value(&tables), "1");
    admin.sql("DROP TABLE zoho_token_failure");
    for statement in INIT_SQL.split_inclusive(";\n") {
        admin.sql(statement);
    }
    let settings = PostgresSettings { create: false, ..schema.settings() };
    assert_eq!(store(Postgres::open(address(&dsn()), settings, deadline()).unwrap()).check(NOW).unwrap(), []);
}

#[test]
fn a_role_without_rights_is_told_so_at_once() {
    let schema = Schema::new();
    store(open(&schema)).save(token(EXPIRED), NOW).unwrap();
    let role = Role::new(&schema, &[]);
    let admin = Admin::new();
    let assert_lacks = |error: Option<Error>, rights: &str| {
        let error = error.unwrap();
        let rights = rights.replace("{}", &format!("\"{}\"", schema.0));
        assert_eq!(error.code(), Code::AccessDenied, "{error}");
        assert_eq!(error.detail(), format!("the user lacks rights (42501): {rights}"));
    };
    let refused = open_as(&role.0, &schema, true).err();
    let all = "SELECT, INSERT, UPDATE, DELETE ON";
    let needed = format!(
        "USAGE ON SCHEMA {{}}; {all} {{}}.oauthtoken; SELECT, INSERT, DELETE ON {{}}.zoho_token_key; \
         {all} {{}}.zoho_token_lease; {all} {{}}.zoho_token_failure; \
         SELECT, UPDATE ON {{}}.zoho_token_store; SELECT, UPDATE ON SEQUENCE {{}}.zoho_token_order"
    );
    assert_lacks(refused, &needed);
    let missing = Schema(format!("{}_missing", schema.0));
    let refused = open_as(&role.0, &missing, true).err();
    let hint = refused.as_ref().map(Error::hint).unwrap_or_default();
    assert!(hint.contains("run what zoho-token-store init --sql prints"), "{hint}");
    assert_lacks(refused, &format!("CREATE ON DATABASE \"{}\"", admin.value("SELECT current_database()")));
    admin.sql(&format!("CREATE SCHEMA {}", missing.0));
    for (granted, lacks) in [(None, "USAGE, CREATE"), (Some("CREATE"), "USAGE"), (Some("USAGE"), "CREATE")] {
        if let Some(right) = granted {
            let (schema, role) = (&missing.0, &role.0);
            admin
                .sql(&format!("REVOKE ALL ON SCHEMA {schema} FROM {role}; GRANT {right} ON SCHEMA {schema} TO {role}"));
        }
        let refused = open_as(&role.0, &missing, true).err().unwrap();
        assert!(refused.detail().ends_with(&format!(": {lacks} ON SCHEMA \"{}\"", missing.0)), "{refused}");
    }
    // A role that may only read.
    admin.sql(&format!(
        "GRANT USAGE ON SCHEMA {0} TO {1}; GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO {1}",
        schema.0, role.0
    ));
    let store = store(open_as(&role.0, &schema, true).unwrap());
    assert_eq!(store.count().unwrap(), 1);
    let refused = store.save(token(FRESH), NOW).err();
    let shown = refused.as_ref().unwrap().to_string();
    assert!(shown.contains(", UPDATE, DELETE ON ") && shown.contains("Minimum rights"), "{shown}");
    let writes = "INSERT, UPDATE, DELETE ON";
    let needed = format!(
        "{writes} {{}}.oauthtoken; INSERT, DELETE ON {{}}.zoho_token_key; {writes} {{}}.zoho_token_lease; {writes} {{}}.zoho_token_failure; \
         UPDATE ON {{}}.zoho_token_store; SELECT, UPDATE ON SEQUENCE {{}}.zoho_token_order"
    );
    assert_lacks(refused, &needed);
    // Such a role can check the tables, and is told what it lacks.
    let findings = store.check(NOW).unwrap();
    assert_eq!(findings[0].code, "missing-rights");
    assert!(findings[0].message.contains("UPDATE ON \"") && !findings[0].message.contains("USAGE"), "{findings:?}");
    for table in ["zoho_token_lease", "oauthtoken"] {
        admin.sql(&format!("REVOKE SELECT ON {}.{table} FROM {}", schema.0, role.0));
        let findings = store.check(NOW).unwrap();
        assert_eq!((findings[0].code, findings[0].severity), ("missing-rights", Severity::Error), "{findings:?}");
    }
}

#[test]
fn a_role_that_may_not_connect_is_told_so() {
    let (schema, admin) = (Schema::new(), Admin::new());
    admin.sql(&format!("CREATE SCHEMA {}", schema.0));
    let (name, role) = (format!("{}_closed", schema.0), Role::new(&schema, &[]));
    admin.sql(&format!("CREATE DATABASE {name}"));
    admin.sql(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"));
    let closed = address(&format!("{} dbname={name} user={}", dsn(), role.0));
    let refused = Postgres::open(closed, PostgresSettings::default(), deadline()).err();
    admin.sql(&format!("DROP DATABASE {name}"));
    let refused = refused.unwrap();
    assert_eq!(refused.detail(), format!("the user lacks rights (42501): CONNECT ON DATABASE \"{name}\""));
    assert!(refused.hint().starts_with("Grant the missing rights"), "{refused}");
}

#[test]
fn a_check_finds_tables_that_belong_to_another_user() {
    let schema = Schema::new();
    let admin = Admin::new();
    admin.sql(&format!("CREATE SCHEMA {0}; SET search_path TO {0}; {INIT_SQL}", schema.0));
    let role = Role::new(&schema, &RIGHTS);
    let store = store(open_as(&role.0, &schema, false).unwrap());
    let found = || store.check(NOW).unwrap().into_iter().map(|finding| finding.message).collect::<Vec<_>>();
    assert!(found().is_empty(), "a superuser owns them");
    let (owner, group) = (format!("{}_owner", schema.0), format!("{}_group", schema.0));
    admin.sql(&format!("CREATE ROLE {owner}; CREATE ROLE {group}; GRANT CREATE ON SCHEMA {} TO {owner}", schema.0));
    admin.sql(&format!("ALTER TABLE {}.zoho_token_lease OWNER TO {owner}", schema.0));
    let messages = found();
    admin.sql(&format!("GRANT {owner} TO {}", role.0));
    let as_member = found();
    admin.sql(&format!("REVOKE {owner} FROM {0}; ALTER SCHEMA {1} OWNER TO {group}", role.0, schema.0));
    let as_other = found();
    admin.sql(&format!("GRANT {group} TO {owner}"));
    let as_owner_of_the_schema = found();
    admin.sql(&format!("DROP OWNED BY {owner}, {group} CASCADE; DROP ROLE {owner}; DROP ROLE {group}"));
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].ends_with(&format!("has tables that belong to another user: {owner}")), "{messages:?}");
    assert_eq!((as_member.len(), as_other.len(), as_owner_of_the_schema.len()), (0, 1, 0));
}

#[test]
fn tables_of_a_newer_version_are_refused_and_left_alone() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token(EXPIRED), NOW).unwrap();
    Admin::new().sql(&format!("UPDATE {}.zoho_token_store SET version = 99", schema.0));
    let before = dump(&schema);
    let error = Postgres::open(address(&dsn()), schema.settings(), deadline()).err().unwrap();
    assert_eq!(error.code(), Code::NewerSchema, "{error}");
    assert_eq!(postgres::schema_version(&address(&dsn()), Some(&schema.0), deadline()).unwrap(), 99);
    assert_eq!(codes(&schema), [("newer-schema", Severity::Error)]);
    assert_eq!(dump(&schema), before);
}

#[test]
fn a_table_of_another_program_is_refused_and_left_alone() {
    let schema = Schema::new();
    let admin = Admin::new();
    admin.sql(&format!("CREATE SCHEMA {0}; CREATE TABLE {0}.oauthtoken (id TEXT, note TEXT)", schema.0));
    let error = Postgres::open(address(&dsn()), schema.settings(), deadline()).err().unwrap();
    assert_eq!(error.code(), Code::WrongDatabase, "{error}");
    assert!(error.detail().contains("no table zoho_token_store") && !error.hint().contains("init"), "{error}");
    let tables = format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{}'::regnamespace", schema.0);
    assert_eq!(admin.value(&tables), "1");
}

#[test]
fn a_database_with_another_encoding_is_refused() {
    let admin = Admin::new();
    let name = format!("{}_latin", Schema::new().0);
    admin.sql(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"));
    let opened = Postgres::open(address(&format!("{} dbname={name}", dsn())), PostgresSettings::default(), deadline());
    let checked =
        postgres::check(&address(&format!("{} dbname={name}", dsn())), None, NOW, &Ring::clear_text(), deadline());
    let found = checked.map(|findings| findings[0].code);
    admin.sql(&format!("DROP DATABASE {name}"));
    assert_eq!(code(opened), Code::WrongDatabase);
    assert_eq!(found, Ok("wrong-database"));
}

#[test]
fn values_can_be_read_in_psql() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token("user_name=O'Brien client_id=1000.CLIENT refresh_token=é"), NOW).unwrap();
    let read = |column: &str| Admin::new().value(&format!("SELECT {column} FROM {}.oauthtoken", schema.0));
    assert_eq!(["id", "user_name", "refresh_token", "access_token"].map(read), ["1", "O'Brien", "é", "NULL"]);
    assert_eq!(read("saved_at"), NOW.to_string());
}

#[test]
fn every_character_is_stored_and_found() {
    let schema = Schema::new();
    let store = store(open(&schema));
    for value in ["\0", "\u{1a}", "\u{1a}0", "\0\u{1a}\0", "\u{1}\u{7f}\u{10ffff}", "\\", "\\0", "$1", "{a,b}", "NULL"]
    {
        let saved = Token::default().with(Field::UserName, Some(value)).with(Field::RefreshToken, Some(value));
        let id = store.save(saved, NOW).unwrap();
        let key = Token::default().with(Field::RefreshToken, Some(value));
        let found = store.find(key, Wait::Yes).unwrap().unwrap().stored();
        assert_eq!((found.id(), found.get(Field::UserName)), (id.as_str(), Some(value)));
    }
    let rows = store.all().unwrap();
    store.restore(&rows, 99).unwrap();
    let again = store.all().unwrap();
    assert!(rows.iter().zip(&again).all(|(one, other)| one.token() == other.token()) && rows.len() == again.len());
}

#[test]
fn an_id_has_at_most_1_000_bytes() {
    let schema = Schema::new();
    let store = store(open(&schema));
    let save = |length| {
        let id = "i".repeat(length);
        store.save(Token::default().with(Field::Id, Some(&id)).with(Field::RefreshToken, Some(&id)), NOW)
    };
    assert_eq!(save(1_000).unwrap().len(), 1_000);
    assert_eq!(save(1_001).unwrap_err().code(), Code::ValueTooLarge);
    let row = Row::new(Token::default().with(Field::Id, Some(&"i".repeat(1_001))), 1, None);
    assert_eq!(store.restore(&[row], 1).unwrap_err().code(), Code::ValueTooLarge);
    assert!(store.find_by_id(Some(&"i".repeat(100_000)), Wait::Yes).unwrap().is_none());
    assert_eq!(store.count().unwrap(), 1);
}

#[test]
fn many_rows_are_read_in_their_order_and_a_lookup_uses_the_indexes() {
    let schema = Schema::new();
    let store = store(open(&schema));
    let rows: Vec<Row> = (1..=2_000)
        .map(|n| format!("id={n} user_name=u{n} refresh_token=r{n} access_token=a{n} grant_token=g{n}"))
        .map(|values| Row::new(token(&values), 1, None))
        .collect();
    store.restore(&rows, 2_000).unwrap();
    let admin = Admin::new();
    admin.sql(&format!("ANALYZE {}.oauthtoken", schema.0));
    let ids = |rows: &[Row]| rows.iter().map(|row| row.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(&store.all().unwrap()), ids(&rows), "many rows are read in several statements");
    for column in ["user_name", "refresh_token", "access_token", "grant_token", "id"] {
        let plan = format!("EXPLAIN SELECT * FROM {}.oauthtoken AS t WHERE (t.id = 'x' OR t.{column} = 'y')", schema.0);
        let plan: Vec<String> = admin.sql(&plan).into_iter().flatten().collect();
        assert!(!plan.join("\n").contains("Seq Scan"), "{plan:?}");
    }
}

#[test]
fn orders_rise_also_after_a_restore() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token(EXPIRED), NOW).unwrap();
    let row = Row::new(token("id=7 refresh_token=r7"), 5_000_000, Some(1));
    let other = Row::new(token("id=8 refresh_token=r8"), 4_999_999, None);
    store.restore(&[row, other], 8).unwrap();
    let rows = store.all().unwrap();
    let of =
        |rows: &[Row]| rows.iter().map(|row| (row.id().to_owned(), row.saved_order, row.saved_at)).collect::<Vec<_>>();
    let [(seven, later, Some(1)), (eight, earlier, None)] = &of(&rows)[..] else { panic!("{:?}", of(&rows)) };
    assert!(seven == "7" && eight == "8" && later > earlier, "{:?}", of(&rows));
    let later = *later;
    assert_eq!(store.save(token("refresh_token=r8 access_token=a"), NOW).unwrap(), "8");
    assert_eq!(store.save(token("refresh_token=new"), NOW).unwrap(), "9");
    let rows = store.all().unwrap();
    assert!(rows[1].saved_order > later && rows[2].saved_order > rows[1].saved_order, "{:?}", of(&rows));
    // A restore of old rows does not lower it.
    let before = rows[2].saved_order;
    store.restore(&[Row::new(token("id=1 refresh_token=r"), 1, None)], 1).unwrap();
    store.save(token("refresh_token=r access_token=b"), NOW).unwrap();
    assert!(store.all().unwrap()[0].saved_order > before);
}

#[test]
fn a_table_of_leases_that_was_dropped_fails_nothing_but_leases() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token(EXPIRED), NOW).unwrap();
    let Outcome::Refresh(_) = try_acquire(&store, "1-a") else { panic!("no lease") };
    Admin::new().sql(&format!("DROP TABLE {0}.zoho_token_lease, {0}.zoho_token_failure", schema.0));
    assert!(matches!(try_acquire(&store, "2-b"), Outcome::NoLease(_)));
    let owner = zoho_token_store::domain::lease::Requester::new("1-a", 0, 0, true);
    store.save_and_release(token(FRESH), NOW, owner.owner(), None).unwrap();
    assert!(matches!(try_acquire(&store, "2-b"), Outcome::Serve));
    let findings = store.check(NOW).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["changed-tables"]);
    assert!(findings[0].hint.contains("zoho-token-store init"), "{findings:?}");
}

#[test]
fn opening_makes_the_tables_again_that_hold_nothing_lasting() {
    let schema = Schema::new();
    let at_work = store(open(&schema));
    at_work.save(token(EXPIRED), NOW).unwrap();
    let owner = Admin::new().value("SELECT current_user");
    Admin::new().sql(&format!("DROP TABLE {}.zoho_token_lease", schema.0));
    // The problem that the log shows names the table.
    let Outcome::NoLease(problem) = try_acquire(&at_work, "1-a") else { panic!("a lease") };
    let shown = problem.to_string();
    assert!(shown.contains(&format!("tables are missing (42P01): \"{}\".zoho_token_lease. ", schema.0)), "{shown}");
    assert!(shown.contains("They hold nothing lasting.") && shown.contains("Nothing was changed."), "{shown}");
    // A role that may make no tables opens it nevertheless, and so does a program that makes none.
    let role = Role::new(&schema, &["USAGE ON SCHEMA {}", "SELECT, UPDATE ON ALL TABLES IN SCHEMA {}"]);
    assert_eq!(store(open_as(&role.0, &schema, true).unwrap()).count().unwrap(), 1);
    assert_eq!(store(open_as(&owner, &schema, false).unwrap()).count().unwrap(), 1);
    let findings = postgres::check(&address(&dsn()), Some(&schema.0), NOW, &Ring::clear_text(), deadline()).unwrap();
    assert_eq!(findings[0].code, "changed-tables");
    assert!(findings.iter().all(|finding| finding.hint.contains("zoho-token-store init, which")), "{findings:?}");
    for tables in ["{0}.zoho_token_failure", "{0}.zoho_token_lease, {0}.zoho_token_failure"] {
        let opened = store(open(&schema));
        assert_eq!((codes(&schema), opened.count().unwrap()), (vec![], 1));
        let Outcome::Refresh(_) = try_acquire(&opened, "1-a") else { panic!("no lease") };
        Admin::new().sql(&format!("DROP TABLE {}", tables.replace("{0}", &schema.0)));
    }
}

#[test]
fn a_lost_table_is_named_and_nothing_is_made_in_its_place() {
    let schema = Schema::new();
    let at_work = store(open(&schema));
    at_work.save(token(EXPIRED), NOW).unwrap();
    Admin::new().sql(&format!("DROP TABLE {}.oauthtoken", schema.0));
    let named = format!("tables are missing (42P01): \"{}\".oauthtoken", schema.0);
    for error in
        [at_work.count().unwrap_err(), Postgres::open(address(&dsn()), schema.settings(), deadline()).err().unwrap()]
    {
        assert_eq!((error.code(), error.detail()), (Code::WrongDatabase, named.as_str()));
        let shown = error.to_string();
        assert!(
            shown.contains(". Nothing was changed. What was in a missing table is lost. Restore a backup"),
            "{shown}"
        );
    }
    // One finding has one fix.
    assert_eq!(codes(&schema), [("wrong-database", Severity::Error)]);
    let hints: std::collections::BTreeSet<_> =
        at_work.check(NOW).unwrap().into_iter().map(|finding| finding.hint).collect();
    assert_eq!(hints.len(), 1, "{hints:?}");
}

#[test]
fn missing_tables_are_reported_at_once() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token(EXPIRED), NOW).unwrap();
    Admin::new().sql(&format!("DROP SCHEMA {} CASCADE", schema.0));
    let errors: [Error; 3] = [
        store.find(token("refresh_token=r"), Wait::Yes).err().unwrap(),
        store.save(token(FRESH), NOW).unwrap_err(),
        store.count().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::WrongDatabase, "{error}");
        let parts = [
            "oauthtoken",
            "zoho_token_key",
            "zoho_token_lease",
            "zoho_token_failure",
            "zoho_token_store",
            "zoho_token_order",
        ];
        let missing = parts.map(|part| format!("\"{}\".{part}", schema.0)).join(", ");
        assert_eq!(error.detail(), format!("tables are missing (42P01): {missing}"));
    }
}

/// Checks the tables without a store, and returns the codes and severities of the findings.
fn codes(schema: &Schema) -> Vec<(&'static str, Severity)> {
    codes_at(&dsn(), schema)
}

fn codes_at(dsn: &str, schema: &Schema) -> Vec<(&'static str, Severity)> {
    let findings = postgres::check(&address(dsn), Some(&schema.0), NOW, &Ring::clear_text(), deadline()).unwrap();
    for finding in &findings {
        assert!(!finding.hint.is_empty() && finding.hint.ends_with('.'), "{finding:?}");
    }
    findings.into_iter().map(|finding| (finding.code, finding.severity)).collect()
}

#[test]
fn a_check_finds_nothing_in_correct_tables_and_changes_nothing() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token("user_name=u client_id=c refresh_token=r"), NOW).unwrap();
    let before = dump(&schema);
    assert_eq!(codes(&schema), []);
    assert_eq!(store.check(NOW).unwrap(), []);
    assert_eq!(dump(&schema), before);
    assert_eq!(postgres::schema_version(&address(&dsn()), Some(&schema.0), deadline()).unwrap(), 1);
}

#[test]
fn a_check_finds_missing_tables_and_makes_none() {
    let schema = Schema::new();
    assert_eq!(codes(&schema), [("missing-tables", Severity::Error)]);
    Admin::new().sql(&format!("CREATE SCHEMA {}", schema.0));
    let settings = PostgresSettings { create: false, ..schema.settings() };
    let error = Postgres::open(address(&dsn()), settings, deadline()).err().unwrap();
    assert_eq!(error.detail(), format!("it has no tables of tokens in the schema \"{}\"", schema.0));
    assert_eq!(postgres::schema_version(&address(&dsn()), Some(&schema.0), deadline()).unwrap(), 0);
    assert_eq!(codes(&schema), [("missing-tables", Severity::Error)]);
}

#[test]
fn a_check_finds_changed_tables_a_setting_and_a_server_that_is_read_only() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token("user_name=u client_id=c refresh_token=r"), NOW).unwrap();
    let with = |option: &str| codes_at(&format!("{} options='-c {option}'", dsn()), &schema);
    assert_eq!(with("synchronous_commit=off"), [("no-synchronous-commit", Severity::Warning)]);
    assert_eq!(with("default_transaction_read_only=on"), [("read-only-server", Severity::Warning)]);
    let admin = Admin::new();
    for change in
        ["DROP INDEX SCHEMA.zoho_token_user_name", "ALTER TABLE SCHEMA.oauthtoken ALTER COLUMN saved_at TYPE TEXT"]
    {
        admin.sql(&change.replace("SCHEMA", &schema.0));
        assert!(codes(&schema).contains(&("changed-tables", Severity::Error)), "{change}");
    }
    let findings = postgres::check(&address(&dsn()), Some(&schema.0), NOW, &Ring::clear_text(), deadline()).unwrap();
    assert_eq!(findings[1].code, "wrong-database", "its rows cannot be read");
    assert!(findings[0].message.ends_with("changed: oauthtoken.saved_at, zoho_token_user_name"), "{findings:?}");
}

#[test]
fn rows_of_a_check_are_checked_too() {
    let schema = Schema::new();
    let store = store(open(&schema));
    store.save(token("user_name=u client_id=c access_token=a refresh_token=r"), NOW).unwrap();
    assert_eq!(codes(&schema), [("no-expiry", Severity::Warning)]);
}

#[cfg(feature = "sqlite")]
#[test]
fn a_backup_is_a_complete_store_in_a_file() {
    use super::common::sqlite;
    use super::common::{Folder, back_up};
    use zoho_token_store::store::Store;

    let (schema, folder) = (Schema::new(), Folder::new());
    let store = store(open(&schema));
    for n in 1..=3 {
        store.save(token(&format!("user_name=u{n} refresh_token=r{n}")), NOW).unwrap();
    }
    store.delete(Some("3")).unwrap();
    let path = folder.path("backup.db");
    back_up(&store, &path).unwrap();
    let copy: Store = sqlite::open(&path);
    let lines = |store: &Store| {
        let rows = store.all().unwrap();
        rows.iter().map(|row| (row.id().to_owned(), row.saved_at)).collect::<Vec<_>>()
    };
    assert_eq!(lines(&copy), lines(&store));
    assert_eq!(copy.save(token("refresh_token=new"), NOW).unwrap(), "4");
    // And back.
    store.restore(&copy.all().unwrap(), 4).unwrap();
    assert_eq!(lines(&copy), lines(&store));
}
