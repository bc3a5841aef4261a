"""DDS without a broker: publishers write straight to the subscribers they have found, by Cyclone DDS.

QoS 0 is best effort; QoS 1 is reliable with KeepAll, and T5 is the instant at which the library knows that every reader
has acknowledged all that was written so far. There is no QoS 2, no TLS, no password.

Options of an order: `peers` (addresses of every node of the run), `readers` (how many subscribers each topic has: a
publisher is ready once it has found them), `dds_domain`, `multicast` (look for peers by multicast too), `max_inflight`,
`queue_limit` (samples a best-effort reader keeps for a busy subscriber).
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers.base import Driver, Key, Message, PublishingConnection, SubscribingConnection
from toolkit.node.drivers.cyclone import Domain, Reader, Writer, configuration

_USUAL_WINDOW = 1 << 16
_USUAL_QUEUE = 1000
_LAST_DOMAIN = 230
_LOOK_EVERY_S = 0.02
_ACK_WITHIN_S = 0.2
_SETTLE_S = 0.2
"""From a reader found by the writer to the writer found by the reader; what is sent before that, it may not see."""
_ANY_PORT = 9


class _Participant:
    """What publisher and subscriber have alike: a participant, and a descriptor that is readable when there is work."""

    def __init__(self, order: RunOrder) -> None:
        self._peers = [str(peer) for peer in order.options.get("peers", ())] or ["127.0.0.1"]
        self._own = own_address(self._peers)
        self._domain = int(order.options.get("dds_domain", 0))
        config = configuration(self._own, self._peers, multicast=bool(order.options.get("multicast", False)))
        self._participant = Domain.enter(self._domain, config)
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
        self.facts: dict[str, Any] = {"dds": "Cyclone DDS", "address": self._own, "granted_qos": order.qos}

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._fd

    def local(self) -> tuple[str, int]:
        """Our address; all participants of a process share their ports."""
        return self._own, 0

    def close(self) -> None:
        """Leave the domain."""
        Domain.leave(self._domain, self._participant)
        os.close(self._fd)


class DdsPublisher(_Participant):
    """A writer per topic; at QoS 1 what exceeds the window, or what lagging readers leave no room for, waits here."""

    def __init__(self, order: RunOrder, *, fill: bytes, timeout_s: float) -> None:
        super().__init__(order)
        self._fill = fill
        self._window = int(order.options.get("max_inflight", _USUAL_WINDOW)) if order.qos else 0
        self._message_bytes = order.payload_bytes + 64
        self._in_flight: collections.deque[tuple[Writer, Key]] = collections.deque()
        self._queue: collections.deque[tuple[int, bytes, Key]] = collections.deque()
        self._done: collections.deque[tuple[int, list[Key]]] = collections.deque()
        self._wake = threading.Semaphore(0)
        self._closed = False
        self.facts["window"] = self._window
        try:
            self._writers = [Writer(self._participant, topic, reliable=order.qos > 0) for topic in order.topics]
            self._find_readers(order, timeout_s)
        except BaseException:
            super().close()
            raise
        self._thread = threading.Thread(target=self._watch_answers, name="dds-answers", daemon=True)
        if self._window:
            self._thread.start()

    def _find_readers(self, order: RunOrder, timeout_s: float) -> None:
        wanted = int(order.options.get("readers", 0))
        started_s = time.monotonic()
        while (
            missing := [w for w in self._writers if w.readers() < wanted]
        ) and time.monotonic() - started_s < timeout_s:
            time.sleep(_LOOK_EVERY_S)
        if missing:
            found, others = missing[0].readers(), missing[0].mismatched()
            why = f"; {others} want another QoS" if others else f"; looked in domain {self._domain} at {self._peers}"
            raise WorkloadError(f"found {found} of {wanted} subscribers within {timeout_s:g} s{why}")
        self.facts["matched_ms"] = round((time.monotonic() - started_s) * 1000, 3)
        time.sleep(_SETTLE_S)

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One write, from the caller's thread to the socket."""
        if not self._window:
            self._writers[topic].write(header + self._fill)
        elif len(self._in_flight) >= self._window or self._queue or not self._offer(topic, header, key):
            self._queue.append((topic, header, key))

    def _offer(self, topic: int, header: bytes, key: Key) -> bool:
        writer = self._writers[topic]
        if not writer.write(header + self._fill):
            return False
        self._in_flight.append((writer, key))
        self._wake.release()
        return True

    def _watch_answers(self) -> None:
        """All that was in flight when we began to wait has been acknowledged when the wait is over."""
        while not self._closed:
            self._wake.acquire(timeout=_ACK_WITHIN_S)
            count = len(self._in_flight)
            pending = [self._in_flight[index] for index in range(count)]
            if not count or not all(w.await_acknowledged(_ACK_WITHIN_S) for w in dict.fromkeys(w for w, _ in pending)):
                continue
            self._done.append((time.time_ns(), [key for _, key in pending]))
            for _ in range(count):
                self._in_flight.popleft()
            with contextlib.suppress(OSError):
                os.eventfd_write(self._fd, 1)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """What was acknowledged together; DDS rejects nothing."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        at_ns, accepted = self._done.popleft() if self._done else (time.time_ns(), [])
        while self._queue and len(self._in_flight) < self._window and self._offer(*self._queue[0]):
            self._queue.popleft()
        return at_ns, accepted, []

    def backlog(self) -> int:
        """Bytes handed over and not written yet."""
        return len(self._queue) * self._message_bytes

    def wants_write(self) -> bool:
        """Nothing waits for a socket here."""
        return False

    def flush(self) -> None:
        """Nothing waits for a socket here."""

    def close(self) -> None:
        """Leave the domain; what no reader has acknowledged is not sent again."""
        self._closed = True
        self._wake.release()
        if self._window:
            self._thread.join()
        super().close()


class DdsSubscriber(_Participant):
    """A reader per topic; stamps are taken in the library's thread, as it hands a sample over."""

    def __init__(self, order: RunOrder) -> None:
        super().__init__(order)
        self._arrived: collections.deque[tuple[int, list[bytes]]] = collections.deque()
        self._now: list[bytes] = []
        depth = int(order.options.get("queue_limit", _USUAL_QUEUE)) or 1 << 20
        self._readers: list[Reader] = []
        try:
            for topic in order.topics:
                self._readers.append(
                    Reader(self._participant, topic, reliable=order.qos > 0, depth=depth, on_data=self._on_data)
                )
        except BaseException:
            super().close()
            raise

    def _on_data(self, reader: Reader) -> None:
        at_ns = time.time_ns()
        if payloads := reader.take():
            self._arrived.append((at_ns, payloads))
            with contextlib.suppress(OSError):
                os.eventfd_write(self._fd, 1)

    def read(self) -> int:
        """Take what came together; the instant at which it did, in ns."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        at_ns, self._now = self._arrived.popleft() if self._arrived else (time.time_ns(), [])
        return at_ns

    def messages(self) -> list[Message]:
        """What the last `read` took."""
        return [(payload, 0) for payload in self._now]

    def keep_alive(self) -> None:
        """The library does; here its count of lost samples is noted."""
        self.facts["samples_lost"] = sum(reader.lost() for reader in self._readers)

    def close(self) -> None:
        """Leave the domain."""
        self.keep_alive()
        super().close()


def own_address(peers: Sequence[str]) -> str:
    """The one among the peers that is us, else the address by which we reach the first; raises WorkloadError."""
    own = []
    for peer in peers:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((peer, _ANY_PORT))
            except OSError as error:
                raise WorkloadError(f"DDS peer {peer!r} cannot be reached: {error.strerror or error}") from error
            own.append(str(probe.getsockname()[0]))
    return next((address for address, peer in zip(own, peers, strict=True) if address == peer), own[0])


class DdsDriver:
    """Cyclone DDS; every node needs its library."""

    name = "dds"

    def check(self, order: RunOrder) -> None:
        """Refuse what DDS does not have here."""
        if order.qos not in (0, 1):
            raise ValueError(f"DDS is best effort (QoS 0) or reliable (QoS 1), not {order.qos}")
        for option in ("tls", "user"):
            if order.options.get(option):
                raise ValueError(
                    f"DDS here knows no {option}: DDS Security is not set up by toolkit; send its traffic through a "
                    "tunnel between the nodes, such as WireGuard, or choose another protocol"
                )
        if not 0 <= int(order.options.get("dds_domain", 0)) <= _LAST_DOMAIN:
            raise ValueError(f"dds_domain is 0 to {_LAST_DOMAIN}, not {order.options['dds_domain']}")
        for topic in order.topics:
            if not topic:
                raise ValueError("a DDS topic needs a name")

    def answers(self, order: RunOrder) -> bool:
        """Best effort is never answered."""
        return order.qos > 0

    def open_publisher(
        self,
        order: RunOrder,
        *,
        connection: int,  # noqa: ARG002
        fill: bytes,
        timeout_s: float,
    ) -> PublishingConnection:
        """One participant."""
        return DdsPublisher(order, fill=fill, timeout_s=timeout_s)

    def open_subscribers(
        self,
        order: RunOrder,
        *,
        identity: str,  # noqa: ARG002
        before: Sequence[SubscribingConnection],  # noqa: ARG002
        timeout_s: float,  # noqa: ARG002
    ) -> list[SubscribingConnection]:
        """One participant."""
        return [DdsSubscriber(order)]


DRIVER: Driver = DdsDriver()
