"""Subscribers that are called back: one queue and one kept connection each; feedback to the publisher."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from toolkit.node.drivers.http import Responses
from toolkit.node.event_handler.documents import Event, Filter, System
from toolkit.node.event_handler.guard import Guard
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.recorder import Passage, Recorder
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.systems import Systems
from toolkit.node.event_handler.tally import Tally
from toolkit.node.sending import Sending

_time_ns = time.time_ns
_WITHIN_S = 30.0
_MOST_RESPONSE_BYTES = 1024 * 1024


class Callbacks(Protocol):
    """Stored filters, and what is to be done with each event because of them."""

    wanted: bool
    """Whether events are to be passed to `publish`."""

    def __len__(self) -> int: ...

    def add(self, wanted: Filter) -> Filter | None:
        """Store a filter: as it is stored, or None where (type, consumer) is there already."""

    def remove(self, event_type: str, consumer_name: str) -> bool:
        """Remove a consumer's filters of one type; False when no system is known by that name."""

    def listed(self) -> list[Filter]:
        """Every filter."""

    def find(self, number: int) -> Filter | None:
        """The filter of that number."""

    def alter(self, number: int, change: Callable[[Filter], Filter]) -> Filter | None:
        """Put another filter in the place of one: as it is stored then, None where there is none of that number.

        Raises Problem where (type, consumer) is that of a third one.
        """

    def delete(self, number: int) -> bool:
        """Remove the filter of that number; False where there is none."""

    def remove_old(self, now: datetime) -> None:
        """Remove every filter that ended before now, now or soon."""

    def wants(self, event_type: str) -> bool:
        """Whether an event of that type is about to go to somebody, as far as is known without looking further."""

    def publish(
        self, source: System, event: Event, timestamp: datetime, passage: Passage | None, feedback_uri: str | None
    ) -> list[asyncio.Future[None]]:
        """Take an event on; the answer to its publisher waits for the futures."""

    def queued(self) -> int:
        """What waits to be sent."""


class Caller:
    """POSTs documents to one address, one after the other, on a connection kept between them."""

    def __init__(self, address: str, port: int, guard: Guard | None, sending: Sending | None = None) -> None:
        """`sending`: how the kernel sends, where the other end is a subscriber."""
        self._sending = sending
        self._tls = guard.client_context if guard else None
        self.place = address, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[bool, int]:
        """(whether the answer is 2xx, the instant of the send in ns); any failure is False, never raised."""
        sent_ns = 0
        fresh = self._streams is None
        request = post_request(*self.place, path, body)
        try:
            async with asyncio.timeout(_WITHIN_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self.place, ssl=self._tls)
                    if self._sending is not None:
                        self._sending.set_on(self._streams[1].get_extra_info("socket"))
                reader, writer = self._streams
                sent_ns = _time_ns()
                writer.write(request)
                await writer.drain()
                status, closing = await _read_status(reader)
        except (OSError, ValueError, TimeoutError, EOFError):
            self.close()
            if not fresh:
                return await self.post(path, body)  # the kept connection had ended; once more on a new one
            return False, sent_ns
        if closing:
            self.close()
        return 200 <= status < 300, sent_ns  # noqa: PLR2004

    def close(self) -> None:
        """Drop the connection; the next POST opens another."""
        if self._streams is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._streams[1].close()
            self._streams = None


