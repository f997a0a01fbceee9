//! What only tables on a server have: their version, what the database itself refuses, and saves that meet a rotation.

use std::cell::Cell;
use std::sync::Arc;

use zoho_token_store::backends::postgres::Postgres;
use zoho_token_store::store::backend::{Backend, Durability, Transaction};
use zoho_token_store::store::error::Code;
use zoho_token_store::store::sealed::Sealed;
use zoho_token_store::store::{Error, Store, Wait};

use super::common::keyed::{fixed, key_id, store_with};
use super::common::postgres::{Admin, Schema, address, open};
use super::common::postgres_proxy::Proxy;
use super::common::{NOW, TIMEOUT, deadline, token};
use super::{ADA, BOB, find, hit, names, rotation_of, save, stored};

/// Tables of a test.
struct Tables {
    admin: Admin,
    backend: Arc<dyn Backend>,
    schema: Schema,
}

impl Tables {
    fn new() -> Self {
        let schema = Schema::new();
        Self { admin: Admin::new(), backend: Arc::new(open(&schema)), schema }
    }

    /// Executes a statement as another program. Returns the SQLSTATE if the database refuses it.
    fn execute(&self, sql: &str) -> Result<(), String> {
        let done = self.admin.try_sql(&sql.replace("SCHEMA", &self.schema.0));
        done.map(drop).map_err(|error| error.code().unwrap().code().to_owned())
    }

    fn version(&self) -> String {
        self.admin.value(&format!("SELECT version FROM {}.zoho_token_store", self.schema.0))
    }
}

#[test]
fn the_version_changes_in_the_transaction_of_the_first_sealed_row() {
    let tables = Tables::new();
    let sealed = Sealed::new(Arc::clone(&tables.backend), fixed("a"));
    let insert = |fail: bool| {
        sealed.write(deadline(), Durability::Full, &mut |rows| {
            rows.insert(token("id=1 refresh_token=r"), NOW)?;
            if fail { Err(Error::invalid_argument("injected")) } else { Ok(()) }
        })
    };
    assert!(insert(true).is_err());
    assert_eq!((tables.version(), names(&tables.backend).len()), ("1".to_owned(), 0));
    insert(false).unwrap();
    assert_eq!((tables.version(), names(&tables.backend)), ("2".to_owned(), vec![key_id('a')]));
    // Another program opens tables with that version, too.
    assert_eq!(Store::new(Box::new(open(&tables.schema)), TIMEOUT).with_keys(fixed("a")).count().unwrap(), 1);
    assert_eq!(rotation_of(&store_with("pa", &tables.backend)), (1, 0));
    assert_eq!((tables.version(), names(&tables.backend).len()), ("1".to_owned(), 0));
}

#[test]
fn the_database_refuses_what_a_program_that_knows_no_seals_would_write() {
    const MIXED: Option<&str> = Some("23514");
    const NO_SUCH_NAME: Option<&str> = Some("23503");
    let table = [
        // statement, how it is refused if all rows are sealed, and if rows in clear text may be there
        ("UPDATE SCHEMA.oauthtoken SET access_token = 'made-up' WHERE id = '1'", MIXED, MIXED),
        ("UPDATE SCHEMA.oauthtoken SET client_secret = 's' WHERE id = '1'", MIXED, MIXED),
        ("UPDATE SCHEMA.oauthtoken SET client_secret = NULL WHERE id = '1'", MIXED, MIXED),
        (
            "UPDATE SCHEMA.oauthtoken SET client_secret = 's', refresh_token = 'r', access_token = 'a', \
             grant_token = NULL WHERE id = '1'",
            NO_SUCH_NAME,
            None,
        ),
        ("INSERT INTO SCHEMA.oauthtoken (id, refresh_token) VALUES ('77', 'r')", NO_SUCH_NAME, None),
        ("INSERT INTO SCHEMA.oauthtoken (id, refresh_token) VALUES ('77', 'zts1.made-up')", MIXED, MIXED),
        ("INSERT INTO SCHEMA.oauthtoken (id, client_secret) VALUES ('77', 'zts1.made-up')", NO_SUCH_NAME, NO_SUCH_NAME),
        ("DELETE FROM SCHEMA.zoho_token_key", NO_SUCH_NAME, NO_SUCH_NAME),
        ("UPDATE SCHEMA.zoho_token_key SET id = 'other' WHERE id <> 'plaintext'", NO_SUCH_NAME, NO_SUCH_NAME),
        // Changes that the store notices.
        ("UPDATE SCHEMA.oauthtoken SET user_name = 'eve' WHERE id = '1'", None, None),
        ("UPDATE SCHEMA.oauthtoken SET access_token = NULL WHERE id = '1'", None, None),
    ];
    let [sealed, mixed] = [false, true].map(|with_clear_text| {
        let tables = Tables::new();
        save(&store_with("a", &tables.backend), ADA);
        if with_clear_text {
            save(&store_with("pa", &tables.backend), BOB);
        }
        tables
    });
    for (statement, if_sealed, if_mixed) in table {
        for (tables, expected) in [(&sealed, if_sealed), (&mixed, if_mixed)] {
            let done = tables.execute(&format!("BEGIN; {statement}"));
            tables.execute("ROLLBACK").unwrap();
            assert_eq!(done.err().as_deref(), expected, "{statement}");
            assert_eq!(find(&store_with("ap", &tables.backend), "refresh_token=r-ada"), hit("a-ada"));
        }
    }
}

