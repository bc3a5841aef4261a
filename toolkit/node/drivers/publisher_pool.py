"""Several kept connections for one publisher: each message goes on one that waits for no answer, if there is one."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any

from toolkit.node.drivers.base import ForwardingConnection, Key


class PublisherPool:
    """A publishing connection made of others. What is sent on two of them may overtake each other."""

    def __init__(self, connections: Sequence[ForwardingConnection]) -> None:
        self._connections = {connection.fileno(): connection for connection in connections}
        self._unanswered = dict.fromkeys(self._connections, 0)
        self._local = connections[0].local()
        self._ready = select.epoll()
        for fd in self._connections:
            self._ready.register(fd, select.EPOLLIN)
        self.facts: dict[str, Any] = connections[0].facts | {"pool_size": len(connections)}

    def fileno(self) -> int:
        """An epoll set of every connection."""
        return self._ready.fileno()

    def local(self) -> tuple[str, int]:
        """Address and port of our end of the first connection."""
        return self._local

    def publish(self, topic: int, header: bytes, key: Key) -> None:
        """One message on the connection with the fewest unanswered."""
        fd = self._freest()
        self._connections[fd].publish(topic, header, key)
        self._sent(fd)

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:
        """The same for a message of any size."""
        fd = self._freest()
        self._connections[fd].forward(topic, payload, key, qos)
        self._sent(fd)

    def answers(self) -> tuple[int, list[Key], list[Key]]:
        """What one connection's read brought, so that no two share an instant; sends what could not be sent before."""
        for fd, events in self._ready.poll(0):
            connection = self._connections[fd]
            if events & select.EPOLLOUT:
                connection.flush()
                if not connection.wants_write():
                    self._ready.modify(fd, select.EPOLLIN)
            if events & ~select.EPOLLOUT:
                at_ns, accepted, rejected = connection.answers()
                self._unanswered[fd] -= len(accepted) + len(rejected)
                self.facts |= connection.facts
                return at_ns, accepted, rejected
        return time.time_ns(), [], []

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return sum(connection.backlog() for connection in self._connections.values())

    def wants_write(self) -> bool:
        """Never: in a set within a set readiness to write shows as readiness to read, and `answers` does that."""
        return False

    def flush(self) -> None:
        """See `answers`."""

    def close(self) -> None:
        """End every connection."""
        self._ready.close()
        for connection in self._connections.values():
            connection.close()

    def _freest(self) -> int:
        return min(self._unanswered, key=self._unanswered.__getitem__)

    def _sent(self, fd: int) -> None:
        self._unanswered[fd] += 1
        if self._connections[fd].wants_write():
            self._ready.modify(fd, select.EPOLLIN | select.EPOLLOUT)
