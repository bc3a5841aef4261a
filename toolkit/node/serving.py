"""A small HTTP/1.1 server for control and metrics: one thread, no imports that a Pi 1 would notice."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from toolkit.errors import WorkloadError

_MOST_HEAD_BYTES = 8 * 1024
_MOST_BODY_BYTES = 64 * 1024 * 1024
_MOST_CONNECTIONS = 64
_IDLE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a handler answers."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"


Handler = Callable[[str, str, bytes], Reply]
"""(method, path without query, body) -> Reply"""


class Server:
    """Serves some (address, port) pairs, each with its handler; requests are answered one after the other."""

    def __init__(self, listeners: dict[tuple[str, int], Handler]) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections: dict[socket.socket, _Connection] = {}
        self._listeners: dict[socket.socket, Handler] = {}
        for (address, port), handler in listeners.items():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError as error:
                listener.close()
                raise WorkloadError(
                    f"cannot listen on {address}:{port}: {error.strerror}; "
                    f"see what holds it with `ss -ltnp 'sport = :{port}'`"
                ) from error
            listener.setblocking(False)
            self._listeners[listener] = handler
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)

    def start(self) -> None:
        """Listen, and serve in a thread of its own."""
        for listener, handler in self._listeners.items():
            listener.listen(16)
            self._selector.register(listener, selectors.EVENT_READ, handler)
        self._thread.start()

    def stop(self) -> None:
        """End the thread within a quarter of a second and close every socket."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join(2)
        for end in (*self._listeners, *self._connections):
            end.close()
        self._selector.close()

    def _serve(self) -> None:
        swept_s = time.monotonic()
        while not self._stopping:
            for key, events in self._selector.select(0.25):
                connection = key.fileobj
                if not isinstance(connection, socket.socket):
                    continue
                if connection in self._connections:
                    self._go_on(connection, events)
                else:
                    self._accept(connection, key.data)
            if time.monotonic() - swept_s > 1:
                swept_s = time.monotonic()
                for connection, state in list(self._connections.items()):
                    if swept_s - state.seen_s > _IDLE_S:
                        self._drop(connection)

    def _accept(self, listener: socket.socket, handler: Handler) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            if len(self._connections) >= _MOST_CONNECTIONS:
                connection.close()
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection] = _Connection(handler)
            self._selector.register(connection, selectors.EVENT_READ)

    def _go_on(self, connection: socket.socket, events: int) -> None:
        state = self._connections[connection]
        state.seen_s = time.monotonic()
        try:
            if events & selectors.EVENT_READ:
                data = connection.recv(65536)
                if not data:
                    self._drop(connection)
                    return
                state.take(data)
            if state.out:
                sent = connection.send(state.out)
                del state.out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if state.closing and not state.out:
            self._drop(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if state.out else 0)
        self._selector.modify(connection, wanted)

    def _drop(self, connection: socket.socket) -> None:
        del self._connections[connection]
        self._selector.unregister(connection)
        connection.close()


class _Connection:
    """What one client has sent so far and what it is still owed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._in = bytearray()
        self.out = bytearray()
        self.closing = False
        self.seen_s = time.monotonic()

    def take(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._in += data
        while not self.closing:
            end = self._in.find(b"\r\n\r\n")
            if end < 0:
                if len(self._in) > _MOST_HEAD_BYTES:
                    self._refuse(431)
                return
            try:
                first, *lines = self._in[:end].decode("latin-1").split("\r\n")
                method, target, version = first.split(" ")
                headers = {
                    name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
                }
                length = int(headers.get("content-length", "0"))
            except ValueError:
                self._refuse(400)
                return
            if not 0 <= length <= _MOST_BODY_BYTES or "transfer-encoding" in headers:
                self._refuse(413 if length >= 0 else 400)
                return
            if len(self._in) < end + 4 + length:
                return
            body = bytes(self._in[end + 4 : end + 4 + length])
            del self._in[: end + 4 + length]
            self.closing = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
            self._answer(self._handler(method, target.partition("?")[0], body))

    def _refuse(self, status: int) -> None:
        self.closing = True
        self._answer(Reply(status=status, body=b'{"error": "%s"}' % HTTPStatus(status).phrase.encode()))

    def _answer(self, reply: Reply) -> None:
        head = (
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
            f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n"
            f"Connection: {'close' if self.closing else 'keep-alive'}\r\n\r\n"
        )
        self.out += head.encode("latin-1") + reply.body
