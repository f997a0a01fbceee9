"""Files that no linter checks: licences, the architecture page, the contributors' guide and the pre-commit hooks."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def crates_of_the_wheel() -> set[str]:
    """Return the name and version of each crate in the extension, on any platform."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    metadata = json.loads(output)
    dependencies = {
        node["id"]: [
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        ]
        for node in metadata["resolve"]["nodes"]
    }
    root = metadata["resolve"]["root"]
    seen, pending = set(), [root]
    while pending:
        crate = pending.pop()
        if crate not in seen:
            seen.add(crate)
            pending += dependencies[crate]
    return {f"{crate['name']} {crate['version']}" for crate in metadata["packages"] if crate["id"] in seen - {root}}


def test_the_licences_of_all_crates_are_listed():
    """THIRD-PARTY-LICENSES lists exactly the crates of the wheel and their versions. `make licences` updates it."""
    text = (ROOT / "THIRD-PARTY-LICENSES").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\S+ \d+\.\d+\.\d+\S*)(?: \(https?://.*\))?$", text, re.MULTILINE)
    assert set(listed) == crates_of_the_wheel()
    assert "May you do good and not evil." in text  # from the notice in SQLite's source code


def test_the_architecture_names_every_source_file():
    """docs/architecture.md has one line about each file of src/, and its drawing names each folder."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[.+\]\(\.\./(src/.+?)\) \| \S.* \|$", text, re.MULTILINE)
    files = [path.relative_to(ROOT) for path in (ROOT / "src").rglob("*") if path.is_file()]
    assert sorted(named) == sorted(path.as_posix() for path in files)
    [drawing] = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    # The drawing omits the folders that contain only `1.sql`.
    scripts = {Path("src/backends/sqlite/migrations"), Path("src/backends/postgres/schema")}
    folders = {path.parent for path in files} - {Path("src")} - scripts
    for folder in folders:
        assert f" {folder.as_posix()} " in drawing or f" {folder.name}/ " in drawing, folder


def test_the_contributors_guide_is_complete():
    """CONTRIBUTING.md names each target that `make help` lists. The folders that it names exist."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(targets) > 20
    section = text[text.index("## Make targets") :]
    assert [target for target in targets if target != "help" and f"`{target}`" not in section] == []
    for folder in re.findall(r"`((?:src|tests|benchmarks|examples|python)[\w/.]*)`", text):
        assert (ROOT / folder).exists(), folder


def test_pre_commit_hooks_are_local():
    """Each hook runs a tool of the environment or a target of the Makefile, and downloads nothing."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (.*)", text) == ["local"]
    entries = [entry.split() for entry in re.findall(r"entry: (.*)", text)]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for program, *arguments in entries:
        if program == "make":
            assert f"\n{arguments[0]}:" in makefile
        elif program != "cargo":
            assert (ROOT / program).exists(), program
    assert len(entries) == text.count("- id: ") == 5
