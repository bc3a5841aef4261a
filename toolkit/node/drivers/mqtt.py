"""MQTT 3.1.1 and 5 on a raw socket, QoS 0, 1 and 2; one system call for each message published.

Options of an order: `mqtt` ("3.1.1" or "5"), `max_inflight`, `session` ("clean" or "persistent"), `share`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Flag
from toolkit.errors import WorkloadError
from toolkit.node.drivers import mqtt_packets as packets
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.ends import SubscribingEnd, WindowedPublisher, is_shared
from toolkit.node.drivers.login import read_login
from toolkit.node.drivers.wire import Wire

_VERSIONS: dict[str, packets.Version] = {"3.1.1": 4, "5": 5, "5.0": 5}
_PASSING = {3, 0x88, 0x89, 0x8B}
"""Refusals that may pass: the broker starts, stops or is busy."""
_SUBSCRIPTIONS_AT_ONCE = 500
_SUBSCRIBER_KEEP_ALIVE_S = 60
_LAST_PACKET_ID = 0xFFFF
_USUAL_WINDOW = 20
"""Mosquitto cuts MQTT 3.1.1 clients off with more QoS 2 messages in flight than its max_inflight_messages (20)."""
_MOST_HEADS = 4096
_REDELIVERED, _RETAINED = int(Flag.REDELIVERED), int(Flag.RETAINED)


class _Session:
    """A connection that the broker has accepted."""

    def __init__(self, order: RunOrder, *, client_id: str, keep_alive_s: int, timeout_s: float) -> None:
        """Raises OSError when the broker is not there (yet), WorkloadError when it will never take this client."""
        options = order.options
        self.version = _VERSIONS[str(options.get("mqtt", "3.1.1"))]
        self.reader = packets.PacketReader()
        self.early: list[tuple[int, int, bytes]] = []
        """What came right behind the answer that was awaited: messages of a session that the broker had kept."""
        login = read_login(options)
        self.wire = Wire(order.broker, options=options, timeout_s=timeout_s)
        try:
            self.wire.blocking(timeout_s)
            started_ns = time.monotonic_ns()
            self.wire.send(
                packets.connect(
                    self.version,
                    client_id,
                    keep_alive_s=keep_alive_s,
                    clean=options.get("session", "clean") != "persistent",
                    user=login[0] if login else None,
                    password=login[1] if login else None,
                )
            )
            body = self.await_packet(packets.CONNACK)
            self.connack = packets.read_connack(self.version, body)
            if code := self.connack.code:
                raise _refusal(  # noqa: TRY301
                    code, f"{order.broker} {packets.why(code)} ({client_id})"
                )
            self.facts: dict[str, Any] = {
                "mqtt": "5" if self.version == 5 else "3.1.1",  # noqa: PLR2004
                "client_id": client_id,
                "connack_ms": (time.monotonic_ns() - started_ns) / 1e6,
            }
        except BaseException:
            self.wire.close()
            raise

    def window(self, asked: int) -> int:
        """QoS 1 and 2 messages that may be unanswered; MQTT 3.1.1 brokers have a limit too but no way to tell it."""
        if self.version == 5:  # noqa: PLR2004
            return min(asked or _LAST_PACKET_ID, self.connack.receive_maximum)
        return min(asked or _USUAL_WINDOW, _LAST_PACKET_ID)

    def await_packet(self, kind: int) -> bytes:
        """The body of the next packet, which has to be of that type; blocking."""
        while not (arrived := self.reader.take(self.wire.read()[0])):
            pass
        found, _, body = arrived[0]
        if found != kind:
            raise packets.MalformedError(f"{self.wire.address} sent packet type {found} instead of {kind}")
        self.early += arrived[1:]
        return body

    def unexpected(self, kind: int, body: bytes) -> None:
        """Take what either side may get at any time; raises ConnectionError for the rest."""
        if kind == packets.DISCONNECT:
            reason = packets.why(body[0]) if body else "ends the connection"
            raise ConnectionResetError(f"{self.wire.address} {reason}")
        if kind != packets.PINGRESP:
            raise packets.MalformedError(f"{self.wire.address} sent an unexpected packet of type {kind}")

    def close(self) -> None:
        """Say DISCONNECT if the kernel takes it, and close."""
        try:
            self.wire.blocking(None)
            self.wire.send(packets.disconnect())
        except OSError:
            pass
        finally:
            self.wire.close()


def _refusal(code: int, complaint: str) -> Exception:
    return OSError(complaint) if code in _PASSING else WorkloadError(complaint)


class MqttPublisher(WindowedPublisher):
    """Publishes at one QoS; packet ids are taken in turn."""

    def __init__(self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float) -> None:
        client_id = f"tk-pub-{order.streams[connection * len(order.topics)]:x}"
        self._session = _Session(order, client_id=client_id, keep_alive_s=0, timeout_s=timeout_s)
        self._session.wire.blocking(None)
        super().__init__(
            self._session.wire,
            {**self._session.facts, "granted_qos": order.qos},
            window=self._session.window(int(order.options.get("max_inflight", 0))) if order.qos else 0,
            message_bytes=order.payload_bytes + 16,
        )
        self._fill = fill
        self._heads = [
            packets.publish_head(self._session.version, topic, order.payload_bytes, order.qos) for topic in order.topics
        ]
        self._last_id = 0

        self._forward_heads: dict[tuple[str, int, int], tuple[bytes, bytes]] = {}

    def _send(self, topic: int, header: bytes) -> None:
        before, after = self._heads[topic]
        self._wire.send(before + after + header + self._fill)

    def _offer(self, topic: int, header: bytes, key: Key) -> None:
        before, after = self._heads[topic]
        self._wire.send(before + self._packet_id(key) + after + header + self._fill)

    def _packet_id(self, key: Key) -> bytes:
        """A free one, taken for this message."""
        packet_id = self._last_id
        while True:
            packet_id = packet_id % _LAST_PACKET_ID + 1
            if packet_id not in self._in_flight:
                break
        self._last_id = packet_id
        self._in_flight[packet_id] = key
        return packet_id.to_bytes(2, "big")

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:
        """One packet, one system call."""
        kind = topic, len(payload), qos
        head = self._forward_heads.get(kind)
        if head is None:
            if len(self._forward_heads) >= _MOST_HEADS:
                self._forward_heads.clear()
            head = self._forward_heads[kind] = packets.publish_head(self._session.version, topic, len(payload), qos)
        self._wire.send(head[0] + (self._packet_id(key) if qos else b"") + head[1] + payload)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """PUBACK or PUBCOMP accepts; a failure code rejects."""
        data, at_ns = self._wire.read()
        accepted: list[Key] = []
        rejected: list[Key] = []
        for kind, _, body in self._session.reader.take(data) if data else ():
            if kind not in (packets.PUBACK, packets.PUBREC, packets.PUBCOMP):
                self._session.unexpected(kind, body)
                continue
            packet_id = body[0] << 8 | body[1]
            code = body[2] if len(body) > 2 else 0  # noqa: PLR2004
            if kind == packets.PUBREC and code < packets.FAILED:
                self._wire.send(packets.acknowledgement(packets.PUBREL, packet_id))
                continue
            key = self._in_flight.pop(packet_id, None)
            if key is None:
                continue
            if code < packets.FAILED:
                accepted.append(key)
            else:
                rejected.append(key)
                self.facts["last_rejection"] = packets.why(code)
        self._offer_waiting()
        return at_ns, accepted, rejected

    def close(self) -> None:
        """DISCONNECT and close."""
        self._session.close()


class MqttSubscriber(SubscribingEnd):
    """Subscribed to every topic of the order; acknowledges a read's messages with one system call after it."""

    beat = packets.PINGREQ

    def __init__(self, order: RunOrder, *, client_id: str, timeout_s: float) -> None:
        self._session = _Session(order, client_id=client_id, keep_alive_s=_SUBSCRIBER_KEEP_ALIVE_S, timeout_s=timeout_s)
        super().__init__(self._session.wire, self._session.facts)
        self._half_received: set[int] = set()
        """Packet ids of QoS 2 messages taken whose PUBREL has not come yet."""
        self._early = self._session.early
        self.topics: list[bytes] = []
        """Of what `messages` gave last, one by one; kept for a hub, which has to know them."""
        self._keeps_topics = order.role == "hub"
        try:
            self._subscribe(order)
        except BaseException:
            self._wire.close()
            raise
        self._wire.blocking(None)

    def _subscribe(self, order: RunOrder) -> None:
        started_ns = time.monotonic_ns()
        granted: list[int] = []
        for first in range(0, len(order.topics), _SUBSCRIPTIONS_AT_ONCE):
            topics = order.topics[first : first + _SUBSCRIPTIONS_AT_ONCE]
            if is_shared(order):
                topics = [f"$share/{order.run}/{topic}" for topic in topics]
            self._wire.send(packets.subscribe(self._session.version, 1, topics, order.qos))
            granted += self._await_suback()
        refused = [topic for topic, code in zip(order.topics, granted, strict=False) if code >= packets.FAILED]
        if refused or len(granted) != len(order.topics):
            raise WorkloadError(f"{order.broker} refused the subscription to {', '.join(refused[:3]) or 'some topics'}")
        self.facts |= {
            "requested_qos": order.qos,
            "granted_qos": min(granted),
            "suback_ms": (time.monotonic_ns() - started_ns) / 1e6,
        }

    def _await_suback(self) -> bytes:
        """Codes of the next SUBACK; messages that come before it (retained, queued) are kept for later."""
        while True:
            data, _ = self._wire.read()
            codes: bytes | None = None
            for kind, flags, body in self._session.reader.take(data):
                if kind == packets.SUBACK:
                    codes = packets.read_suback(self._session.version, body)[1]
                else:
                    self._early.append((kind, flags, body))
            if codes is not None:
                return codes

    def messages(self) -> list[Message]:
        """What the last `read` completed."""
        arrived = self._session.reader.take(self._data)
        if self._early:
            arrived, self._early = self._early + arrived, []
        self.topics = []
        messages: list[Message] = []
        answers = bytearray()
        for kind, flags, body in arrived:
            if kind == packets.PUBLISH:
                self._take(flags, body, messages, answers)
            elif kind == packets.PUBREL:
                packet_id = body[0] << 8 | body[1]
                self._half_received.discard(packet_id)
                answers += packets.acknowledgement(packets.PUBCOMP, packet_id)
            else:
                self._session.unexpected(kind, body)
        if answers:
            self._wire.send(answers)
        elif self._wire.backlog():
            self._wire.flush()
        return messages

    def _take(self, flags: int, body: bytes, messages: list[Message], answers: bytearray) -> None:
        start = 2 + (body[0] << 8 | body[1])
        qos = flags >> 1 & 3
        if qos:
            packet_id = body[start] << 8 | body[start + 1]
            start += 2
            if qos == 1:
                answers += packets.acknowledgement(packets.PUBACK, packet_id)
            else:
                answers += packets.acknowledgement(packets.PUBREC, packet_id)
                if packet_id in self._half_received:
                    return  # a second copy of what was taken already: exactly once is this very test
                self._half_received.add(packet_id)
        if self._session.version == 5:  # noqa: PLR2004
            size, start = packets.read_length(body, start)
            start += size
        told = (_REDELIVERED if flags & 8 else 0) | (_RETAINED if flags & 1 else 0)
        messages.append((body[start:], told))
        if self._keeps_topics:
            self.topics.append(body[2 : 2 + (body[0] << 8 | body[1])])

    def close(self) -> None:
        """DISCONNECT and close."""
        self._session.close()


