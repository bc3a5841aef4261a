"""Arrowhead Event Handler: publish by POST on a kept connection, subscribe by Server-Sent Events.

The event's `payload` is base64 of header and fill, since JSON and SSE carry text.
"""

from __future__ import annotations

import binascii
import collections
import json
import select
import time
from collections.abc import Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.equal_events import EqualEvents
from toolkit.node.drivers.http import ChunkedBody, Responses, read_head
from toolkit.node.drivers.login import system_name
from toolkit.node.drivers.publisher_pool import PublisherPool
from toolkit.node.drivers.wire import Wire

_b2a = binascii.b2a_base64
_a2b = binascii.a2b_base64
_ENCODED_HEADER = 56
"""Characters of base64 that hold the 40-byte header."""
_HEADER_TO_TRIPLET = 2
"""40 header bytes and 2 of the fill make whole base64 triplets; the rest of the fill is encoded once."""
_OK = range(200, 300)
_MOST_POOLED = 1024


class SsePublisher:
    """POST /eventhandler/publish, one request in a segment; answers come back in order."""

    def __init__(self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float) -> None:
        self._wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)
        self._wire.blocking(None)
        address, port = self._wire.local()
        self._parts = [
            _request_parts(order, topic, system_name(f"publisher-{connection}"), address, port, fill)
            for topic in order.topics
        ]
        self._waiting: collections.deque[Key] = collections.deque()
        self._responses = Responses()
        self.facts: dict[str, Any] = {"encoding": "base64"}

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._wire.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""
        return self._wire.local()

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One request, one system call."""
        before, short_fill, after = self._parts[topic]
        self._waiting.append(key)
        self._wire.send(before + _b2a(header + short_fill, newline=False) + after)

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:  # noqa: ARG002
        """The same for a message of any size, of any event type; every POST is answered."""
        address, port = self._wire.local()
        document = {
            "source": {"systemName": system_name("gateway"), "address": address, "port": port},
            "event": {"type": topic, "payload": _b2a(payload, newline=False).decode()},
        }
        body = json.dumps(document, separators=(",", ":")).encode()
        head = (
            f"POST /eventhandler/publish HTTP/1.1\r\nHost: {self._wire.address}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._waiting.append(key)
        self._wire.send(head.encode() + body)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """200 accepts, anything else rejects."""
        data, at_ns = self._wire.read()
        accepted: list[Key] = []
        rejected: list[Key] = []
        for status, body in self._responses.take(data) if data else ():
            if not self._waiting:
                raise ConnectionResetError(f"{self._wire.address} answered more requests than were sent")
            (accepted if status in _OK else rejected).append(self._waiting.popleft())
            if status not in _OK:
                self.facts["last_rejection"] = f"{status} {body[:300].decode('utf-8', 'replace')}"
        if self._responses.closing:
            raise ConnectionResetError(f"{self._wire.address} ends the connection after an answer")
        return at_ns, accepted, rejected

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._wire.backlog()

    def wants_write(self) -> bool:
        """Whether `flush` has something to do once the kernel takes more."""
        return self._wire.backlog() > 0

    def flush(self) -> None:
        """Offer the backlog to the kernel again."""
        self._wire.flush()

    def close(self) -> None:
        """Closing is all HTTP needs."""
        self._wire.close()


class FreshPublisher:
    """The same with a new connection for each request, as the original publishers have it; connecting is after T1."""

    def __init__(self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float) -> None:
        self._broker = order.broker
        self._options = order.options
        self._timeout_s = timeout_s
        wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)  # shows that the broker is there
        self._local = wire.local()
        wire.close()
        self._parts = [
            _request_parts(order, topic, system_name(f"publisher-{connection}"), *self._local, fill)
            for topic in order.topics
        ]
        self._ready = select.epoll()
        self._waiting: dict[int, tuple[Wire, Key]] = {}
        self.facts: dict[str, Any] = {"encoding": "base64", "reuse": False}

    def fileno(self) -> int:
        """An epoll set of every request without an answer."""
        return self._ready.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end, of a first connection that sent nothing."""
        return self._local

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One connection, one request."""
        before, short_fill, after = self._parts[topic]
        try:
            wire = Wire(self._broker, options=self._options, timeout_s=self._timeout_s)
        except (OSError, WorkloadError) as error:
            raise ConnectionResetError(f"no connection to {self._broker}: {error}") from error
        wire.blocking(None)
        wire.send(before + _b2a(header + short_fill, newline=False) + after)
        self._waiting[wire.fileno()] = wire, key
        # In a set within a set readiness to write shows as readiness to read: `answers` sends the rest.
        self._ready.register(wire.fileno(), select.EPOLLIN | (select.EPOLLOUT if wire.backlog() else 0))

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """The answer of one request, so that no two share an instant."""
        for fd, events in self._ready.poll(0):
            wire, key = self._waiting[fd]
            if events & select.EPOLLOUT:
                wire.flush()
                if not wire.backlog():
                    self._ready.modify(fd, select.EPOLLIN)
            if not events & ~select.EPOLLOUT:
                continue
            data, at_ns = wire.read()
            done = Responses().take(data)  # an answer without a body comes in one piece
            if not done:
                raise ConnectionResetError(f"{wire.address} did not answer in one piece: {data[:80]!r}")
            self._forget(fd)
            if done[0][0] in _OK:
                return at_ns, [key], []
            self.facts["last_rejection"] = f"{done[0][0]} {done[0][1][:300].decode('utf-8', 'replace')}"
            return at_ns, [], [key]
        return time.time_ns(), [], []

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return sum(wire.backlog() for wire, _ in self._waiting.values())

    def wants_write(self) -> bool:
        """Never: `answers` does that."""
        return False

    def flush(self) -> None:
        """See `answers`."""

    def close(self) -> None:
        """Closing is all HTTP needs."""
        for fd in list(self._waiting):
            self._forget(fd)
        self._ready.close()

    def _forget(self, fd: int) -> None:
        self._ready.unregister(fd)
        self._waiting.pop(fd)[0].close()


class SseSubscriber:
    """GET /eventhandler/subscription for one event type."""

    def __init__(self, order: RunOrder, topic: str, *, timeout_s: float, last_event_id: str = "") -> None:
        self._wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)
        self.topic = topic
        self._decode = _a2b_or_as_it_is if order.role == "hub" else decoded
        self._in = bytearray()
        self._text = bytearray()
        self._equal = EqualEvents()
        self.last_event_id = last_event_id
        self.facts: dict[str, Any] = {"encoding": "base64", "granted_qos": 0}
        try:
            self._subscribe(order, topic, timeout_s)
        except BaseException:
            self._wire.close()
            raise

    def _subscribe(self, order: RunOrder, topic: str, timeout_s: float) -> None:
        broker = order.broker
        self._wire.blocking(timeout_s)
        started_ns = time.monotonic_ns()
        self._wire.send(self._request(order, topic).encode())
        while (head := read_head(self._in)) is None:
            data, _ = self._wire.read()
            if not data:
                raise TimeoutError(f"{broker} did not answer the subscription to {topic!r} within {timeout_s} s")
            self._in += data
        status, headers = head
        if status != 200:  # noqa: PLR2004
            raise WorkloadError(
                f"{broker} refused the subscription to {topic!r}: HTTP {status}, {bytes(self._in[:300])!r}"
            )
        self.facts["subscribe_ms"] = (time.monotonic_ns() - started_ns) / 1e6
        self._chunks = ChunkedBody() if "chunked" in headers.get("transfer-encoding", "").lower() else None
        self._wire.blocking(None)

    def _request(self, order: RunOrder, topic: str) -> str:
        resume = f"Last-Event-ID: {self.last_event_id}\r\n" if self.last_event_id else ""
        return (
            f"GET /eventhandler/subscription HTTP/1.1\r\nHost: {order.broker}\r\nAccept: text/event-stream\r\n"
            f"eventtype: {topic}\r\n{resume}\r\n"
        )

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._wire.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""
        return self._wire.local()

    def read(self) -> int:
        """Read what is there; the instant right after the read, in ns."""
        data, at_ns = self._wire.read()
        self._in += data
        return at_ns

    def messages(self) -> list[Message]:
        """The events that are complete. Only the header is decoded, since what follows it is fill; for a hub all is.

        Data that is not base64 comes as it is (foreign).
        """
        messages: list[Message] = []
        if self._chunks is None:
            self._text += self._in
            self._in.clear()
        else:
            if self._chunks.ended:
                raise ConnectionResetError(f"{self._wire.address} ended the stream of events")
            if self._chunks.between and not self._text:
                messages = [(self._decode(data), 0) for data in self._equal.take(self._in)]
                if not self._in:
                    return messages
                self._equal.learn(self._in)
            self._chunks.take(self._in, self._text)
        *blocks, rest = self._text.split(b"\n\n")
        self._text = rest
        messages += [(payload, 0) for block in blocks if (payload := self._data(bytes(block))) is not None]
        if not messages and self._chunks is not None and self._chunks.ended:
            raise ConnectionResetError(f"{self._wire.address} ended the stream of events")
        return messages

    def _data(self, block: bytes) -> bytes | None:
        """The data of one event; None for comments and events without data."""
        before, found, data_only = block.partition(b"\ndata: ")
        if found and b"\n" not in data_only and before.startswith(b"event:") and b"\n" not in before:
            return self._decode(data_only)
        data: bytes | None = None
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if name == b"data":
                data = value if data is None else data + b"\n" + value
            elif name == b"id":
                self.last_event_id = value.decode("latin-1")
        return None if data is None else self._decode(data)

    def keep_alive(self) -> None:
        """SSE needs none."""

    def close(self) -> None:
        """Closing is how an SSE client unsubscribes."""
        self._wire.close()


def _a2b_or_as_it_is(data: bytes) -> bytes:
    """The whole of a payload; data that is not base64 as it is."""
    try:
        return _a2b(data)
    except binascii.Error:
        return data


def decoded(data: bytes) -> bytes:
    """The 40-byte header at the front of a payload; data that is not base64 as it is."""
    try:
        return _a2b(data[:_ENCODED_HEADER])
    except binascii.Error:
        return data


class SseDriver:
    """Event Handler, forms `enhanced` and `direct`."""

    name = "sse"

    def check(self, order: RunOrder) -> None:
        """QoS 2 does not exist here; 0 and 1 differ only in what the ledger promises."""
        if order.qos not in (0, 1):
            raise ValueError(f"the Event Handler has QoS 0 and 1, not {order.qos}")
        size = order.options.get("pool_size", 1)
        if not isinstance(size, int) or not 1 <= size <= _MOST_POOLED:
            raise ValueError(f"options.pool_size is a number of connections from 1 to {_MOST_POOLED}, not {size!r}")
        if size > 1 and not order.options.get("reuse", True):
            raise ValueError("options.pool_size keeps connections and options.reuse: false keeps none; leave one out")

    def answers(self, order: RunOrder) -> bool:  # noqa: ARG002
        """Every POST is answered."""
        return True

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """One kept connection; with the option `reuse: false` one for each message, with `pool_size` several kept."""
        if not order.options.get("reuse", True):
            return FreshPublisher(order, connection=connection, fill=fill, timeout_s=timeout_s)
        opened: list[SsePublisher] = []
        try:
            opened.extend(
                SsePublisher(order, connection=connection, fill=fill, timeout_s=timeout_s)
                for _ in range(order.options.get("pool_size", 1))
            )
        except BaseException:
            for publisher in opened:
                publisher.close()
            raise
        return opened[0] if len(opened) == 1 else PublisherPool(opened)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,  # noqa: ARG002
        before: Sequence[SubscribingConnection],
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One connection per event type."""
        opened: list[SubscribingConnection] = []
        try:
            last_ids = {lost.topic: lost.last_event_id for lost in before if isinstance(lost, SseSubscriber)}
            for topic in order.topics:
                last_id = last_ids.get(topic, "")
                opened.append(SseSubscriber(order, topic, timeout_s=timeout_s, last_event_id=last_id))
        except BaseException:
            for subscriber in opened:
                subscriber.close()
            raise
        return opened


