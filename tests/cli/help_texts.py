"""The help texts. `python tests/cli/help_texts.py` updates the golden files in tests/data/cli."""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner
from zoho_token_store._cli._run import cli

GOLDEN = Path(__file__).parent.parent / "data" / "cli"


def texts() -> dict[str, str]:
    """Return the help of the group and of each command by the name of its golden file, 80 columns wide."""
    calls = {"help": [], **{name: [name] for name in cli.commands}}
    for name, command in cli.commands.items():
        calls |= {f"{name}-{below}": [name, below] for below in getattr(command, "commands", ())}
    return {f"{name}.txt": _help(arguments) for name, arguments in calls.items()}


def _help(arguments: list[str]) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--help"], terminal_width=80, env={"ZOHO_TOKEN_STORE_DB": None})
    if result.exit_code != 0:
        raise AssertionError(result.output)
    return result.stdout


def main() -> None:
    """Replace the golden files."""
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.txt"):
        old.unlink()
    for name, text in texts().items():
        (GOLDEN / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {len(texts())} help texts\n")


if __name__ == "__main__":
    main()
