"""Receives the messages of a run and stamps each right after the read that brought it.

One hot thread reads every connection that is ready before it looks into any message, so that one connection's work
does not delay another's stamp. A message that cannot be read is counted as foreign, never raised.
"""

from __future__ import annotations

import gc
import itertools
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.samples import Flag, received_as
from toolkit.contract.settings import ProcessSettings
from toolkit.node import exposition
from toolkit.node.client import at_entrance, serve_orders
from toolkit.node.control import Control
from toolkit.node.descriptors import check_connections
from toolkit.node.drivers import make_driver
from toolkit.node.drivers.base import Driver, Message, SubscribingConnection
from toolkit.node.event_log import EventLog
from toolkit.node.flows import Flows
from toolkit.node.live import LiveSender
from toolkit.node.messages import Seen, read_header, with_flags
from toolkit.node.pacing import Waiter
from toolkit.node.redial import Redial
from toolkit.node.stamps import StampWriter

ROLE = "subscriber"
_CONNECT_WITHIN_S = 30.0
_SECOND_NS = 1_000_000_000
_WARMUP, _RETAINED, _REDELIVERED, _PROBE = int(Flag.WARMUP), int(Flag.RETAINED), int(Flag.REDELIVERED), int(Flag.PROBE)


@dataclass(slots=True)
class _Link:
    """One connection of a logical subscriber (`slot`), which may have several."""

    slot: int
    connection: SubscribingConnection
    received_as: int
    """The first word of the stamps of what it receives."""
    seen: dict[int, Seen] = field(default_factory=dict)
    """Per stream; survives a lost connection."""


