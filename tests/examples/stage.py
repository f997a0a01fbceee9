"""Runs an example as its user does, in an interpreter where Zoho's US data centre is a stand-in on this machine.

`python stage.py flask_login.py …` is `python flask_login.py …`, and `python stage.py -m gunicorn …` is `python -m
gunicorn …`. It is a file of its own, and at its top, so that processes which an example starts are staged, too.
"""

import os
import runpy
import sys
from pathlib import Path

from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter

LOOPBACK = "127.0.0.1"


def only_loopback(event, arguments):
    """Let nothing out of the machine, whatever URL it took up (an audit hook)."""
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != LOOPBACK:
        raise PermissionError(f"an example wants to connect to {arguments[1][0]}")


def environment(url):
    return lambda: DataCenter.Environment(url=url, accounts_url=f"{url}/oauth/v2/token", file_upload_url=url)


sys.addaudithook(only_loopback)
USDataCenter.PRODUCTION = staticmethod(environment(os.environ["STAND_IN"]))
USDataCenter.SANDBOX = staticmethod(environment(os.environ.get("STAND_IN_SANDBOX", "")))

if __name__ == "__main__":
    sys.argv[:1] = []
    sys.path[0] = str(Path.cwd())
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
