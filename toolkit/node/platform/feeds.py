"""What the hub gets from its brokers: one subscription for each filter and QoS, however many customers share it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import replace

from toolkit.contract.orders import RunOrder
from toolkit.node.drivers import make_driver
from toolkit.node.drivers.base import SubscribingConnection
from toolkit.node.redial import Redial

_DIAL_WITHIN_S = 10.0
_NUMBERS = itertools.count()
Arrived = Callable[["Source", bytes, bytes, int, int], None]
"""(source, topic, payload, flags, instant of the read)"""


class Source:
    """One connection of a feed."""

    __slots__ = ("connection", "peer", "peer_run", "slot")

    def __init__(self, connection: SubscribingConnection, slot: int) -> None:
        self.connection = connection
        self.slot = slot
        self.peer = 0
        self.peer_run = 0

    def flow(self) -> tuple[str, int]:
        """Our end of the connection."""
        return self.connection.local()


class Feed:
    """The subscription to one filter at every broker; a lost connection is dialled again."""

    def __init__(
        self,
        order: RunOrder,
        brokers: tuple[str, ...],
        loop: asyncio.AbstractEventLoop,
        *,
        arrived: Arrived,
        lost: Callable[[], None],
    ) -> None:
        """`order.topics` is the one filter; `lost` is called for each connection that is."""
        self._filter = order.topics[0].encode()
        self._orders = [replace(order, broker=broker) for broker in brokers]
        self._driver = make_driver(order.protocol)
        self._loop = loop
        self._arrived = arrived
        self._lost_one = lost
        self._sources: dict[int, Source] = {}
        """By descriptor."""
        self._redial: Redial[list[SubscribingConnection]] = Redial()
        self._paused = False
        self._closed = False

    async def open(self) -> None:
        """Subscribe at every broker; raises OSError or WorkloadError."""
        try:
            for slot in range(len(self._orders)):
                self._adopt(slot, await self._loop.run_in_executor(None, self._dial, slot))
        except BaseException:
            self.close()
            raise
        self._loop.add_reader(self._redial.fd, self._opened)

    def pause(self) -> None:
        """Read no more: what comes waits at the broker."""
        if not self._paused:
            self._paused = True
            for fd in self._sources:
                self._loop.remove_reader(fd)

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self._closed:
            self._paused = False
            for fd, source in self._sources.items():
                self._loop.add_reader(fd, self._read, source)

    def keep_alive(self) -> None:
        """To be called about once a second."""
        for source in list(self._sources.values()):
            try:
                source.connection.keep_alive()
            except ConnectionError:
                self._lost(source)

    def close(self) -> None:
        """Unsubscribe everywhere."""
        self._closed = True
        self._loop.remove_reader(self._redial.fd)
        self._redial.stop()
        for source in list(self._sources.values()):
            self._drop(source)

    def _dial(self, slot: int) -> list[SubscribingConnection]:
        order = self._orders[slot]
        identity = f"{order.run}-{next(_NUMBERS)}"  # a client id that was just lost may still be known to the broker
        return self._driver.open_subscribers(order, identity=identity, before=(), timeout_s=_DIAL_WITHIN_S)

    def _adopt(self, slot: int, connections: list[SubscribingConnection]) -> None:
        for connection in connections:
            source = Source(connection, slot)
            fd = connection.fileno()
            self._sources[fd] = source
            if not self._paused:
                self._loop.add_reader(fd, self._read, source)
            self._take(source, time.time_ns())  # what came with the confirmation

    def _opened(self) -> None:
        for slot, connections in self._redial.opened():
            self._adopt(slot, connections)

    def _read(self, source: Source) -> None:
        try:
            at_ns = source.connection.read()
        except ConnectionError:
            self._lost(source)
            return
        self._take(source, at_ns)

    def _take(self, source: Source, at_ns: int) -> None:
        try:
            messages = source.connection.messages()
        except ConnectionError:
            self._lost(source)
            return
        topics = getattr(source.connection, "topics", None)
        for index, (payload, flags) in enumerate(messages):
            self._arrived(source, topics[index] if topics else self._filter, payload, flags, at_ns)

    def _lost(self, lost: Source) -> None:
        """Give up every connection to that broker and dial again."""
        for source in list(self._sources.values()):
            if source.slot == lost.slot:
                self._drop(source)
        if not self._closed:
            self._lost_one()
            self._redial.begin(lost.slot, lambda: self._dial(lost.slot), _close_all)

    def _drop(self, source: Source) -> None:
        for fd, known in list(self._sources.items()):
            if known is source:
                self._loop.remove_reader(fd)
                del self._sources[fd]
        source.connection.close()


def _close_all(connections: list[SubscribingConnection]) -> None:
    for connection in connections:
        connection.close()
