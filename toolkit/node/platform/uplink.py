"""The gateway's one connection to its broker, by any driver, inside the event loop; dialled again when it is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from collections.abc import Callable, Sequence
from typing import cast

from toolkit.contract.orders import RunOrder
from toolkit.errors import WorkloadError
from toolkit.node.drivers import make_driver
from toolkit.node.drivers.base import ForwardingConnection, Key
from toolkit.node.platform.settings import EndSettings
from toolkit.node.redial import Redial

_DIAL_WITHIN_S = 10.0


class Uplink:
    """`ready` while it takes another message at once; what it cannot take waits with whoever owns it."""

    def __init__(
        self,
        order: RunOrder,
        loop: asyncio.AbstractEventLoop,
        *,
        send_buffer: int,
        answered: Callable[[Sequence[Key], Sequence[Key]], None],
        changed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        """`send_buffer`: bytes the kernel holds.

        `answered` gets keys accepted and rejected; `changed` is called when there may be room again.

        Raises WorkloadError for a protocol that cannot carry other people's messages.
        """
        self._order = order
        self._driver = make_driver(order.protocol)
        self._loop = loop
        self._send_buffer = send_buffer
        self._answered, self._changed, self._lost_then = answered, changed, lost
        self._redial: Redial[ForwardingConnection] = Redial()
        self.connection: ForwardingConnection | None = None
        self._fd = -1
        self._writing = False
        self.peer = 0
        self.peer_run = 0
        self._flow = ("", 0)
        self.window = 1
        """QoS 1 messages that may be unanswered."""
        self.problem = f"no connection to {order.broker} yet"
        """Why there is no connection; empty while there is one."""
        self.refused = False
        """The broker was there and did not let us in."""

    def start(self) -> None:
        """Dial until somebody answers."""
        self._loop.add_reader(self._redial.fd, self._opened)
        self._dial_again()

    def flow(self) -> tuple[str, int]:
        """Our end of the connection."""
        return self._flow

    @property
    def ready(self) -> bool:
        """Whether a message handed over now goes out now."""
        return self.connection is not None and not self.connection.backlog()

    def forward(self, topic: str, payload: bytes, key: Key, qos: int) -> None:
        """Send; only while `ready`."""
        connection = self.connection
        if connection is None:
            return
        try:
            connection.forward(topic, payload, key, qos)
        except ConnectionError as error:
            self._give_up(error)
            return
        if connection.wants_write() and not self._writing:
            self._writing = True
            self._loop.add_writer(self._fd, self._flush)

    def close(self) -> None:
        """End the connection and dial no more."""
        self._loop.remove_reader(self._redial.fd)
        self._redial.stop()
        if self.connection is not None:
            self._detach().close()

    def _dial_again(self) -> None:
        self._redial.begin(0, self._dial, lambda connection: connection.close())

    def _dial(self) -> ForwardingConnection:
        try:
            connection = self._driver.open_publisher(self._order, connection=0, fill=b"", timeout_s=_DIAL_WITHIN_S)
        except (OSError, WorkloadError) as error:
            self.problem = f"no connection to {self._order.broker}: {error}"
            self.refused = isinstance(error, WorkloadError)
            raise
        return cast("ForwardingConnection", connection)  # `check_upstream` has seen to it

    def _opened(self) -> None:
        for _, connection in self._redial.opened():
            self.connection = connection
            self.peer_run = 0
            self._flow = connection.local()
            self.problem = ""
            self.refused = False
            self.window = int(connection.facts.get("window", self._order.options["max_inflight"]))
            self._fd = connection.fileno()
            with socket.socket(fileno=os.dup(self._fd)) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            self._loop.add_reader(self._fd, self._read)
            self._changed()

    def _read(self) -> None:
        if self.connection is None:
            return
        try:
            _, accepted, rejected = self.connection.answers()
        except ConnectionError as error:
            self._give_up(error)
            return
        if accepted or rejected:
            self._answered(accepted, rejected)
        self._changed()

    def _flush(self) -> None:
        if self.connection is None:
            return
        try:
            self.connection.flush()
        except ConnectionError as error:
            self._give_up(error)
            return
        if not self.connection.wants_write():
            self._writing = False
            self._loop.remove_writer(self._fd)
            self._changed()

    def _give_up(self, error: ConnectionError) -> None:
        self.problem = str(error)
        self._detach().close()
        self._dial_again()
        self._lost_then()

    def _detach(self) -> ForwardingConnection:
        assert self.connection is not None  # noqa: S101
        self._loop.remove_reader(self._fd)
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        connection, self.connection = self.connection, None
        return connection


def upstream_order(role: str, settings: EndSettings, *, broker: str, identity: str) -> RunOrder:
    """What a driver needs to know of a connection that carries anybody's messages; QoS 1, so that it has answers."""
    if role == "gateway":
        check_upstream(settings.protocol)
    return RunOrder(
        run=identity,
        testbed="",
        role="gateway" if role == "gateway" else "hub",
        protocol=settings.protocol,
        broker=broker,
        topics=[role],
        streams=[zlib.crc32(identity.encode())],
        qos=1,
        options={"mqtt": settings.mqtt, "max_inflight": settings.max_inflight, **settings.entry},
    )


def check_upstream(protocol: str) -> None:
    """Raises WorkloadError for a protocol whose driver cannot send on what others have made."""
    if protocol not in FORWARDING:
        raise WorkloadError(
            f"a gateway cannot send on over {protocol}; its broker may speak {', '.join(sorted(FORWARDING))}"
        )


FORWARDING = frozenset({"mqtt", "sse", "amqp", "stomp"})
"""Protocols whose publishing connections can `forward`."""
