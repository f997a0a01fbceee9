"""`docs/troubleshooting.md` has an entry for every message of the package and of its native layer, and no other entry.

`tests/rust/troubleshooting.rs` compares the errors of the catalogue (`src/store/error.rs`) and the findings of a check.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
IN_RUST = {"Errors", "Findings of `check`"}  # the sections that the test in Rust compares
OTHERS_MESSAGES = "What Zoho and the SDK say"

# A text of more than one word counts as a message, so that no new message is forgotten. These are not messages:
NO_MESSAGES = {
    "src/python/administration.rs": {"JSON Lines", "standard input", "the file"},
    "src/python/records.rs": {"<Finding … (…): …>", "<Record …>"},
    "src/python/address.rs": {"<StoreAddress …>"},
    "src/python/cell.rs": {"the cell …", "has returned …", "… bytes"},  # parts of messages
    "python/zoho_token_store/testing/_cell_contract.py": {  # of the tests of a cell
        "the answer was lost",
        "swap raised … for … bytes, and the old document is gone",
    },
    "python/zoho_token_store/testing/_cell_trials.py": {
        "swap raised … for an old version: it must return False",
        "swap returned True for a version that the place no longer has: compare and write in one step",
    },
    "src/python/token_functions.rs": {  # Python code
        "… is ... or token.…(…)",
        "… is None or token.…(…)",
        "lambda token: (…)",
        "lambda token, …: (…)",
        "… if … is None else UserSignature(…)",
        "lambda …: (token := OAuthToken(…), …)[0]",
    },
    "src/python/keys.rs": {"Rekeyed(rewritten=…, left=…)"},
    "src/python/convert.rs": {"an exception"},  # stands for the name of an exception
    "src/python/refresh_ahead.rs": {"Refreshed(refreshed=…, skipped=…, failed=…)"},
    "src/python/refresh_wait.rs": {
        (
            "LeaseInfo(taken=…, waited=…, gave_up=…, longest_wait=…, failed_saves=…, failed_refreshes=…, "
            "backed_off=…, taken_ahead=…)"
        ),
    },
    "src/python/base.rs": {"<…, not opened>"},
}
LITERAL = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
NOT_CODE = re.compile(
    r"""^\#\[cfg\(test\)\]\n(?:\#\[[^\n]*\n)*mod[ ].*  # tests, which end a file
      | ^const[ ]\w+_DOC:.*?;$          # docstrings
      | \b(?:reason|text_signature)\s*=\s*"[^"]*" """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)


def normalized(text: str) -> str:
    """Return a text in one line, with dots for what differs."""
    return re.sub(r"\s+", " ", re.sub(r"\{[^{}]*\}", "…", text)).strip()


def is_message(text: str) -> bool:
    """Return whether the text has more than one word."""
    return " " in text and re.search(r"[a-z]{2}", text, re.IGNORECASE) is not None


def messages_in_rust(path: Path) -> set[str]:
    """Return the texts of a source of the native layer."""
    source = NOT_CODE.sub("", COMMENT.sub("", path.read_text(encoding="utf-8")))
    literals = (re.sub(r"\\\n\s*", "", literal).replace('\\"', '"') for literal in LITERAL.findall(source))
    return {text for text in map(normalized, literals) if is_message(text)}


# Functions that write a message, besides `raise`.
WRITERS = {"note", "write", "warn"}


def writes_message(node: ast.AST, raised_names: set[str]) -> bool:
    """Return whether a statement raises, writes, or names a message."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id in raised_names for target in node.targets)
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", None)) in WRITERS
    return isinstance(node, ast.Raise)


def texts(node: ast.AST) -> set[str]:
    """Return the texts in a piece of Python."""
    parts = list(ast.walk(node))
    formatted = [part for part in parts if isinstance(part, ast.JoinedStr)]
    inner = {id(piece) for text in formatted for piece in ast.walk(text)}
    found = {part.value for part in parts if isinstance(part, ast.Constant) and id(part) not in inner}
    for text in formatted:
        pieces = [piece.value if isinstance(piece, ast.Constant) else "{}" for piece in text.values]
        found.add("".join(map(str, pieces)))
    return {normalized(text) for text in found if isinstance(text, str)}


def messages_in_python(path: Path) -> set[str]:
    """Return the texts that a Python source raises or writes."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    raised = [name for node in nodes if isinstance(node, ast.Raise) for name in ast.walk(node)]
    names = {name.id for name in raised if isinstance(name, ast.Name)}
    return {text for node in nodes if writes_message(node, names) for text in texts(node) if is_message(text)}


def messages() -> dict[str, set[str]]:
    """Return all messages by their source."""
    found = {path: messages_in_rust(path) for path in (ROOT / "src" / "python").glob("*.rs")}
    found |= {path: messages_in_python(path) for path in (ROOT / "python").rglob("*.py")}
    return {path.relative_to(ROOT).as_posix(): texts for path, texts in sorted(found.items()) if texts}


MESSAGES = messages()


def sections() -> dict[str, str]:
    """Return the sections of the page by their headings."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shown() -> str:
    """Return what the page shows as messages: headings, quotations and code."""
    text = re.sub(r"^```.*?^```", "", "\n".join(sections().values()), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    quotations = [lines.replace("\n>", " ")[1:] for lines in re.findall(r"^(?:>.*\n)+", text, re.MULTILINE)]
    code = re.findall(r"`([^`]+)`", text)
    return normalized(" | ".join([*headings, *quotations, *code]).replace("\\_", "_"))


@pytest.mark.parametrize("source", MESSAGES)
def test_every_message_is_on_the_page(source):
    """Each message that the package raises, writes or logs is on the page, word for word."""
    page = shown()
    assert [text for text in MESSAGES[source] - NO_MESSAGES.get(source, set()) if text not in page] == []


def test_every_entry_is_for_a_message():
    """The heading of each entry is a part of a message in the sources."""
    entries = {title: re.findall(r"^### (.+)$", text, re.MULTILINE) for title, text in sections().items()}
    headings = [heading for title in entries.keys() - IN_RUST - {OTHERS_MESSAGES} for heading in entries[title]]
    all_messages = " | ".join(text for texts in MESSAGES.values() for text in texts)
    assert [heading for heading in headings if heading not in all_messages] == []
    assert len(headings) == len(set(headings))
    assert entries.keys() >= IN_RUST


def test_every_excluded_text_is_in_its_source():
    """Each text in `NO_MESSAGES` still exists in its source."""
    for source, texts in NO_MESSAGES.items():
        assert texts <= MESSAGES[source], source
