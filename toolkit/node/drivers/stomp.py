"""STOMP 1.2 on a raw socket: a topic destination per topic; one system call for each message published.

QoS 0: no receipts, `ack:auto`. QoS 1: a receipt for each message, `ack:client-individual`. QoS 2 does not exist.
Options of an order: `destination` (what stands before a topic), `session` ("clean" or "persistent": durable
subscription, persistent messages), `max_inflight`, `prefetch`, `vhost`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import HEADER_BYTES, Flag
from toolkit.errors import WorkloadError
from toolkit.node.drivers import stomp_frames as frames
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.ends import SubscribingEnd, WindowedPublisher, is_persistent
from toolkit.node.drivers.login import read_login
from toolkit.node.drivers.wire import Wire

USUAL_PREFETCH = 20
_UNLIMITED = 1 << 30
_HEART_BEAT = "0,0"
_REDELIVERED = int(Flag.REDELIVERED)
_REFUSALS = ("Bad CONNECT", "Access refused", "password is invalid", "denied", "not authorized", "SecurityException")


class _Session:
    """A connection that the broker has accepted."""

    def __init__(self, order: RunOrder, *, client_id: str, timeout_s: float) -> None:
        """Raises OSError when the broker is not there (yet), WorkloadError when it will never take this client."""
        self.reader = frames.FrameReader()
        self._arrived: list[frames.Frame] = []
        headers = {
            "accept-version": "1.2",
            "host": str(order.options.get("vhost", "/")),
            "heart-beat": _HEART_BEAT,
            "client-id": client_id,
        }
        if login := read_login(order.options):
            if "\\" in "".join(login):  # the standard says that CONNECT has no escapes, and RabbitMQ reads them
                raise WorkloadError("STOMP brokers differ in how they read a backslash; take a password without one")
            headers |= {"login": login[0], "passcode": login[1]}
        self.wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)
        try:
            self.wire.blocking(timeout_s)
            started_ns = time.monotonic_ns()
            connected = self.ask("CONNECT", headers, b"CONNECTED")
            self.facts: dict[str, Any] = {
                "stomp": connected.headers.get(b"version", b"1.0").decode("utf-8", "replace"),
                "server": connected.headers.get(b"server", b"").decode("utf-8", "replace"),
                "connected_ms": (time.monotonic_ns() - started_ns) / 1e6,
            }
        except BaseException:
            self.wire.close()
            raise

    def ask(self, command: str, headers: Mapping[str, str], answer: bytes) -> frames.Frame:
        """Send a frame and wait for the one that answers it, keeping messages for later; blocking."""
        self.wire.send(frames.frame(command, headers))
        early: list[frames.Frame] = []
        while True:
            for at, found in enumerate(self._arrived):
                if found.command == answer:
                    self._arrived = early + self._arrived[at + 1 :]
                    return found
                if found.command == b"MESSAGE":
                    early.append(found)
                else:
                    self.unexpected(found)
            self._arrived = self.reader.take(self.wire.read()[0])

    def rest(self) -> list[frames.Frame]:
        """What arrived around the last answer."""
        rest, self._arrived = self._arrived, []
        return rest

    def unexpected(self, found: frames.Frame) -> None:
        """Raises ConnectionError or WorkloadError for an ERROR, and for what has no place here."""
        if found.command == b"ERROR":
            complaint = f"{self.wire.address} closes: {found.complaint}"
            if any(words in complaint for words in _REFUSALS):
                raise WorkloadError(complaint)
            raise ConnectionResetError(complaint)
        raise frames.MalformedError(f"{self.wire.address} sent an unexpected frame {found.command[:30]!r}")

    def close(self) -> None:
        """Say DISCONNECT if the kernel takes it, and close."""
        try:
            self.wire.blocking(None)
            self.wire.send(frames.frame("DISCONNECT", {}))
        except OSError:
            pass
        finally:
            self.wire.close()


class StompPublisher(WindowedPublisher):
    """Sends to one destination per topic; a receipt's id is the number of the message."""

    def __init__(self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float) -> None:
        client_id = f"tk-pub-{order.streams[connection * len(order.topics)]:x}"
        self._session = _Session(order, client_id=client_id, timeout_s=timeout_s)
        self._session.wire.blocking(None)
        size = HEADER_BYTES + len(fill)
        headers = {"persistent": str(is_persistent(order)).lower(), "content-length": str(size)}
        self._heads = [frames.head("SEND", {"destination": destination(order, t)} | headers) for t in order.topics]
        self._tail = fill + b"\0"
        window = int(order.options.get("max_inflight", 0)) or _UNLIMITED
        super().__init__(
            self._session.wire,
            self._session.facts,
            window=window if order.qos else 0,
            message_bytes=len(self._heads[0]) + size,
        )
        self.facts["granted_qos"] = order.qos
        self._order = order
        self._last = 0

    def _send(self, topic: int, header: bytes) -> None:
        self._wire.send(self._heads[topic] + header + self._tail)

    def _offer(self, topic: int, header: bytes, key: Key) -> None:
        self._last += 1
        self._in_flight[self._last] = key
        self._wire.send(b"%breceipt:%d\n\n%b%b" % (self._heads[topic][:-1], self._last, header, self._tail))

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:
        """One frame, one system call; a receipt is asked for at QoS 1."""
        headers = {
            "destination": destination(self._order, topic),
            "persistent": str(is_persistent(self._order)).lower(),
            "content-length": str(len(payload)),
        }
        if qos:
            self._last += 1
            self._in_flight[self._last] = key
            headers["receipt"] = str(self._last)
        self._wire.send(frames.head("SEND", headers) + payload + b"\0")

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """A RECEIPT accepts one message; STOMP rejects by closing the connection."""
        data, at_ns = self._wire.read()
        accepted: list[Key] = []
        for found in self._session.reader.take(data) if data else ():
            if found.command != b"RECEIPT":
                self._session.unexpected(found)
            receipt = found.headers.get(b"receipt-id", b"")
            if receipt.isdigit() and (key := self._in_flight.pop(int(receipt), None)) is not None:
                accepted.append(key)
        self._offer_waiting()
        return at_ns, accepted, []

    def close(self) -> None:
        """DISCONNECT and close."""
        self._session.close()


