"""Replace Zoho's data centres US and EU by stand-ins, so that examples run unchanged.

Python imports a module of this name at its start, so it also takes effect in every Python process that an example
starts.
"""

import multiprocessing
import os
import sys

LOOPBACK = ("127.0.0.1", "localhost", None)


def allow_only_loopback(event, arguments):
    """Refuse connections to other machines. It is an audit hook, so no library can bypass it."""
    host = LOOPBACK[0]
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in LOOPBACK:
        raise PermissionError(f"an example tried to connect to {host}")


sys.addaudithook(allow_only_loopback)

from zohocrmsdk.src.com.zoho.crm.api.dc import EUDataCenter, USDataCenter  # noqa: E402 - the hook must be installed first
from zohocrmsdk.src.com.zoho.crm.api.dc.data_center import DataCenter  # noqa: E402
from zohocrmsdk.src.com.zoho.crm.api.util import Constants  # noqa: E402


def environment(url):
    return lambda: DataCenter.Environment(url=url, accounts_url=f"{url}/oauth/v2/token", file_upload_url=url)


USDataCenter.PRODUCTION = staticmethod(environment(os.environ["STAND_IN"]))
USDataCenter.SANDBOX = staticmethod(environment(os.environ.get("STAND_IN_SANDBOX", "")))
EUDataCenter.PRODUCTION = staticmethod(environment(os.environ.get("STAND_IN_EU", "")))
# As at Zoho, the SDK knows the data centre of a row by its API domain.
Constants.US_DATACENTER.append(os.environ["STAND_IN"])
if "STAND_IN_EU" in os.environ:
    Constants.EU_DATACENTER.append(os.environ["STAND_IN_EU"])

if start_method := os.environ.get("START_METHOD"):
    multiprocessing.set_start_method(start_method)
