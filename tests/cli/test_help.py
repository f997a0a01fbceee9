"""The texts of `--help`."""

from __future__ import annotations

import pytest
from cli.help_texts import GOLDEN, texts
from zoho_token_store._cli._run import cli

TEXTS = texts()


@pytest.mark.parametrize("name", TEXTS)
def test_help_equals_its_golden_file(name):
    """Each help text equals its reviewed golden file. `python tests/cli/help_texts.py` updates the files."""
    assert TEXTS[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_each_golden_file_has_a_command():
    """There is no golden file of a command that no longer exists."""
    assert {file.name for file in GOLDEN.iterdir()} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_help_fits_and_has_examples(name):
    """Each help text fits into 80 columns and has examples."""
    lines = TEXTS[name].splitlines()
    assert max(map(len, lines)) <= 80
    assert "  Examples:" in lines
    assert any(line.startswith("    zoho-token-store ") for line in lines)


def test_commands_have_one_line_each():
    """The help lists each command on one line, in the order of their declaration, with a complete summary."""
    lines = TEXTS["help.txt"].split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)
