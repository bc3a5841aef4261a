"""Mode `original`: a publish is answered at once; a small pool delivers, with a new connection for each notification.

The pool has one thread less than there are cores and an unbounded queue: nothing tells a publisher that its events
wait. Events may overtake each other where the pool has more than one thread.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import json
import os
import queue
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime

from toolkit.node.drivers.http import Responses
from toolkit.node.event_handler.callbacks import post_request
from toolkit.node.event_handler.documents import Event, Filter, System
from toolkit.node.event_handler.filters import FilterStore
from toolkit.node.event_handler.guard import Guard
from toolkit.node.event_handler.problems import Problem
from toolkit.node.event_handler.recorder import Passage
from toolkit.node.event_handler.settings import HandlerSettings
from toolkit.node.event_handler.workers import WorkerHandler
from toolkit.node.sending import Sending

_WITHIN_S = 30
_MOST_RESPONSE_BYTES = 1024 * 1024
_MOST_CONSUMERS = 65_536
_time_ns = time.time_ns

Place = tuple[str, int]


class Consumer:
    """Whom notifications go to: a peer of the stamps."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.mark = 0
        self.marked_in = 0

    def remote(self) -> Place:
        """Where it listens."""
        return self.place


class Pool:
    """Threads that do what is in a queue without bound."""

    def __init__(self, threads: int) -> None:
        self._tasks: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._threads = [threading.Thread(target=self._work, name=f"delivery-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Do it when its turn has come."""
        self._tasks.put(task)

    def waiting(self) -> int:
        """Tasks that nobody has begun."""
        return self._tasks.qsize()

    def stop(self, until_s: float, *, give_up: Callable[[], None]) -> int:
        """Finish what is queued, by `until_s` (monotonic) at the latest; the number of tasks given up.

        `give_up` is called then: what is still being done is to wait no more.
        """
        while self._tasks.unfinished_tasks and time.monotonic() < until_s:  # a task may put others in the queue
            time.sleep(0.02)
        give_up()
        left = 0
        with contextlib.suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
                left += 1
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(max(until_s - time.monotonic(), 0.1))
        return left

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:  # noqa: BLE001  one event must not cost a thread of the pool
                traceback.print_exc()
            finally:
                self._tasks.task_done()


class Sender:
    """POSTs on blocking sockets: a new connection each time, or one that is kept."""

    def __init__(self, *, reuse: bool, guard: Guard | None, sending: Sending) -> None:
        self._sending = sending
        self._reuse = reuse
        self._tls = guard.client_context if guard else None
        self._kept: dict[Place, collections.deque[socket.socket]] = {}

    def post(self, place: Place, path: str, body: bytes) -> tuple[bool, int]:
        """(whether the answer is 2xx, the instant of the send in ns, 0 without one); any failure is False."""
        request = post_request(*place, path, body, keep=self._reuse)
        kept = self._take(place)
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):
                return self._exchange(place, kept, request)
        try:
            return self._exchange(place, _connect(place, self._tls, self._sending), request)
        except _UnansweredError as error:
            return False, error.sent_ns
        except (OSError, ValueError):
            return False, 0

    def _exchange(self, place: Place, connection: socket.socket, request: bytes) -> tuple[bool, int]:
        responses = Responses()
        answers: list[tuple[int, bytes]] = []
        read = 0
        sent_ns = _time_ns()
        try:
            connection.sendall(request)
            while not answers:
                data = connection.recv(65_536)
                read += len(data)
                if not data or read > _MOST_RESPONSE_BYTES:
                    raise ConnectionResetError("the connection ended before the answer")
                answers = responses.take(data)
        except (OSError, ValueError) as error:
            connection.close()
            raise _UnansweredError(sent_ns) from error
        if self._reuse and not responses.closing:
            self._kept.setdefault(place, collections.deque()).append(connection)
        else:
            connection.close()
        return 200 <= answers[0][0] < 300, sent_ns  # noqa: PLR2004

    def _take(self, place: Place) -> socket.socket | None:
        try:
            return self._kept[place].pop()
        except (KeyError, IndexError):
            return None


class _UnansweredError(OSError):
    """A request was sent at `sent_ns` and not answered."""

    def __init__(self, sent_ns: int) -> None:
        super().__init__("no answer")
        self.sent_ns = sent_ns


def _connect(place: Place, tls: ssl.SSLContext | None, sending: Sending) -> socket.socket:
    connection = socket.create_connection(place, timeout=_WITHIN_S)
    sending.set_on(connection)
    if tls is not None:
        connection = tls.wrap_socket(connection)
    connection.setblocking(True)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", _WITHIN_S, 0))
    return connection


class Report:
    """What became of one event's notifications; complete when the last of them has ended."""

    def __init__(self, expected: int) -> None:
        self._left = expected
        self._turn = threading.Lock()
        self.results: dict[str, bool] = {}

    def enter(self, url: str, delivered: bool) -> bool:
        """Whether this was the last one."""
        with self._turn:
            self.results[url] = delivered
            self._left -= 1
            return self._left == 0


class Notifications:
    """The stored filters and what each event sets off."""

    wanted = True
    """A publisher is told of an event that nobody wanted, too."""

    def __init__(self, handler: WorkerHandler) -> None:
        settings = handler.settings
        self._handler = handler
        self._feeds_back = settings.feedback
        self._store = FilterStore(settings)
        self._sender = Sender(reuse=settings.connection_reuse, guard=handler.guard, sending=settings.sending)
        self._fresh_sender = Sender(reuse=False, guard=handler.guard, sending=Sending())
        self._pool = Pool(max((os.cpu_count() or 1) - 1, 1))
        self._consumers: dict[Place, Consumer] = {}

    def __len__(self) -> int:
        return len(self._store)

    def add(self, wanted: Filter) -> Filter | None:
        """Store a filter, or None where (type, consumer) is there already."""
        return self._store.add(wanted)

    def remove(self, event_type: str, consumer_name: str) -> bool:
        """Remove a consumer's filters of one type; False when nobody is known by that name."""
        return self._store.remove(event_type, consumer_name)

    def listed(self) -> list[Filter]:
        """Every filter."""
        return self._store.listed()

    def find(self, number: int) -> Filter | None:
        """The filter of that number."""
        return self._store.find(number)

    def alter(self, number: int, change: Callable[[Filter], Filter]) -> Filter | None:
        """Put another filter in the place of one."""
        return self._store.alter(number, change)

    def delete(self, number: int) -> bool:
        """Remove the filter of that number."""
        return self._store.delete(number)

    def remove_old(self, now: datetime) -> None:
        """Let a thread of the pool remove every filter that ended before now."""
        self._pool.submit(functools.partial(self._remove_old, now))

    def _remove_old(self, now: datetime) -> None:
        with contextlib.suppress(Problem):  # a database that is away is asked again when it is due
            self._store.log(f"{self._store.remove_old(now)} old filters removed.")

    def wants(self, event_type: str) -> bool:  # noqa: ARG002
        """Not known before the storage is asked."""
        return False

    def publish(
        self, source: System, event: Event, timestamp: datetime, passage: Passage | None, feedback_uri: str | None
    ) -> list[asyncio.Future[None]]:
        """Put an event in the pool's queue; its publisher does not wait."""
        self._pool.submit(functools.partial(self._propagate, source, event, timestamp, passage, feedback_uri))
        return []

    def queued(self) -> int:
        """Events and notifications that wait for a thread."""
        return self._pool.waiting()

    def stop(self, until_s: float) -> None:
        """Deliver what is queued while there is time."""
        left = self._pool.stop(until_s, give_up=self._store.give_up)
        with self._handler.turn:
            self._handler.exchange.tally.dropped_disconnected += left
        self._store.close()

    def _propagate(
        self, source: System, event: Event, timestamp: datetime, passage: Passage | None, feedback_uri: str | None
    ) -> None:
        chosen = [wanted for wanted in self._store.of_type(event.type) if wanted.wants(event, source, timestamp)]
        body = json.dumps(event.document(timestamp), separators=(",", ":")).encode()
        report = Report(len(chosen))
        tell = functools.partial(self._report, source, feedback_uri, report)
        if chosen and self._handler.log is not None:
            self._handler.log.leaves(event.payload)
        for wanted in chosen:
            self._store.log(f"Notification of {wanted.consumer.name} goes to {self._url(wanted)}")
            self._pool.submit(functools.partial(self._notify, wanted, body, passage, report, tell))
        if not chosen:
            tell()

    def _notify(
        self, wanted: Filter, body: bytes, passage: Passage | None, report: Report, tell: Callable[[], None]
    ) -> None:
        place = (wanted.consumer.address, wanted.consumer.port)
        delivered, sent_ns = self._sender.post(place, wanted.notify_uri or "", body)
        handler, tally = self._handler, self._handler.exchange.tally
        with handler.turn:
            if delivered:
                tally.sent += 1
                tally.sent_bytes += len(body)
            else:
                tally.dropped_disconnected += 1
            if passage is not None and sent_ns:
                handler.recorder.stamp_later(passage, self._consumer(place), sent_ns)
        self._store.log(f"{self._url(wanted)} was {'notified' if delivered else 'not reached'}")
        if report.enter(self._url(wanted), delivered):
            tell()

    def _report(self, source: System, feedback_uri: str | None, report: Report) -> None:
        self._store.log(f"Event published to {sum(report.results.values())} subscribers.")
        if feedback_uri is None or not self._feeds_back:
            return
        self._store.log(f"Feedback goes to http://{source.address}:{source.port}/{feedback_uri.lstrip('/')}")
        body = json.dumps(report.results).encode()
        told, _ = self._fresh_sender.post((source.address, source.port), feedback_uri, body)
        self._store.log(f"Feedback was {'taken' if told else 'not taken'}")

    def _url(self, wanted: Filter) -> str:
        return wanted.url(secure=self._handler.guard is not None)

    def _consumer(self, place: Place) -> Consumer:
        if len(self._consumers) >= _MOST_CONSUMERS:
            self._consumers.clear()
        return self._consumers.setdefault(place, Consumer(place))


class OriginalHandler(WorkerHandler):
    """Stored filters only."""

    subscribed_by = ("POST", "PUT")

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        self.callbacks: Notifications = Notifications(self)

    def finish(self, until_s: float) -> None:
        """Deliver what is queued."""
        self.callbacks.stop(until_s)
