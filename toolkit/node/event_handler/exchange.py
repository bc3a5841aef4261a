"""Who gets which event: types, SSE subscribers with bounded queues, and the replay buffer."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Iterator
from datetime import datetime

from toolkit.node.event_handler.documents import Event, Filter, System
from toolkit.node.event_handler.outlet import Outlet
from toolkit.node.event_handler.recorder import Passage, Recorder
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.tally import Tally

_time_ns = time.time_ns
_MOST_UNSENT_BYTES = 4096
"""What the kernel may hold of a stream beyond the subscriber's window. It would take megabytes: events that wait where
no policy reaches them and no counter sees them."""


class SseSubscriber:
    """One open stream of events; its queue fills only while the socket takes nothing."""

    def __init__(self, exchange: Exchange, outlet: Outlet, topic: Topic, wanted: Filter | None) -> None:
        self.exchange = exchange
        self.outlet = outlet
        self.topic = topic
        self.wanted = wanted
        self.mark = 0
        self.marked_in = 0
        self.queue: collections.deque[tuple[bytes, Passage | None]] = collections.deque()
        self.paused = False
        """Whether the transport's buffer is full."""
        self.write = outlet.write
        self._room: asyncio.Future[None] | None = None

    def deliver(self, chunk: bytes, passage: Passage | None) -> asyncio.Future[None] | None:
        """Send, or queue; a future when the publisher is to wait until there is room again."""
        if self.paused or self.queue:
            return self.enqueue(chunk, passage)
        at_ns = _time_ns()
        self.write(chunk)
        if passage is not None:
            passage[1].append((self, at_ns))
        self.exchange.tally.sent += 1
        self.exchange.tally.sent_bytes += len(chunk)
        return None

    def enqueue(self, chunk: bytes, passage: Passage | None) -> asyncio.Future[None] | None:
        """Keep for later; a future when the publisher is to wait until there is room again."""
        settings, tally = self.exchange.settings, self.exchange.tally
        if len(self.queue) < settings.queue_limit:
            self.queue.append((chunk, passage))
            return None
        if settings.overflow == "drop-oldest":
            if self.queue:
                self.queue.popleft()
            self.queue.append((chunk, passage))
            tally.dropped_queue_full += 1
            tally.overflows["drop-oldest"] += 1
            return None
        if settings.overflow == "disconnect":
            tally.dropped_queue_full += 1
            if not self.outlet.transport.is_closing():
                tally.overflows["disconnect"] += 1
                self.outlet.transport.abort()
            return None
        # The event is queued all the same: the bound is kept by the publishers, who wait.
        tally.overflows["block"] += 1
        self.queue.append((chunk, passage))
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def pause(self) -> None:
        """The transport's buffer is full."""
        self.paused = True

    def resume(self) -> None:
        """The transport's buffer has emptied: send from the queue."""
        self.paused = False
        while self.queue and not self.paused:
            chunk, passage = self.queue.popleft()
            at_ns = _time_ns()
            self.write(chunk)
            self.exchange.tally.sent += 1
            self.exchange.tally.sent_bytes += len(chunk)
            if passage is not None:
                self.exchange.recorder.stamp_later(passage, self, at_ns)
        if self._room is not None and len(self.queue) < self.exchange.settings.queue_limit:
            self._release()

    def gone(self) -> None:
        """The connection is lost: what was queued is dropped and nobody waits for it."""
        self.exchange.tally.dropped_disconnected += len(self.queue)
        self.queue.clear()
        self._release()

    def end(self, last: bytes) -> None:
        """Say the end of the stream and close."""
        self.outlet.write(last)
        self.outlet.transport.close()

    def remote(self) -> tuple[str, int]:
        """The subscriber's address and port."""
        name = self.outlet.transport.get_extra_info("peername")
        return (name[0], name[1]) if name else ("", 0)

    def _release(self) -> None:
        if self._room is not None:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None