class Subscribing:
    """One run of a subscriber: `prepare`, `play`, `finish`."""

    def __init__(self, settings: ProcessSettings, control: Control, order: RunOrder) -> None:
        self._settings = settings
        self._control = control
        self._counts = control.counts
        self._order = order
        self._driver: Driver = make_driver(order.protocol)
        self._streams = frozenset(order.streams)
        self._consume_s = float(order.options.get("consume_delay_s", 0) or 0)
        late_s = order.options.get("join_after_s")
        self._join_after_ns: int | None = None if late_s is None else round(float(late_s) * 1e9)
        """Of one that comes in after the start and has not begun to."""
        self._joined_ns: dict[str, int] = {}
        """Connection -> when the broker had confirmed it, of one that comes in late."""
        self._waiter = Waiter()
        self._redial: Redial[list[SubscribingConnection]] = Redial()
        self._links: dict[int, _Link] = {}
        self._seen: list[list[dict[int, Seen]]] = []
        self._flows = Flows()
        self._facts: dict[str, Any] = {}
        self._writer: StampWriter | None = None
        self._recording: StampWriter | None = None
        """The writer, in runs that record."""
        self._log = EventLog() if order.options.get("log_events") else None
        slowly = self._consume_s or self._log is not None
        self._take = self._take_one_by_one if slowly else self._take_messages

    def prepare(self) -> None:
        """Subscribe on every connection, confirmed by the broker; raises OSError or ToolkitError.

        One that is to come in late only gets ready to.
        """
        self._waiter.watch(self._control.stop_fd)
        self._waiter.watch(self._redial.fd)
        self._writer = StampWriter(
            self._settings,
            self._order,
            live=LiveSender.from_environment(self._settings) if self._order.record else None,
        )
        self._recording = self._writer if self._order.record else None
        self._writer.flows_for_live(self._flows.by_peer)
        started_s = time.monotonic()
        for slot in range(self._order.connections if self._join_after_ns is None else 0):
            while True:
                try:
                    self._adopt(slot, self._dial(slot))
                    break
                except OSError as error:
                    if self._control.stopping or time.monotonic() - started_s > _CONNECT_WITHIN_S:
                        raise OSError(f"no subscription at {self._order.broker}: {error}") from error
                    time.sleep(0.2)
        self._facts["subscribed_ms"] = round((time.monotonic() - started_s) * 1000, 3)

    def play(self) -> None:
        """Take messages until the run is stopped, and what has arrived by then."""
        self._control.enter("ready")
        self._receive_until_stopped()
        self._control.enter("draining")
        self._drain()

    def _receive_until_stopped(self) -> None:
        """Take messages until the run is stopped; the start is noticed on the way."""
        gc.collect()
        gc.disable()
        try:
            kept_alive_ns = time.monotonic_ns()
            while not self._control.stopping:
                self._receive(self._waiter.wait_roughly(1.0))
                if time.monotonic_ns() - kept_alive_ns >= _SECOND_NS:
                    kept_alive_ns = time.monotonic_ns()
                    self._keep_alive()
                if self._join_after_ns is not None:
                    self._join_when_due(self._join_after_ns)
                if self._control.phase == "ready" and self._control.started() is not None:
                    self._control.enter("running")
        finally:
            gc.enable()

    def _join_when_due(self, after_ns: int) -> None:
        """Begin to subscribe, away from this thread, once it is so long after the start."""
        start_ns = self._control.started()
        if start_ns is None or time.time_ns() < start_ns + after_ns:
            return
        self._join_after_ns = None
        for slot in range(self._order.connections):
            self._joined_ns[str(slot)] = 0
            self._redial.begin(slot, partial(self._dial, slot), _close_all)

    def _drain(self) -> None:
        """Take what has already arrived."""
        self._waiter.forget(self._control.stop_fd)
        for _ in range(1000):
            events = self._waiter.ready()
            if not events:
                return
            self._receive(events)

    def finish(self, error: str | None) -> str | None:
        """Close the connections and save the stamps; the error of the run, if it has one."""
        self._redial.stop()
        for link in self._links.values():
            self._facts.update(link.connection.facts)
            self._tell_of_subscriptions(begins=False, done=False)
            link.connection.close()
            self._tell_of_subscriptions(begins=False, done=True)
        self._waiter.close()
        self._counts.reordered = sum(
            seen.reordered for parts in self._seen for streams in parts for seen in streams.values()
        )
        if self._writer is None:
            return error
        if self._order.options.get("join_after_s") is not None:
            self._facts["joined_ns"] = {slot: at_ns for slot, at_ns in self._joined_ns.items() if at_ns}
        facts = {**self._facts, "python": platform.python_version(), "connections": self._flows.slots}
        counts = self._counts.document()
        return self._writer.close(counts=counts, flows=self._flows.by_peer, facts=facts, error=error).error

    def _dial(
        self, slot: int, before: Sequence[SubscribingConnection] = (), turn: int | None = None
    ) -> list[SubscribingConnection]:
        settings = self._settings
        self._tell_of_subscriptions(begins=True, done=False)
        opened = self._driver.open_subscribers(
            at_entrance(self._order, slot if turn is None else turn),
            before=before,
            identity=f"{settings.node}-{settings.service}-{settings.instance}-{slot}",
            timeout_s=float(self._order.options.get("connect_timeout_s", 10.0)),
        )
        self._tell_of_subscriptions(begins=True, done=True)
        return opened

    def _tell_of_subscriptions(self, *, begins: bool, done: bool) -> None:
        if self._log is not None:
            for topic in self._order.topics:
                self._log.subscription(topic, begins=begins, done=done)
            self._log.flush()

    def _adopt(self, slot: int, connections: list[SubscribingConnection]) -> None:
        while len(self._seen) <= slot:
            self._seen.append([])
        if self._joined_ns.get(str(slot)) == 0:
            self._joined_ns[str(slot)] = time.time_ns()
        parts = self._seen[slot]
        while len(parts) < len(connections):
            parts.append({})
        links: list[_Link] = []
        for part, connection in enumerate(connections):
            if "requested_qos" in connection.facts:
                self._control.granted_qos = int(connection.facts["granted_qos"])
            address, port = connection.local()
            peer = self._flows.add(slot, address, port)
            fd = connection.fileno()
            link = self._links[fd] = _Link(
                slot=slot, connection=connection, received_as=received_as(peer), seen=parts[part]
            )
            links.append(link)
            self._waiter.watch(fd)
        for link in links:  # what came with the broker's confirmation: no selector will tell of it again
            self._take_arrived(link, time.time_ns())

    def _lost(self, lost: _Link, error: ConnectionError) -> None:
        """Give every connection of the slot up and dial it again."""
        before: list[SubscribingConnection] = []
        for fd, link in list(self._links.items()):
            if link.slot == lost.slot:
                before.append(link.connection)
                self._waiter.forget(fd)
                del self._links[fd]
                self._facts.update(link.connection.facts)
                link.connection.close()
        self._facts["last_lost"] = str(error)
        self._counts.reconnects += 1
        slot = lost.slot
        self._redial.lost(slot, str(error), name=str(self._facts.get("client_id", "")))
        turns = itertools.count(slot + 1)  # an entrance that is lost may stay so: the others are tried too
        self._redial.begin(slot, lambda: self._dial(slot, before, next(turns)), _close_all)

    def _keep_alive(self) -> None:
        if self._log is not None:
            self._log.flush()
        for link in list(self._links.values()):
            try:
                link.connection.keep_alive()
            except ConnectionError as error:
                self._lost(link, error)

    def _receive(self, events: Iterable[tuple[int, int]]) -> None:
        arrived: list[tuple[_Link, int]] = []
        for fd, _ in events:
            link = self._links.get(fd)
            if link is None:
                if fd == self._redial.fd:
                    for slot, connections in self._redial.opened():
                        self._adopt(slot, connections)
                continue
            try:
                arrived.append((link, link.connection.read()))
            except ConnectionError as error:
                self._lost(link, error)
        for link, at_ns in arrived:
            self._take_arrived(link, at_ns)

    def _take_arrived(self, link: _Link, at_ns: int) -> None:
        try:
            self._take(link, link.connection.messages(), at_ns)
        except ConnectionError as error:
            self._lost(link, error)

    def _take_one_by_one(self, link: _Link, messages: Iterable[Message], at_ns: int) -> None:
        """The same, with a line for each, or with what a slow consumer does between them."""
        for message in messages:
            if self._log is not None:
                self._log.received(message[0], at_ns)
            self._take_messages(link, (message,), at_ns)
            if self._consume_s:
                time.sleep(self._consume_s)

    def _take_messages(self, link: _Link, messages: Iterable[Message], at_ns: int) -> None:
        """Note and count what one read brought."""
        counts, streams = self._counts, self._streams
        heads: list[bytes] = []
        for payload, told in messages:
            header = read_header(payload)
            if header is None or (streams and header[0] not in streams):
                counts.foreign += 1
                continue
            stream, seq, flags, head = header
            if flags & _PROBE:
                counts.probes += 1
                continue
            if told:
                flags |= told
                head = with_flags(head, flags)
                counts.redelivered += bool(told & _REDELIVERED)
            heads.append(head)
            seen = link.seen.get(stream)
            if seen is None:
                seen = link.seen[stream] = Seen()
            if not seen.is_new(seq):
                counts.duplicate += 1
            elif flags & (_WARMUP | _RETAINED):
                counts.warmup += 1
            else:
                counts.received += 1
        if heads:
            counts.last_ns = at_ns
            if self._recording is not None:
                self._recording.reads += (b"".join(heads), link.received_as, at_ns, len(heads))


def _close_all(connections: list[SubscribingConnection]) -> None:
    for connection in connections:
        connection.close()


def check_order(order: RunOrder) -> None:
    """Raise ValueError or ToolkitError for an order that no subscriber can carry out."""
    if not order.topics or order.connections < 1:
        raise ValueError("a subscriber needs at least one topic and one connection")
    of_each = len(order.topics) if order.protocol == "sse" else 1
    check_connections(order.connections * of_each, entrances=order.broker.count(",") + 1)
    make_driver(order.protocol).check(order)


def readings(control: Control) -> Iterable[exposition.Reading]:
    """What `/metrics` shows of the run."""
    order, counts = control.order, control.counts
    if order is None:
        return []
    qos = order.qos if control.granted_qos is None else control.granted_qos
    return [
        (metrics.MESSAGES_RECEIVED, (order.run, str(qos)), counts.received),
        (metrics.MESSAGES_DUPLICATE, (order.run,), counts.duplicate),
        (metrics.MESSAGES_FOREIGN, (order.run,), counts.foreign),
    ]


def main() -> int:
    """Serve orders until SIGTERM."""
    return serve_orders(ROLE, Subscribing, readings=readings, check=check_order)


if __name__ == "__main__":
    sys.exit(main())
