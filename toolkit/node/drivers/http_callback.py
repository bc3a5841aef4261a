"""Event Handler, mode `original`: subscribe by POST, be called back on a port of our own; publishing is as with SSE."""

from __future__ import annotations

import binascii
import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers.base import Driver, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.http import Responses
from toolkit.node.drivers.login import system_name
from toolkit.node.drivers.sse import DRIVER as SSE
from toolkit.node.drivers.sse import decoded
from toolkit.node.drivers.wire import Wire, is_busy, split_address

if TYPE_CHECKING:
    import ssl

_NOTIFY_URI = "notify"
_STORED = (201, 204)
_MOST_REQUEST_BYTES = 16 * 1024 * 1024
_GOODBYE_WITHIN_S = 1.0
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
_time_ns = time.time_ns


class CallbackSubscriber:
    """A small server for notifications, and the filters that point to it.

    Everything is in one epoll set, whose descriptor is ours. A `read` takes from one connection, so that no two
    notifications share an instant.
    """

    def __init__(self, order: RunOrder, identity: str, *, timeout_s: float) -> None:
        self._order = order
        self._name = system_name(re.sub(r"[^\w:-]", "-", identity))
        self._tls: ssl.SSLContext | None = None
        if order.options.get("tls"):
            from toolkit.node.drivers.tls import server_context

            self._tls = server_context(order.options)
        self._subscribed: list[str] = []
        self._requests: dict[int, tuple[socket.socket, bytearray]] = {}
        self._read_from: int | None = None
        self._ready = select.epoll()
        family = socket.AF_INET6 if ":" in split_address(order.broker)[0] else socket.AF_INET
        self._listener = socket.create_server(("", 0), family=family, backlog=1024)
        self._listener.setblocking(False)
        self._ready.register(self._listener.fileno(), select.EPOLLIN)
        self._address = ""
        self.facts: dict[str, Any] = {"encoding": "base64", "granted_qos": 0}
        try:
            self._subscribe(timeout_s)
        except BaseException:
            self.close()
            raise

    def _subscribe(self, timeout_s: float) -> None:
        started_ns = time.monotonic_ns()
        wire = Wire(self._order.broker, options=self._order.options, timeout_s=timeout_s)
        try:
            wire.blocking(timeout_s)
            self._address = wire.local()[0]
            for topic in self._order.topics:
                filter_document = {
                    "id": 0,
                    "eventType": topic,
                    "consumer": {"systemName": self._name, "address": self._address, "port": self.local()[1]},
                    "sources": [],
                    "filterMetadata": {},
                    "notifyUri": _NOTIFY_URI,
                    "matchMetadata": False,
                }
                status, body = self._ask(wire, "POST", "subscription", json.dumps(filter_document).encode())
                if status not in _STORED:
                    raise WorkloadError(
                        f"{self._order.broker} refused the subscription to {topic!r}: HTTP {status}, {body[:300]!r}"
                    )
                self._subscribed.append(topic)
        finally:
            wire.close()
        self.facts["subscribe_ms"] = (time.monotonic_ns() - started_ns) / 1e6

    def _ask(self, wire: Wire, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        head = (
            f"{method} /eventhandler/{path} HTTP/1.1\r\nHost: {self._order.broker}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        wire.send(head.encode() + body)
        responses = Responses()
        while True:
            data, _ = wire.read()
            if not data:
                raise TimeoutError(f"{self._order.broker} does not answer {method} {path}")
            if answers := responses.take(data):
                return answers[0]

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._ready.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port that notifications come to."""
        return self._address, self._listener.getsockname()[1]

    def read(self) -> int:
        """Take new connections, and what one of them has sent; the instant right after, in ns."""
        self._read_from = None
        for fd, _ in self._ready.poll(0):
            if fd == self._listener.fileno():
                self._accept()
                continue
            connection, received = self._requests[fd]
            try:
                data = connection.recv(65_536)
                at_ns = _time_ns()
                while self._tls is not None and (more := connection.pending()):  # type: ignore[attr-defined]
                    data += connection.recv(more)
            except OSError as error:
                if is_busy(error):
                    continue
                data = b""
            if not data or len(received) > _MOST_REQUEST_BYTES:
                self._drop(fd)
                continue
            received += data
            self._read_from = fd
            return at_ns
        return _time_ns()

    def messages(self) -> list[Message]:
        """The notifications that are complete; each is answered here, after its instant was taken."""
        fd, messages = self._read_from, []
        while fd in self._requests and (request := self._request(self._requests[fd][1])) is not None:
            body, closing = request
            if body:
                messages.append((_payload(body), 0))
            with contextlib.suppress(OSError):
                self._requests[fd][0].send(_OK + (b"Connection: close\r\n\r\n" if closing else b"\r\n"))
            if closing:
                self._drop(fd)
        return messages

    def keep_alive(self) -> None:
        """Filters need none."""

    def close(self) -> None:
        """Take the filters back, with a second to do so, and listen no more."""
        with contextlib.suppress(OSError, WorkloadError):
            if self._subscribed:
                wire = Wire(self._order.broker, options=self._order.options, timeout_s=_GOODBYE_WITHIN_S)
                wire.blocking(_GOODBYE_WITHIN_S)
                for topic in self._subscribed:
                    self._ask(wire, "DELETE", f"subscription/type/{topic}/consumer/{self._name}")
                wire.close()
        for fd in list(self._requests):
            self._drop(fd)
        self._listener.close()
        self._ready.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:  # reading shakes hands
                    connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                self._requests[connection.fileno()] = connection, bytearray()
                self._ready.register(connection.fileno(), select.EPOLLIN)

    def _drop(self, fd: int) -> None:
        connection, _ = self._requests.pop(fd)
        self._ready.unregister(fd)
        connection.close()

    def _request(self, received: bytearray) -> tuple[bytes, bool] | None:
        """(body, whether the connection ends) of the next request, taken off the front."""
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length, closing = 0, False
        for line in received[:end].lower().split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value) if value.strip().isdigit() else 0
            elif name == b"connection":
                closing = value.strip() == b"close"
        whole = end + 4 + length
        if len(received) < whole:
            return None
        body = bytes(received[end + 4 : whole])
        del received[:whole]
        return body, closing


def _payload(body: bytes) -> bytes:
    """The payload of an Event; what is none comes as it is (foreign)."""
    try:
        return decoded(json.loads(body)["payload"].encode())
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return body


class HttpCallbackDriver:
    """Event Handler, form `original`."""

    name = "http"

    def check(self, order: RunOrder) -> None:
        """The same as with SSE."""
        SSE.check(order)

    def answers(self, order: RunOrder) -> bool:
        """Every POST is answered."""
        return SSE.answers(order)

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """The same as with SSE."""
        return SSE.open_publisher(order, connection=connection, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One callback server for all event types."""
        return [CallbackSubscriber(order, identity, timeout_s=timeout_s)]


DRIVER: Driver = HttpCallbackDriver()
