"""Publishes the messages of a run on schedule and stamps each when it is handed over and when it is answered.

One hot thread sends, waits and reads the answers; nothing in it logs or touches a file.
"""

from __future__ import annotations

import gc
import itertools
import platform
import select
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from toolkit.contract import metrics
from toolkit.contract.orders import RunOrder
from toolkit.contract.payloads import size_of
from toolkit.contract.samples import Flag, Point
from toolkit.contract.settings import ProcessSettings
from toolkit.node import exposition, pacing
from toolkit.node.client import at_entrance, serve_orders
from toolkit.node.control import Control
from toolkit.node.descriptors import check_connections
from toolkit.node.drivers import make_driver
from toolkit.node.drivers.base import Driver, Key, PublishingConnection
from toolkit.node.event_log import EventLog
from toolkit.node.flows import Flows
from toolkit.node.live import LiveSender
from toolkit.node.messages import MessageMaker
from toolkit.node.redial import Redial
from toolkit.node.stamps import StampWriter

ROLE = "publisher"
_PROBE_SEQ = 1 << 63
_LOOK_EVERY = 32
"""Messages between two looks at the sockets while behind schedule."""
_PROBE_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 30.0
_SECOND_NS = 1_000_000_000
_MOST_BACKLOG_BYTES = 1 << 20
_ACKED, _REFUSED = int(Point.ACKED), int(Point.REFUSED)
_WARMUP, _PROBE = int(Flag.WARMUP), int(Flag.PROBE)
_time_ns = time.time_ns


@dataclass(slots=True)
class _Stream:
    """One (connection, topic); its messages are numbered from 0."""

    number: int
    topic: int
    next_seq: int = 0


@dataclass(slots=True)
class _Link:
    """One connection and the streams it carries."""

    index: int
    streams: list[_Stream]
    connection: PublishingConnection | None = None
    peer: int = 0
    sent: bytearray | None = None
    """Headers of the messages handed over, in runs that record; see `StampWriter.sent`."""
    fd: int = -1
    outstanding: int = 0
    turn: int = 0
    left: int | None = None
    """Messages still to send in a closed loop; None: until the time is over."""

    def next_stream(self) -> _Stream:
        """The streams of a connection take turns."""
        stream = self.streams[self.turn]
        self.turn = (self.turn + 1) % len(self.streams)
        return stream


