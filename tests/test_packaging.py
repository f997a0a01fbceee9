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
