"""What is written down runs: the code blocks of the README, and the contract it points to."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support import DATA, run_program

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)

# The first block goes to Zoho: here it goes to the stand-in, in the folder of a user with the files it mentions.
AGAINST_THE_STAND_IN = """
os.chdir(sys.argv[1])
from zoho_token_store.testing import ZohoStandIn
import zohocrmsdk.src.com.zoho.crm.api.dc as dc
with ZohoStandIn() as zoho:
    environment = zoho.environment()
    class USDataCenter:
        PRODUCTION = staticmethod(lambda: environment)
    dc.USDataCenter = USDataCenter
    block = open(sys.argv[2], encoding="utf-8").read()
    block = block.replace("1000.made.up", zoho.grant_code(zoho.add_user("ada@example.com")))
    block = block.replace('"1000.CLIENT"', repr(zoho.client_id)).replace('"made-up"', repr(zoho.client_secret))
    exec(compile(block, "README.md", "exec"))
"""


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readmes_code_runs(tmp_path, block):
    """Every code block of the README runs as it stands, in a user's folder."""
    shutil.copyfile(DATA / "filestore-sdk_tokens.txt", tmp_path / "sdk_tokens.txt")
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    run_program(AGAINST_THE_STAND_IN, tmp_path, tmp_path / "block.py")


def test_the_readmes_first_screen_has_the_two_commands():
    """Whoever opens the README sees how to try it without scrolling."""
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:24]
    for command in ("make demo", "make test", "pip install zoho-token-store"):
        assert any(line.strip().startswith(command) for line in first_screen)


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", "docs/contract.md", "docs/lease.md", "docs/reliability.md"]
)
def test_links_lead_somewhere(document):
    """A link to a file of the repository leads to one."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target
