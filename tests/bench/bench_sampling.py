"""What sampling costs: the same messages with and without stamps, in short turns of one process.

Run: .venv/bin/python tests/bench/bench_sampling.py [--pairs 40] [--only "subscriber, MQTT QoS 0;broker, 1 subscriber"]
Publishers and subscribers play whole runs, as on a node, over TCP on loopback with a process that only plays their
broker and is not counted: it answers at once, and has always more to send. Counted is all the processor time that the
measured process has, from the start of a run to its last stamp in the file: of the hot thread, of the one that makes
stamps, writes them and sends some to a hop exporter, and of the kernel for both. A process that alone decides the rate
takes a message in just that time. In one row a real Mosquitto hands on as much as it can. Of the Event Handler `direct`
one thread takes requests as they come off a connection and writes answers and events to /dev/null: that tells what its
stamps cost, not which part of its rate. Turns change places from pair to pair; the cost is the median of the pairs.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import base64
import contextlib
import gc
import itertools
import json
import math
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.mosquitto import Mosquitto  # noqa: E402
from toolkit.contract.orders import RunOrder  # noqa: E402
from toolkit.contract.settings import ProcessSettings  # noqa: E402
from toolkit.node.control import Counts  # noqa: E402
from toolkit.node.drivers import mqtt_packets as packets  # noqa: E402
from toolkit.node.event_handler.recorder import Recorder  # noqa: E402
from toolkit.node.event_handler.server import EventHandler  # noqa: E402
from toolkit.node.event_handler.settings import HandlerSettings  # noqa: E402
from toolkit.node.messages import MessageMaker  # noqa: E402
from toolkit.node.publisher import Publishing  # noqa: E402
from toolkit.node.subscriber import Subscribing  # noqa: E402

TOPIC = "pressure"
STREAM = 3
PAYLOAD_BYTES = 100
WINDOW = 20
"""Messages of QoS 1 that a broker leaves unanswered; Mosquitto's."""
LIVE_EVERY = 8
"""As a deployed closed loop has it."""
EVENTS = 400

Turn = Callable[[bool], float]
"""Plays one turn, with stamps or without; us a message."""
Play = Callable[[socket.socket], None]
"""Plays a broker to one client, to the end of its connection."""
Broker = contextlib.AbstractContextManager[tuple[str, Callable[[], None]]]
"""An address, and what is called when the client is ready."""


def payloads(count: int) -> Iterator[bytes]:
    maker = MessageMaker(payload_bytes=PAYLOAD_BYTES, seed=1)
    return (maker.header(STREAM, seq, time.time_ns(), time.time_ns(), 0) + maker.fill for seq in range(count))


# -- brokers ---------------------------------------------------------------------------------------------------------


def takes_mqtt(peer: socket.socket) -> None:
    """Reads what a publisher sends, and answers what asks for it."""
    reader = packets.PacketReader()
    peer.sendall(b"\x20\x02\0\0")
    while data := peer.recv(1 << 20):
        arrived = reader.take(data)
        for _, flags, body in arrived:
            if flags & 2:
                peer.sendall(packets.acknowledgement(packets.PUBACK, int.from_bytes(body[10:12], "big")))
        if arrived and not flags:
            time.sleep(0.001)  # sleeps on while more comes in, so that no send has to wake it


