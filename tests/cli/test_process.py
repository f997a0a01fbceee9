"""The command line in processes of its own: with pipes, on a terminal, and without its dependencies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cli.processes import MODULE, SCRIPT, Terminal, environment, run_process, without_modules
from support import PLANTED, login
from zoho_token_store import CustomStoreSQLite, __version__

COMMANDS = {"script": SCRIPT, "module": MODULE}
FULL_DISK = (
    "Error: The output cannot be written: No space left on device.\n"
    "Fix: Check the disk or device that the output goes to.\n"
)


@pytest.fixture(params=COMMANDS)
def command(request, path):
    """The command line with the database as an option, under each of its two names."""
    return [*COMMANDS[request.param], "--db", str(path)]


@pytest.fixture
def script(path):
    """The command `zoho-token-store` with the database as an option."""
    return [*SCRIPT, "--db", str(path)]


@pytest.mark.usefixtures("database")
def test_both_names_run_the_same_program(command):
    """`zoho-token-store` and `python -m zoho_token_store` do the same, and print the same program name."""
    assert run_process([*command, "--version"]).stdout == f"zoho-token-store {__version__}\n"
    shown = run_process([*command, "list"])
    assert (shown.returncode, shown.stderr, len(shown.stdout.splitlines())) == (0, "", 4)
    refused = run_process([*command, "show", "99"])
    assert (refused.returncode, refused.stdout) == (1, "")
    misused = run_process([*command, "wrong"])
    assert misused.stderr.startswith("Usage: zoho-token-store ")
    assert misused.returncode == 2


@pytest.mark.usefixtures("database")
def test_commands_that_work_without_the_sdk(path, tmp_path):
    """No command that works on the file alone imports the SDK. They work without it."""
    program = [*without_modules("zohocrmsdk"), "--db", str(path)]
    copy, lines = str(tmp_path / "copy.db"), str(tmp_path / "tokens.jsonl")
    for arguments, status in {
        ("list",): 0,
        ("show", "1", "--reveal", "--yes"): 0,
        ("backup", copy): 0,
        ("export", lines): 0,
        ("check",): 1,
        ("status",): 0,
        ("status", "--prometheus"): 0,
        ("delete", "1", "--yes"): 0,
        ("purge", "--yes"): 0,
        ("import", lines): 0,
        ("restore", copy, "--yes"): 0,
        ("list", "--json"): 0,
    }.items():
        done = run_process([*program, *arguments])
        assert (done.returncode, done.stderr) == (status, ""), arguments
    assert len(json.loads(done.stdout)) == 3


@pytest.mark.parametrize("missing", [["click"], ["wcwidth"], ["click", "wcwidth"]], ids=",".join)
def test_without_the_extra_the_error_says_how_to_install_it(path, missing):
    """If a package of the extra `cli` is missing, the error has a hint how to install it, and no traceback."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("日本"))
    refused = run_process([*without_modules(*missing), "--db", str(path), "list"])
    assert (refused.returncode, refused.stdout) == (1, "")
    error, hint = refused.stderr.splitlines()
    assert error == f"Error: The command line needs the package {missing[0]}."
    assert hint == 'Fix: Run pip install "zoho-token-store[cli]"'


