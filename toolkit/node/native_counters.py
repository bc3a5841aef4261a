"""What an MQTT broker says of itself in `$SYS`, read over the smallest of MQTT clients.

Mosquitto counts the messages it drops nowhere else. Topics are those of Mosquitto 2.0; 2.1 renamed some, so both are
asked for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from toolkit.contract import metrics
from toolkit.node import exposition

TOPICS = {
    "$SYS/broker/publish/messages/dropped": "dropped",
    "$SYS/broker/mqtt/publish/dropped": "dropped",
    "$SYS/broker/subscriptions/count": "subscriptions",
}
KEEP_ALIVE_S = 30
REDIAL_S = 2.0
INTERVAL_S = 1.0
"""`sys_interval` in the configuration that toolkit renders."""
_PUBLISH, _CONNACK = 3, 2


class NativeCounters:
    """The latest numbers, kept fresh by a thread of its own."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = host, port
        self._latest: dict[str, int] = {}
        self._thread = threading.Thread(target=self._listen, name="native", daemon=True)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], ports: Sequence[int]) -> NativeCounters | None:
        """None where TOOLKIT_PROBE_SYS is 0: for brokers that have no `$SYS`."""
        return cls(ports[0]) if ports and environ.get("TOOLKIT_PROBE_SYS", "1") == "1" else None

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def read(self, *, settled: bool = False) -> dict[str, int]:
        """The latest numbers; `settled` waits one interval, so that they cover what has happened until this call."""
        if settled and self._latest:
            time.sleep(INTERVAL_S + 0.2)
        return dict(self._latest)

    def readings(self) -> Iterable[exposition.Reading]:
        """As metrics of the broker."""
        latest = self._latest
        named: list[tuple[str, metrics.Metric, tuple[str, ...]]] = [
            ("dropped", metrics.BROKER_DROPPED, ("queue_full",)),
            ("subscriptions", metrics.BROKER_SUBSCRIBERS, ()),
        ]
        return [(metric, labels, latest[name]) for name, metric, labels in named if name in latest]

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                self._converse()
            time.sleep(REDIAL_S)

    def _converse(self) -> None:
        with socket.create_connection(self._address, timeout=5) as broker:
            broker.settimeout(KEEP_ALIVE_S / 2)
            name = b"\0\4MQTT\4\2" + struct.pack(">H", KEEP_ALIVE_S) + _text("")
            broker.sendall(_packet(0x10, name))
            with broker.makefile("rb") as stream:
                kind, body = _read_packet(stream.read)
                if kind != _CONNACK or body[1:2] != b"\0":
                    raise ConnectionRefusedError(f"the broker at port {self._address[1]} refuses to be asked")
                broker.sendall(_packet(0x82, b"\0\1" + b"".join(_text(topic) + b"\0" for topic in TOPICS)))
                asked_s = time.monotonic()
                while True:
                    kind, body = _read_packet(stream.read)
                    if kind == _PUBLISH:
                        self._take(body)
                    if time.monotonic() - asked_s > KEEP_ALIVE_S / 2:
                        asked_s = time.monotonic()
                        broker.sendall(b"\xc0\0")

    def _take(self, body: bytes) -> None:
        length = int.from_bytes(body[:2], "big")
        name = TOPICS.get(body[2 : 2 + length].decode("utf-8", "replace"))
        if name is not None:
            with contextlib.suppress(ValueError):
                self._latest[name] = int(body[2 + length :]) - (len(TOPICS) if name == "subscriptions" else 0)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _packet(first: int, body: bytes) -> bytes:
    length = b""
    left = len(body)
    while True:
        left, digit = left >> 7, left & 0x7F
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def _read_packet(read: Callable[[int], bytes]) -> tuple[int, bytes]:
    first = read(1)
    if not first:
        raise ConnectionResetError("the broker closed the connection")
    length = shift = 0
    while True:
        digit = read(1)[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:  # noqa: PLR2004
            return first[0] >> 4, read(length)
