"""AMQP 0.9.1 on a raw socket: topic exchange, a queue per subscriber; one system call for each message published.

QoS 0: no confirms, the broker takes what it sent as delivered. QoS 1: publisher confirms, subscribers acknowledge.
QoS 2 does not exist. Options of an order: `exchange`, `session` ("clean": the queue goes with its connection;
"persistent": queue and messages survive the broker, for an hour), `share` (one queue for all subscribers),
`max_inflight`, `prefetch`, `vhost`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import HEADER_BYTES, Flag
from toolkit.errors import WorkloadError
from toolkit.node.drivers import amqp_frames as frames
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.ends import SubscribingEnd, WindowedPublisher, is_persistent, is_shared
from toolkit.node.drivers.login import read_login
from toolkit.node.drivers.wire import Wire

USUAL_LOGIN = "toolkit", "toolkit"
"""Of brokers that no login was declared for: AMQP knows no anonymous client."""
USUAL_PREFETCH = 20
_LARGEST_FRAME = 131_072
_SUBSCRIBER_HEARTBEAT_S = 60
_UNLIMITED = 1 << 30
_KEPT_MS = 3_600_000
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
_REDELIVERED = int(Flag.REDELIVERED)
_BEAT = frames.frame(frames.HEARTBEAT, 0, b"")


class _Session:
    """A connection with one channel that the broker has accepted."""

    def __init__(self, order: RunOrder, *, heartbeat_s: int, timeout_s: float) -> None:
        """Raises OSError when the broker is not there (yet), WorkloadError when it will never take this client."""
        self.reader = frames.FrameReader()
        self._arrived: list[frames.Frame] = []
        login = read_login(order.options, usual=USUAL_LOGIN) or USUAL_LOGIN
        self.wire = Wire(order.broker, options=order.options, timeout_s=timeout_s)
        try:
            self.wire.blocking(timeout_s)
            started_ns = time.monotonic_ns()
            self._open(login, str(order.options.get("vhost", "/")), heartbeat_s)
            self.facts: dict[str, Any] = {"connected_ms": (time.monotonic_ns() - started_ns) / 1e6}
        except BaseException:
            self.wire.close()
            raise

    def _open(self, login: tuple[str, str], vhost: str, heartbeat_s: int) -> None:
        self.wire.send(frames.PROTOCOL)
        self.expect(frames.START)
        self.wire.send(frames.start_ok(*login))
        try:
            channel_max, frame_max, _ = struct.unpack_from(">HIH", self.expect(frames.TUNE))
        except ConnectionResetError as error:
            # Brokers that do not know authentication_failure_close just hang up.
            raise WorkloadError(f"{self.wire.address} refuses user {login[0]!r} or the password") from error
        self.frame_max = min(frame_max or _LARGEST_FRAME, _LARGEST_FRAME)
        self.wire.send(
            frames.method(frames.TUNE_OK, struct.pack(">HIH", channel_max or 1, self.frame_max, heartbeat_s), channel=0)
            + frames.method(frames.OPEN, frames.short(vhost) + b"\0\0", channel=0)
        )
        self.expect(frames.OPEN_OK)
        self.ask(frames.method(frames.CHANNEL_OPEN, b"\0"), frames.CHANNEL_OPEN_OK)

    def ask(self, request: bytes, answer: int) -> bytes:
        """Send a method and wait for the one that answers it; blocking."""
        self.wire.send(request)
        return self.expect(answer)

    def expect(self, number: int) -> bytes:
        """The arguments of the next method, which has to be that one; blocking."""
        while True:
            while self._arrived:
                found = self._arrived.pop(0)
                if found.kind == frames.HEARTBEAT:
                    continue
                if found.method != number:
                    self.unexpected(found)
                    continue
                return found.body
            self._arrived = self.reader.take(self.wire.read()[0])

    def rest(self) -> list[frames.Frame]:
        """What arrived behind the last answer."""
        rest, self._arrived = self._arrived, []
        return rest

    def unexpected(self, found: frames.Frame) -> None:
        """Take what either side may get at any time; raises ConnectionError or WorkloadError for the rest."""
        if found.kind == frames.HEARTBEAT:
            return
        if found.method in (frames.CLOSE, frames.CHANNEL_CLOSE):
            code, text = frames.read_close(found.body)
            complaint = f"{self.wire.address} closes: {code} {text}"
            if code in (_ACCESS_REFUSED, _NOT_ALLOWED):
                raise WorkloadError(complaint)
            raise ConnectionResetError(complaint)
        if found.method == frames.BLOCKED:
            self.facts["blocked"] = self.facts.get("blocked", 0) + 1
            self.facts["last_blocked"] = frames.read_short(found.body, 0)[0]
        elif found.method == frames.CANCEL:
            raise ConnectionResetError(f"{self.wire.address} cancelled the subscription: its queue is gone")
        elif found.method != frames.UNBLOCKED:
            raise frames.MalformedError(f"{self.wire.address} sent an unexpected method 0x{found.method:08x}")

    def close(self) -> None:
        """Say Connection.Close if the kernel takes it, and close."""
        try:
            self.wire.blocking(None)
            self.wire.send(frames.method(frames.CLOSE, struct.pack(">H", 200) + b"\0" + bytes(4), channel=0))
        except OSError:
            pass
        finally:
            self.wire.close()


class AmqpPublisher(WindowedPublisher):
    """Publishes to one exchange, the topic being the routing key."""

    def __init__(self, order: RunOrder, *, fill: bytes, timeout_s: float) -> None:
        self._session = _Session(order, heartbeat_s=0, timeout_s=timeout_s)
        try:
            if order.qos:
                self._session.ask(frames.method(frames.CONFIRM, b"\0"), frames.CONFIRM_OK)
        except BaseException:
            self._session.wire.close()
            raise
        self._session.wire.blocking(None)
        self._order = order
        self._parts = [
            frames.publish_parts(
                exchange(order),
                topic,
                fill,
                header_bytes=HEADER_BYTES,
                persistent=is_persistent(order),
                frame_max=self._session.frame_max,
            )
            for topic in order.topics
        ]
        window = int(order.options.get("max_inflight", 0)) or _UNLIMITED
        super().__init__(
            self._session.wire,
            self._session.facts,
            window=window if order.qos else 0,
            message_bytes=len(self._parts[0][0]) + order.payload_bytes,
        )
        self._session.facts = self.facts
        self.facts["granted_qos"] = order.qos
        self._last_tag = 0
        self._oldest = 1

    def _send(self, topic: int, header: bytes) -> None:
        before, after = self._parts[topic]
        self._wire.send(before + header + after)

    def _offer(self, topic: int, header: bytes, key: Key) -> None:
        before, after = self._parts[topic]
        self._last_tag += 1
        self._in_flight[self._last_tag] = key
        self._wire.send(before + header + after)

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:  # noqa: ARG002
        """The frames of one message, one system call; on a channel with confirms every message is confirmed."""
        before, after = frames.publish_parts(
            exchange(self._order),
            topic,
            payload[HEADER_BYTES:],
            header_bytes=min(len(payload), HEADER_BYTES),
            persistent=is_persistent(self._order),
            frame_max=self._session.frame_max,
        )
        self._last_tag += 1
        self._in_flight[self._last_tag] = key
        self._wire.send(before + payload[:HEADER_BYTES] + after)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """Confirms: Basic.Ack accepts, Basic.Nack rejects; either may stand for all before it."""
        data, at_ns = self._wire.read()
        accepted: list[Key] = []
        rejected: list[Key] = []
        for found in self._session.reader.take(data) if data else ():
            if found.method == frames.ACK:
                self._confirm(found.body, accepted)
            elif found.method == frames.NACK:
                self._confirm(found.body, rejected)
                self.facts["last_rejection"] = "the broker took no responsibility for it (basic.nack)"
            else:
                self._session.unexpected(found)
        self._offer_waiting()
        return at_ns, accepted, rejected

    def _confirm(self, body: bytes, keys: list[Key]) -> None:
        tag = int.from_bytes(body[:8], "big")
        tags = range(self._oldest, tag + 1) if body[8] & 1 else (tag,)
        keys.extend(key for each in tags if (key := self._in_flight.pop(each, None)) is not None)
        if body[8] & 1:
            self._oldest = tag + 1

    def close(self) -> None:
        """Connection.Close and close."""
        self._session.close()


class AmqpSubscriber(SubscribingEnd):
    """A queue bound to every topic of the order; acknowledges a read's messages with one system call after it."""

    beat = _BEAT

    def __init__(self, order: RunOrder, *, queue: str, timeout_s: float) -> None:
        self._session = _Session(order, heartbeat_s=_SUBSCRIBER_HEARTBEAT_S, timeout_s=timeout_s)
        super().__init__(self._session.wire, self._session.facts)
        self._acknowledges = order.qos > 0
        self._tag = 0
        self._told = 0
        self._wanted = -1
        """Bytes of the body still to come of the message that has begun; -1: none has."""
        self._body = b""
        try:
            self._subscribe(order, queue)
        except BaseException:
            self._wire.close()
            raise
        self._wire.blocking(None)

    def _subscribe(self, order: RunOrder, queue: str) -> None:
        session, kept = self._session, is_persistent(order)
        started_ns = time.monotonic_ns()
        arguments: dict[str, int | str] = {"x-expires": _KEPT_MS} if kept else {}
        body = session.ask(
            frames.declare(queue, durable=kept, exclusive=not (kept or is_shared(order)), arguments=arguments),
            frames.DECLARE_OK,
        )
        name, after = frames.read_short(body, 0)
        for topic in order.topics:
            session.ask(frames.bind(name, exchange(order), topic), frames.BIND_OK)
        if self._acknowledges:
            prefetch = int(order.options.get("prefetch", USUAL_PREFETCH))
            self.facts["prefetch"] = prefetch
            session.ask(frames.method(frames.QOS, struct.pack(">IHB", 0, prefetch, 0)), frames.QOS_OK)
        session.ask(frames.consume(name, "", acknowledged=self._acknowledges), frames.CONSUME_OK)
        self._early = session.rest()
        self.facts |= {
            "granted_qos": order.qos,
            "waiting_before": int.from_bytes(body[after : after + 4], "big"),
            "subscribe_ms": (time.monotonic_ns() - started_ns) / 1e6,
        }

    def messages(self) -> list[Message]:
        """What the last `read` completed."""
        arrived = self._session.reader.take(self._data)
        if self._early:
            arrived, self._early = self._early + arrived, []
        messages: list[Message] = []
        for found in arrived:
            if found.kind == frames.BODY:
                self._body = self._body + found.body if self._body else found.body
                self._wanted -= len(found.body)
            elif found.method == frames.DELIVER:
                at = 1 + found.body[0]
                self._tag = int.from_bytes(found.body[at : at + 8], "big")
                self._told = _REDELIVERED if found.body[at + 8] & 1 else 0
                self._wanted = _UNLIMITED
                continue
            elif found.kind == frames.HEADER:
                self._wanted = int.from_bytes(found.body[4:12], "big")
            else:
                self._session.unexpected(found)
                continue
            if not self._wanted:
                messages.append((self._body, self._told))
                self._wanted, self._body = -1, b""
        if messages and self._acknowledges:
            # A message whose body has not arrived yet carries the highest tag: that one has to wait.
            self._wire.send(frames.acknowledgement(self._tag if self._wanted < 0 else self._tag - 1))
        elif self._wire.backlog():
            self._wire.flush()
        return messages

    def close(self) -> None:
        """Connection.Close and close."""
        self._session.close()


