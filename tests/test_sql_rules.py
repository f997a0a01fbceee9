"""`scripts/check_sql.py`, which `make lint` runs, rejects SQL that not all databases and poolers have."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "check_sql.py"


@pytest.fixture(scope="module")
def check_sql():
    spec = importlib.util.spec_from_file_location("check_sql", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def found(check_sql, tmp_path):
    """A function that returns the violations in a source tree of these files."""

    def find(**files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(text, encoding="utf-8")
        return list(check_sql.violations(tmp_path))

    return find


def test_the_sources_have_no_violation(check_sql):
    assert list(check_sql.violations(check_sql.FOLDER)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_lock(1)",
        "LISTEN saved",
        "NOTIFY saved",
        "SELECT pg_notify('saved', '')",
        "PREPARE one AS SELECT 1",
        "EXECUTE one",
        "DEALLOCATE one",
        "SET search_path = zoho",
        "SET SESSION lock_timeout = 1",
        "begin; set lock_timeout = 1",
        "RESET ALL",
        "DISCARD ALL",
        "SELECT set_config('lock_timeout', '1', false)",
        "CREATE TEMP TABLE t (value INT)",
        "CREATE TEMPORARY\nTABLE t (value INT)",
        "SELECT * FROM pg_temp.t",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT ctid FROM t",
        "SELECT t.xmin FROM t",
        "SELECT txid_current()",
        "SELECT pg_current_xact_id()",
        "SELECT pg_current_wal_lsn()",
        "LOCK TABLE t",
        "LOCK t IN EXCLUSIVE MODE",
        "COPY t FROM STDIN",
        "VACUUM t",
        "DO $$ BEGIN END $$",
        "CREATE EXTENSION pgcrypto",
        "CREATE OR REPLACE FUNCTION f() RETURNS INT AS 'SELECT 1' LANGUAGE SQL",
        "CREATE UNLOGGED TABLE t (value INT)",
        "CREATE TABLE u () INHERITS (t)",
        "SELECT lo_create(0)",
    ],
)
def test_each_construct_is_rejected(found, statement):
    """In a literal of Rust, in a raw one, and in a script after other statements."""
    lines = found(
        a_rs=f'const SQL: &str = "{statement}";\n',
        b_rs=f'\nconst SQL: &str = r#"{statement}"#;\n',
        c_sql=f"-- A comment; it has a semicolon.\nSELECT 1;\n\n{statement};\n",
    )
    assert [line.split(": ")[0] for line in lines] == ["a.rs:1", "b.rs:2", "c.sql:4"]


@pytest.mark.parametrize(
    "call", ["client.query(&text, &[])", "client\n    .prepare(text)", "self.client.execute(text)"]
)
def test_a_call_that_prepares_a_statement_is_rejected(found, call):
    assert found(a_rs=f"fn f() {{ {call} }}\n") != []


def test_what_is_allowed(found):
    """Settings of a transaction, updates, comments, names that only contain a word, and unit tests."""
    lines = found(
        a_rs="""
// LISTEN would need a session: "LISTEN saved".
const A: &str = "BEGIN; SET LOCAL lock_timeout = 1; SET TRANSACTION READ ONLY; \\
    UPDATE t SET value = 1";
const B: &str = "SELECT set_config('lock_timeout', $1, true), 'a' FROM t FOR UPDATE";
const C: char = '"';
const D: &str = "WITH ok AS (SELECT 1) DELETE FROM t USING ok";
fn f() { client.query_typed(A, &[]); link.query(A); schema::prepare(link); }

#[cfg(test)]
mod tests {
    const SQL: &str = "LISTEN saved";
}
""",
        b_sql='-- LOCK TABLE t;\nCREATE TABLE t (executed TEXT COLLATE "C"); /* VACUUM; */ CREATE SEQUENCE s;',
    )
    assert lines == []