class Topic:
    """One event type: its subscribers and the events kept for those who come back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[SseSubscriber, None] = {}
        self.kept: collections.deque[tuple[int, bytes, Event, System, datetime]] = collections.deque()
        self.filtered = 0
        """Subscribers with a filter."""
        self._head = f"event: {name}\n"
        self._around: tuple[int, bytes, bytes] = (-1, b"", b"")

    def plain_chunk(self, payload: bytes) -> bytes:
        """`chunk` of a payload of one line, quickly while payloads have the same length."""
        size, before, after = self._around
        if size != len(payload):
            size = len(payload)
            _, head, after = self.chunk("\0", None).replace(b"\r\n", b"\0", 1).split(b"\0")
            before = b"%x\r\n%b" % (len(head) + size + len(after) - 2, head)
            self._around = (size, before, after)
        return before + payload + after

    def chunk(self, payload: str | None, number: int | None) -> bytes:
        """The event on the wire: one HTTP chunk, shared by every subscriber."""
        text = payload or ""
        if "\n" in text or "\r" in text:
            lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            data = "".join(f"data: {line}\n" for line in lines)
        else:
            data = f"data: {text}\n"
        head = self._head if number is None else f"id: {number}\n{self._head}"
        body = f"{head}{data}\n".encode()
        return b"%x\r\n%b\r\n" % (len(body), body)


class Exchange:
    """Every event type of one Event Handler."""

    def __init__(self, settings: HandlerSettings, recorder: Recorder) -> None:
        self.settings = settings
        self.recorder = recorder
        self.tally = Tally()
        self.sending = settings.sending
        self.topics: dict[str, Topic] = {}
        self._kept_bytes = 0
        self._next_id = 1

    def subscribe(
        self,
        event_type: str,
        outlet: Outlet,
        *,
        head: bytes,
        wanted: Filter | None = None,
        after_id: int | None = None,
    ) -> SseSubscriber:
        """Add a subscriber: it gets `head`, the events kept since `after_id`, then every event from now on."""
        topic = self.topic(event_type)
        subscriber = SseSubscriber(self, outlet, topic, wanted)
        outlet.limit_unsent(_MOST_UNSENT_BYTES)
        outlet.set_sending(self.sending)
        outlet.write(head)
        if after_id is not None:
            if after_id >= self._next_id:
                after_id = 0  # a number from before the last restart
            for number, chunk, event, source, timestamp in topic.kept:
                if number > after_id and (wanted is None or wanted.wants(event, source, timestamp)):
                    subscriber.deliver(chunk, None)
                    self.tally.replayed += 1
        topic.subscribers[subscriber] = None
        topic.filtered += wanted is not None
        return subscriber

    def topic(self, event_type: str) -> Topic:
        """That of an event type, made where there is none yet."""
        topic = self.topics.get(event_type)
        if topic is None:
            topic = self.topics[event_type] = Topic(event_type)
        return topic

    def unsubscribe(self, subscriber: SseSubscriber) -> None:
        """Remove a subscriber; a type without subscribers and kept events is forgotten."""
        subscriber.gone()
        topic = subscriber.topic
        del topic.subscribers[subscriber]
        topic.filtered -= subscriber.wanted is not None
        if not topic.subscribers and not topic.kept:
            self.topics.pop(topic.name, None)

    def publish(
        self, source: System, event: Event, timestamp: datetime, passage: Passage | None
    ) -> list[asyncio.Future[None]]:
        """Send an event to everybody who wants it; the futures of those whose queues are full."""
        topic = self.topics.get(event.type)
        keep = self.settings.replay > 0
        if topic is None:
            if not keep:
                return []
            topic = self.topics[event.type] = Topic(event.type)
        chunk = topic.chunk(event.payload, self._next_id if keep else None)
        full: list[asyncio.Future[None]] = []
        for subscriber in tuple(topic.subscribers):
            if subscriber.wanted is not None and not subscriber.wanted.wants(event, source, timestamp):
                continue
            room = subscriber.deliver(chunk, passage)
            if room is not None:
                full.append(room)
        if keep:
            self._keep(topic, chunk, event, source, timestamp)
        return full

    def is_plain(self, event_type: str) -> bool:
        """Whether events of that type go to everybody and nowhere else: no filter, no replay."""
        topic = self.topics.get(event_type)
        return topic is None or not (self.settings.replay or topic.filtered)

    def broadcast(self, event_type: str, payload: bytes, passage: Passage | None) -> list[asyncio.Future[None]]:
        """Like `publish` for a type that `is_plain` and a payload of one line."""
        topic = self.topics.get(event_type)
        if topic is None:
            return []
        chunk = topic.plain_chunk(payload)
        full: list[asyncio.Future[None]] = []
        delivered = 0
        for subscriber in topic.subscribers:
            if subscriber.paused or subscriber.queue:
                room = subscriber.enqueue(chunk, passage)
                if room is not None:
                    full.append(room)
                continue
            if passage is None:
                subscriber.write(chunk)
            else:
                at_ns = _time_ns()
                subscriber.write(chunk)
                passage[1].append((subscriber, at_ns))
            delivered += 1
        self.tally.sent += delivered
        self.tally.sent_bytes += delivered * len(chunk)
        return full

    def subscribers(self) -> Iterator[SseSubscriber]:
        """Everybody, of every type."""
        for topic in list(self.topics.values()):
            yield from list(topic.subscribers)

    def queued(self) -> int:
        """Events waiting for a subscriber; safe to call from another thread."""
        return sum(len(subscriber.queue) for subscriber in self.subscribers())

    def _keep(self, topic: Topic, chunk: bytes, event: Event, source: System, timestamp: datetime) -> None:
        topic.kept.append((self._next_id, chunk, event, source, timestamp))
        self._next_id += 1
        self._kept_bytes += len(chunk)
        settings = self.settings
        while topic.kept and (len(topic.kept) > settings.replay or self._kept_bytes > settings.replay_bytes):
            self._kept_bytes -= len(topic.kept.popleft()[1])
        if not topic.kept and not topic.subscribers:
            self.topics.pop(topic.name, None)
