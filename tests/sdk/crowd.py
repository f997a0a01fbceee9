"""Programs that use the real SDK and meet at one expiry, seen from a test: `member.Member`'s methods, each in processes
of its own.
"""

import contextlib
import json
import os
import signal
import time

from sdk.program import processes

IN_TIME = 45  # seconds; all of it together takes a few at most


class Outcome:
    """What a program told: each call's answer, and what its stores had to do with leases."""

    def __init__(self, events):
        self.answers = [event for event in events if event["event"] == "answer"]
        self.leases = [event for event in events if event["event"] == "lease"]

    def total(self, counter):
        return sum(lease[counter] for lease in self.leases)


class Crowd:
    """One program, with all the processes and threads it makes, doing one thing."""

    def __init__(self, setting, verb, arguments):
        from sdk.member import serve

        self._until = time.monotonic() + IN_TIME
        self._told = []
        self._events, events = processes.Pipe(duplex=False)
        go_on, self._go_on = processes.Pipe(duplex=False)
        self._process = processes.Process(target=serve, args=(events, go_on, setting, verb, arguments), daemon=True)
        self._process.start()
        events.close()
        go_on.close()

    def until(self, event, count=1):
        """Wait until it has said so that many times."""
        while sum(told["event"] == event for told in self._told) < count:
            assert self._hears(), f"ended without saying {event!r} {count} times; it said {self._told}"

    def go_on(self):
        """Let it go on from where it waits to be told."""
        self._go_on.send_bytes(b"go on")

    def ends(self):
        """Wait until all of it has ended well."""
        while self._hears():
            pass
        self._process.join(IN_TIME)
        assert self._process.exitcode == 0
        return Outcome(self._told)

    def kill(self):
        """End all of it as a crash would."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    def _hears(self):
        """Wait for one more thing that it says. None comes once all its processes have ended."""
        if not self._events.poll(max(0, self._until - time.monotonic())):
            raise TimeoutError(f"has not ended within {IN_TIME} s; it said {self._told}")
        try:
            self._told.append(json.loads(self._events.recv_bytes()))
        except EOFError:
            return False
        return True
