"""The README and the pages of `docs/`: their code runs, their links lead somewhere, and each page can be found."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import zoho_token_store
import zoho_token_store.testing
from own_process import run_in_fork
from programs.page import run_blocks
from support import DATA

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest depends on it for these versions of Python

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of a page, each with its language."""
    return [(language, code) for _, language, code in FENCE.findall(text_of(page))]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text_of(page))


def name(page: Path) -> str:
    """Return the path of a page in the repository, as the name of a test case."""
    return page.relative_to(ROOT).as_posix()


RUN = ("python", "console", "cron")
RUNNABLE = [page for page in PAGES if any(language in RUN for language, _ in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_the_code_of_a_page_runs(tmp_path, page, request):
    """Each program and command of a page runs unchanged in a user's folder, and prints what the page shows."""
    variables = request.getfixturevalue("empty_database") if page.name == "postgresql.md" else {}
    shutil.copyfile(DATA / "filestore-sdk_tokens.txt", tmp_path / "sdk_tokens.txt")
    shutil.copyfile(DATA / "sample-zohooauth.db", tmp_path / "sample.db")
    run_in_fork(run_blocks, tmp_path, [block for block in blocks(page) if block[0] in RUN], variables)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_is_not_run_names_targets_and_extras_that_exist(page):
    """In the languages that the test above does not run, `make` targets and extras exist, and TOML is valid."""
    optional = text_of(ROOT / "pyproject.toml").split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = ", optional, re.MULTILINE)
    targets = re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    for language, code in blocks(page):
        assert language in {*RUN, "diff", "rust", "sh", "toml", "text", "{eval-rst}"}, code
        # `tests/rust/backend_guide.rs` compares the Rust blocks of this page with the sources.
        assert language != "rust" or page.name == "CONTRIBUTING.md", code
        if language == "toml":
            tomllib.loads(code)
        for line in code.splitlines() if language == "sh" else ():
            # These commands belong into a `console` block: the test above runs it.
            assert not line.startswith(("zoho-token-store", "python -m zoho_token_store")), line
            assert {*re.findall(r"zoho-token-store\[(\w+)\]", line)} <= {*extras}, line
            assert {*re.findall(r"^make ([a-z0-9-]+)", line)} <= {*targets}, line


def test_the_readmes_first_screen_shows_how_to_try_and_to_install():
    """A reader sees how to try and to install the package, and what that needs, without scrolling."""
    first_screen = text_of(ROOT / "README.md").splitlines()[:24]
    for command in ("make demo", "make test", "pip install zoho-token-store", "pip install ."):
        assert any(line.strip().startswith(command) for line in first_screen), command
    cargo = tomllib.loads(text_of(ROOT / "Cargo.toml"))
    for need in ("Python 3.10", f"Rust {cargo['package']['rust-version']}", "C compiler"):
        assert need in " ".join(first_screen), need


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings. GitHub and the site make the same ones."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    """Return the targets of a page's links. Links to other sites are left out."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_link_has_a_target(page):
    """The file that a link names exists, and so does the heading."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_table_of_contents():
    """The site makes its table of contents from the index. Each page is listed there, below one of its headings."""
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / link).resolve() for link in links(index)}
    assert [name(page) for page in (ROOT / "docs").glob("*.md") if page not in listed | {index}] == []
    sections = re.split(r"^## ", prose(index), flags=re.MULTILINE)
    assert all(re.search(r"\]\([^)]+\.md\)", section) for section in sections[1:])


def test_the_reference_has_every_public_name():
    """The reference lists each public name of the package and of its stand-in for Zoho."""
    listed = re.findall(r"autoapi\w+:: ([\w.]+)$", text_of(ROOT / "docs" / "reference.md"), re.MULTILINE)
    public = {*zoho_token_store.__all__, *zoho_token_store.testing.__all__} - {"__version__"}
    assert public - {named.rpartition(".")[2] for named in listed} == {"CustomStore"}
    assert "`CustomStore` is another name for `CustomStoreInMemory`" in prose(ROOT / "docs" / "reference.md")


def test_the_readme_links_to_every_page():
    """Each page is one click away from the README."""
    linked = {(ROOT / link).resolve() for link in links(ROOT / "README.md")}
    assert [name(page) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if page not in linked] == [
        "README.md"
    ]
