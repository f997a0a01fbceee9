"""Runs the code blocks of a page of the documentation, as a reader would, one after the other in one folder.

`test_docs.py` runs it in a process of its own. Instead of Zoho there are two stand-ins: production and sandbox.
"""

import os
import re
import subprocess
import sys
import threading
import traceback
from pathlib import Path

from zoho_token_store.testing import ZohoStandIn
from zohocrmsdk.src.com.zoho.crm.api import dc as data_centers


def run_blocks(folder, blocks, variables):
    """Run all blocks. Each is a language and a text. A block that fails ends the process."""
    os.environ.update(variables)
    os.chdir(folder)
    (folder / "temporary").mkdir()
    os.environ["TMPDIR"] = str(folder / "temporary")
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    os.environ.pop("ZOHO_TOKEN_STORE_DB", None)
    with ZohoStandIn() as zoho, ZohoStandIn() as sandbox:

        class DataCenter:
            PRODUCTION = staticmethod(zoho.environment)
            SANDBOX = staticmethod(sandbox.environment)

        for name in ("USDataCenter", "EUDataCenter", "INDataCenter"):
            setattr(data_centers, name, DataCenter)
        reader = Reader(folder, zoho)
        for language, text in blocks:
            # The SDK keeps its settings per thread. So each block has a thread of its own.
            thread = threading.Thread(target=reader.run, args=(language, text), daemon=True)
            thread.start()
            thread.join(60)
            if thread.is_alive():
                raise SystemExit(f"the block does not end:\n{text}")
            if reader.failure:
                raise SystemExit(reader.failure)


class Reader:
    """Runs single blocks. If a block has failed, `failure` is its traceback."""

    def __init__(self, folder, zoho):
        self.folder = folder
        self.zoho = zoho
        self.ada = zoho.add_user("ada@example.com", "1001")
        self.failure = None

    def run(self, language, text):
        try:
            getattr(self, f"run_{language}")(text)
        except BaseException:  # noqa: BLE001 - `run_blocks` reports it
            self.failure = f"{traceback.format_exc()}\nin the block\n{text}"

    def run_python(self, text):
        """Run a program. If it has tests, run them with pytest."""
        text = text.replace("1000.made.up", self.zoho.grant_code(self.ada))
        text = text.replace('"1000.CLIENT"', repr(self.zoho.client_id))
        text = text.replace('"made-up"', repr(self.zoho.client_secret))
        if "\ndef test_" in text:
            (self.folder / "test_block.py").write_text(text, encoding="utf-8")
            self.run_command("python -m pytest -q -p no:cacheprovider test_block.py")
        else:
            exec(compile(text, "block", "exec"), {"__name__": "__main__"})

    def run_console(self, text):
        """Run each command, and compare its output with the lines that the page shows below it."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            self.run_command(command, expected)

    def run_cron(self, text):
        """Check the times of a crontab, and run its commands of this project."""
        for line in text.splitlines():
            *when, command = line.split(" ", 5)
            assert len(when) == 5, line
            assert all(re.fullmatch(r"[*/0-9]+", field) for field in when), line
            if command.split()[0] == "zoho-token-store":
                self.run_command(command.replace("/srv/app", str(self.folder)))

    def run_command(self, command, expected=""):
        """Run a command in a shell. If the page shows no output, any output is accepted."""
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=30, input="", check=False
        )
        printed = self._as_on_a_page(done.stdout + done.stderr)
        expected = self._as_on_a_page(expected)
        # Three dots stand for any text.
        pattern = ".*".join(map(re.escape, expected.split("…")))
        assert not expected or re.fullmatch(pattern, printed, re.DOTALL), f"{command}\n{printed}"
        # `check` returns 1 if it has findings. Then the page has to show them.
        shows_findings = done.returncode == 1 and expected and " check" in command
        assert done.returncode == 0 or shows_findings, f"{command}: exit status {done.returncode}\n{printed}"

    def _as_on_a_page(self, text):
        """Replace the stand-in's client id and URL. Reduce the space between columns, because their width varies."""
        text = text.replace(self.zoho.client_id, "1000.CLIENT").replace(self.zoho.url, "US")
        return re.sub("  +", "  ", text.strip("\n"))
