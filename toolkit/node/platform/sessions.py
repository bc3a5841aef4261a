"""One client of the platform, over MQTT or over HTTP, as far as gateway and hub treat it alike."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, cast

from toolkit.node.drivers import mqtt_packets
from toolkit.node.drivers.mqtt_packets import MalformedError, PacketReader, Version
from toolkit.node.event_handler.outlet import Outlet
from toolkit.node.platform import packets
from toolkit.node.platform.settings import EndSettings

_time_ns = time.time_ns
_MOST_HEAD_BYTES = 16 * 1024
_HANDSHAKE_S = 10.0
_DRAIN_S = 2.0
_PACKET_OVERHEAD = 65_600
"""A topic's largest size and what else stands before a payload."""


class End(Protocol):
    """The gateway or the hub, as its clients' connections see it."""

    sessions: dict[Session, None]

    @property
    def settings(self) -> EndSettings:
        """Its bounds."""

    @property
    def unavailable(self) -> str:
        """Why nobody can be served now; empty: all is well."""


async def end_sessions(end: End, has_queued: Callable[[], bool]) -> None:
    """Take leave of every client once nothing is queued, or after two seconds."""
    until_s = time.monotonic() + _DRAIN_S
    while has_queued() and time.monotonic() < until_s:  # noqa: ASYNC110  queues are emptied by callbacks
        await asyncio.sleep(0.02)
    for session in list(end.sessions):
        session.take_leave()