def takes_posts(peer: socket.socket) -> None:
    while data := peer.recv(1 << 16):
        if data.endswith(b"}}"):
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def sends_mqtt(count: int, qos: int) -> Play:
    """Sends as fast as it is read; of QoS 1 as many as have been answered."""
    before, after = packets.publish_head(4, TOPIC, PAYLOAD_BYTES, qos)
    ids = [(seq % 65_535 + 1).to_bytes(2, "big") if qos else b"" for seq in range(count)]
    messages = [before + number + after + payload for number, payload in zip(ids, payloads(count), strict=True)]

    def play(peer: socket.socket) -> None:
        peer.sendall(b"\x20\x02\0\0")
        while not peer.recv(4096).endswith(bytes((qos,))):  # CONNECT, then SUBSCRIBE
            pass
        peer.sendall(b"\x90\x03\0\1" + bytes((qos,)))
        sent = WINDOW if qos else count
        peer.sendall(b"".join(messages[:sent]))
        answered = 0
        while data := peer.recv(1 << 16):
            answered += len(data)
            if qos and sent < answered // 4 + WINDOW:
                peer.sendall(b"".join(messages[sent : answered // 4 + WINDOW]))
                sent = answered // 4 + WINDOW

    return play


def sends_events(count: int) -> Play:
    """Sends as fast as it is read."""
    events = (b"event: %b\ndata: %b\n\n" % (TOPIC.encode(), base64.b64encode(payload)) for payload in payloads(count))
    stream = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)

    def play(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + stream
        )
        while peer.recv(4096):
            pass

    return play


@contextlib.contextmanager
def played(play: Play) -> Iterator[tuple[str, Callable[[], None]]]:
    """A process that plays a broker to one client after the other."""

    def serve() -> None:
        gc.disable()
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError), peer:
                play(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(target=serve, daemon=True)
        process.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", lambda: None
        finally:
            process.kill()
            process.join()


@contextlib.contextmanager
def mosquitto(count: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Mosquitto, to which a process sends messages of QoS 0 as fast as it takes them, whenever a client is ready."""
    before, after = packets.publish_head(4, TOPIC, PAYLOAD_BYTES, 0)
    ready = os.eventfd(0)

    def send() -> None:
        stream = b"".join(before + after + payload for payload in payloads(count))
        with socket.create_connection(("127.0.0.1", real.port)) as peer:
            peer.sendall(packets.connect(4, "feeder", keep_alive_s=0, clean=True))
            while os.eventfd_read(ready):
                peer.sendall(stream)

    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder), "max_queued_messages 0") as real:
        process = multiprocessing.get_context("fork").Process(target=send, daemon=True)
        process.start()
        try:
            yield f"127.0.0.1:{real.port}", lambda: os.eventfd_write(ready, 1)
        finally:
            process.kill()
            process.join()
            os.close(ready)


# -- clients ---------------------------------------------------------------------------------------------------------


class Told:
    """The side of a client that is told what to do: to start at once, and to stop when everything has come."""

    granted_qos: int | None = None

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.counts = Counts()
        self.phase = ""
        self.stop_fd = os.eventfd(0)

    @property
    def stopping(self) -> bool:
        return self.counts.received == self.expected

    def await_start(self) -> int:
        return time.time_ns()

    started = await_start

    def enter(self, phase: str) -> None:
        self.phase = phase


@contextlib.contextmanager
def client(role: str, protocol: str, qos: int, messages: int, broker: Broker) -> Iterator[Turn]:
    numbers = itertools.count()
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter,
        broker as (address, ready),
    ):
        exporter.bind(("127.0.0.1", 0))
        os.environ["TOOLKIT_HOP_EXPORTER"] = f"127.0.0.1:{exporter.getsockname()[1]}"
        settings = ProcessSettings(
            testbed="b", node="n", service="s", instance=0, metrics_port=1, control_port=2, samples_dir=folder
        )

        def turn(record: bool) -> float:
            order = RunOrder(
                run=f"r{next(numbers)}", testbed="b", role=role, protocol=protocol, broker=address, topics=[TOPIC],
                streams=[STREAM], qos=qos, messages=messages, payload_bytes=PAYLOAD_BYTES, record=record,
                options={"live_every": LIVE_EVERY},
            )  # fmt: skip
            control: Any = Told(-1 if role == "publisher" else messages)
            part = (Publishing if role == "publisher" else Subscribing)(settings, control, order)
            part.prepare()
            ready()
            before_ns = time.process_time_ns()
            part.play()
            error = part.finish(None)
            spent_ns = time.process_time_ns() - before_ns
            os.close(control.stop_fd)
            counts = control.counts
            stamps = (Path(folder) / order.run / "s-0.stamps").stat().st_size // 32
            each = 2 if counts.acked else 1
            assert error is None, error
            assert counts.sent + counts.received == messages, counts
            assert stamps == record * each * messages, stamps
            return spent_ns / messages / 1000

        yield turn


# -- the Event Handler -------------------------------------------------------------------------------------------------


class Nowhere:
    """A connection and its socket, of which everything sent is taken at once."""

    def __init__(self, port: int, sink: int) -> None:
        self.port = port
        self.sink = sink

    def fileno(self) -> int:
        return self.sink

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self, "peername": ("127.0.0.1", self.port)}.get(name)

    def setsockopt(self, *_: int) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Writer:
    """Takes stamps as a run's writer does, and throws them away."""

    recording = True

    def __init__(self) -> None:
        self.words: list[int] = []

    def flows_for_live(self, _: dict[str, list[Any]]) -> None: ...


def requests() -> Iterable[bytes]:
    for payload in payloads(EVENTS):
        source = {"systemName": "publisher", "address": "127.0.0.1", "port": 1}
        event = {"type": TOPIC, "payload": base64.b64encode(payload).decode()}
        body = json.dumps({"source": source, "event": event}).encode()
        yield b"POST /eventhandler/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextlib.contextmanager
def event_handler(subscribers: int) -> Iterator[Turn]:
    async def made() -> EventHandler:
        return EventHandler(HandlerSettings(), Recorder())

    with asyncio.Runner() as runner:
        handler = runner.run(made())
        sink = os.open(os.devnull, os.O_WRONLY)
        events = list(requests())

        def connect(port: int) -> Any:
            connection: Any = handler.make_connection()
            connection.connection_made(Nowhere(port, sink))
            return connection

        async def play() -> None:
            for event in events:
                publisher.data_received(event)

        async def subscribe() -> None:
            for port in range(subscribers):
                connect(2 + port).data_received(
                    b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n"
                )

        def turn(record: bool) -> float:
            writer: Any = Writer()
            if record:
                handler.recorder.begin(writer)
            before_ns = time.process_time_ns()
            runner.run(play())
            array.array("Q", writer.words).tobytes()
            spent_ns = time.process_time_ns() - before_ns
            handler.recorder.end()
            assert handler.recorder.sent == record * EVENTS * subscribers
            handler.recorder.sent = 0
            return spent_ns / EVENTS / 1000

        publisher = connect(1)
        runner.run(subscribe())
        yield turn
        os.close(sink)


# -- pairs -------------------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[int, Callable[[int], contextlib.AbstractContextManager[Turn]]]] = {
    "publisher, MQTT QoS 0": (50_000, lambda n: client("publisher", "mqtt", 0, n, played(takes_mqtt))),
    "publisher, MQTT QoS 1": (30_000, lambda n: client("publisher", "mqtt", 1, n, played(takes_mqtt))),
    "publisher, Event Handler": (30_000, lambda n: client("publisher", "sse", 0, n, played(takes_posts))),
    "subscriber, MQTT QoS 0": (300_000, lambda n: client("subscriber", "mqtt", 0, n, played(sends_mqtt(n, 0)))),
    "subscriber, MQTT QoS 0, Mosquitto": (100_000, lambda n: client("subscriber", "mqtt", 0, n, mosquitto(n))),
    "subscriber, MQTT QoS 1": (120_000, lambda n: client("subscriber", "mqtt", 1, n, played(sends_mqtt(n, 1)))),
    "subscriber, Event Handler": (150_000, lambda n: client("subscriber", "sse", 0, n, played(sends_events(n)))),
    "Event Handler, 1 subscriber": (EVENTS, lambda _: event_handler(1)),
    "Event Handler, 10 subscribers": (EVENTS, lambda _: event_handler(10)),
}


def measure(name: str, pairs: int) -> None:
    messages, case = CASES[name]
    found: list[tuple[float, float]] = []
    with case(messages) as turn:
        gc.collect()
        gc.freeze()
        turn(True)
        turn(False)
        for number in range(pairs):  # the first of a pair is not always the same
            first, second = turn(number % 2 == 0), turn(number % 2 == 1)
            found.append((first, second) if number % 2 == 0 else (second, first))
    costs = sorted(on / off - 1 for on, off in found)
    low, high = median_interval(costs)
    on, off, more = (statistics.median(values) for values in (*zip(*found, strict=True), [a - b for a, b in found]))
    of_rate = f", {statistics.median(costs):+.1%} (95 %: {low:+.1%} to {high:+.1%}; below 5 % wanted)"
    print(
        f"{name}, n={messages} x {pairs} pairs: {on:.2f} us a message with stamps, {off:.2f} without; they cost "
        f"{more:.3f} us{'' if messages == EVENTS else of_rate}",
        flush=True,
    )


def median_interval(values: list[float]) -> tuple[float, float]:
    """The 95 % interval of the median of sorted values, by order statistics (David, Nagaraja 2003, 7.1)."""
    count, covered, low = len(values), 0.0, 0
    while (covered := covered + math.comb(count, low) / 2**count) <= 0.025:
        low += 1
    return values[max(low - 1, 0)], values[count - max(low, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--only", default=";".join(CASES), help="names of rows, with semicolons between")
    given = parser.parse_args()
    sys.setswitchinterval(1e-4)  # as clients have it
    for name in given.only.split(";"):
        measure(name, given.pairs)


if __name__ == "__main__":
    main()
