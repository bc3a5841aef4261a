"""What node processes reach on this machine: direct Event Handler beside Mosquitto, send rate, idle and stuck streams.

Run: .venv/bin/python tests/bench/bench_node.py [--repeats 5]
     [--only latency,modes,rate,jitter,fanout,idle,stuck,halts]
What is compared is measured in turns (A B A B …) and compared by the median of its repeats.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit")]

from node.processes import Bench, NodeProcess, free_port, of_point, play  # noqa: E402

from toolkit.contract.orders import Arrivals  # noqa: E402
from toolkit.contract.samples import Point  # noqa: E402


def quantile(values: list[float], q: float) -> float:
    """Nearest rank."""
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]


def summary(values: list[float]) -> str:
    return (
        f"n={len(values)} mean {statistics.fmean(values):8.1f} p50 {quantile(values, 0.5):8.1f} "
        f"p99 {quantile(values, 0.99):8.1f} max {max(values):8.1f} us"
    )


class Tables:
    """Processes and runs of one benchmark."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.handler = self.bench.event_handler()
        self.mosquitto_port = free_port()
        configuration = folder / "mosquitto.conf"
        configuration.write_text(
            f"listener {self.mosquitto_port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
            "max_queued_messages 0\nuser root\n"
        )
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin") or "mosquitto"
        self.mosquitto = subprocess.Popen([program, "-c", str(configuration)], stderr=subprocess.DEVNULL)
        self.publisher = self.bench.publisher()
        self.subscriber = self.bench.subscriber()
        self.runs = 0
        time.sleep(0.5)

    def close(self) -> None:
        self.bench.close()
        self.mosquitto.terminate()
        self.mosquitto.wait()

    def run(self, protocol: str, *, subscribers: bool = True, handler: NodeProcess | None = None, **order: Any) -> str:
        self.runs += 1
        run = f"b{self.runs}"
        broker = (handler or self.handler) if protocol in ("sse", "http") else None
        port = broker.port if broker else self.mosquitto_port
        play(
            broker,
            [self.publisher],
            [self.subscriber] if subscribers else [],
            run=run,
            protocol=protocol,
            broker=f"127.0.0.1:{port}",
            within_s=300,
            **order,
        )
        return run

    def stream(self, event_type: str, handler: NodeProcess | None = None) -> socket.socket:
        """A subscriber that reads nothing but the answer's head."""
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.connect(("127.0.0.1", (handler or self.handler).port))
        stream.sendall(
            f"GET /eventhandler/subscription HTTP/1.1\r\nHost: x\r\neventtype: {event_type}\r\n\r\n".encode()
        )
        assert stream.recv(4096).startswith(b"HTTP/1.1 200")
        return stream

    def transport_us(self, run: str) -> list[float]:
        """T4 - T1 of every delivery."""
        sent = {s[3:5]: s[5] for s in of_point(self.publisher.stamps(run), Point.SENT) if not s[1]}
        return [
            (s[5] - sent[s[3:5]]) / 1000
            for s in of_point(self.subscriber.stamps(run), Point.RECEIVED)
            if s[3:5] in sent
        ]

    def rate_per_s(self, run: str) -> float:
        """Messages a second from the first to the last, by the publisher's own counters."""
        del run
        status = self.publisher.status()
        assert status.first_sent_ns is not None
        assert status.last_ns is not None
        return (status.sent - 1) / (status.last_ns - status.first_sent_ns) * 1e9


def in_turns(repeats: int, **variants: Callable[[], Any]) -> dict[str, list[Any]]:
    results: dict[str, list[Any]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, measure in variants.items():
            results[name].append(measure())
    return results


def latency(tables: Tables, repeats: int) -> None:
    """Scenario A on loopback: one publisher, one subscriber, closed loop."""
    plain: dict[str, Any] = {"messages": 2000, "warmup_messages": 200, "payload_bytes": 71}
    found = in_turns(
        repeats,
        direct=lambda: tables.transport_us(tables.run("sse", **plain)),
        mosquitto_qos1=lambda: tables.transport_us(tables.run("mqtt", qos=1, **plain)),
    )
    middle = {}
    for name, repeated in found.items():
        means = [statistics.fmean(values) for values in repeated]
        p99s = [quantile(values, 0.99) for values in repeated]
        middle[name] = (statistics.median(means), statistics.median(p99s))
        print(f"latency {name:15} {summary([v for values in repeated for v in values])}")
        print(f"        medians of {repeats}: mean {middle[name][0]:.1f} us, p99 {middle[name][1]:.1f} us")
    ratio = [a / b for a, b in zip(middle["direct"], middle["mosquitto_qos1"], strict=True)]
    print(f"latency direct / mosquitto QoS 1: mean {ratio[0]:.2f}, p99 {ratio[1]:.2f} (at most 1 wanted)")


def modes(tables: Tables, repeats: int) -> None:
    """Scenario A on loopback in each mode of the Event Handler; `original` with a connection for each publish, too."""
    plain: dict[str, Any] = {"messages": 2000, "warmup_messages": 200, "payload_bytes": 71}
    handlers = {
        mode: tables.bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode}))
        for mode in ("enhanced", "original")
    }

    def measure(mode: str) -> list[float]:
        original: dict[str, Any] = {"options": {"reuse": False}} if mode == "original" else {}
        protocol = "http" if mode == "original" else "sse"
        return tables.transport_us(tables.run(protocol, handler=handlers.get(mode), **plain, **original))

    found = in_turns(
        repeats,
        direct=lambda: measure("direct"),
        enhanced=lambda: measure("enhanced"),
        original=lambda: measure("original"),
    )
    direct = 0.0
    for mode, repeated in found.items():
        mean = statistics.median(statistics.fmean(values) for values in repeated)
        direct = direct or mean
        wanted = " (at most 3 wanted)" if mode == "enhanced" else ""
        print(f"modes {mode:9} {summary([v for values in repeated for v in values])}")
        print(f"      median of {repeats} means {mean:.1f} us, {mean / direct:.2f} x direct{wanted}")


