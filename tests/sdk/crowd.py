"""Starts programs that use the real SDK at the same time. Each of them runs one method of `member.Member`."""

import contextlib
import json
import os
import signal
import time

from sdk.program import processes

TIMEOUT = 45  # seconds for one program; it needs a few


class Outcome:
    """The events of a program: the answer to each call, and the `lease_info` of each store."""

    def __init__(self, events):
        self.answers = [event for event in events if event["event"] == "answer"]
        self.leases = [event for event in events if event["event"] == "lease"]

    def total(self, counter):
        return sum(lease[counter] for lease in self.leases)


class Crowd:
    """One program, with all its processes and threads. It runs one method of `Member`."""

    def __init__(self, setting, method, arguments):
        from sdk.member import serve

        self._deadline = time.monotonic() + TIMEOUT
        self._received = []
        self._events, events = processes.Pipe(duplex=False)
        go_on, self._go_on = processes.Pipe(duplex=False)
        self._process = processes.Process(target=serve, args=(events, go_on, setting, method, arguments), daemon=True)
        self._process.start()
        events.close()
        go_on.close()

    def until(self, event, count=1):
        """Wait until the program has sent this event `count` times."""
        while sum(received["event"] == event for received in self._received) < count:
            assert self._receive(), f"the program ended without {event!r} {count} times; it sent {self._received}"

    def events(self, event):
        """Return the events of this name that the program has sent so far."""
        return [received for received in self._received if received["event"] == event]

    @property
    def answers(self):
        """The answers so far."""
        return self.events("answer")

    def go_on(self):
        """Let the program go on: it waits for this in `Member.hold` and `Member.fork_while_asking`."""
        self._go_on.send_bytes(b"go on")

    def ends(self):
        """Wait until all its processes have ended without an error. Return the outcome."""
        while self._receive():
            pass
        self._process.join(TIMEOUT)
        assert self._process.exitcode == 0
        return Outcome(self._received)

    def kill(self):
        """Kill all its processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    def _receive(self):
        """Wait for one more event. Return whether there was one: after the end of all processes there is none."""
        if not self._events.poll(max(0, self._deadline - time.monotonic())):
            raise TimeoutError(f"the program has not ended within {TIMEOUT} s; it sent {self._received}")
        try:
            self._received.append(json.loads(self._events.recv_bytes()))
        except EOFError:
            return False
        return True
