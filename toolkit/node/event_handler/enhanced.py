"""Mode `enhanced`: one broadcaster per event type; the worker that took an event writes it to every subscriber in turn.

No filters, no feedback, nothing kept for later. A slow subscriber holds up those after it, and the publisher's answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from datetime import datetime

from toolkit.node.event_handler.documents import Event, Filter, System
from toolkit.node.event_handler.exchange import Exchange, SseSubscriber, Topic
from toolkit.node.event_handler.outlet import Outlet
from toolkit.node.event_handler.recorder import Passage, Recorder
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.workers import WorkerHandler

_time_ns = time.time_ns


class Output(SseSubscriber):
    """One open stream; events of several publishers go into it one after the other."""

    def __init__(self, exchange: Exchange, outlet: Outlet, topic: Topic, wanted: Filter | None) -> None:
        super().__init__(exchange, outlet, topic, wanted)
        self.turn = threading.Lock()
        """Held while something is written."""
        self._gone = False

    def deliver(self, chunk: bytes, passage: Passage | None) -> None:
        """Send, however long it takes."""
        with self.turn:
            if self._gone:
                return
            at_ns = _time_ns()
            self.outlet.write(chunk)
        if passage is not None:
            passage[1].append((self, at_ns))

    def gone(self) -> None:
        """Write no more: the descriptor may soon be another connection's."""
        with self.turn:
            self._gone = True

    def end(self, last: bytes) -> None:
        """Say the end of the stream and close."""
        with self.turn:
            if not self._gone:
                super().end(last)


class Broadcasters(Exchange):
    """Event type -> the outputs of its subscribers."""

    def __init__(self, settings: HandlerSettings, recorder: Recorder, turn: threading.Lock) -> None:
        super().__init__(dataclasses.replace(settings, replay=0), recorder)
        self._turn = turn

    def subscribe(
        self,
        event_type: str,
        outlet: Outlet,
        *,
        head: bytes,
        wanted: Filter | None = None,
        after_id: int | None = None,  # noqa: ARG002  nothing is kept
    ) -> SseSubscriber:
        """Add a subscriber; two first ones of a type at the same time are both kept.

        Whoever has read `head` gets every event published from then on, so it is written by a subscriber that is
        known already; an event that comes in between waits for it.
        """
        outlet.set_sending(self.sending)
        with self._turn:
            topic = self.topic(event_type)
            output = Output(self, outlet, topic, wanted)
            output.turn.acquire()
            topic.subscribers[output] = None
        try:
            outlet.write(head)
        finally:
            output.turn.release()
        return output

    def unsubscribe(self, subscriber: SseSubscriber) -> None:
        """Remove a subscriber."""
        subscriber.gone()  # may wait for a write to it, which must not hold up the others
        with self._turn:
            super().unsubscribe(subscriber)

    def publish(
        self,
        source: System,  # noqa: ARG002
        event: Event,
        timestamp: datetime,  # noqa: ARG002
        passage: Passage | None,
    ) -> list[asyncio.Future[None]]:
        """Write an event to every subscriber of its type."""
        if (topic := self.topics.get(event.type)) is not None:
            self._write(topic, topic.chunk(event.payload, None), passage)
        return []

    def broadcast(self, event_type: str, payload: bytes, passage: Passage | None) -> list[asyncio.Future[None]]:
        """The same for an event that was recognised without parsing."""
        if (topic := self.topics.get(event_type)) is not None:
            self._write(topic, topic.plain_chunk(payload), passage)
        return []

    def _write(self, topic: Topic, chunk: bytes, passage: Passage | None) -> None:
        outputs = tuple(topic.subscribers)
        for output in outputs:
            output.deliver(chunk, passage)
        with self._turn:
            self.tally.sent += len(outputs)
            self.tally.sent_bytes += len(outputs) * len(chunk)


class EnhancedHandler(WorkerHandler):
    """Streams only; stored filters can be removed, as in the enhanced Java form, but there are none."""

    subscribed_by = ("GET", "PUT")
    resumes_and_filters = False

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.exchange = Broadcasters(settings, self.recorder, self.turn)
