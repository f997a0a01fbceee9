"""Run the command line as if some modules were not installed: `without_modules.py click,wcwidth list`.

At the end it checks that none of them was imported.
"""

import sys

from zoho_token_store.__main__ import main

BLOCKED = sys.argv.pop(1).split(",")


class BlockingFinder:
    """A finder that reports the blocked modules as missing."""

    def find_spec(self, name, _path=None, _target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, BlockingFinder())
status = main()
assert not [name for name in sys.modules if name.partition(".")[0] in BLOCKED]
sys.exit(status)