def post_request(address: str, port: int, path: str, body: bytes, *, keep: bool = True) -> bytes:
    """A POST of JSON, whole; `keep` False says that the connection ends after the answer."""
    head = (
        f"POST /{path.lstrip('/')} HTTP/1.1\r\nHost: {address}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + (b"\r\n" if keep else b"Connection: close\r\n\r\n") + body


async def _read_status(reader: asyncio.StreamReader) -> tuple[int, bool]:
    responses = Responses()
    read = 0
    while True:
        data = await reader.read(65536)
        read += len(data)
        if not data or read > _MOST_RESPONSE_BYTES:
            raise EOFError("the connection ended before the answer")
        done = responses.take(data)
        if done:
            return done[0][0], responses.closing


class _Subscription:
    """One filter, its queue and the task that empties it in order."""

    def __init__(self, owner: CallbackSubscriptions, wanted: Filter) -> None:
        self.wanted = wanted
        self.url = wanted.url(secure=owner.guard is not None)
        self.queue: collections.deque[tuple[bytes, Passage | None, asyncio.Future[bool]]] = collections.deque()
        self.under_way = 0
        """Whether one is being sent."""
        self.filled = asyncio.Event()
        self.room: asyncio.Future[None] | None = None
        self.marked_in = 0
        self.mark = 0
        self._owner = owner
        self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        caller = self._owner.caller(self.remote())
        try:
            while True:
                while not self.queue:
                    self.filled.clear()
                    await self.filled.wait()
                if caller.place != self.remote():
                    caller.close()
                    caller = self._owner.caller(self.remote())
                body, passage, result = self.queue.popleft()
                delivered, sent_ns = False, 0
                self.under_way = 1
                try:
                    delivered, sent_ns = await caller.post(self.wanted.notify_uri or "", body)
                finally:
                    self.under_way = 0
                    self._owner.delivered(self, delivered, len(body), passage, sent_ns)
                    if not result.done():
                        result.set_result(delivered)
                self.release()
        finally:
            caller.close()

    def waiting(self) -> int:
        """Events that are queued or being sent."""
        return len(self.queue) + self.under_way

    def remote(self) -> tuple[str, int]:
        """Where the consumer says it listens."""
        return self.wanted.consumer.address, self.wanted.consumer.port

    def alter(self, wanted: Filter) -> None:
        """Deliver by another filter, also what waits."""
        self.wanted = wanted
        self.url = wanted.url(secure=self._owner.guard is not None)
        self.marked_in = 0  # the consumer may be another one now

    def release(self) -> None:
        """Let publishers go on that waited for room."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)
        self.room = None

    def end(self) -> None:
        """Deliver no more; whoever waits for a result gets False."""
        self.task.cancel()
        for _, _, result in self.queue:
            if not result.done():
                result.set_result(False)
        self._owner.tally.dropped_disconnected += len(self.queue)
        self.queue.clear()
        self.release()


class CallbackSubscriptions:
    """Every filter stored by POST /eventhandler/subscription, and the feedback that publishers ask for."""

    def __init__(self, settings: HandlerSettings, recorder: Recorder, tally: Tally, guard: Guard | None) -> None:
        self._settings = settings
        self.guard = guard
        self._recorder = recorder
        self.tally = tally
        self._by_key: dict[tuple[str, System], _Subscription] = {}
        self._by_type: dict[str, list[_Subscription]] = {}
        self._feedback_callers: dict[tuple[str, int], Caller] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._systems = Systems()
        self._next_number = 1
        self.wanted = False
        """Whether there is any subscription."""

    def __len__(self) -> int:
        return len(self._by_key)

    def caller(self, place: tuple[str, int]) -> Caller:
        """Whoever POSTs to a subscriber there."""
        return Caller(*place, self.guard, self._settings.sending)

    def add(self, wanted: Filter) -> Filter | None:
        """The new subscription's filter; None when (type, consumer) is there already (it stays as it is)."""
        if _key(wanted) in self._by_key:
            return None
        stored = replace(self._systems.numbered(wanted), id=self._next_number)
        self._next_number += 1
        self._enter(_Subscription(self, stored))
        return stored

    def remove(self, event_type: str, consumer_name: str) -> bool:
        """Remove a consumer's filters of one type, whatever its address; False when no filter ever had that system."""
        for subscription in list(self._by_type.get(event_type, ())):
            if subscription.wanted.consumer.name == consumer_name:
                self._leave(subscription)
                subscription.end()
        return self._systems.has(consumer_name)

    def listed(self) -> list[Filter]:
        """Every filter."""
        return sorted((found.wanted for found in self._by_key.values()), key=lambda wanted: wanted.id or 0)

    def find(self, number: int) -> Filter | None:
        """The filter of that number."""
        subscription = self._of_number(number)
        return None if subscription is None else subscription.wanted

    def alter(self, number: int, change: Callable[[Filter], Filter]) -> Filter | None:
        """Put another filter in the place of one."""
        subscription = self._of_number(number)
        if subscription is None:
            return None
        wanted = self._systems.numbered(change(subscription.wanted))
        if self._by_key.get(_key(wanted), subscription) is not subscription:
            raise Problem(400, "DUPLICATE_ENTRY", "there is another filter of that type and consumer")
        self._leave(subscription)
        subscription.alter(wanted)
        self._enter(subscription)
        return wanted

    def delete(self, number: int) -> bool:
        """Remove the filter of that number."""
        subscription = self._of_number(number)
        if subscription is not None:
            self._leave(subscription)
            subscription.end()
        return subscription is not None

    def remove_old(self, now: datetime) -> None:
        """Remove every filter that ended before now, once nothing waits for its consumer."""
        for subscription in list(self._by_key.values()):
            end = subscription.wanted.end
            if end is not None and end < now and not subscription.waiting():
                self._leave(subscription)
                subscription.end()

    def wants(self, event_type: str) -> bool:
        """Whether there is a filter for that type."""
        return event_type in self._by_type

    def publish(
        self, source: System, event: Event, timestamp: datetime, passage: Passage | None, feedback_uri: str | None
    ) -> list[asyncio.Future[None]]:
        """Queue an event for everybody who wants it; the futures of those whose queues are full."""
        body: bytes | None = None
        full: list[asyncio.Future[None]] = []
        results: dict[str, asyncio.Future[bool]] = {}
        for subscription in self._by_type.get(event.type, ()):
            if not subscription.wanted.wants(event, source, timestamp):
                continue
            if body is None:
                body = json.dumps(event.document(timestamp), separators=(",", ":")).encode()
            result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            results[subscription.url] = result
            room = self._enqueue(subscription, body, passage, result)
            if room is not None:
                full.append(room)
        # A publisher for SSE names a feedback URI that it does not serve: nobody to report on, no report.
        if feedback_uri is not None and results and self._settings.feedback:
            self._spawn(self._feed_back(source, feedback_uri, results))
        return full

    def queued(self) -> int:
        """Events waiting for a callback, or for its answer."""
        return sum(subscription.waiting() for subscription in list(self._by_key.values()))

    async def close(self) -> None:
        """Call back no more."""
        for subscription in self._by_key.values():
            subscription.end()
        self._by_key.clear()
        self._by_type.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for caller in self._feedback_callers.values():
            caller.close()

    def delivered(
        self, subscription: _Subscription, accepted: bool, size: int, passage: Passage | None, sent_ns: int
    ) -> None:
        """Count and stamp one callback."""
        if accepted:
            self.tally.sent += 1
            self.tally.sent_bytes += size
        else:
            self.tally.dropped_disconnected += 1
        if passage is not None and sent_ns:
            self._recorder.stamp_later(passage, subscription, sent_ns)

    def _enqueue(
        self, subscription: _Subscription, body: bytes, passage: Passage | None, result: asyncio.Future[bool]
    ) -> asyncio.Future[None] | None:
        settings = self._settings
        is_full = len(subscription.queue) >= settings.queue_limit
        if is_full and settings.overflow != "block":
            # A callback subscriber has no connection to cut, so `disconnect` drops as `drop-oldest` does.
            dropped = subscription.queue.popleft()[2] if subscription.queue else result
            if not dropped.done():
                dropped.set_result(False)
            self.tally.dropped_queue_full += 1
            self.tally.overflows["drop-oldest"] += 1
        subscription.queue.append((body, passage, result))
        subscription.filled.set()
        if is_full and settings.overflow == "block":
            self.tally.overflows["block"] += 1
            if subscription.room is None:
                subscription.room = asyncio.get_running_loop().create_future()
            return subscription.room
        return None

    async def _feed_back(self, source: System, uri: str, results: dict[str, asyncio.Future[bool]]) -> None:
        document = {url: await result for url, result in results.items()}
        place = source.address, source.port
        caller = self._feedback_callers.setdefault(place, Caller(*place, self.guard))
        await caller.post(uri, json.dumps(document).encode())

    def _enter(self, subscription: _Subscription) -> None:
        wanted = subscription.wanted
        self._by_key[_key(wanted)] = subscription
        self._by_type.setdefault(wanted.event_type, []).append(subscription)
        self.wanted = True

    def _leave(self, subscription: _Subscription) -> None:
        wanted = subscription.wanted
        del self._by_key[_key(wanted)]
        self._by_type[wanted.event_type].remove(subscription)
        if not self._by_type[wanted.event_type]:
            del self._by_type[wanted.event_type]
        self.wanted = bool(self._by_key)

    def _of_number(self, number: int) -> _Subscription | None:
        return next((found for found in self._by_key.values() if found.wanted.id == number), None)

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _key(wanted: Filter) -> tuple[str, System]:
    return wanted.event_type, wanted.consumer