class StompSubscriber(SubscribingEnd):
    """Subscribed to every topic of the order; acknowledges a read's messages with one system call after it."""

    beat = b"\n"

    def __init__(self, order: RunOrder, *, identity: str, timeout_s: float) -> None:
        self._session = _Session(order, client_id=identity, timeout_s=timeout_s)
        super().__init__(self._session.wire, self._session.facts)
        self._acknowledges = order.qos > 0
        try:
            self._subscribe(order, identity)
        except BaseException:
            self._wire.close()
            raise
        self._early = self._session.rest()
        self._wire.blocking(None)

    def _subscribe(self, order: RunOrder, identity: str) -> None:
        started_ns = time.monotonic_ns()
        prefetch = str(order.options.get("prefetch", USUAL_PREFETCH))
        headers = {"ack": "client-individual" if order.qos else "auto"}
        if order.qos:
            headers |= {"prefetch-count": prefetch, "activemq.prefetchSize": prefetch}
            self.facts["prefetch"] = int(prefetch)
        if is_persistent(order):
            headers |= {"durable": "true", "auto-delete": "false"}
        for number, topic in enumerate(order.topics):
            name = {"activemq.subscriptionName": f"{identity}-{number}"} if is_persistent(order) else {}
            # RabbitMQ names the queue of a durable subscription by its id.
            mark = f"{order.run}-{identity}-{number}" if is_persistent(order) else str(number)
            wanted = {"id": mark, "destination": destination(order, topic), "receipt": f"sub-{number}"}
            self._session.ask("SUBSCRIBE", wanted | headers | name, b"RECEIPT")
        self.facts |= {"granted_qos": order.qos, "subscribe_ms": (time.monotonic_ns() - started_ns) / 1e6}

    def messages(self) -> list[Message]:
        """What the last `read` completed."""
        arrived = self._session.reader.take(self._data)
        if self._early:
            arrived, self._early = self._early + arrived, []
        messages: list[Message] = []
        acknowledged = bytearray()
        for found in arrived:
            if found.command != b"MESSAGE":
                self._session.unexpected(found)
            told = _REDELIVERED if found.headers.get(b"redelivered") == b"true" else 0
            messages.append((found.body, told))
            if self._acknowledges:
                mark = found.headers.get(b"ack", b"").decode("utf-8", "replace")
                acknowledged += b"ACK\nid:%b\n\n\0" % frames.escape(mark).encode()
        if acknowledged:
            self._wire.send(acknowledged)
        elif self._wire.backlog():
            self._wire.flush()
        return messages

    def close(self) -> None:
        """DISCONNECT and close."""
        self._session.close()


def destination(order: RunOrder, topic: str) -> str:
    """Where messages of a topic go; RabbitMQ and ActiveMQ both have topics below `/topic/`."""
    return str(order.options.get("destination", "/topic/")) + topic


class StompDriver:
    """ActiveMQ, RabbitMQ and any other STOMP 1.2 broker."""

    name = "stomp"

    def check(self, order: RunOrder) -> None:
        """Refuse what STOMP does not have."""
        if order.qos not in (0, 1):
            raise ValueError(
                f"STOMP has no QoS {order.qos}: receipts and acknowledgements are at least once, which is QoS 1"
            )
        for topic in order.topics:
            if not topic or (order.role == "publisher" and set(topic.split(".")) & {"*", "#", ">"}):
                raise ValueError(f"{topic!r} cannot be published to: empty, or with a wildcard")

    def answers(self, order: RunOrder) -> bool:
        """QoS 0 is never answered."""
        return order.qos > 0

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """One connection."""
        return StompPublisher(order, connection=connection, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One connection for every topic."""
        return [StompSubscriber(order, identity=f"tk-sub-{identity}", timeout_s=timeout_s)]


DRIVER: Driver = StompDriver()
