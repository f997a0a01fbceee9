"""Where examples run as their users run them, but for Zoho's US data centre: it is a stand-in on this machine.

Python imports a module of this name at its start. So all processes are staged that an example starts, in whatever way.
"""

import multiprocessing
import os
import sys

HERE = ("127.0.0.1", "localhost", None)


def only_loopback(event, arguments):
    """Let nothing out of the machine, whatever URL it took up (an audit hook)."""
    host = HERE[0]
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in HERE:
        raise PermissionError(f"an example wants to connect to {host}")


sys.addaudithook(only_loopback)

from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter  # noqa: E402 - nothing comes before the hook
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter  # noqa: E402


def environment(url):
    return lambda: DataCenter.Environment(url=url, accounts_url=f"{url}/oauth/v2/token", file_upload_url=url)


USDataCenter.PRODUCTION = staticmethod(environment(os.environ["STAND_IN"]))
USDataCenter.SANDBOX = staticmethod(environment(os.environ.get("STAND_IN_SANDBOX", "")))

if start_method := os.environ.get("START_METHOD"):
    multiprocessing.set_start_method(start_method)