#[test]
fn a_store_without_keys_that_is_open_already_gets_errors() {
    let tables = Tables::new();
    let open_before = store_with("p", &tables.backend);
    save(&open_before, BOB);
    save(&store_with("ap", &tables.backend), ADA);
    assert_eq!(find(&open_before, "refresh_token=other"), Err(Code::UnknownKey));
    assert_eq!(find(&open_before, "refresh_token=r-bob"), hit("a-bob"), "its own row is still in clear text");
    assert_eq!(open_before.save(token("refresh_token=r-ada"), NOW).unwrap_err().code(), Code::UnknownKey);
    assert_eq!(rotation_of(&store_with("ap", &tables.backend)), (1, 0));
    // The database itself takes no row in clear text any more, whatever the program has looked up.
    let insert = |rows: &mut dyn Transaction| rows.insert(token("id=9 refresh_token=r"), NOW);
    let refused = tables.backend.write(deadline(), Durability::Full, &mut |rows| insert(rows)).unwrap_err();
    assert_eq!(refused.code(), Code::UnknownKey);
    assert_eq!(refused.detail(), "it takes no row in clear text, or none under this key (23503)");
    assert_eq!(stored(&tables.backend).len(), 2);
}

#[test]
fn a_miss_is_not_certain_if_the_record_of_keys_was_deleted() {
    let tables = Tables::new();
    save(&store_with("a", &tables.backend), ADA);
    tables.execute("ALTER TABLE SCHEMA.oauthtoken DROP CONSTRAINT oauthtoken_key_id_fkey").unwrap();
    tables.execute("DELETE FROM SCHEMA.zoho_token_key").unwrap();
    for keys in ["b", "p"] {
        assert_eq!(find(&store_with(keys, &tables.backend), "refresh_token=r-ada"), Err(Code::UnknownKey), "{keys}");
    }
    assert_eq!(find(&store_with("a", &tables.backend), "refresh_token=other"), Ok(None));
    save(&store_with("a", &tables.backend), BOB);
    assert_eq!(names(&tables.backend), [key_id('a')], "a save records it again");
    tables.execute("DROP TABLE SCHEMA.zoho_token_key").unwrap();
    assert_eq!(find(&store_with("b", &tables.backend), "refresh_token=r-ada"), Err(Code::WrongDatabase));
}