def exchange(order: RunOrder) -> str:
    """Where a run publishes; the topic exchange that MQTT and STOMP clients of RabbitMQ share."""
    return str(order.options.get("exchange", "amq.topic"))


class AmqpDriver:
    """RabbitMQ and any other AMQP 0.9.1 broker."""

    name = "amqp"

    def check(self, order: RunOrder) -> None:
        """Refuse what AMQP does not have."""
        if order.qos not in (0, 1):
            raise ValueError(
                f"AMQP 0.9.1 has no QoS {order.qos}: confirms and acknowledgements are at least once, which is QoS 1"
            )
        for topic in order.topics:
            frames.short(topic)
            if not topic or (order.role == "publisher" and set(topic.split(".")) & {"*", "#"}):
                raise ValueError(f"{topic!r} cannot be published to: empty, or with a wildcard")

    def answers(self, order: RunOrder) -> bool:
        """QoS 0 is never answered."""
        return order.qos > 0

    def open_publisher(
        self,
        order: RunOrder,
        *,
        connection: int,  # noqa: ARG002
        fill: bytes,
        timeout_s: float,
    ) -> PublishingConnection:
        """One connection with one channel."""
        return AmqpPublisher(order, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One queue for every topic, or one for all subscribers that share."""
        queue = f"toolkit-{order.run}-{'shared' if is_shared(order) else identity}"
        return [AmqpSubscriber(order, queue=queue, timeout_s=timeout_s)]


DRIVER: Driver = AmqpDriver()
