"""The gateway: many devices in over MQTT and HTTP, one connection out to the broker, a bounded queue between them.

A QoS 1 message is answered once the broker has taken it, and is never dropped here: where the queue is full its device
is not read from until there is room. QoS 0 messages follow `overflow`.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from toolkit.contract.samples import Point
from toolkit.node.drivers.base import Key
from toolkit.node.drivers.mqtt_packets import MalformedError
from toolkit.node.platform import packets
from toolkit.node.platform.journal import Identity, Journal
from toolkit.node.platform.sessions import HttpSession, MqttSession, Request, Session, end_sessions, response
from toolkit.node.platform.settings import GatewaySettings
from toolkit.node.platform.uplink import Uplink, upstream_order

_RECEIVED, _SENT = int(Point.GATEWAY_RECEIVED), int(Point.GATEWAY_SENT)
_MOST_NAMES = 20_000
_time_ns = time.time_ns


class Sender(Protocol):
    """Who waits to hear what became of a message."""

    def settled(self, token: Any, *, accepted: bool) -> None:
        """The broker has taken the message `token`, or never will."""


class Parcel:
    """One message on its way through the gateway."""

    __slots__ = ("identity", "payload", "qos", "sender", "token", "topic")

    def __init__(
        self, topic: str, payload: bytes, qos: int, sender: Sender | None, token: Any, identity: Identity | None
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.sender = sender
        self.token = token
        self.identity = identity


class Gateway:
    """What all connections share."""

    def __init__(self, settings: GatewaySettings, journal: Journal, *, identity: str) -> None:
        self.settings = settings
        self.journal = journal
        self.sessions: dict[Session, None] = {}
        self.queue: collections.deque[Parcel] = collections.deque()
        self._waiting: dict[Session, None] = {}
        """Devices that are not read from."""
        self._in_flight: dict[int, Parcel] = {}
        """QoS 1 messages that the broker has not answered, in the order they were sent."""
        self._numbers = itertools.count(1)
        self._names: dict[bytes, str] = {}
        self._pumping = False
        self.uplink = Uplink(
            upstream_order("gateway", settings, broker=settings.upstream[0], identity=identity),
            asyncio.get_running_loop(),
            send_buffer=settings.send_buffer,
            answered=self._answered,
            changed=self.pump,
            lost=self._uplink_lost,
        )

    @property
    def unavailable(self) -> str:
        """Devices are served while the broker is away: their messages wait."""
        return ""

    async def listen(self) -> list[asyncio.Server]:
        """Serve devices on both ports."""
        loop, settings = asyncio.get_running_loop(), self.settings
        self.uplink.start()
        return [
            await loop.create_server(lambda: DeviceMqtt(self), settings.address, settings.mqtt_port, backlog=4096),
            await loop.create_server(lambda: DeviceHttp(self), settings.address, settings.http_port, backlog=4096),
        ]

    async def ready(self) -> str:
        """Why it cannot take part in a run; empty: it can."""
        for _ in range(150):
            if not self.uplink.problem or self.uplink.refused:
                return self.uplink.problem
            await asyncio.sleep(0.1)
        return self.uplink.problem

    def topic(self, name: bytes) -> str:
        """The name of a topic; raises MalformedError for one that cannot be published to."""
        known = self._names.get(name)
        if known is None:
            try:
                known = name.decode()
            except UnicodeDecodeError as error:
                raise MalformedError("a topic that is no UTF-8") from error
            if not packets.is_topic(known):
                raise MalformedError(f"{known[:40]!r} cannot be published to")
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            self._names[name] = known
        return known

    def take(
        self, session: Session, topic: str, payload: bytes, qos: int, at_ns: int, token: Any, *, sender: Sender
    ) -> bool:
        """Take a message on; False where its device has to wait."""
        full = len(self.queue) >= self.settings.queue_limit
        if full and (qos or self.settings.overflow == "block"):
            self._waiting[session] = None
            return False
        journal = self.journal
        journal.received += 1
        identity = journal.identity(payload)
        if identity is not None:
            journal.stamp(_RECEIVED, identity, session, at_ns)
        if full:
            journal.dropped["queue_full"] += 1
            if self.settings.overflow == "drop-newest" or not self._drop_oldest():
                sender.settled(token, accepted=False)
                return True
        self.queue.append(Parcel(topic, payload, qos, sender if qos else None, token, identity))
        if not qos:
            sender.settled(token, accepted=True)
        self.pump()
        return True

    def _drop_oldest(self) -> bool:
        """Whether there was one at QoS 0."""
        for index, parcel in enumerate(self.queue):
            if not parcel.qos:
                del self.queue[index]
                return True
        return False

    def pump(self) -> None:
        """Hand over what the broker takes now, and read again from devices that wait for room."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while True:
                self._hand_over()
                if not self._waiting or len(self.queue) >= self.settings.queue_limit:
                    return
                session = next(iter(self._waiting))
                del self._waiting[session]
                session.go_on()
        finally:
            self._pumping = False

    def _hand_over(self) -> None:
        queue, uplink, journal = self.queue, self.uplink, self.journal
        while queue and uplink.ready:
            if queue[0].qos and len(self._in_flight) >= uplink.window:
                return
            parcel = queue.popleft()
            number = next(self._numbers)
            if parcel.qos:
                self._in_flight[number] = parcel
            journal.sent += 1
            if parcel.identity is not None:
                journal.stamp(_SENT, parcel.identity, uplink, _time_ns())
            uplink.forward(parcel.topic, parcel.payload, (0, number, 0), parcel.qos)

    def _answered(self, accepted: Sequence[Key], rejected: Sequence[Key]) -> None:
        for keys, taken in ((accepted, True), (rejected, False)):
            for _, number, _ in keys:
                parcel = self._in_flight.pop(number, None)
                if not taken:
                    self.journal.dropped["rejected"] += 1
                if parcel is not None and parcel.sender is not None:
                    parcel.sender.settled(parcel.token, accepted=taken)

    def _uplink_lost(self) -> None:
        """What was not answered goes first over the next connection."""
        self.journal.reconnects += 1
        self.queue.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def forget(self, session: Session) -> None:
        """A device is gone."""
        self._waiting.pop(session, None)

    async def drain(self) -> None:
        """Let the broker take what is queued, at most two seconds; then end every connection."""
        await end_sessions(self, lambda: bool(self.queue or self._in_flight))
        self.uplink.close()


