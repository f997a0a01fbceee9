"""What is written down runs, leads somewhere, and is found: the README and the pages of `docs/`."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from support import DATA, run_forked

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
# What a block may be: run as a program; run as commands, and what they print compared; commands that are not for a test to
# run, whose names are looked up; what others print; what the site is made of.
LANGUAGES = {"python", "console", "sh", "cron", "text", "{eval-rst}"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the code blocks of a page, with the languages that they are marked with."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def named(pages: list[Path]) -> dict[str, object]:
    """Return what pytest calls a test's pages by."""
    return {"argvalues": pages, "ids": [page.relative_to(ROOT).as_posix() for page in pages]}


# The blocks of one page run one after the other, in one folder, as a reader would: programs, and commands in a shell. What
# goes to Zoho goes to the stand-in. Each block has a thread of its own, for the SDK keeps what it was told per thread.
READER = """
import json, re, subprocess
from zoho_token_store.testing import ZohoStandIn
import zohocrmsdk.src.com.zoho.crm.api.dc as centres

folder, blocks = sys.argv[1], json.loads(sys.argv[2])
os.chdir(folder)
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
os.environ["NO_COLOR"] = "1"
os.environ.pop("ZOHO_TOKEN_STORE_DB", None)

def run_commands(text):
    expected, command = [], None
    for line in [*text.splitlines(), "$ true"]:
        if not line.startswith("$ "):
            expected.append(line)
            continue
        if command is not None:
            done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, input="")
            printed = done.stdout + done.stderr
            # In what a page shows, three dots stand for anything.
            pattern = ".*".join(map(re.escape, "\\n".join(expected).split("…")))
            if expected and not re.fullmatch(pattern, printed.strip("\\n"), re.DOTALL):
                raise AssertionError(f"{command}\\n{printed}")
            if done.returncode and not expected:
                raise AssertionError(f"{command}: exit status {done.returncode}\\n{printed}")
        expected, command = [], line[2:]

def run_program(text):
    code = zoho.grant_code(zoho.add_user("ada@example.com", "1001"))
    text = text.replace("1000.made.up", code)
    text = text.replace('"1000.CLIENT"', repr(zoho.client_id)).replace('"made-up"', repr(zoho.client_secret))
    exec(compile(text, "block", "exec"), {"__name__": "__main__"})

def run(language, text, failures):
    try:
        {"python": run_program, "console": run_commands}[language](text)
    except BaseException as error:
        import traceback
        failures.append("".join(traceback.format_exception(error)) + "\\nin the block\\n" + text)

with ZohoStandIn() as zoho, ZohoStandIn() as sandbox:
    class Centre:
        PRODUCTION = staticmethod(zoho.environment)
        SANDBOX = staticmethod(sandbox.environment)
    for name in ("USDataCenter", "EUDataCenter", "INDataCenter"):
        setattr(centres, name, Centre)
    for number, (language, text) in enumerate(blocks):
        failures = []
        thread = threading.Thread(target=run, args=(language, text, failures), daemon=True)
        thread.start()
        thread.join(60)
        if failures or thread.is_alive():
            raise SystemExit(failures[0] if failures else "it does not end:\\n" + text)
print("all", len(blocks))
"""

RUNNABLE = [page for page in PAGES if {"python", "console"} & {language for language, _ in blocks(page)}]


@pytest.mark.parametrize("page", **named(RUNNABLE))
def test_the_code_of_a_page_runs(tmp_path, page):
    """Every program and every command of a page runs as it stands, in a user's folder."""
    shutil.copyfile(DATA / "filestore-sdk_tokens.txt", tmp_path / "sdk_tokens.txt")
    shutil.copyfile(DATA / "sample-zohooauth.db", tmp_path / "sample.db")
    todo = [block for block in blocks(page) if block[0] in ("python", "console")]
    (tmp_path / "work").mkdir()
    printed = run_forked(READER, tmp_path, json.dumps(todo), timeout=100)
    assert printed.splitlines()[-1] == f"all {len(todo)}"
