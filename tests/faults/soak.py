"""Runs the long form of the tests of faults, round after round with a new seed, until the time is over: `make soak`.

    python tests/faults/soak.py --minutes 20 [--seed N] [-- options for pytest]

Round k has the seed N + k. A round that has begun runs to its end. The program ends with the first round that fails,
and prints how to repeat it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CELLS = HERE.parent / "cells" / "test_processes.py"  # many processes on each service of this system
ROUND_TIMEOUT = 1800  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="start no round after this time")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="seed of the first round"
    )
    parser.add_argument("options", nargs="*", help="passed to pytest")
    given = parser.parse_args()
    began, rounds = time.monotonic(), 0
    sys.stdout.write(f"repeat with: make soak SEED={given.seed}\n")
    while rounds == 0 or time.monotonic() - began < given.minutes * 60:
        seed = given.seed + rounds
        options = ["--long", f"--seed={seed}", "--timeout=600", *given.options]
        command = [sys.executable, "-m", "pytest", HERE, CELLS, *options]
        sys.stdout.write(f"round {rounds + 1}: {' '.join(map(str, command[1:]))}\n")
        sys.stdout.flush()
        done = subprocess.run(command, check=False, timeout=ROUND_TIMEOUT)
        if done.returncode:
            sys.stdout.write(f"round {rounds + 1} failed: repeat with make soak SEED={seed}\n")
            return done.returncode
        rounds += 1
    sys.stdout.write(f"passed: {rounds} rounds, seeds {given.seed} to {seed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
