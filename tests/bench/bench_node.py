"""What node processes reach on this machine: direct Event Handler beside Mosquitto, send rate, what sampling costs.

Run: .venv/bin/python tests/bench/bench_node.py [--repeats 5] [--only latency,modes,rate,sampling,jitter,fanout]
Every pair is measured in turns (A B A B …) and compared by the median of its repeats.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
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
    plain = {"messages": 2000, "warmup_messages": 200, "payload_bytes": 71}
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
    plain = {"messages": 2000, "warmup_messages": 200, "payload_bytes": 71}
    handlers = {
        mode: tables.bench.event_handler(TOOLKIT_SETTINGS=json.dumps({"mode": mode}))
        for mode in ("enhanced", "original")
    }

    def measure(mode: str) -> list[float]:
        original = {"options": {"reuse": False}} if mode == "original" else {}
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


def rate(tables: Tables, repeats: int) -> None:
    """Highest QoS 0 rate of one publisher process, 100-byte payloads, to Mosquitto."""
    found = in_turns(
        repeats,
        qos0=lambda: tables.rate_per_s(
            tables.run("mqtt", subscribers=False, qos=0, messages=40_000, payload_bytes=100)
        ),
    )
    print(f"rate mqtt QoS 0, 100 B, n=40000 x {repeats}: {[round(r) for r in found['qos0']]} messages/s (20000 wanted)")


def sampling(tables: Tables, repeats: int) -> None:
    """The same with and without stamps."""

    def measure(protocol: str, record: bool, messages: int) -> float:
        return tables.rate_per_s(
            tables.run(protocol, record=record, messages=messages, payload_bytes=100, subscribers=protocol == "sse")
        )

    for protocol, messages in (("mqtt", 40_000), ("sse", 10_000)):
        found = in_turns(
            repeats,
            on=lambda protocol=protocol, messages=messages: measure(protocol, True, messages),
            off=lambda protocol=protocol, messages=messages: measure(protocol, False, messages),
        )
        on, off = statistics.median(found["on"]), statistics.median(found["off"])
        print(f"sampling {protocol} n={messages} x {repeats}: on {on:.0f}/s off {off:.0f}/s, costs {1 - on / off:+.1%}")


def jitter(tables: Tables, repeats: int) -> None:
    """How late messages leave in an open loop of 2,000 a second."""
    for _ in range(repeats):
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


MEASURES = {"latency": latency, "modes": modes, "fanout": fanout, "rate": rate, "sampling": sampling, "jitter": jitter}


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
