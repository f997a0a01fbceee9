# ruff: noqa: T201 - a script that reports by printing
"""Test the wheel in a new virtual environment of each installed CPython from 3.10 on.

- `wheel_smoke.py FOLDER` tests the wheel in this folder.
- `wheel_smoke.py FOLDER INTERPRETER` tests it with this interpreter only.
- `wheel_smoke.py --here` tests the package that is already installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = Path(__file__).parent / "wheel_program.py"
PINS = Path(__file__).parent.parent / "requirements" / "dev.txt"


def interpreters() -> dict[str, str]:
    """Return one interpreter for each minor version, from PATH and from pyenv's folder."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found: dict[str, str] = {}
    for folder in folders:
        for candidate in sorted(Path(folder).glob("python3.[0-9]*")) if folder else []:
            if not re.fullmatch(r"python3\.\d+", candidate.name):
                continue
            code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
            # A pyenv shim can exist for a version that is not installed. It then fails.
            version = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=60, check=False)
            match version.stdout.split():
                case ["cpython", "3", minor] if int(minor) >= 10:
                    found.setdefault(f"3.{minor}", str(candidate))
    return found


def main() -> None:
    """Test as the arguments say."""
    if sys.argv[1] == "--here":
        subprocess.run([sys.executable, PROGRAM], check=True, timeout=120)
        return
    [wheel] = Path(sys.argv[1]).glob("*.whl")
    found = {python: python for python in sys.argv[2:]} or interpreters() or {"this": sys.executable}
    for python in found.values():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
            inside = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
            install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, f"{wheel}[cli]", "zohocrmsdk8_0", "-c", PINS], check=True, timeout=300)
            subprocess.run([inside, PROGRAM], check=True, timeout=120, cwd=folder)
            script = str(Path(inside).parent / "zoho-token-store")
            subprocess.run([script, "--version"], check=True, timeout=120, cwd=folder)
    print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.2f} MB, works in {len(found)} CPython(s)")


if __name__ == "__main__":
    main()
