"""Run all tests and list the covered lines of Rust and Python: `make coverage`.

Writes to `target/coverage`:

- `lines.txt`: one line `file:line` for each covered line. Compare two runs with `comm`.
- `missed.txt`: the same for each line that no test ran.

and prints a table of the files. It runs in an environment of its own, because the extension is compiled with counters.
`make coverage` gives it a PostgreSQL server. What follows `--` is passed to pytest.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HERE = ROOT / "target" / "coverage"
# `%m%c`: all processes count in one mapped file, also those that end by a signal or `os._exit`.
# https://clang.llvm.org/docs/SourceBasedCodeCoverage.html, "Running the instrumented program"
PROFILE = HERE / "profiles" / "%m%c.profraw"
# Names are not compressed: the llvm-profdata from PyPI is built without zlib.
FLAGS = "-C instrument-coverage -C llvm-args=-runtime-counter-relocation -C llvm-args=-enable-name-compression=false"
CARGO = ("--locked", "--target-dir", HERE / "target")
PACKAGES = ("zoho_token_store", "pytest_zoho_token_store")


def run(*command: object, may_fail: bool = False, **environment: str) -> str:
    """Run a command, show it, and return its output. If the command fails, the program ends unless `may_fail`."""
    sys.stderr.write(f"{' '.join(map(str, command))}\n")
    done = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0 and not may_fail:
        sys.stderr.write(done.stdout)
        sys.exit(done.returncode)
    return done.stdout


def llvm_tool(name: str) -> Path:
    """Find a tool of LLVM that reads what this rustc writes: rustup's `llvm-tools`, or the one from PyPI."""
    sysroot = Path(run("rustc", "--print", "sysroot").strip())
    places = [*sysroot.glob(f"lib/rustlib/*/bin/{name}"), *(Path(place) / "llvm" / "bin" / name for place in sys.path)]
    for tool in places:
        if tool.exists():
            return tool
    sys.exit(f"{name} is missing: rustup component add llvm-tools")


def rust_tests(*features: str) -> list[str]:
    """Build and run the tests in Rust, and return their programs."""
    command = ["cargo", "test", *CARGO, "--no-default-features", *features]
    environment = {"RUSTFLAGS": FLAGS, "LLVM_PROFILE_FILE": str(PROFILE)}
    run(*command, **environment)
    built = run(*command, "--no-run", "--message-format", "json", **environment)
    artifacts = [json.loads(line) for line in built.splitlines() if line.startswith("{")]
    return [artifact["executable"] for artifact in artifacts if artifact.get("executable")]


def python_tests(options: list[str]) -> list[str]:
    """Build and install the extension, run the tests in Python, and return the extension."""
    environment = {"RUSTFLAGS": FLAGS, "LLVM_PROFILE_FILE": str(PROFILE)}
    venv = Path(sys.prefix)
    run(Path(sys.executable).parent / "maturin", "develop", *CARGO, VIRTUAL_ENV=str(venv), **environment)
    settings = HERE / "coverage.ini"
    settings.write_text(
        "[run]\nbranch = false\nparallel = true\npatch = subprocess, _exit\ncore = ctrace\n"
        f"data_file = {HERE / 'python'}\nsource_pkgs = {','.join(PACKAGES)}\n"
    )
    coverage = (sys.executable, "-m", "coverage")
    sys.stdout.write(
        # A test of what an import costs fails, because coverage imports more.
        run(
            *(*coverage, "run", f"--rcfile={settings}", "-m", "pytest", *options),
            may_fail=True,
            LLVM_PROFILE_FILE=str(PROFILE),
        )
    )
    run(*coverage, "combine", f"--rcfile={settings}", "--quiet")
    run(*coverage, "json", f"--rcfile={settings}", "--quiet", "-o", HERE / "python.json")
    made = (HERE / "target" / "debug").glob("libzoho_token_store.*")
    return [str(path) for path in made if path.suffix in {".so", ".dylib"}]


def rust_lines(objects: list[str]) -> dict[str, dict[int, bool]]:
    """Return, for each file and line of Rust, whether it ran."""
    data = HERE / "rust.profdata"
    run(llvm_tool("llvm-profdata"), "merge", "-sparse", *PROFILE.parent.glob("*.profraw"), "-o", data)
    more = [part for one in objects[1:] for part in ("-object", one)]
    options = ("--format=lcov", f"--instr-profile={data}", "--sources", ROOT / "src")
    report = run(llvm_tool("llvm-cov"), "export", *options[:2], objects[0], *more, *options[2:])
    lines: dict[str, dict[int, bool]] = collections.defaultdict(dict)
    name = ""
    for entry in report.splitlines():
        kind, _, rest = entry.partition(":")
        if kind == "SF":
            name = Path(rest).relative_to(ROOT).as_posix()
        elif kind == "DA":
            number, count = rest.split(",")[:2]
            lines[name][int(number)] = lines[name].get(int(number), False) or int(count) > 0
    return lines


def python_lines() -> dict[str, dict[int, bool]]:
    """Return, for each file and line of Python, whether it ran."""
    files = json.loads((HERE / "python.json").read_text())["files"]
    return {
        Path(ROOT, name).relative_to(ROOT).as_posix(): {
            **dict.fromkeys(found["executed_lines"], True),
            **dict.fromkeys(found["missing_lines"], False),
        }
        for name, found in files.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="passed to pytest")
    options = parser.parse_args().options
    for old in (PROFILE.parent, *HERE.glob("python*")):
        shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    PROFILE.parent.mkdir(parents=True)
    objects = [*rust_tests(), *rust_tests("--features", "sqlite,postgres"), *python_tests(options)]
    files = {**rust_lines(objects), **python_lines()}
    for name, ran in (("lines.txt", True), ("missed.txt", False)):
        found = [
            f"{file}:{line}\n" for file in sorted(files) for line in sorted(files[file]) if files[file][line] is ran
        ]
        (HERE / name).write_text("".join(found))
    for file, lines in sorted(files.items()):
        sys.stdout.write(f"{100 * sum(lines.values()) / max(1, len(lines)):5.1f} % of {len(lines):4} lines  {file}\n")
    for ending in (".rs", ".py"):
        counted = [ran for file, lines in files.items() if file.endswith(ending) for ran in lines.values()]
        sys.stdout.write(f"{100 * sum(counted) / max(1, len(counted)):5.1f} % of {len(counted)} lines in *{ending}\n")


if __name__ == "__main__":
    main()
