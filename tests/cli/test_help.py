"""What `--help` says."""

from __future__ import annotations

import pytest
from cli.helps import GOLDEN, texts
from zoho_token_store._cli._run import cli

TEXTS = texts()


@pytest.mark.parametrize("name", TEXTS)
def test_help_is_as_it_was_read(name):
    """Each help text is the one that somebody has read; `python tests/cli/helps.py` writes them anew."""
    assert TEXTS[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_no_help_is_left_of_a_command_that_is_gone():
    """There is no golden file without its command."""
    assert {file.name for file in GOLDEN.iterdir()} == set(TEXTS)


@pytest.mark.parametrize("name", TEXTS)
def test_help_fits_and_shows_how(name):
    """Each help text fits into 80 columns and has examples."""
    lines = TEXTS[name].splitlines()
    assert max(map(len, lines)) <= 80
    assert "  Examples:" in lines
    assert any(line.startswith("    zoho-token-store ") for line in lines)


def test_commands_have_one_line_each():
    """The list of commands has them in the order of their use, each with a summary that is not cut off."""
    lines = TEXTS["help.txt"].split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in lines] == list(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)
