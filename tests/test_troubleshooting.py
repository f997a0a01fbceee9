"""Whoever searches `docs/troubleshooting.md` for a message finds it: all of them stand there, and nothing else does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"

# Every text in the sources with two words in it counts as a message, so that a new one cannot be forgotten. But these:
NO_MESSAGES = {
    "src/domain/token.rs": {"Token with "},  # a `Debug`, for the tests in Rust
    "src/python/convert.rs": {"an exception"},  # an exception's name, where it has none
    # Names within a message, or of one.
    "src/store/sqlite/network.rs": {"a shared folder of VirtualBox"},
    "src/domain/place.rs": {" sandbox", " developer"},
    "src/store/transfer/mod.rs": {"SQLite format 3\\0"},
    "src/python/stores.rs": {"<…, not opened>"},  # a `repr`, as is
    "src/python/administration.rs": {"<Finding … (…): …>", "<Record …>", "JSON Lines"},
    "src/python/lease.rs": {"LeaseInfo(taken=…, waited=…, gave_up=…, longest_wait=…)"},
    # Python that Rust writes.
    "src/python/calls.rs": {
        "… is ... or token.…(…)",
        "… is None or token.…(…)",
        "lambda token: (…)",
        "lambda token, …: (…)",
        "… if … is None else UserSignature(…)",
        "lambda …: (token := OAuthToken(…), …)[0]",
    },
}
TOKENS = re.compile(
    r"""//[^\n]*                          # a comment
      | '(?:\\.|[^'\\\n])'                # a character
      | (?:reason|text_signature)\s*=\s*"(?:\\.|[^"\\])*"
      | (?:c|b)?r(\#*)"(?P<raw>.*?)"\1
      | (?:c|b)?"(?P<text>(?:\\.|[^"\\])*)"
    """,
    re.DOTALL | re.VERBOSE,
)
SQL = re.compile(
    r"(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|BEGIN|VACUUM|ATTACH) |.*\b(stored\.|FROM oauth)"
)
TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*mod .*", re.DOTALL | re.MULTILINE)
ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": " "}


def plain(text: str) -> str:
    """Return a text as it is compared: in one line, with three dots for what differs."""
    return re.sub(r"\s+", " ", re.sub(r"\{[^{}]*\}", "…", text))


def says_something(text: str) -> bool:
    """Tell whether there are words in it, and not only one."""
    return " " in text and re.search(r"[a-z]{2}", text, re.IGNORECASE) is not None


def in_rust(path: Path) -> set[str]:
    """Return the texts of a Rust source, but for its tests and what documents it."""
    source = TESTS.sub("", path.read_text(encoding="utf-8"))
    # What Python shows of the exception's class.
    source = re.sub(r"create_exception!\(.*?\);", "", source, flags=re.DOTALL)
    found = set()
    for token in TOKENS.finditer(source):
        text = token["text"] if token["raw"] is None else token["raw"]
        if text is None:
            continue
        text = re.sub(r"\\\n\s*", "", text)
        found.add(plain(re.sub(r'\\["\\n]', lambda escape: ESCAPES[escape[0]], text)))
    return {text for text in found if says_something(text) and not SQL.match(text)}


# What puts a text before somebody's eyes in Python, beside `raise`.
SAYERS = {"note", "write", "warn"}


def says(node: ast.AST, names: set[str]) -> bool:
    """Tell whether a message stands in this piece of Python: raised, put out, or kept for that under a name."""
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id in names for target in node.targets)
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", None)) in SAYERS
    return isinstance(node, ast.Raise)


def texts(node: ast.AST) -> set[str]:
    """Return the texts in a piece of Python."""
    parts = list(ast.walk(node))
    formatted = [part for part in parts if isinstance(part, ast.JoinedStr)]
    within = {id(piece) for text in formatted for piece in ast.walk(text)}
    found = {part.value for part in parts if isinstance(part, ast.Constant) and id(part) not in within}
    for text in formatted:
        pieces = [piece.value if isinstance(piece, ast.Constant) else "{}" for piece in text.values]
        found.add("".join(map(str, pieces)))
    return {plain(text) for text in found if isinstance(text, str)}


def in_python(path: Path) -> set[str]:
    """Return the texts that a Python source raises, or puts out to whoever runs it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    raised = [name for node in nodes if isinstance(node, ast.Raise) for name in ast.walk(node)]
    names = {name.id for name in raised if isinstance(name, ast.Name)}
    return {text for node in nodes if says(node, names) for text in texts(node) if says_something(text)}


def messages() -> dict[str, set[str]]:
    """Return all messages, by the source that they stand in."""
    found = {path: in_rust(path) for path in (ROOT / "src").rglob("*.rs")}
    found |= {path: in_python(path) for path in (ROOT / "python").rglob("*.py")}
    return {path.relative_to(ROOT).as_posix(): texts for path, texts in sorted(found.items()) if texts}


MESSAGES = messages()


def entries() -> tuple[str, list[str]]:
    """Return what the page shows as messages (headings, quotations and code), and the headings of its entries."""
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^### (.+)$", text.split("\n## What Zoho")[0], re.MULTILINE)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    quotations = [lines.replace("\n>", " ")[1:] for lines in re.findall(r"^(?:>.*\n)+", text, re.MULTILINE)]
    code = re.findall(r"`([^`]+)`", text)
    return plain(" | ".join([*headings, *quotations, *code]).replace("\\_", "_")), headings


@pytest.mark.parametrize("source", MESSAGES)
def test_every_message_is_on_the_page(source):
    """Each message that the library can raise or log stands in the page for troubles, word for word."""
    page, _ = entries()
    missing = [text for text in MESSAGES[source] - NO_MESSAGES.get(source, set()) if text.strip() not in page]
    assert missing == []


def test_every_entry_is_for_a_message():
    """The heading of each entry is words of a message that there is: none is left of one that has gone."""
    _, headings = entries()
    all_of_them = " | ".join(text for texts in MESSAGES.values() for text in texts)
    assert [heading for heading in headings if heading not in all_of_them] == []
    assert len(headings) == len(set(headings))


def test_what_is_no_message_is_a_text_of_its_source():
    """What is left out is there to be left out."""
    for source, texts in NO_MESSAGES.items():
        assert texts <= MESSAGES[source], source
