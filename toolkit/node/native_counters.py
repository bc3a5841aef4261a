"""What an unmodified broker says of itself: messages it dropped, subscriptions it holds; asked for on its own node.

Mosquitto tells it in `$SYS`, RabbitMQ on its metrics page, ActiveMQ in advisories.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from toolkit.contract import metrics
from toolkit.node import exposition
from toolkit.node.drivers import stomp_frames

TOPICS = {
    "$SYS/broker/publish/messages/dropped": "dropped",
    "$SYS/broker/mqtt/publish/dropped": "dropped",
    "$SYS/broker/subscriptions/count": "subscriptions",
}
"""Of Mosquitto 2.0 and 2.1; the second is what 2.1 documents, while 2.1.2 still tells the first."""
KEEP_ALIVE_S = 30
REDIAL_S = 2.0
INTERVAL_S = 1.0
"""`sys_interval` in the configuration that toolkit renders."""
ASK_EVERY_S = 5.0
"""RabbitMQ's page has 80 kB and costs it some 10 ms of processor time."""
_PUBLISH, _CONNACK = 3, 2
_RABBITMQ = {
    "rabbitmq_global_messages_dead_lettered_maxlen_total": "dropped",
    "rabbitmq_global_messages_unroutable_dropped_total": "unroutable",
    "rabbitmq_consumers": "subscriptions",
}
_SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)
_ANSWER_S = 5.0
_FIRST_WITHIN_S = 2.0
_SETTLES_WITHIN_S = 15.0
_DISCARDED = "/topic/ActiveMQ.Advisory.MessageDiscarded.Topic.>"
"""One for each message that a subscription lost to its bound: `consumerId`, and `discardedCount` up to now."""
Converse = Callable[["NativeCounters"], None]


