"""What stamps cost the Event Handler `direct` an event, without other processes: the same events with and without them.

Run: .venv/bin/python tests/bench/bench_recorder.py [--repeats 60]
One thread takes requests as they come off a connection and writes answers and events to /dev/null; its own processor
time is counted, with and without stamps in turns, so that load on the machine shows less than in runs of processes.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import base64
import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from toolkit.node.event_handler.recorder import Recorder  # noqa: E402
from toolkit.node.event_handler.server import EventHandler  # noqa: E402
from toolkit.node.event_handler.settings import HandlerSettings  # noqa: E402
from toolkit.node.messages import MessageMaker  # noqa: E402

EVENTS = 400


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

    def turn(self) -> None:
        array.array("Q", self.words)
        self.words = []

    def flows_for_live(self, _: dict[str, list[Any]]) -> None: ...


def requests() -> list[bytes]:
    maker = MessageMaker(payload_bytes=100, seed=1)
    found = []
    for seq in range(EVENTS):
        payload = base64.b64encode(maker.header(3, seq, time.time_ns(), time.time_ns(), 0) + maker.fill).decode()
        source = {"systemName": "publisher", "address": "127.0.0.1", "port": 1}
        body = json.dumps({"source": source, "event": {"type": "pressure", "payload": payload}}).encode()
        found.append(
            b"POST /eventhandler/publish HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
    return found


async def measure(subscribers: int, repeats: int) -> None:
    handler = EventHandler(HandlerSettings(), Recorder())
    events = requests()

    sink = os.open(os.devnull, os.O_WRONLY)

    def connect(port: int) -> Any:
        connection: Any = handler.make_connection()
        connection.connection_made(Nowhere(port, sink))
        return connection

    publisher = connect(1)
    for port in range(subscribers):
        connect(2 + port).data_received(
            b"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: pressure\r\n\r\n"
        )

    def turn(record: bool) -> float:
        """Nanoseconds an event."""
        writer: Any = Writer()
        if record:
            handler.recorder.begin(writer)
        before_ns = time.thread_time_ns()
        for event in events:
            publisher.data_received(event)
        spent_ns = time.thread_time_ns() - before_ns
        handler.recorder.end()
        assert handler.recorder.sent == record * EVENTS * subscribers
        handler.recorder.sent = 0
        return spent_ns / EVENTS

    turn(record=False)
    gc.collect()
    gc.freeze()
    pairs = [
        (min(turn(record=True) for _ in range(5)), min(turn(record=False) for _ in range(5))) for _ in range(repeats)
    ]
    os.close(sink)
    stamped, plain = (statistics.median(pair[which] for pair in pairs) / 1000 for which in (0, 1))
    cost = statistics.median(on - off for on, off in pairs) / 1000
    print(
        f"stamps, {subscribers} subscribers, n={EVENTS} x {repeats} turns: {stamped:.2f} us an event with, {plain:.2f} "
        f"without; cost {cost:.2f} us, {cost / (1 + subscribers):.2f} us a stamp"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    repeats = parser.parse_args().repeats
    for subscribers in (1, 10):
        asyncio.run(measure(subscribers, repeats))


if __name__ == "__main__":
    main()
