"""An HTTP/1.1 server: one parser per connection, requests answered in order, everything bounded.

Parsing is httptools'; what is here is the life of a connection: limits on header and body, time limits against
clients that dribble, keep-alive, pipelining, back-pressure and an orderly end.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import httptools

from toolkit.node.arrowhead.tls_server import TlsServer

REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may take."""

    header_bytes: int = 16 * 1024
    body_bytes: int = 1024 * 1024
    request_s: float = 15.0
    """From the first byte of a request to its last."""
    idle_s: float = 120.0
    """Between two requests of one connection."""
    linger_s: float = 3.0
    """How long the rest of a refused body is read and thrown away, so that the client gets to read the refusal."""
    connections: int = 2000
    pipelined: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, complete."""

    method: str
    path: str
    """Percent-encoded, without the query."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case; a repeated header has its values joined with `, `."""
    body: bytes
    received_ns: int
    """When the bytes that completed it were read."""
    scheme: str
    server: str
    """host:port as the client named it, or of the socket."""
    certificate: Mapping[str, Any] | None
    """The client's, as `ssl.SSLSocket.getpeercert` gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer; `sent` is told the instant just before the bytes go to the socket."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Callable[[int], None] | None = None


Handler = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[int, str], Response]
"""Makes the answer to what never became a request: status and message."""


def _plain_refusal(status: int, message: str) -> Response:
    return Response(status=status, body=message.encode(), content_type="text/plain")


class HttpServer:
    """Listens on one port and hands requests to `handler`, in order for each connection."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        refuse: Refuse = _plain_refusal,
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.tls = tls
        self.refuse = refuse
        self.connections: set[_Connection] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one, told by `port`."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, host, port, backlog=1024, reuse_address=True)
        self.port = self._server.sockets[0].getsockname()[1]
        self._sweeper = asyncio.create_task(self._sweep())

    def _connection(self) -> asyncio.Protocol:
        connection = _Connection(self)
        return connection if self.tls is None else TlsServer(connection, self.tls, within_s=self.limits.request_s)

    async def stop(self, drain_s: float = 2.0) -> None:
        """Take no new connections, let running requests finish for at most `drain_s`, close."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.finish()
        deadline = time.monotonic() + drain_s
        while self.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - set by a signal, or once in a process' life
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for connection in list(self.connections):
                connection.check_time(now)


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._limits = server.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._certificate: Mapping[str, Any] | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False
        self._deaf = False
        self._linger_until = 0.0
        self._since = time.monotonic()
        self._in_request = False
        self._received_ns = 0
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # ------------------------------------------------ from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.connections) >= self._limits.connections:
            self._refuse(503, "too many connections")
            transport.close()
            return
        self._server.connections.add(self)
        if self._server.tls is not None:
            self._certificate = transport.get_extra_info("peercert")

    def connection_lost(self, _: Exception | None) -> None:
        self._server.connections.discard(self)
        self._deaf = self._closing = True
        self._writable.set()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._received_ns = time.time_ns()
        if self._deaf:
            return
        if not self._in_request:
            self._in_request = True
            self._since = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "no protocol to upgrade to")
        except httptools.HttpParserError as error:
            if not self._deaf:
                self._refuse(400, f"not HTTP/1.1: {error}")

    def eof_received(self) -> bool:
        if self._worker is None and not self._waiting:
            return False
        self._closing = True
        return self._server.tls is None

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ------------------------------------------------ from the parser

    def on_message_begin(self) -> None:
        self._reset()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._count_header(len(name) + len(value or b"") + 4)
        key = name.decode("latin-1").lower()
        text = (value or b"").decode("latin-1").strip()
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        length = self._headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limits.body_bytes:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse_body()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._deaf or self._transport is None:
            return
        self._in_request = False
        self._since = time.monotonic()
        path, _, query = self._url.decode("latin-1").partition("?")
        if "://" in path:
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        server = self._headers.get("host")
        if not server:
            name = self._transport.get_extra_info("sockname")
            server = f"{name[0]}:{name[1]}"
        request = Request(
            method=self._parser.get_method().decode(),
            path=path,
            query=query,
            headers=self._headers,
            body=b"".join(self._body),
            received_ns=self._received_ns,
            scheme="http" if self._server.tls is None else "https",
            server=server,
            certificate=self._certificate,
        )
        self._waiting.append((request, self._parser.should_keep_alive()))
        if len(self._waiting) >= self._limits.pipelined:
            self._transport.pause_reading()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._answer_all())

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes:
            self._refuse(431, "header too large")
            raise ValueError("header too large")

    # ------------------------------------------------ answers

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                request, keep = self._waiting.popleft()
                if self._transport is not None and len(self._waiting) == self._limits.pipelined - 1:
                    self._transport.resume_reading()
                response = await self._server.handler(request)
                keep = keep and not (self._closing and not self._waiting)
                self._send(response, keep=keep, head=request.method == "HEAD")
                if not keep:
                    self._waiting.clear()
                    self._close()
                await self._writable.wait()
        finally:
            self._worker = None

    def _send(self, response: Response, *, keep: bool, head: bool = False) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}"]
        if response.content_type is not None:
            lines.append(f"Content-Type: {response.content_type}")
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(response.body)}")
        if not keep:
            lines.append("Connection: close")
        head_bytes = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        body = b"" if head or response.status == HTTPStatus.NO_CONTENT else response.body
        if response.sent is not None:
            response.sent(time.time_ns())
        self._transport.write(head_bytes + body)

    def _refuse_body(self) -> None:
        self._refuse(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, hear nothing more, and close once the client has had time to read the answer."""
        if self._deaf:
            return
        self._deaf = self._closing = True
        self._send(self._server.refuse(status, message), keep=False)
        self._linger_until = time.monotonic() + self._limits.linger_s
        if self._transport is not None and self._transport.can_write_eof():
            self._transport.write_eof()

    # ------------------------------------------------ ends

    def check_time(self, now: float) -> None:
        """Called twice a second: close what is idle, dribbling or done lingering."""
        if self._linger_until:
            if now > self._linger_until:
                self._close()
        elif self._worker is not None:
            if not self._writable.is_set() and now - self._since > self._limits.idle_s:
                self.abort()
        elif self._in_request:
            if now - self._since > self._limits.request_s:
                self._refuse(408, "the request did not arrive in time")
        elif now - self._since > self._limits.idle_s:
            self._close()

    def finish(self) -> None:
        """Close now, or after the request being answered."""
        self._closing = True
        if self._worker is None:
            self._close()

    def abort(self) -> None:
        """Close without sending what is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
