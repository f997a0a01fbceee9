"""Compare our stores with other stores, interleaved in one process: `make bench`.

It prints tables in Markdown. A cell has the median of the runs and, in brackets, the p99 of single calls. A *hot* call
is part of a loop of calls. A *cold* call follows 0.1 ms of other work. Python's garbage collector is on. A dash means
"not measured". The last section lists what was left out, with the reasons.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

import database
import machine
import measure
import peers
import report
import targets
from runs import ROOT, Bench
from zoho_token_store import _native

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
MILLION = 10**6
MEMORY_ROWS = 10**5
FAST_ROWS = [10, 100]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="tiny batches on 10 and 100 rows, to see that it works")
    parser.add_argument("--rows", type=int, nargs="+", help="table sizes (default: 10 1000 10000 100000)")
    parser.add_argument("--million", action="store_true", help="also 1 000 000 rows: only our stores, one run")
    parser.add_argument("--runs", type=int, help=f"number of runs ({measure.FULL.runs})")
    parser.add_argument("--sections", nargs="+", choices=targets.SECTIONS, default=targets.SECTIONS, metavar="NAME")
    parser.add_argument("--folder", type=Path, help="folder for the files, on a real disk (default: under target/)")
    parser.add_argument(
        "--floor", type=Path, default=ROOT / "target" / "floor", help="the program that `make floor` builds"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the costs by the number of rows")
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:CLASS", help="another store to compare")
    parser.add_argument("--peer-path", type=Path, default=Path(), metavar="DIR", help="the folder of its module")
    parser.add_argument("--mariadb", default="127.0.0.1:3306", metavar="HOST:PORT", help="for DBStore (%(default)s)")
    parser.add_argument("--mariadb-user", default="root", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--mariadb-password", default="", metavar="WORD", help="(none)")
    parser.add_argument("--mariadb-database", default="zoho_token_store_bench", help="created, and dropped at the end")
    options = parser.parse_args()
    options.rows = sorted(options.rows or (FAST_ROWS if options.fast else targets.ROWS))
    return options


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Make it the current folder temporarily."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def compared(options: argparse.Namespace, left_out: dict[str, str]) -> list[peers.Peer]:
    """Return the available stores, and note why others are left out."""
    found = list(peers.ALWAYS)
    server = (options.mariadb, options.mariadb_user, options.mariadb_password, options.mariadb_database)
    for name, peer in (("DBStore", database.answering(*server)), ("diskcache", peers.cache())):
        if isinstance(peer, str):
            left_out[name] = peer
        else:
            found.append(peer)
    return found + [peers.given(spec, options.peer_path.resolve()) for spec in options.peer]


@contextlib.contextmanager
def without_leftovers(stores: list[peers.Peer], left_out: dict[str, str]) -> Iterator[None]:
    """Drop the databases on a server at the end. A failure to do so is noted, and the figures are kept."""
    try:
        yield
    finally:
        for peer in stores:
            if isinstance(peer, database.Database):
                try:
                    peer.drop()
                except Exception as error:
                    left_out[f"{peer.name}, {peer.database} is still there"] = peers.in_short(error)


def measured(bench: Bench, options: argparse.Namespace) -> None:
    """Measure everything, run by run."""
    bench.alone()
    for run in range(bench.effort.runs):
        for rows in [*options.rows, *([MILLION] if options.million and run == 0 else [])]:
            begun = time.monotonic()
            bench.run(rows)
            took = time.monotonic() - begun
            print(f"run {run + 1}, {report.whole(rows)} rows: {took:.0f} s", file=sys.stderr, flush=True)
    if targets.SIZES in bench.sections:
        bench.memory(FAST_ROWS[-1] if options.fast else MEMORY_ROWS)


def report_lines(bench: Bench, verdicts: list[targets.Verdict], facts: dict[str, str], *, fast: bool) -> Iterator[str]:
    """Return the parts of the report."""
    names = [peer.name for peer in bench.peers]
    if fast:
        yield "A fast run: it shows that everything works. Its figures are not meaningful.\n"
    yield ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n"
    for peer in bench.peers:
        yield f"- {peer.name}: {peer.about}" + ("" if peer.durable else "; not durable")
    yield ""
    for section in dict.fromkeys(key.section for key in bench.figures):
        yield report.section(bench.figures, section, verdicts, names)
        if section == targets.HOT:
            yield report.ratios(bench.figures, names)
    yield report.summary(verdicts)
    if bench.left_out:
        yield "## Left out\n"
        for name, why in bench.left_out.items():
            yield f"- {name}: {why}"


def main() -> None:
    """Measure and print."""
    options = arguments()
    if _native.__profile__ != "release" and not options.fast:
        profile = _native.__profile__
        sys.exit(f"zoho_token_store is a {profile} build, and its figures would be meaningless. Run: make bench")
    logging.disable()  # failures are counted, not logged
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # an exit removes the files
    # The fork server imports modules from its current folder, so that folder must exist until the end.
    with in_folder(HERE):
        forkserver.ensure_running()
    effort = measure.FAST if options.fast else measure.FULL
    effort = effort._replace(runs=options.runs or effort.runs)
    crowd_rows = min(options.rows, key=lambda rows: abs(rows - targets.CROWD_ROWS))
    parent = options.folder or ROOT / "target"
    left_out: dict[str, str] = {}
    floor = options.floor.resolve() if options.floor.exists() else None
    if floor is None:
        left_out["floor of a find"] = f"no {options.floor} (make floor)"
    stores = compared(options, left_out)
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as folder, without_leftovers(stores, left_out):
        home = Path(folder).resolve()
        facts = machine.facts(home)
        bench = Bench(stores, effort, list(options.sections), home, floor, crowd_rows, left_out=left_out)
        measured(bench, options)
    verdicts = [targets.judge(target, bench.figures) for target in targets.all_targets(crowd_rows)]
    if options.picture and importlib.util.find_spec("matplotlib") is None:
        left_out["picture"] = "matplotlib is not installed (make bench installs it)"
    elif options.picture:
        report.draw(bench.figures, [peer.name for peer in stores], options.picture)
    print("\n".join(report_lines(bench, verdicts, facts, fast=options.fast)))
    if options.json:
        whole = report.document(bench.figures, verdicts, {"machine": facts, "left out": left_out})
        options.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
