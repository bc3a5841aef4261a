"""The hub: subscribes at the brokers, hands out to many customers over MQTT and HTTP, a bounded queue for each.

Messages are taken from the broker as they come and acknowledged there at once; a customer's queue that is full follows
`overflow`, at QoS 0 and 1 alike. With `block` the broker is not read from until the slowest customer has room.
"""

from __future__ import annotations

import asyncio
import binascii
import collections
import contextlib
import socket
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote

from toolkit.contract.samples import Flag, Point
from toolkit.errors import ToolkitError
from toolkit.node.drivers import mqtt_packets
from toolkit.node.platform import packets
from toolkit.node.platform.feeds import Feed, Source
from toolkit.node.platform.journal import Identity, Journal
from toolkit.node.platform.sessions import HttpSession, MqttSession, Request, Session, end_sessions, response
from toolkit.node.platform.settings import HubSettings
from toolkit.node.platform.uplink import upstream_order

_RECEIVED, _SENT = int(Point.HUB_RECEIVED), int(Point.HUB_SENT)
_REDELIVERED = int(Flag.REDELIVERED)
_LAST_PACKET_ID = 0xFFFF
_MOST_HEADS = 4096
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_time_ns = time.time_ns

Wanted = tuple[str, int]
"""(filter, QoS)"""


class Delivery:
    """One message, the same for every customer that gets it."""

    __slots__ = ("identity", "payload", "qos", "topic")

    def __init__(self, topic: bytes, payload: bytes, qos: int, identity: Identity | None) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.identity = identity


class Subscription:
    """The customers of one filter and QoS, and the feed they share."""

    def __init__(self, feed: Feed, opened: asyncio.Task[None]) -> None:
        self.feed = feed
        self.opened = opened
        self.customers: dict[Customer, None] = {}
        self.blocked_by: set[Customer] = set()


class Hub:
    """What all connections share."""

    def __init__(self, settings: HubSettings, journal: Journal, *, identity: str) -> None:
        self.settings = settings
        self.journal = journal
        self.sessions: dict[Session, None] = {}
        self.customers: dict[Customer, None] = {}
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[Wanted, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def unavailable(self) -> str:
        """A subscription that cannot be made is refused by itself."""
        return ""

    async def listen(self) -> list[asyncio.Server]:
        """Serve customers on both ports."""
        settings = self.settings
        return [
            await self._loop.create_server(
                lambda: CustomerMqtt(self), settings.address, settings.mqtt_port, backlog=4096
            ),
            await self._loop.create_server(
                lambda: CustomerHttp(self), settings.address, settings.http_port, backlog=4096
            ),
        ]

    async def ready(self) -> str:
        """It takes part as it is: its feeds are opened when customers come."""
        return ""

    def queued(self) -> int:
        """Deliveries that wait, of all customers."""
        return sum(len(customer.queue) for customer in self.customers)

    async def subscribe(self, customer: Customer, wanted: Wanted) -> bool:
        """Let a customer share a feed, opened where it is the first; False where the broker refuses.

        Only MQTT brokers tell the topic of a message, so others cannot serve filters with wildcards.
        """
        if self.settings.protocol != "mqtt" and not packets.is_topic(wanted[0]):
            return False
        subscription = self._subscriptions.get(wanted)
        if subscription is None:
            subscription = self._open(wanted)
        try:
            await asyncio.shield(subscription.opened)
        except (OSError, ToolkitError):
            if self._subscriptions.get(wanted) is subscription:
                del self._subscriptions[wanted]
            return False
        if not customer.closed:
            subscription.customers[customer] = None
        elif not subscription.customers:
            self._end(wanted)
        return True

    def unsubscribe(self, customer: Customer, wanted: Wanted) -> None:
        """Take a customer off a feed; the last one ends it."""
        subscription = self._subscriptions.get(wanted)
        if subscription is None:
            return
        subscription.customers.pop(customer, None)
        self.has_room(customer, wanted)
        if not subscription.customers and subscription.opened.done():
            self._end(wanted)

    def _feed_lost(self) -> None:
        self.journal.reconnects += 1

    def _open(self, wanted: Wanted) -> Subscription:
        order = upstream_order("hub", self.settings, broker="", identity=self._identity)
        feed = Feed(
            replace(order, topics=[wanted[0]], qos=wanted[1]),
            self.settings.upstream,
            self._loop,
            arrived=lambda source, topic, payload, flags, at_ns: self._arrived(
                wanted, source, topic, payload, flags, at_ns
            ),
            lost=self._feed_lost,
        )
        subscription = self._subscriptions[wanted] = Subscription(feed, self.spawn(feed.open()))
        return subscription

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside; it is held on to until it is done."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _end(self, wanted: Wanted) -> None:
        self._subscriptions.pop(wanted).feed.close()

    def _arrived(self, wanted: Wanted, source: Source, topic: bytes, payload: bytes, flags: int, at_ns: int) -> None:
        journal = self.journal
        journal.received += 1
        identity = journal.identity(payload)
        if identity is not None:
            stream, seq, own = identity
            identity = stream, seq, own | (flags & _REDELIVERED)
            journal.stamp(_RECEIVED, identity, source, at_ns)
        subscription = self._subscriptions.get(wanted)
        if subscription is None:
            return
        delivery = Delivery(topic, payload, wanted[1], identity)
        for customer in list(subscription.customers):
            if not customer.deliver(delivery):
                subscription.blocked_by.add(customer)
                customer.blocks.add(wanted)
                subscription.feed.pause()

    def has_room(self, customer: Customer, wanted: Wanted) -> None:
        """A customer takes messages of this filter again."""
        subscription = self._subscriptions.get(wanted)
        if subscription is None or customer not in subscription.blocked_by:
            return
        subscription.blocked_by.discard(customer)
        if not subscription.blocked_by:
            subscription.feed.resume()

    def keep_alive(self) -> None:
        """To be called about once a second."""
        for subscription in list(self._subscriptions.values()):
            if subscription.opened.done():
                subscription.feed.keep_alive()

    async def drain(self) -> None:
        """Let customers take what is queued, at most two seconds; then end every connection."""
        await end_sessions(self, lambda: self.queued() > 0)
        for subscription in list(self._subscriptions.values()):
            subscription.opened.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, ToolkitError):
                await subscription.opened
                subscription.feed.close()
        self._subscriptions.clear()


