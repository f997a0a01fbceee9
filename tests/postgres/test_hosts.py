"""The network of the hosts: a cut host loses packets silently, and nothing stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from postgres.hosts import SERVER, ip, list_namespaces, remove_leftovers

TIMEOUT = 60
SERVE = """
import socket
with socket.create_server(("0.0.0.0", 5000)) as server:
    print("ready", flush=True)
    server.settimeout(60)
    connection, _ = server.accept()
    connection.settimeout(60)
    while data := connection.recv(100):
        connection.sendall(data)
"""
# Sends each line, and says what came back.
CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], 5000), timeout=10) as connection:
    print("connected", flush=True)
    for line in sys.stdin:
        connection.settimeout(float(line))
        connection.sendall(line.encode())
        try:
            print("answered" if connection.recv(100) else "closed", flush=True)
        except TimeoutError:
            print("lost", flush=True)
"""


@pytest.fixture
def run(hosts):
    """A function that starts a Python program on a host."""
    processes = []

    def start(host, code, *arguments):
        command = [*hosts.on(host), sys.executable, "-c", code, *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def exchange(program, seconds):
    program.stdin.write(f"{seconds}\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


def test_a_cut_host_loses_packets_until_it_is_restored(hosts, run):
    server, ready = run(SERVER, SERVE)
    assert ready == "ready"
    client, connected = run(1, CONNECT, hosts.address)
    assert connected == "connected"
    assert exchange(client, 10) == "answered"
    hosts.cut(2)
    assert exchange(client, 10) == "answered"
    hosts.cut(1)
    assert exchange(client, 0.5) == "lost"
    hosts.restore(1)
    assert exchange(client, 30) == "answered"
    client.communicate(timeout=TIMEOUT)
    server.communicate(timeout=TIMEOUT)
    assert (client.returncode, server.returncode) == (0, 0)


def test_leftovers_of_a_killed_run_are_removed(hosts):
    """A run that was killed leaves its namespaces, and a program in one of them."""
    code = f"""
import subprocess, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from postgres.hosts import Hosts
with Hosts(1) as hosts:
    subprocess.Popen([*hosts.on(1), "sleep", "60"])
    print(hosts.name(1), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as killed:
        name = killed.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
    assert name in list_namespaces()
    assert ip("netns", "pids", name)
    remove_leftovers()
    assert name not in list_namespaces()
    assert hosts.name(1) in list_namespaces()
