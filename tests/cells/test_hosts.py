"""Three hosts with a network of their own use one Redis. One is cut off: the others go on, and no save is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cells import services
from postgres.hosts import SERVER, Hosts, HostsUnavailableError

TIMEOUT = 60
PROGRAM = """
import json, sys
sys.path.insert(0, ".")
from cells import places
from support import login
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
store = places.open_store(json.loads(sys.argv[1]), "hosts", busy_timeout=20)
print("ready", flush=True)
for line in sys.stdin:
    try:
        store.save_token(login(f"u{line.strip()}", int(line)))
        print("saved", flush=True)
    except SDKException as error:
        print(error.cause.code, flush=True)
print(" ".join(sorted(token.get_user_signature().get_name() for token in store.get_tokens())), flush=True)
"""


@pytest.fixture
def hosts():
    try:
        with Hosts() as hosts:
            yield hosts
    except HostsUnavailableError as error:
        pytest.skip(str(error))


def save(program, number):
    program.stdin.write(f"{number}\n")
    program.stdin.flush()


def answer(program):
    return program.stdout.readline().strip()


def test_a_host_that_is_cut_off_fails_and_the_others_go_on(hosts, tmp_path):
    """The client's timeout ends the call of the host that is cut off. Later it goes on, too."""
    with services.redis_server(tmp_path, hosts.on(SERVER), hosts.address) as place:
        command = [sys.executable, "-c", PROGRAM, json.dumps({**place, "timeout": 2})]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[1]}
        programs = [subprocess.Popen([*hosts.on(number), *command], **options) for number in hosts.numbers]
        try:
            assert [answer(program) for program in programs] == ["ready"] * 3
            for number, program in enumerate(programs):
                save(program, 10 + number)
            assert [answer(program) for program in programs] == ["saved"] * 3
            hosts.cut(1)
            for number, program in enumerate(programs):
                save(program, 20 + number)
            assert [answer(program) for program in programs[1:]] == ["saved"] * 2
            assert answer(programs[0]) in {"cell-failed", "outcome-unknown"}
            hosts.restore(1)
            for _ in range(20):  # the network needs some time
                save(programs[0], 30)
                if (last := answer(programs[0])) == "saved":
                    break
            assert last == "saved"
            seen = [program.communicate(timeout=TIMEOUT)[0].split() for program in programs]
        finally:
            for program in programs:
                program.kill()
                program.wait()
    expected = {"u10", "u11", "u12", "u21", "u22", "u30"}
    # The request of the host that was cut off may have waited in its network until the host was restored.
    assert [{*users} - {"u20"} for users in seen] == [expected] * 3
