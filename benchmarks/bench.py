"""Our stores beside every other, in one process, interleaved: `make bench`.

Prints tables in Markdown: the median of the runs, and in brackets the p99 of single calls. *Hot* is a call in a loop,
*cold* one after 0.1 ms of other work. Python collects its garbage as it always does. What was not measured is a dash;
whoever was left out is named at the end, with the reason.
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
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="tiny batches on 10 and 100 rows: does it all work?")
    parser.add_argument("--rows", type=int, nargs="+", help="sizes of the tables (default: 10 1000 10000 100000)")
    parser.add_argument("--million", action="store_true", help="1 000 000 rows, too: our stores alone, one run")
    parser.add_argument("--runs", type=int, help=f"how often each figure is taken ({measure.FULL.runs})")
    parser.add_argument("--sections", nargs="+", choices=targets.SECTIONS, default=targets.SECTIONS, metavar="NAME")
    parser.add_argument("--folder", type=Path, help="where the files are (default: under target/; a tmpfs has no disk)")
    parser.add_argument("--floor", type=Path, default=ROOT / "target" / "floor", help="what `make floor` has built")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the costs over the rows")
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:CLASS", help="another store beside ours")
    parser.add_argument("--peer-path", type=Path, default=Path(), metavar="DIR", help="where its module is")
    parser.add_argument("--mariadb", default="127.0.0.1:3306", metavar="HOST:PORT", help="for DBStore (%(default)s)")
    parser.add_argument("--mariadb-user", default="root", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--mariadb-password", default="", metavar="WORD", help="(none)")
    parser.add_argument("--mariadb-database", default="zoho_token_store_bench", help="is made, and dropped afterwards")
    options = parser.parse_args()
    options.rows = sorted(options.rows or (FAST_ROWS if options.fast else targets.ROWS))
    return options


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work there for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def compared(options: argparse.Namespace, left_out: dict[str, str]) -> list[peers.Peer]:
    """Return the stores that are here, and note the others."""
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
    """Drop what was made on a server; if the server is gone by then, the figures are not."""
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
    """Measure all there is, run by run."""
    bench.alone()
    for run in range(bench.effort.runs):
        for rows in [*options.rows, *([MILLION] if options.million and run == 0 else [])]:
            begun = time.monotonic()
            bench.run(rows)
            took = time.monotonic() - begun
            print(f"run {run + 1}, {report.whole(rows)} rows: {took:.0f} s", file=sys.stderr, flush=True)
    if targets.SIZES in bench.sections:
        bench.memory(FAST_ROWS[-1] if options.fast else MEMORY_ROWS)


def told(bench: Bench, verdicts: list[targets.Verdict], facts: dict[str, str], *, fast: bool) -> Iterator[str]:
    """Write it all for reading."""
    names = [peer.name for peer in bench.peers]
    if fast:
        yield "A fast run: it shows that everything works, and its figures say little.\n"
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
        sys.exit(f"zoho_token_store is a {_native.__profile__} build, whose figures say nothing: make bench")
    logging.disable()  # of failures that are counted
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # with its files removed
    with in_folder(HERE):  # it imports the modules that are in its folder, and that folder must stay
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
    print("\n".join(told(bench, verdicts, facts, fast=options.fast)))
    if options.json:
        whole = report.document(bench.figures, verdicts, {"machine": facts, "left out": left_out})
        options.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