class DeviceMqtt(MqttSession):
    """A device that speaks MQTT."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._gateway = gateway

    def published(self, flags: int, body: bytes, at_ns: int) -> bool:
        """Take a message on, and its answer to whoever sent it."""
        name, qos, packet_id, payload = packets.read_publish(self.version, flags, body)
        if qos > packets.MOST_QOS:
            self.end(packets.QOS_NOT_SUPPORTED)
            return True
        if flags & 1 and self.version == 5:  # noqa: PLR2004
            self.end(packets.RETAIN_NOT_SUPPORTED)
            return True
        return self._gateway.take(self, self._gateway.topic(name), payload, qos, at_ns, packet_id, sender=self)

    def settled(self, token: Any, *, accepted: bool) -> None:
        """PUBACK. What the broker rejects can only be said in MQTT 5; in 3.1.1 the connection ends instead."""
        if not token:
            return
        if accepted or self.version == 5:  # noqa: PLR2004
            self.write(packets.puback(self.version, token, 0 if accepted else packets.QUOTA_EXCEEDED))
        else:
            self.close()

    def subscribed(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        """Devices publish; who wants to read goes to a hub."""
        self.write(packets.suback(self.version, packet_id, [packets.REFUSED_FILTER[self.version]] * len(wanted)))

    def gone(self) -> None:
        """Publish the will of a device that did not take its leave."""
        self._gateway.forget(self)
        if self.will is not None and packets.is_topic(self.will.topic):
            will, self.will = self.will, None
            if not self._gateway.take(self, will.topic, will.payload, will.qos, _time_ns(), 0, sender=self):
                self._gateway.journal.dropped["disconnected"] += 1
            self._gateway.forget(self)


class _Answer:
    """The place of one request's answer among those of its connection."""

    __slots__ = ("closing", "qos", "status")

    def __init__(self, *, qos: int, closing: bool) -> None:
        self.qos = qos
        self.closing = closing
        self.status = 0


class DeviceHttp(HttpSession):
    """A device that POSTs. Requests may follow each other at once; answers keep their order."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._gateway = gateway
        self._answers: collections.deque[_Answer] = collections.deque()

    def handle(self, item: Request, at_ns: int) -> bool:
        """Serve `POST /topics/<topic>?qos=0|1`."""
        qos = parse_qs(item.query).get("qos", ["0"])[0]
        answer = _Answer(qos=int(qos == "1"), closing=item.closing)
        status = 0
        name = unquote(item.path.removeprefix("/topics/"))
        if not item.path.startswith("/topics/") or not packets.is_topic(name):
            status = 404
        elif item.method not in ("POST", "PUT"):
            status = 405
        elif qos not in ("0", "1"):
            status = 400
        self._answers.append(answer)
        if status:
            self._answer(answer, status)
            return True
        if self._gateway.take(self, name, item.body, answer.qos, at_ns, answer, sender=self):
            return True
        self._answers.pop()
        return False

    def settled(self, token: _Answer, *, accepted: bool) -> None:
        """204: the broker has it; 202: it waits for the broker; 503: there was no room; 502: the broker refused it."""
        if accepted:
            self._answer(token, 204 if token.qos else 202)
        else:
            self._answer(token, 502 if token.qos else 503)

    def _answer(self, answer: _Answer, status: int) -> None:
        answer.status = status
        while self._answers and self._answers[0].status:
            first = self._answers.popleft()
            self.write(response(first.status, closing=first.closing))
            if first.closing:
                self.close()

    def gone(self) -> None:
        """Nobody waits for answers any more."""
        self._gateway.forget(self)
        self._answers.clear()