class Publishing:
    """One run of a publisher: `prepare`, `play`, `finish`."""

    def __init__(self, settings: ProcessSettings, control: Control, order: RunOrder) -> None:
        self._settings = settings
        self._control = control
        self._counts = control.counts
        self._order = order
        self._driver: Driver = make_driver(order.protocol)
        self._maker = MessageMaker(payload_bytes=order.payload_bytes, seed=order.seed, kind=order.payload.kind)
        self._size_of = size_of(order.payload) if order.payload.sizes else None
        topics = len(order.topics)
        self._links = [
            _Link(
                index=index,
                streams=[_Stream(number=order.streams[index * topics + topic], topic=topic) for topic in range(topics)],
            )
            for index in range(order.connections)
        ]
        self._flows = Flows()
        self._waiter = pacing.Waiter()
        self._redial: Redial[PublishingConnection] = Redial()
        self._by_fd: dict[int, _Link] = {}
        self._most_backlog = int(order.options.get("max_backlog_bytes", _MOST_BACKLOG_BYTES))
        self._facts: dict[str, Any] = {}
        self._writer: StampWriter | None = None
        self._recording: StampWriter | None = None
        """The writer, in runs that record."""
        self._answered = self._driver.answers(order)
        self._log = EventLog() if order.options.get("log_events") else None
        self._send = self._send_message if self._log is None else self._send_and_tell

    def prepare(self) -> None:
        """Connect every connection and see that the broker answers; raises OSError or ToolkitError."""
        self._waiter.watch(self._control.stop_fd)
        self._waiter.watch(self._redial.fd)
        started_s = time.monotonic()
        for link in self._links:
            while True:
                try:
                    self._adopt(link, self._dial(link.index))
                    break
                except OSError as error:
                    if self._control.stopping or time.monotonic() - started_s > _CONNECT_WITHIN_S:
                        raise OSError(f"no connection to {self._order.broker}: {error}") from error
                    time.sleep(0.2)
        self._facts["connect_ms"] = round((time.monotonic() - started_s) * 1000, 3)
        if self._order.options.get("probe", True):
            self._probe()
        self._writer = StampWriter(
            self._settings,
            self._order,
            live=LiveSender.from_environment(self._settings) if self._order.record else None,
        )
        if self._order.record:
            self._recording = self._writer
            for link in self._links:
                link.sent = self._writer.sent(link.peer)
        self._writer.flows_for_live(self._flows.by_peer)

    def play(self) -> None:
        """Send everything from the start on, and wait for the answers."""
        start_ns = self._control.await_start()
        if start_ns is None:
            return
        self._control.enter("running")
        self._send_all(start_ns)
        self._control.enter("draining")
        self._drain()

    def _send_all(self, start_ns: int) -> None:
        """Send everything, starting at a wall clock instant; returns when all is sent or the run is stopped."""
        wait_ns = start_ns - _time_ns()
        start_monotonic_ns = time.monotonic_ns() + wait_ns
        while not self._control.stopping and (events := self._waiter.wait(start_monotonic_ns)):
            self._handle(events)
        gc.collect()
        gc.disable()
        try:
            if self._order.arrivals.kind == "closed":
                self._play_closed(start_monotonic_ns)
            else:
                self._play_open(start_ns, start_monotonic_ns)
        finally:
            gc.enable()

    def _drain(self) -> None:
        """Wait for the answers that are still due, at most `drain_s`."""
        self._waiter.forget(self._control.stop_fd)
        until_ns = time.monotonic_ns() + round(self._order.drain_s * 1e9)
        while any(link.connection and (link.outstanding or link.connection.backlog()) for link in self._links):
            events = self._waiter.wait(until_ns)
            if not events:
                break
            self._handle(events)

    def finish(self, error: str | None) -> str | None:
        """Close the connections and save the stamps; the error of the run, if it has one."""
        self._redial.stop()
        if self._log is not None:
            self._log.flush()
        unanswered = sum(link.outstanding for link in self._links)
        for link in self._links:
            if link.connection is not None:
                self._facts.update(link.connection.facts)
                link.connection.close()
        self._waiter.close()
        if self._writer is None:
            return error
        facts = {
            **self._facts,
            "python": platform.python_version(),
            "answers": self._answered,
            "unanswered": unanswered,
            "connections": self._flows.slots,
            "spin_ns": pacing.SPIN_NS,
        }
        counts = self._counts.document()
        return self._writer.close(counts=counts, flows=self._flows.by_peer, facts=facts, error=error).error

    def _dial(self, index: int, turn: int | None = None) -> PublishingConnection:
        timeout_s = float(self._order.options.get("connect_timeout_s", 10.0))
        order = at_entrance(self._order, index if turn is None else turn)
        return self._driver.open_publisher(order, connection=index, fill=self._maker.fill, timeout_s=timeout_s)

    def _adopt(self, link: _Link, connection: PublishingConnection) -> None:
        if self._size_of is not None and not hasattr(connection, "forward"):
            raise ValueError(f"{self._order.protocol} cannot send payloads of differing sizes; give one size")
        link.connection = connection
        link.fd = connection.fileno()
        link.peer = self._flows.add(link.index, *connection.local())
        if link.sent is not None and self._writer is not None:
            link.sent = self._writer.sent(link.peer)
        link.outstanding = 0
        self._by_fd[link.fd] = link
        self._waiter.watch(link.fd)

    def _lost(self, link: _Link, error: ConnectionError) -> None:
        """Give the connection up and dial again; what was unanswered on it stays so."""
        if link.connection is None:
            return
        self._waiter.forget(link.fd)
        del self._by_fd[link.fd]
        self._facts |= link.connection.facts | {"last_lost": str(error)}
        link.connection.close()
        link.connection = None
        self._counts.reconnects += 1
        self._redial.lost(link.index, str(error), name=str(self._facts.get("client_id", "")))
        turns = itertools.count(link.index + 1)  # an entrance that is lost may stay so: the others are tried too
        self._redial.begin(link.index, lambda: self._dial(link.index, next(turns)), lambda opened: opened.close())

    def _probe(self) -> None:
        """One message on each stream before the run; the broker's answers are awaited."""
        for link in self._links:
            for stream in link.streams:
                now_ns = _time_ns()
                header = self._maker.header(stream.number, _PROBE_SEQ, now_ns, now_ns, _PROBE)
                if link.connection is not None:
                    self._publish(link.connection, stream, header, (stream.number, _PROBE_SEQ, _PROBE))
                    link.outstanding += self._answered
                    self._watch_writing(link, link.connection)
        until_ns = time.monotonic_ns() + round(_PROBE_WITHIN_S * 1e9)
        while any(link.connection and link.outstanding for link in self._links):
            events = self._waiter.wait(until_ns)
            if not events or self._control.stopping:
                raise OSError(f"{self._order.broker} did not answer a probe within {_PROBE_WITHIN_S} s")
            self._handle(events)
        if any(link.connection is None for link in self._links):
            raise OSError(f"a connection was closed after a probe: {self._facts.get('last_lost')}")
        if self._counts.rejected:
            reason = next((link.connection.facts.get("last_rejection") for link in self._links if link.connection), "")
            raise OSError(f"{self._order.broker} rejected a probe: {reason}")
        for link in self._links:
            link.outstanding = 0

    def _play_open(self, start_ns: int, start_monotonic_ns: int) -> None:
        order, links = self._order, self._links
        slots = None if order.messages is None else (order.messages + order.warmup_messages) * len(order.topics)
        control, waiter = self._control, self._waiter
        behind = 0
        schedule = pacing.merged_due_ns(
            order.arrivals, connections=len(links), slots=slots, duration_s=order.duration_s, seed=order.seed
        )
        for due_ns, index in schedule:
            deadline_ns = start_monotonic_ns + due_ns
            if time.monotonic_ns() >= deadline_ns:
                behind += 1
                if behind >= _LOOK_EVERY:
                    behind = 0
                    self._handle(waiter.ready())
            else:
                while not control.stopping and (events := waiter.wait(deadline_ns)):
                    self._handle(events)
            if control.stopping:
                return
            link = links[index]
            self._send(link, link.next_stream(), start_ns + due_ns)

    def _play_closed(self, start_monotonic_ns: int) -> None:
        """Each connection sends its next message after the answer to the last."""
        order = self._order
        control, waiter = self._control, self._waiter
        end_ns = start_monotonic_ns + round(order.duration_s * 1e9) if order.duration_s is not None else 1 << 62
        for link in self._links:
            if order.messages is not None:
                link.left = (order.messages + order.warmup_messages) * len(link.streams)
        unfinished = list(self._links)
        while unfinished and not control.stopping:
            now_ns = time.monotonic_ns()
            if now_ns >= end_ns:
                return
            idle = True
            finished = False
            for link in unfinished:
                if link.outstanding or link.connection is None or link.connection.backlog():
                    continue
                if link.left is not None:
                    link.left -= 1
                    finished = finished or not link.left
                self._send(link, link.next_stream(), None)
                idle = idle and self._answered
            if finished:
                unfinished = [link for link in unfinished if link.left != 0]
            # No slot has to be met here: the rough wait is one system call less.
            self._handle(waiter.wait_roughly(min(end_ns - now_ns, _SECOND_NS) / _SECOND_NS) if idle else waiter.ready())

    def _send_and_tell(self, link: _Link, stream: _Stream, t0_ns: int | None) -> None:
        """One message, and a line before it."""
        if self._log is not None:
            self._log.published(stream.next_seq)
        self._send_message(link, stream, t0_ns)

    def _send_message(self, link: _Link, stream: _Stream, t0_ns: int | None) -> None:
        """One message; T0 is T1 in a closed loop."""
        counts = self._counts
        seq = stream.next_seq
        stream.next_seq = seq + 1
        flags = _WARMUP if seq < self._order.warmup_messages else 0
        connection = link.connection
        t1_ns = _time_ns()
        if t0_ns is None:
            t0_ns = t1_ns
        handed_over = False
        if connection is not None and connection.backlog() <= self._most_backlog:
            header = self._maker.header(stream.number, seq, t0_ns, t1_ns, flags)
            try:
                if self._size_of is None:
                    connection.publish(stream.topic, header, (stream.number, seq, flags))
                else:
                    self._publish(connection, stream, header, (stream.number, seq, flags))
                handed_over = True
                if link.sent is not None:
                    link.sent += header
                if self._answered:
                    link.outstanding += 1
                self._watch_writing(link, connection)
            except ConnectionError as error:
                self._lost(link, error)
        if not handed_over:
            self._refuse((_REFUSED, flags, link.peer, stream.number, seq, t1_ns, t0_ns))
        elif flags:
            counts.warmup += 1
        else:
            counts.sent += 1
        if counts.first_sent_ns is None:
            counts.first_sent_ns = t1_ns
        counts.last_ns = t1_ns

    def _refuse(self, stamp: tuple[int, ...]) -> None:
        """One message that was not handed over."""
        if self._recording is not None:
            self._recording.add(*stamp)
        if stamp[1]:
            self._counts.warmup += 1
        else:
            self._counts.refused += 1

    def _publish(self, connection: PublishingConnection, stream: _Stream, header: bytes, key: Key) -> None:
        """One message of its own size, where sizes differ."""
        if self._size_of is None:
            connection.publish(stream.topic, header, key)
            return
        payload = header + self._maker.fill[: self._size_of(key[0], key[1]) - len(header)]
        # What a gateway forwards has any size, too: the way of messages whose frame is not known beforehand.
        connection.forward(self._order.topics[stream.topic], payload, key, self._order.qos)  # type: ignore[attr-defined]

    def _handle(self, events: Iterable[tuple[int, int]]) -> None:
        for fd, mask in events:
            link = self._by_fd.get(fd)
            if link is None or link.connection is None:
                if fd == self._redial.fd:
                    for slot, connection in self._redial.opened():
                        self._adopt(self._links[slot], connection)
                continue
            try:
                if mask & select.EPOLLOUT:
                    link.connection.flush()
                    if not link.connection.wants_write():
                        self._waiter.watch(fd)
                if mask & ~select.EPOLLOUT:
                    self._take_answers(link, link.connection)
            except ConnectionError as error:
                self._lost(link, error)

    def _watch_writing(self, link: _Link, connection: PublishingConnection) -> None:
        if connection.wants_write():
            self._waiter.watch(link.fd, writable=True)

    def _take_answers(self, link: _Link, connection: PublishingConnection) -> None:
        at_ns, accepted, rejected = connection.answers()
        self._watch_writing(link, connection)
        counts = self._counts
        link.outstanding -= len(accepted) + len(rejected)
        words = self._recording.words if self._recording is not None else None
        acked = _ACKED | link.peer << 16
        for stream, seq, flags in accepted:
            if flags & _PROBE:
                counts.probes += 1
                continue
            if words is not None:
                words += (acked | flags << 8 | stream << 32, seq, at_ns, 0)
            if not flags:
                counts.acked += 1
        counts.rejected += len(rejected)


