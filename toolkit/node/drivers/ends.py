"""What the ends of all protocols on one TCP connection have alike: the wire, and the window of unanswered messages."""

from __future__ import annotations

import collections
from typing import Any

from toolkit.node.drivers.base import Key
from toolkit.node.drivers.wire import Wire


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
