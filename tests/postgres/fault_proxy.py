"""A proxy on the loopback in front of a PostgreSQL server. It injects faults into connections.

It knows as much of the protocol as it needs (version 3.0: https://www.postgresql.org/docs/current/protocol.html). A
request is one Query message, or the messages up to a Sync. Its answer is all messages up to ReadyForQuery. COPY from
the client and Flush are not supported.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

LOOPBACK = "127.0.0.1"
TIMEOUT = 30.0  # seconds for the proxy's own start and end
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
COMMIT = re.compile(r"(^|;)\s*(COMMIT|END)\b", re.IGNORECASE)
ROLLBACK = re.compile(r"^\s*(ROLLBACK|ABORT)\b", re.IGNORECASE)
WRITE = re.compile(r"\b(INSERT\s+INTO|DELETE\s+FROM|(?<!FOR )(?<!KEY )UPDATE\s+\S)", re.IGNORECASE)
FATAL = re.compile("57P0[1-5]|53300|08...")
IDLE, FAILED = b"I", b"E"  # the status in ReadyForQuery: outside a transaction, in a failed one


def always(_number: int) -> bool:
    """Inject the fault at each match."""
    return True


def first(count: int) -> Callable[[int], bool]:
    """Inject the fault at the first matches."""
    return lambda number: number < count


def only(wanted: int) -> Callable[[int], bool]:
    """Inject the fault at one match. The first one has the number 0."""
    return lambda number: number == wanted


@dataclass
class Fault:
    """What to inject, and where.

    - "lose": the server carries the request out, and the connection is closed instead of its answer
    - "error": the request is not carried out, and answered with the SQLSTATE `code`; some of them end the connection
    - "cut": the connection is closed before the request is carried out
    - "stall": the request stays without an answer, and the connection stays open
    - "delay": the request is carried out after `seconds`
    """

    action: Literal["lose", "error", "cut", "stall", "delay"]
    at: Literal["connect", "request", "commit"] = "request"
    matching: str = ""  # a regular expression that occurs in the SQL
    which: Callable[[int], bool] = always  # which of the matches
    code: str = ""
    seconds: float = 0.0
    matches: int = field(default=0, init=False)
    injected: int = field(default=0, init=False)

    def applies(self, request: Request) -> bool:
        """Tell whether to inject the fault into a request. Count its matches."""
        if self.at != request.kind and not (self.at == "request" and request.kind == "commit"):
            return False
        if not re.search(self.matching, request.sql, re.IGNORECASE):
            return False
        self.matches += 1
        if not self.which(self.matches - 1):
            return False
        self.injected += 1
        return True


@dataclass
class Request:
    """The messages of one request, and what the SQL in them does."""

    kind: Literal["connect", "request", "commit"]
    sql: str = ""
    messages: bytes = b""
    is_simple: bool = False  # one Query message


class FaultProxy:
    """Accepts connections on the loopback, and passes them on to a server. It runs in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        """Prepare a proxy to the server with this DSN."""
        self.upstream = {name: str(value) for name, value in conninfo_to_dict(upstream).items()}
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # the SQL of each request so far
        self.connections = 0  # how many there have been
        self.open: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FaultProxy:  # noqa: PYI034 - Python 3.10 has no `Self`
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._accept, LOOPBACK, 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()

    @property
    def dsn(self) -> str:
        """The URL of the server through the proxy."""
        return f"postgresql://{self.upstream['user']}@{LOOPBACK}:{self.port}/{self.upstream['dbname']}"

    def inject(self, fault: Fault) -> Fault:
        """Inject a fault from now on."""
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Inject nothing more. A request that was stalled stays so."""
        self.faults.clear()

    def cut_all(self) -> None:
        """Close all connections."""

        async def close_all() -> None:
            for connection in list(self.open):
                connection.close()

        self._call(close_all())

    def _call(self, work: Coroutine[object, object, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT)

    async def _end(self) -> None:
        self._server.close()
        for connection in list(self.open):
            connection.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections += 1
        self.open.add(connection)
        try:
            # The end of the proxy cancels this task, which asyncio would log.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await connection.serve()
        finally:
            self.open.discard(connection)
            connection.close()

    def fault_for(self, request: Request) -> Fault | None:
        """Return the fault to inject into a request."""
        return next((fault for fault in list(self.faults) if fault.applies(request)), None)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server."""
        host, port = self.upstream["host"], int(self.upstream.get("port", 5432))
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)