@pytest.mark.usefixtures("database")
def test_a_terminal_has_colours_and_a_width(script):
    """On a terminal the headings are bold, and the table fits into its width."""
    with Terminal([*script, "list"], columns=58) as terminal:
        status, shown = terminal.wait()
    assert status == 0
    assert "\x1b[1mUSER\x1b[0m" in shown
    assert "\x1b[33mno\x1b[0m" in shown
    assert "…" in shown


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("plain", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_turned_off(script, plain):
    """With NO_COLOR, and on a dumb terminal, there are no colours."""
    for name in ("list", "check"):
        with Terminal([*script, name], **plain) as terminal:
            assert "\x1b" not in terminal.wait()[1]


@pytest.mark.usefixtures("database")
def test_no_colours_in_a_pipe(script):
    """In a pipe there are no colours, and nothing is cut, whatever width COLUMNS has."""
    shown = run_process([*script, "list"], COLUMNS="20").stdout
    assert "\x1b" not in shown
    assert "ada@example.com" in shown
    assert "\x1b" not in run_process([*script, "check"]).stdout


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(("keys", "status", "left"), [("y\r", 0, 2), ("\r", 1, 3), ("\x04", 1, 3), ("\x03", 130, 3)])
def test_a_confirmation_on_a_terminal(script, keys, status, left):
    """`y` confirms; Enter and Ctrl-D do not. Ctrl-C gives exit status 130. There is never a traceback."""
    with Terminal([*script, "delete", "3"]) as terminal:
        terminal.read_until("[y/N] ")
        terminal.type(keys)
        ended, shown = terminal.wait()
    assert ended == status
    assert "Traceback" not in shown
    assert ("Error: Not confirmed. Nothing was changed.\n" in shown) == (status == 1)
    assert ("Deleted row 3" in shown) == (status == 0)
    assert len(json.loads(run_process([*script, "list", "--json"]).stdout)) == left


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_an_export_through_a_pipe(script, database, tmp_path, name):
    """`export -` writes the lines of an export to a pipe, and `import -` reads them. No file is made."""
    lines = tmp_path / "tokens.jsonl"
    run_process([*script, "export", str(lines)])
    done = run_process([*script, "export", name])
    assert (done.returncode, done.stdout) == (0, lines.read_text(encoding="utf-8"))
    assert done.stderr == "Wrote 3 rows to standard output. It contains secrets.\n"
    before = {*tmp_path.iterdir()}
    other = [*SCRIPT, "--db", str(tmp_path / "other.db")]
    for source, answer in ((name.replace("out", "in").replace("1", "0"), done.stdout), ("-", done.stdout)):
        imported = run_process([*other, "import", source, "--json"], answer=answer)
        assert (imported.returncode, json.loads(imported.stdout)["rows"]) == (0, 3), imported.stderr
    assert {file.name for file in {*tmp_path.iterdir()} - before} == {"other.db"}
    refused = run_process([*other, "import", "-"], answer="planted\n")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: standard input is neither a file of the SDK's FileStore, ")
    assert database.exists()


@pytest.mark.usefixtures("database")
def test_an_export_into_a_file_of_the_shell(script, tmp_path):
    """The shell makes the file of `export - > FILE`. If other users can read it, there is a warning."""
    target = tmp_path / "tokens.jsonl"
    for mode, warned in ((0o644, True), (0o600, False)):
        target.touch()
        target.chmod(mode)
        done = run_process(["bash", "-c", f'"$@" > {target}', "bash", *script, "export", "/dev/stdout"])
        assert (done.returncode, done.stdout) == (0, "")
        assert ("run chmod 600 on it" in done.stderr) == warned
        assert len(target.read_text(encoding="utf-8").splitlines()) == 1 + 3


@pytest.mark.usefixtures("database")
def test_an_export_to_a_terminal(script):
    """Secrets appear on a terminal only with `--force`."""
    with Terminal([*script, "export", "-"]) as terminal:
        status, shown = terminal.wait()
    assert status == 1
    assert PLANTED not in shown
    assert "or pass --force." in shown
    with Terminal([*script, "export", "-", "--force"]) as terminal:
        status, shown = terminal.wait()
    assert status == 0
    assert f"{PLANTED}-refresh-1" in shown


@pytest.mark.usefixtures("database")
def test_an_export_to_a_closed_stream(script):
    """If stdout is closed, nothing is written: another file may have its number."""
    refused = run_process(["bash", "-c", '"$@" >&-', "bash", *script, "export", "-"])
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: Standard output is closed. Nothing was written.\n")


@pytest.fixture
def long_list(path):
    """A database whose list is longer than a pipe's buffer."""
    with CustomStoreSQLite(path) as store:
        store.import_tokens(login(f"user-{n}@example.com", n) for n in range(2000))


@pytest.mark.usefixtures("long_list")
@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["status", "--watch", "0.1"], ["export", "-"]])
def test_a_closed_pipe(script, arguments):
    """If the reader closes the pipe early (`| head -1`), there is no message, and the exit status is 141."""
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
@pytest.mark.parametrize(
    ("arguments", "status"),
    [("list", 1), ("check", 3), ("show 1 --json", 1), ("status", 1), ("status --prometheus", 1), ("export -", 1)],
)
def test_a_full_disk(script, arguments, status):
    """Output that cannot be written is an error without a traceback. For `check` it is not a finding."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*script, *arguments.split()], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, text=True
        )
    assert done.returncode == status
    assert done.stderr == FULL_DISK


@pytest.mark.parametrize(
    ("arguments", "status"), [("check", 3), ("list", 1), ("wrong", 2), ("--help", 1), ("--version", 1)]
)
def test_the_exit_status_does_not_depend_on_stderr(script, arguments, status):
    """If stderr cannot be written either, the exit status stays the same."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run([*script, *arguments.split()], stdout=full, stderr=full, timeout=60, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_full_disk_for_the_help(script, option):
    """Help that cannot be written is an error without a traceback, too."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [*script, option], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, text=True
        )
    assert (done.returncode, done.stderr) == (1, FULL_DISK)


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(script, closed):
    """If stdin, stdout or stderr is closed from the start, the exit status stays the same."""
    shell = ["bash", "-c", f'"$@" {closed}', "bash"]
    assert run_process([*shell, *script, "list"]).returncode == 0
    assert run_process([*shell, *script, "status", "--prometheus"]).returncode == 0
    refused = run_process([*shell, *script, "delete", "1"])
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert run_process([*shell, *script, "delete", "1", "--yes"]).returncode == 0


@pytest.mark.parametrize(
    "ascii_only", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_an_output_with_few_characters(path, script, ascii_only):
    """Characters that the output's encoding lacks are escaped; there is no error."""
    with CustomStoreSQLite(path) as store:
        store.save_token(login("Ωmega"))
    for arguments in (["list"], ["show", "1"], ["delete", "1"]):
        done = run_process([*script, *arguments], **ascii_only)
        assert "Traceback" not in done.stderr
        # In the C locale Python writes UTF-8: PEP 538 and PEP 540.
        assert ("Ωmega" if "LC_ALL" in ascii_only else r"\u03a9mega") in done.stdout + done.stderr


@pytest.mark.usefixtures("database")
def test_the_shell_completes_commands_and_ids(path):
    """The Tab key completes commands, and IDs from the database. Without a database there are no IDs and no error."""
    completing = {"_ZOHO_TOKEN_STORE_COMPLETE": "bash_complete", "ZOHO_TOKEN_STORE_DB": str(path)}
    assert "plain,restore" in run_process(SCRIPT, COMP_WORDS="zoho-token-store re", COMP_CWORD="1", **completing).stdout
    ids = {"COMP_WORDS": "zoho-token-store show ", "COMP_CWORD": "2"}
    assert run_process(SCRIPT, **ids, **completing).stdout.split() == ["plain,1", "plain,2", "plain,3"]
    path.unlink()
    nothing = run_process(SCRIPT, **ids, **completing)
    assert (nothing.stdout.strip(), nothing.stderr) == ("", "")
