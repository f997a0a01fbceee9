"""One application mounted twice in a real uWSGI, with and without the setting that the recipe names.

The file's name keeps pytest from collecting it: `make test-servers` first installs uWSGI, which compiles for a minute.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

APPLICATION = Path(__file__).with_name("application.py")
UWSGI = Path(sys.executable).with_name("uwsgi")
FAILED_APPLICATION = 22  # the exit status of uWSGI when an application cannot be loaded
TIMEOUT_SECONDS = 60  # for every wait; a test that passes needs much less


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def get(port, path):
    """Return the status and the body of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextlib.contextmanager
def started(folder, *options):
    """Start uWSGI with the application at `/one` and `/two`. Kill it at the end if it still runs."""
    port = free_port()
    command = [UWSGI, "--http-socket", f"127.0.0.1:{port}", "--virtualenv", sys.prefix, "--master", "--processes", "2"]
    command += ["--enable-threads", "--manage-script-name", "--die-on-term"]
    command += ["--mount", f"/one={APPLICATION}", "--mount", f"/two={APPLICATION}", *options]
    log = folder / "uwsgi.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process, port, log
    finally:
        process.kill()
        process.wait()


def test_the_second_application_is_refused_by_default(tmp_path):
    """uWSGI runs the first application in the main interpreter. It does not start, and says what to set."""
    with started(tmp_path) as (process, _, log):
        assert process.wait(TIMEOUT_SECONDS) == FAILED_APPLICATION
        text = log.read_text(encoding="utf-8")
    assert "WSGI app 0 (mountpoint='/one') ready" in text
    assert "ImportError: zoho_token_store works only in the main interpreter" in text
    assert "single-interpreter = true" in text


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["preloaded", "lazy"])
def test_both_applications_work_in_a_single_interpreter(tmp_path, lazy):
    """Both save and find, before and after a fork. uWSGI ends when it is told to."""
    with started(tmp_path, "--single-interpreter", *lazy) as (process, port, log):
        end = time.monotonic() + TIMEOUT_SECONDS
        # A worker that is told to end while it still loads an application may be killed a minute later.
        loaded = [b"spawned uWSGI worker 2", *[b"(mountpoint='/two') ready"] * (2 if lazy else 1)]
        while not all(log.read_bytes().count(line) >= loaded.count(line) for line in loaded):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.05)
        for path in ("/one", "/two"):
            assert get(port, path) == (200, "row 1 of 1"), log.read_text(encoding="utf-8")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0, log.read_text(encoding="utf-8")
        assert "panicked" not in log.read_text(encoding="utf-8")
