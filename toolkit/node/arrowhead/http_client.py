"""An HTTP/1.1 client that keeps its connections: the next request to the same place needs no handshake."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast
from urllib.parse import urlsplit

import httptools

from toolkit.node.arrowhead.tls_server import reason


class NoAnswerError(Exception):
    """The other side could not be reached, went away, or did not answer in time; `tls` for a refused certificate."""

    def __init__(self, message: str, *, tls: bool = False) -> None:
        super().__init__(message)
        self.tls = tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete response and the instants next to the socket calls."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_ns: int
    received_ns: int


_Place = tuple[str, int, bool]


class HttpClient:
    """Requests to any number of places; connections are reused most recently used first.

    `reuse=False` opens a connection for each request, as the original systems do for notifications.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        connect_timeout_s: float = 30.0,
        read_timeout_s: float = 30.0,
        idle_per_place: int = 32,
        idle_s: float = 60.0,
        answer_bytes: int = 16 * 1024 * 1024,
        reuse: bool = True,
    ) -> None:
        self.tls = tls
        self.connect_timeout_s = connect_timeout_s
        self.read_timeout_s = read_timeout_s
        self.idle_per_place = idle_per_place
        self.idle_s = idle_s
        self.answer_bytes = answer_bytes
        self.reuse = reuse
        self._idle: defaultdict[_Place, list[_ClientConnection]] = defaultdict(list)

    async def request(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request and wait for its answer.

        A kept connection that turns out to be closed before a byte of the answer came is replaced once.
        Raises NoAnswerError.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise NoAnswerError(f"{url} is not a usable address: {error}") from None
        if not parts.hostname:
            raise NoAnswerError(f"{url} names no host")
        place = (parts.hostname, port, parts.scheme == "https")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        message_bytes = _request_bytes(method, target, parts.netloc, body, headers or {}, keep=self.reuse)
        connection = self._take(place)
        if connection is not None:
            try:
                return await self._exchange(place, connection, message_bytes, method, url)
            except _StaleError:
                pass
        connection = await self._connect(place, url)
        try:
            return await self._exchange(place, connection, message_bytes, method, url)
        except _StaleError:
            raise NoAnswerError(f"{url} closed the connection without an answer") from None

    def close(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take(self, place: _Place) -> _ClientConnection | None:
        connections = self._idle[place]
        while connections:
            connection = connections.pop()
            if not connection.lost and time.monotonic() - connection.idle_since < self.idle_s:
                return connection
            connection.close()
        return None

    async def _connect(self, place: _Place, url: str) -> _ClientConnection:
        host, port, secure = place
        if secure and self.tls is None:
            raise NoAnswerError(f"{url} needs TLS, which this system has no certificate for")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _ClientConnection(self.answer_bytes),
                    host,
                    port,
                    ssl=self.tls if secure else None,
                    server_hostname=host if secure else None,
                )
        except TimeoutError:
            raise NoAnswerError(f"{url} did not accept a connection within {self.connect_timeout_s:g} s") from None
        except ssl.SSLError as error:
            raise NoAnswerError(f"{url}: TLS failed: {reason(error)}", tls=True) from None
        except (OSError, UnicodeError) as error:
            raise NoAnswerError(f"{url} cannot be reached: {error}") from None
        return connection

    async def _exchange(
        self, place: _Place, connection: _ClientConnection, message_bytes: bytes, method: str, url: str
    ) -> Answer:
        fresh = connection.idle_since == 0.0
        try:
            async with asyncio.timeout(self.read_timeout_s):
                answer = await connection.exchange(message_bytes, head=method == "HEAD")
        except TimeoutError:
            connection.close()
            raise NoAnswerError(f"{url} did not answer within {self.read_timeout_s:g} s") from None
        except _StaleError:
            connection.close()
            raise
        except _TlsRefusedError as error:
            connection.close()
            # A refused client certificate shows only after the handshake (TLS 1.3).
            what = "refuses this system's certificate" if fresh else "broke off"
            raise NoAnswerError(f"{url} {what}: {error}", tls=fresh) from None
        except ConnectionError as error:
            connection.close()
            raise NoAnswerError(f"{url} broke off: {error}") from None
        except asyncio.CancelledError:
            connection.close()
            raise
        idle = self._idle[place]
        if self.reuse and connection.reusable and len(idle) < self.idle_per_place:
            connection.idle_since = time.monotonic()
            idle.append(connection)
        else:
            connection.close()
        return answer


def _request_bytes(
    method: str, target: str, host: str, body: bytes, headers: Mapping[str, str], *, keep: bool
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method in {"POST", "PUT"}:
        lines.append(f"Content-Length: {len(body)}")
    if not keep:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class _StaleError(ConnectionError):
    """Closed before any byte of the answer."""


class _TlsRefusedError(ConnectionError):
    """The TLS layer broke off."""


class _ClientConnection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, answer_bytes: int) -> None:
        self._answer_bytes = answer_bytes
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._refused: _TlsRefusedError | None = None
        """Why the TLS layer broke off, perhaps before there was a request."""
        self.lost = False
        self.reusable = False
        self.idle_since = 0.0

    async def exchange(self, message: bytes, *, head: bool) -> Answer:
        """Send a request, return its answer; raises ConnectionError or its kinds above."""
        if self._refused is not None:
            raise self._refused
        if self.lost or self._transport is None:
            raise _StaleError
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._head = head
        self._begun = False
        self.reusable = False
        self._waiter = asyncio.get_running_loop().create_future()
        self._sent_ns = time.time_ns()
        self._transport.write(message)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close; safe to repeat."""
        self.lost = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received_ns = time.time_ns()
        if self._waiter is None:
            self.close()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"not an HTTP answer: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if isinstance(exc, ssl.SSLError):
            self._refused = _TlsRefusedError(reason(exc))
            self._fail(self._refused)
        elif self._waiter is None or self._waiter.done():
            return
        elif not self._begun:
            self._fail(_StaleError())
        elif self._status and "content-length" not in self._headers and "transfer-encoding" not in self._headers:
            self._complete()
        else:
            self._fail(ConnectionError("the answer is cut off"))

    def on_status(self, _status: bytes) -> None:
        self._status = self._parser.get_status_code()

    def on_header(self, name: bytes, value: bytes | None) -> None:
        self._headers[name.decode("latin-1").lower()] = (value or b"").decode("latin-1")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._head and self._status != HTTPStatus.CONTINUE:
            self.reusable = False
            self._complete()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._answer_bytes:
            self._fail(ConnectionError(f"the answer is larger than {self._answer_bytes} bytes"))
            self.close()
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status == HTTPStatus.CONTINUE:
            self._headers = {}
            return
        self.reusable = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(
                Answer(
                    status=self._status,
                    headers=self._headers,
                    body=b"".join(self._body),
                    sent_ns=self._sent_ns,
                    received_ns=self._received_ns,
                )
            )

    def _fail(self, error: ConnectionError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