class MqttDriver:
    """Mosquitto and any other MQTT broker."""

    name = "mqtt"

    def check(self, order: RunOrder) -> None:
        """Refuse topics, sizes and options that MQTT does not have."""
        if order.qos not in (0, 1, 2):
            raise ValueError(f"MQTT has QoS 0, 1 and 2, not {order.qos}")
        if str(order.options.get("mqtt", "3.1.1")) not in _VERSIONS:
            raise ValueError(f"mqtt {order.options['mqtt']!r} is not one of {', '.join(_VERSIONS)}")
        for topic in order.topics:
            packets.text(topic)
            if not topic or (order.role == "publisher" and ("+" in topic or "#" in topic)):
                raise ValueError(f"{topic!r} cannot be published to: empty, or with a wildcard")
            packets.publish_head(5, topic, order.payload_bytes, order.qos)

    def answers(self, order: RunOrder) -> bool:
        """QoS 0 is never answered."""
        return order.qos > 0

    def open_publisher(
        self, order: RunOrder, *, connection: int, fill: bytes, timeout_s: float
    ) -> PublishingConnection:
        """One session."""
        return MqttPublisher(order, connection=connection, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,
    ) -> list[SubscribingConnection]:
        """One session for every topic."""
        return [MqttSubscriber(order, client_id=f"tk-sub-{identity}", timeout_s=timeout_s)]


DRIVER: Driver = MqttDriver()