class Session(asyncio.Protocol):
    """One connection. A client that has to wait is not read from: what it has sent already is parked."""

    def __init__(self, end: End) -> None:
        self._end = end
        self.transport: asyncio.Transport | None = None
        self.outlet: Outlet | None = None
        self.peer = 0
        self.peer_run = 0
        self.closed = False
        self._flow = ("", 0)
        self._parked: collections.deque[tuple[Any, int]] = collections.deque()
        """(packet or request, instant of its read) that nobody had room for."""
        self._seen_s = time.monotonic()

    def flow(self) -> tuple[str, int]:
        """The client's address and port."""
        return self._flow

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class, not registered as one
        name = self.transport.get_extra_info("peername")
        self._flow = (name[0], name[1]) if name else ("", 0)
        self.outlet = Outlet(self.transport)
        if len(self._end.sessions) >= self._end.settings.max_connections:
            self.transport.abort()
            return
        self._end.sessions[self] = None

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        at_ns = _time_ns()
        self._seen_s = time.monotonic()
        if self.closed:
            return
        try:
            for item in self.cut(data):
                if self._parked or not self.handle(item, at_ns):
                    if not self._parked and self.transport is not None:
                        self.transport.pause_reading()
                    self._parked.append((item, at_ns))
                if self.closed:
                    return
        except MalformedError as error:
            self.refuse(error)

    def go_on(self) -> bool:
        """Take up what is parked; whether all of it could be."""
        while self._parked and not self.closed:
            item, at_ns = self._parked[0]
            try:
                if not self.handle(item, at_ns):
                    return False
            except MalformedError as error:
                self.refuse(error)
                return True
            self._parked.popleft()
        if self.transport is not None and not self.closed:
            self.transport.resume_reading()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone."""
        self._end.sessions.pop(self, None)
        self.closed = True
        self._parked.clear()
        self.gone()

    def close(self) -> None:
        """Send what is written and end the connection."""
        self.closed = True
        if self.transport is not None:
            self.transport.close()

    def take_leave(self) -> None:
        """End the connection because this process ends."""
        self.close()

    def write(self, data: bytes) -> None:
        """Answer; the event loop sends what has come together at the end of its turn."""
        if self.transport is not None and not self.closed:
            self.transport.write(data)

    # What MQTT and HTTP, gateway and hub do in their own ways.

    def cut(self, data: bytes) -> list[Any]:
        """Packets or requests that `data` completes; raises MalformedError."""
        raise NotImplementedError

    def handle(self, item: Any, at_ns: int) -> bool:
        """Serve one; False where the client has to wait. Raises MalformedError."""
        raise NotImplementedError

    def refuse(self, error: MalformedError) -> None:
        """End a connection that does not keep to the protocol."""
        raise NotImplementedError

    def check_age(self, now_s: float) -> None:
        """End the connection where its client has been silent for too long."""
        raise NotImplementedError

    def gone(self) -> None:
        """The connection is lost: forget what belongs to it."""


class MqttSession(Session):
    """Handshake, keep-alive and the end, the same for devices and customers."""

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self._reader = PacketReader(end.settings.max_payload + _PACKET_OVERHEAD)
        self.version: Version = 4
        self.asked: packets.Connect | None = None
        """What the client said in its CONNECT; None before."""
        self.will: packets.Will | None = None

    def cut(self, data: bytes) -> list[Any]:
        """Packets."""
        return self._reader.take(data)

    def handle(self, item: Any, at_ns: int) -> bool:
        """Serve one packet."""
        kind, flags, body = item
        if self.asked is None:
            self._connect(kind, body)
            return True
        if kind == mqtt_packets.PUBLISH:
            return self.published(flags, body, at_ns)
        if kind == mqtt_packets.PUBACK:
            if len(body) < 2:  # noqa: PLR2004
                raise MalformedError("a PUBACK without a packet id")
            self.acknowledged(body[0] << 8 | body[1])
        elif kind == packets.PINGREQ:
            self.write(packets.PINGRESP)
        elif kind in (packets.SUBSCRIBE, packets.UNSUBSCRIBE):
            wanted = packets.read_subscribe(self.version, body, options=kind == packets.SUBSCRIBE)
            (self.subscribed if kind == packets.SUBSCRIBE else self.unsubscribed)(*wanted)
        elif kind == mqtt_packets.DISCONNECT:
            if not body or body[0] != 4:  # noqa: PLR2004  "disconnect with will"
                self.will = None
            self.close()
        else:
            raise MalformedError(f"packet type {kind} is not for a client to send")
        return True

    def _connect(self, kind: int, body: bytes) -> None:
        if kind != packets.CONNECT:
            raise MalformedError("the first packet is not CONNECT")
        try:
            asked = packets.read_connect(body)
        except packets.UnknownVersionError:
            self.write(packets.connack(4, packets.BAD_VERSION[4]))
            self.close()
            return
        self.version = asked.version
        if self._end.unavailable:
            self.write(packets.connack(self.version, packets.UNAVAILABLE[self.version]))
            self.close()
            return
        assigned = ""
        if not asked.client_id:
            if not asked.clean and self.version == 4:  # noqa: PLR2004
                self.write(packets.connack(4, packets.BAD_CLIENT_ID[4]))
                self.close()
                return
            assigned = f"tk-{self._flow[0]}-{self._flow[1]}"
        self.asked, self.will = asked, asked.will
        self.write(
            packets.connack(
                self.version,
                packets.ACCEPTED,
                receive_maximum=min(max(self._end.settings.queue_limit, 1), 0xFFFF),
                assigned_id=assigned,
            )
        )

    def refuse(self, error: MalformedError) -> None:
        """MQTT 5 says why; 3.1.1 has no words for it."""
        self.end(packets.PROTOCOL_ERROR if "type" in str(error) else packets.MALFORMED)

    def end(self, code: int) -> None:
        """DISCONNECT with a reason where the version has that, and close."""
        if self.version == 5 and self.asked is not None:  # noqa: PLR2004
            self.write(packets.disconnect(code))
        self.close()

    def take_leave(self) -> None:
        """The server is going, which MQTT 5 can say."""
        self.end(packets.SHUTTING_DOWN)

    def check_age(self, now_s: float) -> None:
        """One and a half times the keep-alive interval, as MQTT has it."""
        silent_s = now_s - self._seen_s
        if self.asked is None:
            if silent_s > _HANDSHAKE_S:
                self.close()
        elif self.asked.keep_alive_s and silent_s > 1.5 * self.asked.keep_alive_s and not self._parked:
            self.end(packets.KEEP_ALIVE_TIMEOUT)

    def published(self, flags: int, body: bytes, at_ns: int) -> bool:
        """A PUBLISH came."""
        raise NotImplementedError

    def acknowledged(self, packet_id: int) -> None:
        """A PUBACK came."""

    def subscribed(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        """A SUBSCRIBE came."""
        raise NotImplementedError

    def unsubscribed(self, packet_id: int, wanted: list[tuple[str, int]]) -> None:
        """An UNSUBSCRIBE came."""
        self.write(packets.unsuback(self.version, packet_id, len(wanted)))


class Request:
    """One HTTP request."""

    __slots__ = ("body", "closing", "method", "path", "query")

    def __init__(self, method: str, target: str, body: bytes, *, closing: bool) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.body = body
        self.closing = closing


class HttpSession(Session):
    """Cuts requests out of the stream; bodies have a Content-Length here."""

    idle_s = 300.0

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self._in = bytearray()

    def cut(self, data: bytes) -> list[Any]:
        """Requests."""
        self._in += data
        found = []
        while (request := self._next()) is not None:
            found.append(request)
        return found

    def _next(self) -> Request | None:
        end = self._in.find(b"\r\n\r\n")
        if end < 0:
            if len(self._in) > _MOST_HEAD_BYTES:
                raise MalformedError("431")
            return None
        first, *lines = self._in[:end].decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004
            raise MalformedError("400")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in headers:
            raise MalformedError("411")
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise MalformedError("400")
        if int(length) > self._end.settings.max_payload:
            raise MalformedError("413")
        whole = end + 4 + int(length)
        if len(self._in) < whole:
            return None
        body = bytes(self._in[end + 4 : whole])
        del self._in[:whole]
        closing = headers.get("connection", "").lower() == "close" or parts[2] == "HTTP/1.0"
        return Request(parts[0], parts[1], body, closing=closing)

    def refuse(self, error: MalformedError) -> None:
        """The status says why."""
        text = str(error)
        self.write(response(int(text) if text.isdigit() else 400, closing=True))
        self.close()

    def check_age(self, now_s: float) -> None:
        """Idle connections are not kept for ever."""
        if now_s - self._seen_s > self.idle_s and not self._parked:
            self.close()


def response(status: int, *, closing: bool = False) -> bytes:
    """An answer without a body."""
    keep = "Connection: close\r\n" if closing else ""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Length: 0\r\n{keep}\r\n".encode()
