"""Checks the SQL of the PostgreSQL backend: it must also work where PostgreSQL's protocol is all that is shared.

CockroachDB and YugabyteDB speak the protocol, and lack some of the SQL. pgbouncer in transaction mode can give each
transaction another session, so nothing may last longer than a transaction. The check reads the string literals of the
Rust sources, without their unit tests, and the scripts. It fails with one line for each violation.

CockroachDB: https://www.cockroachlabs.com/docs/stable/postgresql-compatibility. YugabyteDB:
https://docs.yugabyte.com/stable/develop/postgresql-compatibility. pgbouncer: https://www.pgbouncer.org/features.html.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent.parent / "src" / "backends" / "postgres"

SESSION = "it would have to outlive a transaction, and pgbouncer may give the next one another session"
MISSING = "CockroachDB or YugabyteDB does not have it"

# What must not occur in a statement. `^` is the beginning of a statement, or of a part of one.
FORBIDDEN = {
    r"pg_(?:try_)?advisory_\w+": MISSING,
    r"^(?:LISTEN|UNLISTEN|NOTIFY)\b|\bpg_notify\b": SESSION,
    r"^(?:PREPARE|EXECUTE|DEALLOCATE)\b": SESSION,
    r"^SET (?!LOCAL\b|TRANSACTION\b)|^(?:RESET|DISCARD)\b": SESSION,
    r"\bset_config\s*\([^()]*,\s*false\s*\)": SESSION,
    r"\b(?:TEMP|TEMPORARY) (?:TABLE|VIEW|SEQUENCE)\b|\bpg_temp\b": SESSION,
    r"\bWITH HOLD\b": SESSION,
    r"\b(?:ctid|xmin|xmax|cmin|cmax)\b": MISSING,
    r"\b(?:txid|pg_current_xact|pg_current_wal|pg_wal)_?\w*": MISSING,
    r"^LOCK\b": MISSING,
    r"^(?:COPY|VACUUM|CLUSTER|REINDEX)\b|^DO \$": MISSING,
    r"\bCREATE (?:OR REPLACE )?(?:EXTENSION|TRIGGER|RULE|DOMAIN|AGGREGATE|FUNCTION|PROCEDURE)\b": MISSING,
    r"\b(?:UNLOGGED|INHERITS|TABLESPACE)\b|\bEXCLUDE USING\b": MISSING,
    r"\blo_\w+\s*\(": MISSING,
}
# What must not occur in the code: the functions of the crate that prepare a statement.
PREPARES = {r"\bclient\s*\.\s*(?:prepare\w*|query|query_one|query_opt|query_raw|execute|execute_raw)\(": SESSION}

TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*mod .*", re.DOTALL | re.MULTILINE)
TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
    | r(?P<hashes>\#*)"(?P<raw>.*?)"(?P=hashes)
    | "(?P<text>(?:\\.|[^"\\])*)"
    | '(?:\\.[^']*|[^'\\])'
    """,
    re.VERBOSE | re.DOTALL,
)
SQL_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def statements(sql: str) -> Iterator[tuple[int, str]]:
    """Yield each statement with its offset. Comments become spaces."""
    sql = SQL_COMMENT.sub(lambda comment: " " * len(comment[0]), sql)
    offset = 0
    for statement in sql.split(";"):
        yield offset + len(statement) - len(statement.lstrip()), statement.strip()
        offset += len(statement) + 1


def literals(rust: str) -> Iterator[tuple[int, str]]:
    """Yield each string literal of a Rust source with its offset."""
    for token in TOKEN.finditer(rust):
        for group in ("raw", "text"):
            if token[group] is not None:
                # A backslash at the end of a line joins the lines.
                yield token.start(group), re.sub(r"\\\n\s*", lambda join: " " * len(join[0]), token[group])


def matches(text: str, rules: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Yield the offset of each forbidden construct, and a sentence about it."""
    # A space in a rule stands for any white space.
    for rule, reason in rules.items():
        for match in re.finditer(rule.replace(" ", r"\s+"), text, re.IGNORECASE):
            words = " ".join(match[0].split())
            yield match.start(), f"{words!r}: {reason}"


def violations(folder: Path) -> Iterator[str]:
    """Yield a line for each violation in the sources below `folder`."""
    for path in sorted(folder.rglob("*")):
        if path.suffix not in {".rs", ".sql"}:
            continue
        source = path.read_text(encoding="utf-8")
        found: list[tuple[int, str]] = []
        if path.suffix == ".rs":
            source = TESTS.sub("", source)
            code = TOKEN.sub(lambda token: " " * len(token[0]), source)
            found += matches(code, PREPARES)
            texts = list(literals(source))
        else:
            texts = [(0, source)]
        for start, text in texts:
            for offset, statement in statements(text):
                found += ((start + offset + at, what) for at, what in matches(statement, FORBIDDEN))
        for at, what in sorted(found):
            yield f"{path.relative_to(folder).as_posix()}:{source.count(chr(10), 0, at) + 1}: {what}"


def main() -> int:
    """Print the violations, and return the exit status."""
    found = list(violations(FOLDER))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
