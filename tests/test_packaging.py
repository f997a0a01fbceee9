"""What goes to PyPI: licences, metadata, and files that are read by others than Python."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def crates_of_the_wheel() -> set[str]:
    """Return name and version of each crate that the extension is built from, on whatever platform."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    metadata = json.loads(said.stdout)
    dependencies = {
        node["id"]: [
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        ]
        for node in metadata["resolve"]["nodes"]
    }
    ours = metadata["resolve"]["root"]
    seen, next_ones = set(), [ours]
    while next_ones:
        crate = next_ones.pop()
        if crate not in seen:
            seen.add(crate)
            next_ones += dependencies[crate]
    return {f"{crate['name']} {crate['version']}" for crate in metadata["packages"] if crate["id"] in seen - {ours}}


def test_the_licences_of_all_crates_are_listed():
    """THIRD-PARTY-LICENSES names each crate of the wheel by its locked version, and no other: else `make licences`."""
    text = (ROOT / "THIRD-PARTY-LICENSES").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\S+ \d+\.\d+\.\d+\S*)(?: \(https?://.*\))?$", text, re.MULTILINE)
    assert set(listed) == crates_of_the_wheel()
    assert "May you do good and not evil." in text  # SQLite's


def test_the_architecture_names_every_source_file():
    """docs/architecture.md has a line about each file of src/ and no other, and each folder in the drawing."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[.+\]\(\.\./(src/.+?)\) \| \S.* \|$", text, re.MULTILINE)
    files = [path.relative_to(ROOT) for path in (ROOT / "src").rglob("*") if path.is_file()]
    assert sorted(named) == sorted(path.as_posix() for path in files)
    [drawing] = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    # `1.sql` is all there is in `migrations`, and the drawing has no room for it.
    folders = {path.parent for path in files} - {Path("src"), Path("src/store/sqlite/migrations")}
    for folder in folders:
        assert f" {folder.as_posix()} " in drawing or f" {folder.name}/ " in drawing, folder


def test_contributors_are_told_of_every_verb():
    """CONTRIBUTING.md names each verb that `make help` lists, and the folders that it speaks of are there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    verbs = re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(verbs) > 20
    told = text[text.index("## The verbs") :]
    assert [verb for verb in verbs if verb != "help" and f"`{verb}`" not in told] == []
    for folder in re.findall(r"`((?:src|tests|benchmarks|examples|python)[\w/.]*)`", text):
        assert (ROOT / folder).exists(), folder


def test_pre_commit_runs_what_is_there():
    """Each hook runs a tool of the environment or a verb of the Makefile, and fetches nothing."""
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