def fanout(tables: Tables, repeats: int) -> None:
    """Scenario C on loopback: ten publishing connections, ten subscriptions, 1,000 events each."""
    for _ in range(repeats):
        run = tables.run("sse", messages=1000, connections=10, subscriber_connections=10, payload_bytes=71)
        values = tables.transport_us(run)
        counts = tables.subscriber.info(run).counts
        ratio = quantile(values, 0.99) / quantile(values, 0.5)
        print(f"fanout direct 10 x 10 x 1000 {summary(values)} p99/p50 {ratio:.2f} (at most 5 wanted)")
        print(f"        received {counts['received']} of 100000, reordered {counts['reordered']}, per process")


def halts(tables: Tables, repeats: int) -> None:
    """Ten to ten while the subscribers' process stands still for 60 ms every 0.46 s: how much waits behind it."""
    plain: dict[str, Any] = {
        "messages": 600, "warmup_messages": 60, "connections": 10, "subscriber_connections": 10, "payload_bytes": 71,
    }  # fmt: skip
    limits = (1024, 64, 16)
    handlers = {n: tables.bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"queue_limit": n})) for n in limits}
    ended = threading.Event()

    def halt() -> None:
        while not ended.wait(0.4):
            os.kill(tables.subscriber.process.pid, signal.SIGSTOP)
            time.sleep(0.06)
            os.kill(tables.subscriber.process.pid, signal.SIGCONT)

    def direct(limit: int) -> Callable[[], list[float]]:
        return lambda: tables.transport_us(tables.run("sse", handler=handlers[limit], **plain))

    halting = threading.Thread(target=halt)
    halting.start()
    try:
        found = in_turns(
            repeats,
            **{f"queue_limit {limit}": direct(limit) for limit in limits},
            mosquitto_qos1=lambda: tables.transport_us(tables.run("mqtt", qos=1, **plain)),
        )
    finally:
        ended.set()
        halting.join()
    for name, repeated in found.items():
        middle = [
            statistics.median(figure(us) for us in repeated) / 1000
            for figure in (statistics.fmean, lambda us: quantile(us, 0.5), lambda us: quantile(us, 0.99))
        ]
        deliveries = sum(len(us) for us in repeated)
        print(
            f"halts {name:16} medians of {repeats}: mean {middle[0]:.1f} p50 {middle[1]:.1f} p99 {middle[2]:.1f} ms; "
            f"{deliveries} of {repeats * 60_000} delivered"
        )


def rate(tables: Tables, repeats: int) -> None:
    """Highest QoS 0 rate of one publisher process, 100-byte payloads, to Mosquitto."""
    found = in_turns(
        repeats,
        publisher=lambda: tables.rate_per_s(
            tables.run("mqtt", subscribers=False, qos=0, messages=40_000, payload_bytes=100)
        ),
        **peer_rates(tables),
    )
    ours = statistics.median(found["publisher"])
    for name, rates in found.items():
        median = statistics.median(rates)
        wanted = " (20000 wanted)" if name == "publisher" else f", publisher / {name} {ours / median:.2f}"
        print(f"rate mqtt QoS 0, 100 B, n=40000 x {repeats}: {name} {median:.0f} messages/s{wanted}")