class Customer(Session):
    """The sending side of a customer: at once while it takes messages, otherwise from its queue."""

    def begin(self, hub: Hub) -> None:
        """Called by the constructors of both kinds."""
        self._hub = hub
        self.queue: collections.deque[Delivery] = collections.deque()
        self.wanted: dict[Wanted, None] = {}
        self.blocks: set[Wanted] = set()
        """Subscriptions whose feed waits for this customer."""
        self._full = False
        """The socket takes nothing."""

    def prepare_socket(self) -> None:
        """Bound what the kernel holds, and hear at once when it holds all it can."""
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=0)
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._hub.settings.send_buffer)
        self._hub.customers[self] = None

    def pause_writing(self) -> None:
        """The socket takes nothing."""
        self._full = True

    def resume_writing(self) -> None:
        """The socket takes again."""
        self._full = False
        self.pump()

    def has_window(self, delivery: Delivery) -> bool:
        """Whether the customer may get another message before it has answered."""
        raise NotImplementedError

    def send(self, delivery: Delivery) -> None:
        """Write one message."""
        raise NotImplementedError

    def deliver(self, delivery: Delivery) -> bool:
        """Send, or queue, or drop; False where no more should come for now."""
        if not self._full and not self.queue and self.has_window(delivery):
            self._send(delivery)
            return True
        settings, dropped = self._hub.settings, self._hub.journal.dropped
        if len(self.queue) < settings.queue_limit:
            self.queue.append(delivery)
            return True
        if settings.overflow == "block":
            self.queue.append(delivery)  # the bound is kept by the feed, which is read no further
            return False
        dropped["queue_full"] += 1
        if settings.overflow == "drop-oldest":
            self.queue.popleft()
            self.queue.append(delivery)
        elif settings.overflow == "disconnect" and self.transport is not None:
            self.transport.abort()
        return True

    def pump(self) -> None:
        """Send from the queue while the customer takes it."""
        while self.queue and not self._full and self.has_window(self.queue[0]):
            self._send(self.queue.popleft())
        if self.blocks and len(self.queue) < self._hub.settings.queue_limit:
            blocks, self.blocks = self.blocks, set()
            for wanted in blocks:
                self._hub.has_room(self, wanted)

    def _send(self, delivery: Delivery) -> None:
        journal = self._hub.journal
        if delivery.identity is not None and journal.on:
            journal.stamp(_SENT, delivery.identity, self, _time_ns())
        self.send(delivery)
        journal.sent += 1

    def gone(self) -> None:
        """What was queued has nobody to go to."""
        self._hub.journal.dropped["disconnected"] += len(self.queue)
        self.queue.clear()
        for wanted in list(self.wanted):
            self._hub.unsubscribe(self, wanted)
        self.wanted.clear()
        self._hub.customers.pop(self, None)