def check_order(order: RunOrder) -> None:
    """Raise ValueError or ToolkitError for an order that no publisher can carry out."""
    if not order.topics or order.connections < 1:
        raise ValueError("a publisher needs at least one topic and one connection")
    if len(order.streams) != order.connections * len(order.topics):
        raise ValueError(
            f"{order.connections} connections with {len(order.topics)} topics need "
            f"{order.connections * len(order.topics)} streams, not {len(order.streams)}"
        )
    if order.messages is None and order.duration_s is None and order.arrivals.kind != "trace":
        raise ValueError("a publisher needs messages or duration_s to know its end")
    MessageMaker(payload_bytes=order.payload_bytes, seed=0)
    if order.arrivals.kind != "closed":
        next(pacing.due_ns(order.arrivals, slots=order.messages, duration_s=order.duration_s, seed=0), None)
    check_connections(order.connections * int(order.options.get("pool_size", 1)), entrances=order.broker.count(",") + 1)
    make_driver(order.protocol).check(order)


def readings(control: Control) -> Iterable[exposition.Reading]:
    """What `/metrics` shows of the run."""
    order, counts = control.order, control.counts
    if order is None:
        return []
    labels = (order.run, str(order.qos))
    return [
        (metrics.MESSAGES_SENT, labels, counts.sent),
        (metrics.MESSAGES_ACKNOWLEDGED, labels, counts.acked),
        (metrics.MESSAGES_DROPPED, (order.run, "client", "refused"), counts.refused),
        (metrics.MESSAGES_DROPPED, (order.run, "client", "rejected"), counts.rejected),
    ]


def main() -> int:
    """Serve orders until SIGTERM."""
    return serve_orders(ROLE, Publishing, readings=readings, check=check_order)


if __name__ == "__main__":
    sys.exit(main())