def _request_parts(
    order: RunOrder, topic: str, system: str, address: str, port: int, fill: bytes
) -> tuple[bytes, bytes, bytes]:
    """(before the payload's changing part, the fill's first bytes, after it) of every request on one topic."""
    short_fill = fill[:_HEADER_TO_TRIPLET]
    rest = fill[_HEADER_TO_TRIPLET:]
    event: dict[str, Any] = {"type": topic, "payload": "\0"}
    document = {"source": {"systemName": system, "address": address, "port": port}, "event": event}
    if feedback := order.options.get("delivery_complete_uri"):
        document["deliveryCompleteUri"] = feedback
    head, _, tail = json.dumps(document, separators=(",", ":")).encode().partition(b'"\\u0000"')
    changing_bytes = len(_b2a(bytes(40) + short_fill, newline=False))
    after = _b2a(rest, newline=False) + b'"' + tail if rest else b'"' + tail
    length = len(head) + 1 + changing_bytes + len(after)
    request = (
        f"POST /eventhandler/publish HTTP/1.1\r\nHost: {order.broker}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n"
    )
    request += "\r\n" if order.options.get("reuse", True) else "Connection: close\r\n\r\n"
    return request.encode() + head + b'"', short_fill, after


DRIVER: Driver = SseDriver()
