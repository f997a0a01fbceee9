# ruff: noqa: T201 - a script that is here to print
"""Installs the wheel in an environment of its own for every CPython from 3.10 on that is found, and uses it there.

`wheel_smoke.py FOLDER` takes the wheel in it; `wheel_smoke.py FOLDER INTERPRETER` tries it in that one alone;
`wheel_smoke.py --here` uses what is installed already.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = """
import sys, tempfile, pathlib
from zoho_token_store import CustomStore, CustomStoreList, CustomStoreSQLite, __version__
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

with tempfile.TemporaryDirectory() as folder:
    for store in (CustomStoreSQLite(pathlib.Path(folder) / "tokens.db"), CustomStore(), CustomStoreList()):
        store.save_token(OAuthToken(client_id="1000.CLIENT", client_secret="made-up", refresh_token="1000.made.up"))
        asked = OAuthToken(client_id="1000.CLIENT", client_secret="made-up", refresh_token="1000.made.up")
        found = store.find_token(asked)
        assert (found.get_id(), len(store)) == ("1", 1)
        store.close()
print(f"CPython {sys.version.split()[0]}: zoho-token-store {__version__} works")
"""


PINS = Path(__file__).parent.parent / "requirements" / "dev.txt"


def interpreters() -> dict[str, str]:
    """Find one interpreter for each minor version: on the path, and where pyenv keeps them."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found: dict[str, str] = {}
    for folder in folders:
        for candidate in sorted(Path(folder).glob("python3.[0-9]*")) if folder else []:
            if not re.fullmatch(r"python3\.\d+", candidate.name):
                continue
            tells = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
            # A shim may stand for a version that is not there.
            said = subprocess.run([candidate, "-c", tells], capture_output=True, text=True, timeout=60, check=False)
            match said.stdout.split():
                case ["cpython", "3", minor] if int(minor) >= 10:
                    found.setdefault(f"3.{minor}", str(candidate))
    return found


def main() -> None:
    """Do what the arguments say."""
    if sys.argv[1] == "--here":
        subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)
        return
    [wheel] = Path(sys.argv[1]).glob("*.whl")
    found = {python: python for python in sys.argv[2:]} or interpreters() or {"this": sys.executable}
    for python in found.values():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "venv", folder], check=True, timeout=120)
            inside = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
            install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*install, f"{wheel}[cli]", "zohocrmsdk8_0", "-c", PINS], check=True, timeout=300)
            subprocess.run([inside, "-c", PROGRAM], check=True, timeout=120, cwd=folder)
            script = str(Path(inside).parent / "zoho-token-store")
            subprocess.run([script, "--version"], check=True, timeout=120, cwd=folder)
    print(f"{wheel.name}, {wheel.stat().st_size / 1e6:.2f} MB, works in {len(found)} CPython(s)")


if __name__ == "__main__":
    main()
