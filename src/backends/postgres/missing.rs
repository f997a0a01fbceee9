//! What a user or a schema lacks: rights, tables, columns.

use super::error::{LACKS_RIGHT, LACKS_TABLE, ServerFailure};
use super::link::Link;
use super::parts;
use super::sql::{Tables, get};
use crate::store::backend::Location;
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
        let needed = parts::NEEDED_RIGHTS.iter().filter(|(part, _)| missing.iter().any(|missing| missing == part));
        let needed: Vec<_> = needed.map(|(part, _)| *part).collect();
        if !needed.is_empty() {
            return ServerFailure::Final(missing_tables(location, tables, &needed));
        }
    }
    failure
}

/// The same for an error that is final.
pub(super) fn explained_error(link: &Link, tables: &Tables, error: Error) -> Error {
    match explained(link, tables, ServerFailure::Final(error.clone())) {
        ServerFailure::Final(explained) => explained,
        ServerFailure::Lost(_) | ServerFailure::Retry(_) => error,
    }
}

/// These tables are missing, and others are there.
pub(super) fn missing_tables(location: &Location, tables: &Tables, missing: &[&str]) -> Error {
    let named: Vec<_> = missing.iter().map(|part| format!("{}.{part}", tables.schema())).collect();
    let detail = format!("tables are missing ({LACKS_TABLE}): {}", named.join(", "));
    Error::new(Code::WrongDatabase, location).with(detail).with_hint(hint(missing))
}

/// What to do about missing parts of the tables.
pub(super) fn hint(missing: &[&str]) -> &'static str {
    let lost =
        |part: &&str| parts::NEEDED_RIGHTS.iter().any(|(table, _)| table == part) && !parts::DISPOSABLE.contains(part);
    if missing.iter().any(lost) {
        "What was in a missing table is lost. Restore a backup into another schema, or drop the remaining tables and \
         run zoho-token-store init."
    } else if missing.iter().all(|part| parts::DISPOSABLE.contains(part)) {
        "Have the owner of the tables run zoho-token-store init, which makes them again. They hold nothing lasting."
    } else {
        "Restore a backup into another schema, or make the missing parts as init --sql prints them."
    }
}

/// The rights that the user lacks to make tables in the schema, as a `GRANT` names them.
pub(super) fn missing_rights_to_make(link: &Link, tables: &Tables) -> String {
    // What it lacks is only part of the message, so a failure to ask for it is none.
    let answer = link.query(&tables.rights_to_make()).unwrap_or_default();
    let has = |column| answer.first().and_then(|row| get(link.location(), row, column).ok()).unwrap_or(false);
    let rights = match (has(0), has(1)) {
        (true, false) => "CREATE",
        (false, true) => "USAGE",
        _ => "USAGE, CREATE",
    };
    format!("{rights} ON SCHEMA {}", tables.schema())
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
    for &(part, needed) in parts::NEEDED_RIGHTS {
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
    for (name, columns) in parts::PARTS {
        if !has(name, None, None) {
            missing.push((*name).to_owned());
            continue;
        }
        let changed = columns.iter().filter(|(column, kind)| !has(name, Some(column), Some(kind)));
        missing.extend(changed.map(|(column, _)| format!("{name}.{column}")));
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_depends_on_whether_something_lasting_is_missing() {
        let table: [(&[&str], &str); 6] = [
            (&["oauthtoken"], "lost"),
            (&["zoho_token_lease", "zoho_token_store"], "lost"),
            (&["zoho_token_order"], "lost"),
            (&["zoho_token_lease", "zoho_token_failure"], "makes them again"),
            (&["zoho_token_lease", "zoho_token_user_name"], "init --sql"),
            (&["oauthtoken.saved_at"], "init --sql"),
        ];
        for (missing, expected) in table {
            assert!(hint(missing).contains(expected), "{missing:?}");
        }
    }
}