class Connection:
    """One connection of a client, and its connection to the server."""

    def __init__(self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = Side(reader, writer)
        self._server: Side | None = None
        self.status = IDLE
        self.is_rolled_back = False  # by the proxy, after an error that the server knows nothing of

    def close(self) -> None:
        """Close both connections."""
        for side in filter(None, (self.client, self._server)):
            side.close()

    @property
    def server(self) -> Side:
        """The connection to the server, after the first message of the client."""
        assert self._server is not None
        return self._server

    async def serve(self) -> None:
        """Pass messages on, until a fault or one side closes the connection."""
        if (startup := await self._startup()) is None:
            return
        if not await self._handle(Request("connect", messages=startup)):
            return
        while (request := await self._next_request()) and await self._handle(request):
            pass

    async def _startup(self) -> bytes | None:
        """Read the first message. Refuse encryption. A request to cancel has no answer."""
        while True:
            head = await self.client.reader.readexactly(8)
            length, code = struct.unpack("!II", head)
            message = head + await self.client.reader.readexactly(length - 8)
            if code in (SSL_REQUEST, GSS_REQUEST):
                await self.client.send(b"N")
                continue
            self._server = Side(*await self.proxy.connect())
            if code != CANCEL_REQUEST:
                return message
            await self.server.send(message)
            return None

    async def _next_request(self) -> Request | None:
        """Return the client's next request, or nothing at the end of the connection."""
        messages, sql = b"", []
        while True:
            await asyncio.wait({self.client.next(), self.server.next()}, return_when=asyncio.FIRST_COMPLETED)
            if self.server.next().done():
                # The server announces its end, or a changed parameter.
                await self.client.send((await self.server.receive()).bytes)
                continue
            message = await self.client.receive()
            if message.kind == b"X":
                await self.server.send(message.bytes)
                return None
            messages += message.bytes
            if message.kind == b"Q":
                sql.append(message.body[:-1].decode())
            elif message.kind == b"P":  # the name of the statement, its SQL, the types
                sql.append(message.body.split(b"\0")[1].decode())
            if message.kind in (b"Q", b"S"):
                text = "; ".join(sql)
                is_commit = COMMIT.search(text) or (self.status == IDLE and WRITE.search(text))
                return Request("commit" if is_commit else "request", text, messages, message.kind == b"Q")

    async def _handle(self, request: Request) -> bool:
        """Answer a request, or inject a fault. Return whether the connection goes on."""
        if request.kind != "connect":
            self.proxy.requests.append(request.sql)
            if self.is_rolled_back:
                return await self._handle_in_failed_transaction(request)
        fault = self.proxy.fault_for(request)
        if fault and fault.action == "error":
            return await self._refuse(request, fault.code)
        if fault and fault.action == "cut":
            return False
        if fault and fault.action == "stall":
            # The client gives up and closes the connection, or the proxy ends.
            await self.client.reader.read()
            return False
        if fault and fault.action == "delay":
            await asyncio.sleep(fault.seconds)
        answer = await self._answer(request)
        if fault and fault.action == "lose":
            return False
        await self.client.send(answer)
        return True

    async def _answer(self, request: Request) -> bytes:
        """Let the server carry out a request. Return the answer, which ends with ReadyForQuery."""
        await self.server.send(request.messages)
        answer = b""
        while True:
            if request.kind == "connect":
                # The server asks for a password, and the client answers.
                await asyncio.wait({self.client.next(), self.server.next()}, return_when=asyncio.FIRST_COMPLETED)
                if not self.server.next().done():
                    await self.server.send((await self.client.receive()).bytes)
                    continue
            message = await self.server.receive()
            answer += message.bytes
            if message.kind == b"Z":
                self.status = message.body
                return answer
            if request.kind == "connect":
                await self.client.send(answer)
                answer = b""

    async def _refuse(self, request: Request, code: str) -> bool:
        """Answer a request with an error. Return whether the connection goes on."""
        if request.kind == "connect" or FATAL.fullmatch(code):
            await self.client.send(error_response("FATAL", code))
            return False
        if self.status != IDLE:
            await self._answer(Request("request", messages=message_of(b"Q", b"ROLLBACK\0")))
            if not COMMIT.search(request.sql):
                self.status, self.is_rolled_back = FAILED, True
        await self.client.send(error_response("ERROR", code) + message_of(b"Z", self.status))
        return True

    async def _handle_in_failed_transaction(self, request: Request) -> bool:
        """Answer like a server whose transaction has failed: only its end is allowed."""
        if COMMIT.search(request.sql) or ROLLBACK.search(request.sql):
            self.status, self.is_rolled_back = IDLE, False
            # ParseComplete, BindComplete, NoData
            parsed = b"" if request.is_simple else message_of(b"1") + message_of(b"2") + message_of(b"n")
            answer = parsed + message_of(b"C", b"ROLLBACK\0")
        else:
            answer = error_response("ERROR", "25P02")
        await self.client.send(answer + message_of(b"Z", self.status))
        return True


@dataclass
class Message:
    """A message of the protocol: its type, its contents, and all its bytes."""

    kind: bytes
    body: bytes
    bytes: bytes


class Side:
    """The connection to the client or to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._next: asyncio.Task[Message] | None = None

    def next(self) -> asyncio.Task[Message]:
        """Return the task that reads the next message. It is done when the message is here."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._read())
        return self._next

    async def receive(self) -> Message:
        """Return the next message."""
        try:
            return await self.next()
        finally:
            self._next = None

    async def _read(self) -> Message:
        head = await self.reader.readexactly(5)
        body = await self.reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
        return Message(head[:1], body, head + body)

    async def send(self, messages: bytes) -> None:
        """Send messages."""
        self.writer.write(messages)
        await self.writer.drain()

    def close(self) -> None:
        """Close the connection."""
        if self._next is not None and not self._next.cancel():
            self._next.exception()  # the end of the connection; asyncio logs what is not looked at
        self._next = None
        self.writer.close()


def message_of(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def error_response(severity: str, code: str) -> bytes:
    """Return an ErrorResponse."""
    fields = {"S": severity, "V": severity, "C": code, "M": "an injected fault"}
    return message_of(b"E", b"".join(f"{name}{value}".encode() + b"\0" for name, value in fields.items()) + b"\0")