class NativeCounters:
    """The latest numbers, kept fresh by a thread of its own."""

    def __init__(self, kind: str, port: int) -> None:
        """Raises KeyError for a kind that nobody knows."""
        self.address = "127.0.0.1", port
        self.latest: dict[str, int] = {}
        self._wanted = threading.Event()
        self._converse = _CONVERSATIONS[kind]
        self._thread = threading.Thread(target=self._listen, name="native", daemon=True)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> NativeCounters | None:
        """TOOLKIT_PROBE_NATIVE is KIND:PORT; none where it is empty. Raises ValueError or KeyError."""
        kind, _, port = environ.get("TOOLKIT_PROBE_NATIVE", "").partition(":")
        return cls(kind, int(port)) if kind else None

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def first(self) -> dict[str, int]:
        """The numbers to count from; waits a moment for a broker that has told none yet, or is still telling them."""
        until_s = time.monotonic() + _FIRST_WITHIN_S
        told: set[str] = set()
        while (not told or told != self.latest.keys()) and time.monotonic() < until_s:
            told = set(self.latest)
            time.sleep(0.05)
        return dict(self.latest)

    def read(self, *, settled: bool = False) -> dict[str, int]:
        """The latest numbers; `settled` waits until they cover what has happened before this call, and stand still."""
        until_s = time.monotonic() + _SETTLES_WITHIN_S
        while settled and self.latest and time.monotonic() < until_s:
            seen = dict(self.latest)
            self._wanted.set()
            time.sleep(INTERVAL_S + 0.2)
            if self.latest == seen:
                break
        return dict(self.latest)

    def pause(self) -> None:
        """Until it is time to ask the broker again, or somebody waits."""
        self._wanted.wait(ASK_EVERY_S)
        self._wanted.clear()

    def readings(self) -> Iterable[exposition.Reading]:
        """As metrics of the broker."""
        latest = self.latest
        named: list[tuple[str, metrics.Metric, tuple[str, ...]]] = [
            ("dropped", metrics.BROKER_DROPPED, ("queue_full",)),
            ("unroutable", metrics.BROKER_DROPPED, ("unroutable",)),
            ("subscriptions", metrics.BROKER_SUBSCRIBERS, ()),
        ]
        return [(metric, labels, latest[name]) for name, metric, labels in named if name in latest]

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._converse(self)
            time.sleep(REDIAL_S)


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By how much each number grew; of one that was not told before it is unknown, not all that it ever counted."""
    return {name: after[name] - before[name] for name in after if name in before}


# -- Mosquitto --------------------------------------------------------------------------------------------------------


def _listen_to_sys(counters: NativeCounters) -> None:
    with socket.create_connection(counters.address, timeout=5) as broker:
        broker.settimeout(KEEP_ALIVE_S / 2)
        name = b"\0\4MQTT\4\2" + struct.pack(">H", KEEP_ALIVE_S) + _text("")
        broker.sendall(_packet(0x10, name))
        with broker.makefile("rb") as stream:
            kind, body = _read_packet(stream.read)
            if kind != _CONNACK or body[1:2] != b"\0":
                raise ConnectionRefusedError(f"the broker at port {counters.address[1]} refuses to be asked")
            broker.sendall(_packet(0x82, b"\0\1" + b"".join(_text(topic) + b"\0" for topic in TOPICS)))
            asked_s = time.monotonic()
            while True:
                kind, body = _read_packet(stream.read)
                if kind == _PUBLISH:
                    _take_topic(counters.latest, body)
                if time.monotonic() - asked_s > KEEP_ALIVE_S / 2:
                    asked_s = time.monotonic()
                    broker.sendall(b"\xc0\0")


def _take_topic(latest: dict[str, int], body: bytes) -> None:
    length = int.from_bytes(body[:2], "big")
    name = TOPICS.get(body[2 : 2 + length].decode("utf-8", "replace"))
    if name is not None:
        with contextlib.suppress(ValueError):
            latest[name] = int(body[2 + length :]) - (len(TOPICS) if name == "subscriptions" else 0)


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


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------


def _ask_rabbitmq(counters: NativeCounters) -> None:
    while True:
        page = http.client.HTTPConnection(*counters.address, timeout=_ANSWER_S)
        with contextlib.closing(page):
            page.request("GET", "/metrics")
            answer = page.getresponse()
            text = answer.read().decode()
        if answer.status == http.client.OK:
            counters.latest.update(read_rabbitmq(text))
        counters.pause()


def read_rabbitmq(page: str) -> dict[str, int]:
    """The counters on RabbitMQ's metrics page, summed over protocols and types of queue."""
    found: dict[str, int] = {}
    for name, value in _SAMPLE.findall(page):
        if name in _RABBITMQ:
            found[_RABBITMQ[name]] = found.get(_RABBITMQ[name], 0) + int(float(value))
    return found


# -- ActiveMQ ---------------------------------------------------------------------------------------------------------


def _listen_to_advisories(counters: NativeCounters) -> None:
    discarded: dict[bytes, int] = {}
    with socket.create_connection(counters.address, timeout=_ANSWER_S) as broker:
        reader = stomp_frames.FrameReader()
        hello = {"accept-version": "1.2", "host": "/", "heart-beat": "0,0"}
        wanted = {"id": "0", "destination": _DISCARDED, "ack": "auto", "receipt": "0"}
        broker.sendall(stomp_frames.frame("CONNECT", hello) + stomp_frames.frame("SUBSCRIBE", wanted))
        while True:
            data = broker.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the broker closed the connection")
            for found in reader.take(data):
                if found.command == b"ERROR":
                    raise ConnectionRefusedError(found.complaint)
                if found.command == b"CONNECTED":
                    continue
                broker.settimeout(None)  # subscribed: silence means that nothing is dropped
                take_advisory(discarded, found)
                counters.latest["dropped"] = sum(discarded.values())


def take_advisory(discarded: dict[bytes, int], found: stomp_frames.Frame) -> None:
    """Note how many messages a subscription of ActiveMQ has lost; other frames tell nothing."""
    count = found.headers.get(b"discardedCount", b"")
    if found.command == b"MESSAGE" and count.isdigit():
        discarded[found.headers.get(b"consumerId", b"")] = int(count)


_CONVERSATIONS: Mapping[str, Converse] = {
    "mqtt": _listen_to_sys,
    "rabbitmq": _ask_rabbitmq,
    "activemq": _listen_to_advisories,
}