def peer_rates(tables: Tables) -> dict[str, Callable[[], float]]:
    """The rates of other clients that this machine has, from starting to send to the last message handed over."""
    line = b"x" * 100 + b"\n"
    port = str(tables.mosquitto_port)

    def mosquitto_pub() -> float:
        command = ["mosquitto_pub", "-p", port, "-t", "pressure", "-l"]
        started_s = time.monotonic()
        subprocess.run(command, input=line * 40_000, check=True)
        return 40_000 / (time.monotonic() - started_s)

    def paho() -> float:
        program = (
            "import sys, time, paho.mqtt.client as m\n"
            "c = m.Client(m.CallbackAPIVersion.VERSION2) if hasattr(m, 'CallbackAPIVersion') else m.Client()\n"
            "c.max_queued_messages_set(0); c.connect('127.0.0.1', int(sys.argv[1])); c.loop_start()\n"
            "while not c.is_connected(): time.sleep(0.01)\n"
            "p = b'x' * 100; s = time.monotonic()\n"
            "for _ in range(20_000): i = c.publish('pressure', p)\n"
            "i.wait_for_publish(); print(20_000 / (time.monotonic() - s))\n"
        )
        answer = subprocess.run([sys.executable, "-c", program, port], capture_output=True, text=True, check=True)
        return float(answer.stdout)

    found: dict[str, Callable[[], float]] = {}
    if shutil.which("mosquitto_pub"):
        found["mosquitto_pub"] = mosquitto_pub
    if importlib.util.find_spec("paho"):
        found["paho"] = paho
    return found


BARE_LOOP = """
import time
start, late = time.monotonic_ns() + 50_000_000, []
for k in range(10_000):
    due = start + k * 500_000
    while (left := due - time.monotonic_ns()) > 0:
        if left > 100_000:
            time.sleep((left - 100_000) / 1e9)
    late.append(time.monotonic_ns() - due)
late.sort()
print(f"p50 {late[5000] / 1e3:.1f} p99 {late[9900] / 1e3:.1f} max {late[-1] / 1e3:.1f} us")
"""
"""Waits for the same slots and does nothing in them: how late this machine lets anybody be."""


def jitter(tables: Tables, repeats: int) -> None:
    """How late messages leave in an open loop of 2,000 a second, beside a loop that only waits."""
    for _ in range(repeats):
        bare = subprocess.run([sys.executable, "-c", BARE_LOOP], capture_output=True, text=True, check=True).stdout
        print(f"jitter of a loop that sends nothing: {bare.strip()}")
        run = tables.run(
            "mqtt",
            subscribers=False,
            qos=0,
            messages=10_000,
            payload_bytes=100,
            arrivals=Arrivals(kind="rate", rate_per_s=2000),
        )
        late = [(s[5] - s[6]) / 1000 for s in of_point(tables.publisher.stamps(run), Point.SENT)]
        print(f"jitter T1 - T0 at 2000/s {summary(late)} (p99 below 1000 wanted)")


def idle(tables: Tables, repeats: int) -> None:
    """What 1,000 streams without events cost the broker."""
    del repeats
    before = tables.handler.rss_bytes()
    streams = [tables.stream("idle") for _ in range(1000)]
    cost = (tables.handler.rss_bytes() - before) / 1e6
    print(f"idle 1,000 streams: {cost:.1f} MB (60 wanted)")
    for stream in streams:
        stream.close()


def stuck(tables: Tables, repeats: int) -> None:
    """What a subscriber that stops reading costs the others, under each overflow policy."""
    plain: dict[str, Any] = {"messages": 2000, "warmup_messages": 200, "payload_bytes": 71}
    for policy, stops_for_s in {"drop-oldest": math.inf, "disconnect": math.inf, "block": 1.0}.items():
        handler = tables.bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"overflow": policy}))

        def others(handler: NodeProcess = handler) -> list[float]:
            return tables.transport_us(tables.run("sse", handler=handler, **plain))

        def beside(handler: NodeProcess = handler, stops_for_s: float = stops_for_s) -> list[float]:
            stream = tables.stream("pressure", handler)
            reads_again = threading.Timer(min(stops_for_s, 3600), lambda: _read_on(stream))
            reads_again.daemon = True
            reads_again.start()
            try:
                return others(handler)
            finally:
                reads_again.cancel()
                stream.close()

        found = in_turns(repeats, alone=others, beside=beside)
        p99 = {name: statistics.median(quantile(us, 0.99) for us in repeated) for name, repeated in found.items()}
        p50 = {name: statistics.median(quantile(us, 0.5) for us in repeated) for name, repeated in found.items()}
        for name, repeated in found.items():
            print(f"stuck {policy:11} others {name:6} {summary([v for values in repeated for v in values])}")
        overflows = [line for line in handler.metrics().splitlines() if "overflows_total{" in line and policy in line]
        print(
            f"      medians of {repeats}, beside / alone: p50 {p50['beside'] / p50['alone']:.2f}, "
            f"p99 {p99['beside'] / p99['alone']:.2f}; stops reading for {stops_for_s:g} s; {' '.join(overflows)}"
        )


def _read_on(stream: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while stream.recv(65_536):
            pass


MEASURES = {
    "latency": latency,
    "modes": modes,
    "fanout": fanout,
    "rate": rate,
    "jitter": jitter,
    "idle": idle,
    "stuck": stuck,
    "halts": halts,
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--only", default=",".join(MEASURES))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Path(folder))
        try:
            for name in given.only.split(","):
                MEASURES[name](tables, given.repeats)
        finally:
            tables.close()


if __name__ == "__main__":
    main()
