"""The command line as it runs: in pipes, in a terminal, and where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.programs import MODULE, SCRIPT, WITHOUT, Terminal, environment, finish
from support import login
from zoho_token_store import CustomStoreSQLite, __version__

COMMANDS = {"script": SCRIPT, "module": MODULE}


@pytest.fixture(params=COMMANDS)
def command(request, path):
    """The command line by either name, on the database."""
    return [*COMMANDS[request.param], "--db", str(path)]


@pytest.fixture
def script(path):
    """The command line, on the database."""
    return [*SCRIPT, "--db", str(path)]


@pytest.mark.usefixtures("database")
def test_the_two_names_are_one_program(command):
    """`zoho-token-store` and `python -m zoho_token_store` are the same, and call themselves the same."""
    assert finish([*command, "--version"]).stdout == f"zoho-token-store {__version__}\n"
    shown = finish([*command, "list"])
    assert (shown.returncode, shown.stderr, len(shown.stdout.splitlines())) == (0, "", 4)
    refused = finish([*command, "show", "99"])
    assert (refused.returncode, refused.stdout) == (1, "")
    misused = finish([*command, "wrong"])
    assert misused.stderr.startswith("Usage: zoho-token-store ")
    assert misused.returncode == 2


@pytest.mark.usefixtures("database")
def test_everything_works_where_no_sdk_is_installed(path, tmp_path):
    """No command imports the SDK, nor needs it to be installed."""
    program = [sys.executable, "-c", WITHOUT, "zohocrmsdk", "--db", str(path)]
    copy, lines = str(tmp_path / "copy.db"), str(tmp_path / "tokens.jsonl")
    for arguments, status in {
        ("list",): 0,
        ("show", "1", "--reveal", "--yes"): 0,
        ("backup", copy): 0,
        ("export", lines): 0,
        ("check",): 1,
        ("delete", "1", "--yes"): 0,
        ("purge", "--yes"): 0,
        ("import", lines): 0,
        ("restore", copy, "--yes"): 0,
        ("list", "--json"): 0,
    }.items():
        done = finish([*program, *arguments])
        assert (done.returncode, done.stderr) == (status, ""), arguments
    assert len(json.loads(done.stdout)) == 3


@pytest.mark.parametrize("missing", ["click", "wcwidth", "click,wcwidth"])
def test_without_the_extra_it_says_how_to_get_it(path, missing):
    """Where the libraries of the extra are not installed, one line says how to install them; no traceback."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("日本"))
    refused = finish([sys.executable, "-c", WITHOUT, missing, "--db", str(path), "list"])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: the command line needs ")
    assert 'pip install "zoho-token-store[cli]"' in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.usefixtures("database")
def test_a_terminal_has_colours_and_a_width(script):
    """On a terminal headings are bold, and the table fits."""
    with Terminal([*script, "list"], columns=58) as terminal:
        status, shown = terminal.finish()
    assert status == 0
    assert "\x1b[1mUSER\x1b[0m" in shown
    assert "\x1b[33mno\x1b[0m" in shown
    assert "…" in shown


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_may_want_no_colours(script, plain):
    """With NO_COLOR, and on a dumb terminal, nothing is coloured."""
    for name in ("list", "check"):
        with Terminal([*script, name], **plain) as terminal:
            assert "\x1b" not in terminal.finish()[1]


@pytest.mark.usefixtures("database")
def test_no_colours_in_a_pipe(script):
    """Into a pipe nothing is coloured, and nothing cut, however narrow the terminal is."""
    shown = finish([*script, "list"], COLUMNS="20").stdout
    assert "\x1b" not in shown
    assert "ada@example.com" in shown
    assert "\x1b" not in finish([*script, "check"]).stdout


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("keys", "status", "left"), [("y\r", 0, 2), ("\r", 1, 3), ("\x04", 1, 3), ("\x03", 130, 3)])
def test_a_question_in_a_terminal(script, keys, status, left):
    """Yes goes on; Enter and Ctrl-D do not; Ctrl-C ends with 130; none shows a traceback."""
    with Terminal([*script, "delete", "3"]) as terminal:
        terminal.read_until("[y/N] ")
        terminal.type(keys)
        ended, shown = terminal.finish()
    assert ended == status
    assert "Traceback" not in shown
    assert ("Deleted row 3" in shown) == (status == 0)
    assert len(json.loads(finish([*script, "list", "--json"]).stdout)) == left


@pytest.fixture
def long_list(path):
    """A database whose list is longer than what a pipe holds."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user-{n}@example.com", n) for n in range(2000))


@pytest.mark.usefixtures("long_list")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"]])
def test_a_reader_that_goes_away(script, arguments):
    """Whoever reads only the first line (`| head -1`) causes no message."""
    process = subprocess.Popen(
        [*script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141
    finally:
        process.kill()
        process.wait(60)
        process.stderr.close()


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("arguments", "status"), [("list", 1), ("check", 3), ("show 1 --json", 1)])
def test_an_output_that_is_full(script, arguments, status):
    """Output that cannot be written is an error, not a traceback, and to a monitor no finding."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*script, *arguments.split()], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, text=True
        )
    assert done.returncode == status
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "status"), [("check", 3), ("list", 1), ("wrong", 2), ("--help", 1), ("--version", 1)]
)
def test_an_exit_status_holds_where_nobody_can_be_told(script, arguments, status):
    """Where stderr cannot be written, either, the exit status is the one that it would be."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([*script, *arguments.split()], stdout=full, stderr=full, timeout=60, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_help_that_cannot_be_written(script, option):
    """It is an error as that of any output, not a traceback."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*script, option], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, text=True
        )
    assert (done.returncode, done.stderr) == (1, "Error: the output cannot be written: No space left on device\n")


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_outputs_and_input(script, closed):
    """Whoever starts it with its input or outputs closed gets the exit status all the same."""
    shell = ["bash", "-c", f'"$@" {closed}', "bash"]
    assert finish([*shell, *script, "list"]).returncode == 0
    refused = finish([*shell, *script, "delete", "1"])
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert finish([*shell, *script, "delete", "1", "--yes"]).returncode == 0


@pytest.mark.parametrize(
    "ascii_only", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_an_output_that_knows_few_signs(path, script, ascii_only):
    """Where an output cannot show a user's name it shows escapes, and never fails."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("Ωmega"))
    for arguments in (["list"], ["show", "1"], ["delete", "1"]):
        done = finish([*script, *arguments], **ascii_only)
        assert "Traceback" not in done.stderr
        # In the C locale Python writes UTF-8.
        assert ("Ωmega" if "LC_ALL" in ascii_only else r"\u03a9mega") in done.stdout + done.stderr


@pytest.mark.usefixtures("database")
def test_the_shell_completes_commands_and_ids(path):
    """The Tab key completes commands, and ids from the database; where there is none, nothing."""
    completing = {"_ZOHO_TOKEN_STORE_COMPLETE": "bash_complete", "ZOHO_TOKEN_STORE_DB": str(path)}
    assert "plain,restore" in finish(SCRIPT, COMP_WORDS="zoho-token-store re", COMP_CWORD="1", **completing).stdout
    ids = {"COMP_WORDS": "zoho-token-store show ", "COMP_CWORD": "2"}
    assert finish(SCRIPT, **ids, **completing).stdout.split() == ["plain,1", "plain,2", "plain,3"]
    path.unlink()
    nothing = finish(SCRIPT, **ids, **completing)
    assert (nothing.stdout.strip(), nothing.stderr) == ("", "")
