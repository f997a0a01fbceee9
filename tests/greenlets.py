"""A program on gevent that uses the real SDK: many greenlets on one thread at one expiry (`test_lease_gevent.py`)."""

import json
import pickle
import sys
from pathlib import Path

import gevent.monkey


class Output:
    """What a program tells, a line each."""

    @staticmethod
    def send_bytes(line):
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def main(patches, ticked):
    # Before the SDK is imported, and what it needs. After that a thread is a greenlet.
    gevent.monkey.patch_all(**json.loads(patches))
    from sdk.member import Member

    setting, arguments = pickle.load(sys.stdin.buffer)
    member = Member(Output, None, setting)
    ticks = 0

    def tick():
        nonlocal ticks
        while True:
            gevent.sleep(0.002)
            ticks += member.waits.is_set()
            if ticks == 10:
                Path(ticked).touch()

    gevent.spawn(tick)
    member.threads(**arguments)
    member.say("ticks", count=ticks)


main(*sys.argv[1:])
