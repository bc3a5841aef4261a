"""Virtual devices of one process through gateway, Mosquitto and hub on loopback: rates, delays, memory.

.venv/bin/python tests/bench/bench_chain.py --devices 5000 --rate 1000 --seconds 10
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.mosquitto import Mosquitto
from tests.unit.node.processes import Bench, await_quiet
from toolkit.contract.orders import Arrivals, RunOrder
from toolkit.contract.samples import Point
from toolkit.measure.stamps import DTYPE

WAY = (Point.SENT, Point.GATEWAY_RECEIVED, Point.GATEWAY_SENT, Point.HUB_RECEIVED, Point.HUB_SENT, Point.RECEIVED)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--devices", type=int, default=5000)
    asked.add_argument("--rate", type=float, default=1000.0, help="messages a second, all devices together")
    asked.add_argument("--seconds", type=float, default=10.0)
    asked.add_argument("--qos", type=int, default=1)
    asked.add_argument("--protocol", default="mqtt", choices=["mqtt", "rest"])
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as name, Mosquitto(Path(name), "max_queued_messages 0") as broker:
        bench = Bench(Path(name))
        try:
            measure(bench, broker.port, options)
        finally:
            bench.close()


def measure(bench: Bench, port: int, options: argparse.Namespace) -> None:
    gateway, hub = bench.gateway(port), bench.hub(port)
    publisher, subscriber = bench.publisher(), bench.subscriber()
    common = {"run": "b", "testbed": "bench", "topics": ["plant"], "qos": options.qos, "payload_bytes": 100}
    for front, role in ((gateway, "gateway"), (hub, "hub")):
        front.process.order(RunOrder(role=role, protocol="mqtt", **common))  # type: ignore[arg-type]
        front.process.wait_for("ready", within_s=60)
    subscriber.order(RunOrder(role="subscriber", protocol="mqtt", broker=hub.address("mqtt"), **common))
    subscriber.wait_for("ready", within_s=60)
    began_s = time.monotonic()
    publisher.order(
        RunOrder(
            role="publisher",
            protocol=options.protocol,
            broker=gateway.address(options.protocol),
            connections=options.devices,
            streams=list(range(options.devices)),
            duration_s=options.seconds,
            arrivals=Arrivals(kind="rate", rate_per_s=options.rate / options.devices),
            drain_s=10.0,
            **common,
        )
    )
    publisher.wait_for("ready", within_s=300)
    print(f"{options.devices} devices connected in {time.monotonic() - began_s:.1f} s")
    print("resident MB: " + ", ".join(f"{p.settings.service} {p.rss_bytes() >> 20}" for p in bench.processes))
    for process in bench.processes:
        process.start(time.time_ns() + 300_000_000)
    publisher.wait_for("done", within_s=options.seconds + 120)
    await_quiet([subscriber], 1.0)
    for process in (subscriber, hub.process, gateway.process):
        process.stop()
        process.wait_for("done", within_s=60)
    print("resident MB after: " + ", ".join(f"{p.settings.service} {p.rss_bytes() >> 20}" for p in bench.processes))
    report(bench)


def report(bench: Bench) -> None:
    instants: dict[Point, dict[tuple[int, int], int]] = {point: {} for point in WAY}
    counts: Counter[str] = Counter()
    for process in bench.processes:
        settings = process.settings
        file = Path(settings.samples_dir) / "b" / f"{settings.service}-{settings.instance}.stamps"
        stamps = np.fromfile(file, dtype=DTYPE)
        for point in WAY:
            mine = stamps[stamps["point"] == point]
            counts[point.name] += len(mine)
            keys = zip(mine["stream"].tolist(), mine["seq"].tolist(), strict=True)
            instants[point] |= dict(zip(keys, mine["at_ns"].tolist(), strict=True))
    print(", ".join(f"{name.lower()} {count}" for name, count in counts.items()))
    for first, second in [*itertools.pairwise(WAY), (WAY[0], WAY[-1])]:
        delays = np.array([at - instants[first][key] for key, at in instants[second].items()]) / 1e6
        p50, p99 = np.percentile(delays, [50, 99], method="inverted_cdf")
        print(f"{first.name.lower()} to {second.name.lower()}: n {len(delays)}, p50 {p50:.3f} ms, p99 {p99:.3f} ms")


if __name__ == "__main__":
    main()
