"""Hosts for tests: network namespaces with a network of their own (Linux, root). Nothing outside of them changes.

The namespace of the server has a bridge, and each host is connected with it. The packets of a host that is cut off are
lost without an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PREFIX = "zts-test-"
NETWORK = "10.213.7"
SERVER = "server"
NAMESPACES = Path("/run/netns")  # ip-netns(8)
CLONE_NEWNET = 0x40000000  # sched.h
TIMEOUT = 30  # seconds for one command; it takes milliseconds


class HostsUnavailableError(Exception):
    """This system, or this user, cannot have network namespaces."""


class Hosts:
    """A server and some hosts, which are numbered from 1. They exist in a `with` block."""

    address = f"{NETWORK}.254"  # of the server
    network = f"{NETWORK}.0/24"

    def __init__(self, count: int = 3) -> None:
        self.numbers = range(1, count + 1)
        self._run = f"{PREFIX}{os.getpid()}-"

    def __enter__(self) -> Hosts:  # noqa: PYI034 - Python 3.10 has no `Self`
        if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
            raise HostsUnavailableError("network namespaces need Linux, root and the command `ip` (package iproute2)")
        remove_leftovers()
        try:
            self._create()
        except subprocess.CalledProcessError as error:
            self._delete()
            raise HostsUnavailableError(f"network namespaces cannot be created here: {error.stderr.strip()}") from None
        except BaseException:
            self._delete()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._delete()

    def _create(self) -> None:
        server = self.name(SERVER)
        ip("netns", "add", server)
        ip("-n", server, "link", "set", "lo", "up")
        ip("-n", server, "link", "add", "bridge", "type", "bridge")
        ip("-n", server, "address", "add", f"{self.address}/24", "dev", "bridge")
        ip("-n", server, "link", "set", "bridge", "up")
        for number in self.numbers:
            host = self.name(number)
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", server)
            ip("-n", host, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", server, "link", "set", f"port{number}", "master", "bridge", "up")

    def _delete(self) -> None:
        for name in list_namespaces():
            if name.startswith(self._run):
                delete(name)

    def name(self, host: int | str) -> str:
        """Return the name of the namespace of a host or of the server."""
        return f"{self._run}{host}"

    def on(self, host: int | str) -> list[str]:
        """Return the beginning of a command that runs on a host, or on the server."""
        return ["ip", "netns", "exec", self.name(host)]

    def cut(self, host: int) -> None:
        """Lose all packets from and to a host."""
        self._set(host, "down")

    def restore(self, host: int) -> None:
        """Undo `cut`."""
        self._set(host, "up")

    def _set(self, host: int, state: str) -> None:
        ip("-n", self.name(SERVER), "link", "set", f"port{host}", state)


def ip(*arguments: str) -> str:
    """Run the command `ip`."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    return done.stdout


def list_namespaces() -> list[str]:
    """Return the names of all network namespaces."""
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]


def delete(name: str) -> None:
    """Kill what still runs in a namespace of these tests, and delete it."""
    assert name.startswith(PREFIX)
    for pid in ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", name)


def enter(name: str) -> None:
    """Move this thread to a namespace, with the threads and processes that it starts from now on (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NAMESPACES / name).open() as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def remove_leftovers() -> None:
    """Delete the namespaces of earlier runs that were killed."""
    for name in list_namespaces():
        run = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not Path("/proc", run).exists():
            delete(name)