#[test]
fn a_refresh_does_not_overwrite_a_row_that_was_rekeyed_meanwhile() {
    // A rotation keeps the order of a row, so the order alone does not show it.
    for (keys, values) in [("ab", "access_token=new expiry_time=1795303600001"), ("ab", "refresh_token=r-new")] {
        let tables = Tables::new();
        save(&store_with("a", &tables.backend), ADA);
        let rotates = Cell::new(true);
        let sealed = Sealed::new(Arc::clone(&tables.backend), fixed(keys));
        let saved = sealed.write(deadline(), Durability::Full, &mut |rows| {
            let row = rows.by_key(zoho_token_store::domain::Key::UserName, "ada")?.remove(0);
            if rotates.replace(false) {
                // It is interrupted, so both keys are still recorded.
                let interrupted = store_with("ba", &tables.backend).rekey(|_| Err(Error::invalid_argument("injected")));
                assert_eq!(interrupted.unwrap_err().code(), Code::InvalidArgument);
            }
            let values = token(values);
            let token = zoho_token_store::domain::Field::ALL.into_iter().fold(row.token(), |token, field| {
                values.get(field).map_or(token, |value| token.with(field, Some(value)))
            });
            rows.update(&row, token, NOW)
        });
        saved.unwrap();
        let row = store_with("ab", &tables.backend).all().unwrap().remove(0);
        let changed = token(values);
        let field = zoho_token_store::domain::Field::ALL.into_iter().find(|&field| changed.get(field).is_some());
        assert_eq!(row.get(field.unwrap()), changed.get(field.unwrap()), "{values}");
        assert_eq!(
            find(&store_with("ba", &tables.backend), "grant_token=g-ada").map(|found| found.is_some()),
            Ok(true)
        );
    }
}

#[test]
fn a_find_is_one_statement_a_miss_two_and_a_save_two_whichever_keys_there_are() {
    for keys in ["p", "a", "ba", "bap"] {
        let (proxy, schema) = (Proxy::new(), Schema::new());
        let backend = Postgres::open(address(&proxy.dsn()), schema.settings(), deadline()).unwrap();
        let store = Store::new(Box::new(backend), TIMEOUT).with_keys(fixed(keys));
        save(&store, ADA);
        for (values, found, expected) in [
            ("user_name=ada", true, 1),
            ("refresh_token=r-ada", true, 1),
            ("user_name=eve", false, 1),
            // The grant token could be that of a row under another key.
            ("id=9 grant_token=g refresh_token=s access_token=a-ada", true, 2),
            ("user_name=eve id=9 grant_token=g refresh_token=s access_token=b", false, 2),
        ] {
            let find = || assert_eq!(store.find(token(values), Wait::Yes).unwrap().is_some(), found, "{keys} {values}");
            assert_eq!(proxy.round_trips(find), expected, "{keys} {values}");
        }
        let refresh = "user_name=ada client_id=c access_token=new expiry_time=1795303600001";
        assert_eq!(proxy.round_trips(|| drop(save(&store, refresh))), 2, "{keys}");
        let login = "user_name=ada client_id=c refresh_token=r2";
        assert_eq!(proxy.round_trips(|| drop(save(&store, login))), 2, "{keys}");
        assert_eq!(proxy.round_trips(|| drop(save(&store, "user_name=eve refresh_token=s"))), 3, "{keys}");
    }
}

#[test]
fn a_refresh_writes_no_index_of_other_columns() {
    // The seal changes with each refresh. It is in no index, and neither is the key of the row.
    let tables = Tables::new();
    let store = store_with("a", &tables.backend);
    save(&store, ADA);
    let change = || tables.admin.value(&format!("SELECT change FROM {}.zoho_token_store", tables.schema.0));
    let before = change();
    save(&store, &ADA.replace("a-ada", "new"));
    assert_eq!(change(), before, "a refresh does not change the keys of rows");
    save(&store, &ADA.replace("r-ada", "new"));
    assert_ne!(change(), before);
}

#[test]
fn no_secret_is_on_the_server() {
    let tables = Tables::new();
    let store = store_with("a", &tables.backend);
    save(&store, ADA);
    save(&store, &ADA.replace("a-ada", "a-new"));
    assert_eq!(rotation_of(&store_with("ba", &tables.backend)), (1, 0));
    let row = tables.admin.sql(&format!("SELECT * FROM {}.oauthtoken", tables.schema.0)).concat().concat();
    assert!(row.contains("zts1.") && ["s-ada", "r-ada", "a-ada", "a-new", "g-ada"].iter().all(|s| !row.contains(s)));
}
