"""What is written down runs, leads somewhere, and is found: the README and the pages of `docs/`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import zoho_token_store
import zoho_token_store.testing
from support import DATA, run_forked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # what pytest reads its own settings with there

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def text_of(page: Path) -> str:
    """Return what stands in a page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of a page, with the languages that they are marked with."""
    return [(language, code) for _, language, code in FENCE.findall(text_of(page))]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text_of(page))


def name(page: Path) -> str:
    """Return what a page is called."""
    return page.relative_to(ROOT).as_posix()


# The blocks of a page run one after the other in one folder, as a reader would: programs, and commands in a shell. What
# goes to Zoho goes to the stand-in. Each has a thread of its own, for what the SDK is told it keeps per thread.
READER = """
import json, re, subprocess, traceback
from zoho_token_store.testing import ZohoStandIn
import zohocrmsdk.src.com.zoho.crm.api.dc as centres

folder, blocks = sys.argv[1], json.loads(sys.argv[2])
os.chdir(folder)
os.mkdir("temporary")
os.environ["TMPDIR"] = os.path.join(folder, "temporary")
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
os.environ.pop("ZOHO_TOKEN_STORE_DB", None)

def command(line, expected=()):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, input="")
    printed = done.stdout + done.stderr
    # As Zoho would have it. The width of a column depends on what is in it.
    printed = printed.replace(zoho.client_id, "1000.CLIENT").replace(zoho.url, "US")
    printed, shown = (re.sub("  +", "  ", text.strip("\\n")) for text in (printed, "\\n".join(expected)))
    # In what a page shows, three dots stand for anything.
    pattern = ".*".join(map(re.escape, shown.split("…")))
    if expected and not re.fullmatch(pattern, printed, re.DOTALL):
        raise AssertionError(f"{line}\\n{printed}")
    # What tells of something found has a status of its own, and shows what it tells.
    if done.returncode and not (done.returncode == 1 and expected and " check" in line):
        raise AssertionError(f"{line}: exit status {done.returncode}\\n{printed}")

def console(text):
    line, expected = None, []
    for next in [*text.splitlines(), "$ "]:
        if not next.startswith("$ "):
            expected.append(next)
            continue
        if line is not None:
            command(line, expected)
        line, expected = next[2:], []

def cron(text):
    for line in text.splitlines():
        *when, what = line.split(" ", 5)
        assert len(when) == 5 and all(re.fullmatch(r"[*/0-9]+", field) for field in when), line
        if what.split()[0] == "zoho-token-store":
            command(what.replace("/srv/app", folder))

def python(text):
    text = text.replace("1000.made.up", zoho.grant_code(ada))
    text = text.replace('"1000.CLIENT"', repr(zoho.client_id)).replace('"made-up"', repr(zoho.client_secret))
    if "\\ndef test_" in text:
        with open("test_block.py", "w", encoding="utf-8") as file:
            file.write(text)
        return command("python -m pytest -q -p no:cacheprovider test_block.py")
    exec(compile(text, "block", "exec"), {"__name__": "__main__"})

def run(language, text, failures):
    try:
        {"python": python, "console": console, "cron": cron}[language](text)
    except BaseException:
        failures.append(traceback.format_exc() + "\\nin the block\\n" + text)

with ZohoStandIn() as zoho, ZohoStandIn() as sandbox:
    ada = zoho.add_user("ada@example.com", "1001")
    class Centre:
        PRODUCTION = staticmethod(zoho.environment)
        SANDBOX = staticmethod(sandbox.environment)
    for centre in ("USDataCenter", "EUDataCenter", "INDataCenter"):
        setattr(centres, centre, Centre)
    for language, text in blocks:
        failures = []
        thread = threading.Thread(target=run, args=(language, text, failures), daemon=True)
        thread.start()
        thread.join(60)
        if failures or thread.is_alive():
            raise SystemExit(failures[0] if failures else "it does not end:\\n" + text)
print("all", len(blocks))
"""
RUN = ("python", "console", "cron")
RUNNABLE = [page for page in PAGES if any(language in RUN for language, _ in blocks(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_the_code_of_a_page_runs(tmp_path, page):
    """Every program and command of a page runs as it stands, in a user's folder, and prints what the page shows."""
    shutil.copyfile(DATA / "filestore-sdk_tokens.txt", tmp_path / "sdk_tokens.txt")
    shutil.copyfile(DATA / "sample-zohooauth.db", tmp_path / "sample.db")
    todo = [block for block in blocks(page) if block[0] in RUN]
    printed = run_forked(READER, tmp_path, json.dumps(todo), timeout=100)
    assert printed.splitlines()[-1] == f"all {len(todo)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_code_that_is_not_run_is_there_to_be_run(page):
    """Of what the test above does not run, verbs and extras are there, and settings can be read."""
    optional = text_of(ROOT / "pyproject.toml").split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = ", optional, re.MULTILINE)
    verbs = re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE)
    for language, code in blocks(page):
        assert language in {*RUN, "diff", "sh", "toml", "text", "{eval-rst}"}, code
        if language == "toml":
            tomllib.loads(code)
        for line in code.splitlines() if language == "sh" else ():
            # These are for a `console` block, where they are run.
            assert not line.startswith(("zoho-token-store", "python -m zoho_token_store")), line
            assert {*re.findall(r"zoho-token-store\[(\w+)\]", line)} <= {*extras}, line
            assert {*re.findall(r"^make ([a-z0-9-]+)", line)} <= {*verbs}, line


def test_the_readmes_first_screen_has_the_two_commands():
    """Whoever opens the README sees how to try it without scrolling."""
    first_screen = text_of(ROOT / "README.md").splitlines()[:24]
    for command in ("make demo", "make test", "pip install zoho-token-store"):
        assert any(line.strip().startswith(command) for line in first_screen)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    """Return where a page leads to, other sites left out."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """A link to a file of the repository leads to one, and a link to a heading to a heading."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_table_of_contents():
    """The index, which the site makes its table of contents of, names every page below one of its headings."""
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / link).resolve() for link in links(index)}
    assert [name(page) for page in (ROOT / "docs").glob("*.md") if page not in listed | {index}] == []
    sections = re.split(r"^## ", prose(index), flags=re.MULTILINE)
    assert all(re.search(r"\]\([^)]+\.md\)", section) for section in sections[1:])


def test_the_reference_has_every_public_name():
    """Whatever can be imported from the package and from its stand-in for Zoho is in the reference."""
    listed = re.findall(r"autoapi\w+:: ([\w.]+)$", text_of(ROOT / "docs" / "reference.md"), re.MULTILINE)
    public = {*zoho_token_store.__all__, *zoho_token_store.testing.__all__} - {"__version__"}
    assert public - {named.rpartition(".")[2] for named in listed} == {"CustomStore"}
    assert "`CustomStore` is another name for `CustomStoreInMemory`" in prose(ROOT / "docs" / "reference.md")


def test_every_page_is_one_step_from_the_readme():
    """Whoever has the README in front of them has a link to each page."""
    linked = {(ROOT / link).resolve() for link in links(ROOT / "README.md")}
    assert [name(page) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")] if page not in linked] == [
        "README.md"
    ]
