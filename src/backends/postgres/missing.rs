//! What a user or a schema lacks: rights, tables, columns.

use super::error::{LACKS_RIGHT, LACKS_TABLE, ServerFailure};
use super::link::Link;
use super::sql::{self, Tables, get};
use crate::store::error::{Code, Error};

/// The same failure with the rights or the tables that are missing, if it is about those.
pub(super) fn explained(link: &Link, tables: &Tables, failure: ServerFailure) -> ServerFailure {
    let location = link.location();
    let is = |sqlstate| failure == ServerFailure::from_sqlstate(location, sqlstate);
    if !link.is_usable() {
        return failure;
    }
    if is(LACKS_RIGHT) {
        // What it lacks is only part of the message, so a failure to ask for it is none.
        let rights = missing_rights(link, tables).unwrap_or_default();
        return if rights.is_empty() { failure } else { failure.lacking(location, &rights.join("; ")) };
    }
    if is(LACKS_TABLE) {
        let missing = missing_parts(link, tables).unwrap_or_default();
        // Not the indexes, which a statement does not need.
        let needed = sql::NEEDED_RIGHTS.iter().filter(|(part, _)| missing.iter().any(|missing| missing == part));
        let needed: Vec<_> = needed.map(|(part, _)| format!("{}.{part}", tables.schema())).collect();
        if !needed.is_empty() {
            let detail = format!("tables are missing ({LACKS_TABLE}): {}", needed.join(", "));
            return ServerFailure::Final(Error::new(Code::WrongDatabase, location).with(detail));
        }
    }
    failure
}

/// The rights that the user lacks on the schema, the tables and the sequence, as a `GRANT` names them.
pub(super) fn missing_rights(link: &Link, tables: &Tables) -> Result<Vec<String>, ServerFailure> {
    let answer = link.query(&tables.missing_rights())?;
    let mut found: Vec<(Option<&str>, &str)> = Vec::new();
    for row in &answer {
        found.push((get(link.location(), row, 0)?, get(link.location(), row, 1)?));
    }
    let schema = tables.schema();
    let mut missing = Vec::new();
    if found.iter().any(|(part, _)| part.is_none()) {
        missing.push(format!("USAGE ON SCHEMA {schema}"));
    }
    for &(part, needed) in sql::NEEDED_RIGHTS {
        let rights: Vec<_> = needed.iter().copied().filter(|right| found.contains(&(Some(part), right))).collect();
        if !rights.is_empty() {
            let kind = if part == "zoho_token_order" { "SEQUENCE " } else { "" };
            missing.push(format!("{} ON {kind}{schema}.{part}", rights.join(", ")));
        }
    }
    Ok(missing)
}

/// What the tables should have, and do not have.
pub(super) fn missing_parts(link: &Link, tables: &Tables) -> Result<Vec<String>, ServerFailure> {
    let found = link.query(&tables.parts())?;
    let mut parts = Vec::new();
    for row in &found {
        let (name, column, kind): (&str, Option<&str>, Option<&str>) =
            (get(link.location(), row, 0)?, get(link.location(), row, 1)?, get(link.location(), row, 2)?);
        parts.push((name.to_owned(), column.map(str::to_owned), kind.map(str::to_owned)));
    }
    let has = |name: &str, column: Option<&str>, kind: Option<&str>| {
        parts.iter().any(|(other, other_column, other_kind)| {
            other == name
                && (column.is_none() || other_column.as_deref() == column)
                && (kind.is_none() || other_kind.as_deref() == kind)
        })
    };
    let mut missing = Vec::new();
    for (name, columns) in sql::PARTS {
        if !has(name, None, None) {
            missing.push((*name).to_owned());
            continue;
        }
        let changed = columns.iter().filter(|(column, kind)| !has(name, Some(column), Some(kind)));
        missing.extend(changed.map(|(column, _)| format!("{name}.{column}")));
    }
    Ok(missing)
}
