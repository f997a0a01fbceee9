# ruff: noqa: T201 - it reports to the test through stdout
"""Handle two events with the example `aws_lambda`, in a package folder that cannot be written to.

The argument is the package folder. As root, the program first becomes an unprivileged user: permissions do not apply to
root.
"""

import json
import os
import sys
from pathlib import Path

package = Path(sys.argv[1])
sys.path.insert(0, str(package))
if os.name == "posix" and os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.chdir(package)
try:
    (package / "written").touch()
    sys.exit("the package folder is writable")
except PermissionError:
    pass

from aws_lambda import handler  # noqa: E402 - imported as the unprivileged user

for _ in range(2):
    print(json.dumps(handler({}, None)))
