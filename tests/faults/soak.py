"""`make soak`: the tests of the faults in their long form, round after round with a new seed, until the time is over.

    python tests/faults/soak.py --minutes 20 [--seed N] [-- options of pytest's]

Round k has the seed N + k. A round that has begun is brought to its end. Ends with the first round that fails, and says
how to run it again.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
A_ROUND = 1800  # seconds, at the most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="begin no round after this time")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the first round")
    parser.add_argument("options", nargs="*", help="handed to pytest")
    given = parser.parse_args()
    began, rounds = time.monotonic(), 0
    sys.stdout.write(f"repeat with: make soak SEED={given.seed}\n")
    while rounds == 0 or time.monotonic() - began < given.minutes * 60:
        seed = given.seed + rounds
        command = [sys.executable, "-m", "pytest", HERE, "--long", f"--seed={seed}", "--timeout=600", *given.options]
        sys.stdout.write(f"round {rounds + 1}: {' '.join(map(str, command[1:]))}\n")
        sys.stdout.flush()
        done = subprocess.run(command, check=False, timeout=A_ROUND)
        if done.returncode:
            sys.stdout.write(f"round {rounds + 1} failed: repeat with make soak SEED={seed}\n")
            return done.returncode
        rounds += 1
    sys.stdout.write(f"passed: {rounds} rounds, seeds {given.seed} to {seed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
