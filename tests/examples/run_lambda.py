# ruff: noqa: T201 - it reports to the test through stdout
"""Handle two events with the example `aws_lambda`, in a package folder that cannot be written to.

The argument is the package folder.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from own_process import drop_privileges

package = Path(sys.argv[1])
sys.path.insert(0, str(package))
drop_privileges()
os.chdir(package)
try:
    (package / "written").touch()
    sys.exit("the package folder is writable")
except PermissionError:
    pass

from aws_lambda import handler  # noqa: E402 - imported without root's privileges

for _ in range(2):
    print(json.dumps(handler({}, None)))
