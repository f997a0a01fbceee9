"""A program on gevent with the real SDK: many greenlets of one thread refresh one token (see `test_lease_gevent.py`).

It reads its settings from the standard input, and prints one event a line, as JSON.
"""

import json
import pickle
import sys
import threading
from pathlib import Path

import gevent.monkey


class Output:
    """Stands in for the pipe on which a `Member` sends its events."""

    @staticmethod
    def send_bytes(line):
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def main(patches, ticked_file):
    # gevent has to replace threads and sockets before the SDK imports them. From then on, a thread is a greenlet.
    gevent.monkey.patch_all(**json.loads(patches))
    import requests
    from sdk.member import Member

    post, this_thread = requests.post, threading.get_native_id()
    elsewhere = 0

    def count_and_post(*arguments, **options):
        nonlocal elsewhere
        elsewhere += threading.get_native_id() != this_thread
        return post(*arguments, **options)

    requests.post = count_and_post
    setting, method, arguments = pickle.load(sys.stdin.buffer)
    member = Member(Output, None, setting)
    ticks = 0

    def tick():
        nonlocal ticks
        while True:
            gevent.sleep(0.002)
            ticks += member.waits.is_set()
            if ticks == 10:
                Path(ticked_file).touch()

    gevent.spawn(tick)
    getattr(member, method)(**arguments)
    member.say("end", count=ticks, elsewhere=elsewhere)


main(*sys.argv[1:])