class CustomerMqtt(MqttSession, Customer):
    """A customer that speaks MQTT."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.begin(hub)
        self._in_flight: set[int] = set()
        self._last_id = 0
        self._heads: dict[tuple[bytes, int, int], tuple[bytes, bytes]] = {}

    def subscribed(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        """SUBACK comes when the brokers have confirmed, so that a customer's barrier is one of the whole way."""
        self.prepare_socket()
        self._hub.spawn(self._subscribe(packet_id, wanted))

    async def _subscribe(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        codes = []
        for name, asked in wanted:
            qos = min(asked, packets.MOST_QOS)
            for other in (0, 1):
                if (name, other) in self.wanted and other != qos:
                    del self.wanted[name, other]
                    self._hub.unsubscribe(self, (name, other))
            fits = packets.is_filter(name) and await self._hub.subscribe(self, (name, qos))
            if fits and not self.closed:
                self.wanted[name, qos] = None
            codes.append(qos if fits else packets.REFUSED_FILTER[self.version])
        self.write(packets.suback(self.version, packet_id, codes))

    def unsubscribed(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        """Whatever QoS it was."""
        for name, _ in wanted:
            for qos in (0, 1):
                if (name, qos) in self.wanted:
                    del self.wanted[name, qos]
                    self._hub.unsubscribe(self, (name, qos))
        super().unsubscribed(packet_id, wanted)

    def published(self, flags: int, body: bytes, at_ns: int) -> bool:  # noqa: ARG002
        """Customers read; who wants to publish goes to a gateway."""
        _, qos, packet_id, _ = packets.read_publish(self.version, flags, body)
        if qos == 1 and self.version == 5:  # noqa: PLR2004
            self.write(packets.puback(self.version, packet_id, packets.NOT_AUTHORISED))
        else:
            self.end(packets.NOT_AUTHORISED)
        return True

    def acknowledged(self, packet_id: int) -> None:
        """The customer has room for another message."""
        self._in_flight.discard(packet_id)
        self.pump()

    def has_window(self, delivery: Delivery) -> bool:
        """The customer's receive maximum, and ours."""
        asked = self.asked.receive_maximum if self.asked is not None else 1
        return not delivery.qos or len(self._in_flight) < min(self._hub.settings.max_inflight, asked)

    def send(self, delivery: Delivery) -> None:
        """PUBLISH, in a system call of its own."""
        kind = delivery.topic, len(delivery.payload), delivery.qos
        head = self._heads.get(kind)
        if head is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = self._heads[kind] = mqtt_packets.publish_head(
                self.version, delivery.topic.decode(), len(delivery.payload), delivery.qos
            )
        before, after = head
        if self.outlet is None or self.closed:
            return
        if not delivery.qos:
            self.outlet.write(before + after + delivery.payload)
            return
        packet_id = self._last_id
        while True:
            packet_id = packet_id % _LAST_PACKET_ID + 1
            if packet_id not in self._in_flight:
                break
        self._last_id = packet_id
        self._in_flight.add(packet_id)
        self.outlet.write(before + packet_id.to_bytes(2, "big") + after + delivery.payload)


class CustomerHttp(HttpSession, Customer):
    """A customer that reads a stream of events."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub)
        self.begin(hub)

    def handle(self, item: Request, at_ns: int) -> bool:  # noqa: ARG002
        """Serve `GET /topics/<topic>?qos=0|1`."""
        name = unquote(item.path.removeprefix("/topics/"))
        qos = parse_qs(item.query).get("qos", ["0"])[0]
        if not item.path.startswith("/topics/") or not packets.is_filter(name):
            self.write(response(404, closing=item.closing))
        elif item.method != "GET":
            self.write(response(405, closing=item.closing))
        elif qos not in ("0", "1") or self.wanted:
            self.write(response(400, closing=item.closing))
        else:
            self.prepare_socket()
            self.idle_s = float("inf")
            self._hub.spawn(self._subscribe((name, int(qos))))
        return True

    async def _subscribe(self, wanted: Wanted) -> None:
        self.wanted[wanted] = None
        self._full = True  # nothing goes out before the head
        if not await self._hub.subscribe(self, wanted):
            self.wanted.clear()
            self.write(response(503, closing=True))
            self.close()
            return
        self.write(_STREAM_HEAD)
        self._full = False
        self.pump()

    def has_window(self, delivery: Delivery) -> bool:  # noqa: ARG002
        """TCP's own."""
        return True

    def send(self, delivery: Delivery) -> None:
        """One event, in a system call of its own."""
        if self.outlet is None or self.closed:
            return
        data = b"event: %b\ndata: %b\n\n" % (delivery.topic, binascii.b2a_base64(delivery.payload, newline=False))
        self.outlet.write(b"%x\r\n%b\r\n" % (len(data), data))
