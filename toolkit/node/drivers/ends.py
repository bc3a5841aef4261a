"""What the ends of all protocols on one TCP connection have alike: the wire, and the window of unanswered messages."""

from __future__ import annotations

import collections
import time
from typing import Any, ClassVar

from toolkit.contract.orders import RunOrder
from toolkit.node.drivers.base import Key
from toolkit.node.drivers.wire import Wire

_BEAT_EVERY_S = 20.0


def is_persistent(order: RunOrder) -> bool:
    """Whether subscriptions and messages are to survive the broker."""
    return bool(order.options.get("session") == "persistent")


def is_shared(order: RunOrder) -> bool:
    """Whether all subscribers of the run are one group, and each message is for one of them."""
    return bool(order.options.get("share"))


class WireEnd:
    """One connection on one wire."""

    def __init__(self, wire: Wire, facts: dict[str, Any]) -> None:
        self._wire = wire
        self.facts = facts

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._wire.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end."""
        return self._wire.local()

    def wants_write(self) -> bool:
        """Whether `flush` has something to do once the kernel takes more."""
        return self._wire.backlog() > 0

    def flush(self) -> None:
        """Offer the backlog to the kernel again."""
        self._wire.flush()


class WindowedPublisher(WireEnd):
    """Has at most `window` messages unanswered; the rest waits here, after T1. A window of 0 is for no answers."""

    def __init__(self, wire: Wire, facts: dict[str, Any], *, window: int, message_bytes: int) -> None:
        super().__init__(wire, {**facts, "window": window})
        self._window = window
        self._message_bytes = message_bytes
        self._in_flight: dict[int, Key] = {}
        self._queue: collections.deque[tuple[int, bytes, Key]] = collections.deque()

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One message, one system call."""
        if not self._window:
            self._send(topic, header)
        elif len(self._in_flight) < self._window and not self._queue:
            self._offer(topic, header, key)
        else:
            self._queue.append((topic, header, key))

    def backlog(self) -> int:
        """Bytes handed over and not sent yet, whatever they wait for."""
        return self._wire.backlog() + len(self._queue) * self._message_bytes

    def _send(self, topic: int, header: bytes) -> None:
        """A message that is not answered."""
        raise NotImplementedError

    def _offer(self, topic: int, header: bytes, key: Key) -> None:
        """A message that is answered; notes its key in `_in_flight`."""
        raise NotImplementedError

    def _offer_waiting(self) -> None:
        while self._queue and len(self._in_flight) < self._window:
            self._offer(*self._queue.popleft())


class SubscribingEnd(WireEnd):
    """Reads what arrives, and shows now and then that it is alive."""

    beat: ClassVar[bytes]
    """What the protocol takes for a sign of life."""

    def __init__(self, wire: Wire, facts: dict[str, Any]) -> None:
        super().__init__(wire, facts)
        self._data = b""
        self._beat_s = time.monotonic()

    def read(self) -> int:
        """Read what is there; the instant right after the read, in ns."""
        self._data, at_ns = self._wire.read()
        return at_ns

    def keep_alive(self) -> None:
        """A sign of life, well within what brokers wait for; a dead way is noticed by it."""
        now_s = time.monotonic()
        if now_s - self._beat_s > _BEAT_EVERY_S:
            self._beat_s = now_s
            self._wire.send(self.beat)
