"""The help texts, as `python tests/cli/helps.py` writes them anew into tests/data/cli."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner
from zoho_token_store._cli._run import cli

GOLDEN = Path(__file__).parent.parent / "data" / "cli"


def texts() -> dict[str, str]:
    """Return the help of the group and of each command, by the name of its file, 80 columns wide."""
    calls = {"help": [], **{name: [name] for name in cli.commands}}
    return {f"{name}.txt": _help(arguments) for name, arguments in calls.items()}


def _help(arguments: list[str]) -> str:
    shown = CliRunner().invoke(cli, [*arguments, "--help"], terminal_width=80, env={"ZOHO_TOKEN_STORE_DB": None})
    if shown.exit_code != 0:
        raise AssertionError(shown.output)
    return shown.stdout


def main() -> None:
    """Write them."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {len(texts())} help texts\n")


if __name__ == "__main__":
    main()
