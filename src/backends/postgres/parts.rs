//! Statements on what there is in the database and in the schema: tables, rights and owners.

use std::borrow::Cow;

use super::sql::Tables;
use super::statement::{Bound, Statement};

/// The parts of the schema, as [`Tables::parts`] shows them, and the columns that we use.
pub(super) const PARTS: &[(&str, &[(&str, &str)])] = &[
    (
        "oauthtoken",
        &[
            ("id", "text"),
            ("user_name", "text"),
            ("client_id", "text"),
            ("client_secret", "text"),
            ("refresh_token", "text"),
            ("access_token", "text"),
            ("grant_token", "text"),
            ("expiry_time", "text"),
            ("redirect_url", "text"),
            ("api_domain", "text"),
            ("saved_order", "bigint"),
            ("saved_at", "bigint"),
            ("position", "bigint"),
            ("key_id", "text"),
        ],
    ),
    ("zoho_token_key", &[("id", "text")]),
    ("zoho_token_user_name", &[]),
    ("zoho_token_grant_token", &[]),
    ("zoho_token_refresh_token", &[]),
    ("zoho_token_access_token", &[]),
    ("zoho_token_order", &[]),
    ("zoho_token_store", &[("version", "bigint"), ("last_id", "bigint"), ("change", "bigint")]),
    ("zoho_token_lease", &[("key", "text"), ("owner", "text"), ("until", "bigint")]),
    (
        "zoho_token_failure",
        &[("key", "text"), ("count", "bigint"), ("since", "bigint"), ("last", "bigint"), ("fingerprint", "text")],
    ),
];

/// The rights that a store needs on its tables and on its sequence, as `docs/postgresql.md` grants them.
pub(super) const NEEDED_RIGHTS: &[(&str, &[&str])] = &[
    ("oauthtoken", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_key", &["SELECT", "INSERT", "DELETE"]),
    ("zoho_token_lease", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_failure", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("zoho_token_store", &["SELECT", "UPDATE"]),
    ("zoho_token_order", &["SELECT", "UPDATE"]),
];

/// The tables that hold nothing lasting: they may be dropped at any time (`docs/lease.md`, rule 13).
pub(super) const DISPOSABLE: &[&str] = &["zoho_token_lease", "zoho_token_failure"];

/// The name of the database.
pub(super) fn database() -> Statement<'static> {
    let mut statement = Statement::default();
    statement.sql("SELECT CAST(pg_catalog.current_database() AS TEXT)");
    statement
}

impl Tables {
    /// The tables, indexes and sequences of the schema, and the columns of the tables with their types.
    pub(super) fn parts(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT CAST(c.relname AS TEXT), CAST(a.attname AS TEXT), format_type(a.atttypid, a.atttypmod) ");
        statement.sql("FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 ");
        statement.sql("AND NOT a.attisdropped WHERE CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// The rights that the user lacks: each with the part that it is about, or with NULL for the schema.
    pub(super) fn missing_rights(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT CAST(NULL AS TEXT), CAST('USAGE' AS TEXT) FROM pg_catalog.pg_namespace AS n ");
        statement.sql("WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        let rights = NEEDED_RIGHTS.iter().flat_map(|(part, rights)| rights.iter().map(move |right| (part, right)));
        let rights: Vec<_> = rights.map(|(part, right)| format!("('{part}', '{right}')")).collect();
        statement.sql(" UNION ALL SELECT w.part, w.need FROM (VALUES ").sql(&rights.join(", "));
        statement.sql(") AS w (part, need) JOIN pg_catalog.pg_class AS c ON CAST(c.relname AS TEXT) = w.part ");
        statement.sql("JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("WHERE NOT pg_catalog.has_table_privilege(c.oid, w.need) AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// Which of the rights to make tables the user has on the schema.
    pub(super) fn rights_to_make(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'), ");
        statement.sql("pg_catalog.has_schema_privilege(n.oid, 'CREATE') FROM pg_catalog.pg_namespace AS n ");
        statement.sql("WHERE CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement
    }

    /// The owners of the tables and of the sequence who can do what neither this user nor the owner of the schema or
    /// of the database has allowed them.
    pub(super) fn other_owners(&self) -> Statement<'_> {
        let mut statement = Statement::default();
        statement.sql("SELECT DISTINCT CAST(pg_catalog.pg_get_userbyid(c.relowner) AS TEXT) AS owner ");
        statement.sql("FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace ");
        statement.sql("JOIN pg_catalog.pg_database AS d ON CAST(d.datname AS TEXT) = ");
        statement.sql("CAST(pg_catalog.current_database() AS TEXT) WHERE CAST(c.relname AS TEXT) IN (");
        statement.sql(&NEEDED_RIGHTS.iter().map(|(part, _)| format!("'{part}'")).collect::<Vec<_>>().join(", "));
        // A superuser is a member of every role.
        statement.sql(") AND NOT pg_catalog.pg_has_role(c.relowner, 'MEMBER') ");
        for trusted in ["n.nspowner", "d.datdba"] {
            statement.sql("AND NOT pg_catalog.pg_has_role(c.relowner, ").sql(trusted).sql(", 'MEMBER') ");
        }
        statement.sql("AND CAST(n.nspname AS TEXT) = ");
        statement.bind(Bound::Text(Some(Cow::Borrowed(&self.name))));
        statement.sql(" ORDER BY owner");
        statement
    }
}

/// What there is: the encoding of the database, the schema (the given one, or else the first one of the search path),
/// whether it exists, whether it has a table of a store and a table of tokens, and whether the server is read-only.
pub(super) fn look(schema: Option<&str>) -> Statement<'_> {
    let mut statement = Statement::default();
    statement
        .sql("SELECT current_setting('server_encoding'), o.name, EXISTS (SELECT 1 FROM pg_catalog.pg_namespace AS n ");
    statement.sql("WHERE CAST(n.nspname AS TEXT) = o.name), EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN ");
    statement.sql("pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE CAST(n.nspname AS TEXT) = o.name AND ");
    statement
        .sql("CAST(c.relname AS TEXT) = 'zoho_token_store'), EXISTS (SELECT 1 FROM pg_catalog.pg_class AS c JOIN ");
    statement.sql("pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE CAST(n.nspname AS TEXT) = o.name AND ");
    statement.sql(
        "CAST(c.relname AS TEXT) = 'oauthtoken'), current_setting('transaction_read_only') FROM (SELECT coalesce(",
    );
    statement.bind(Bound::Text(schema.map(Cow::Borrowed))).sql(", CAST(current_schema() AS TEXT)) AS name) AS o");
    statement
}
