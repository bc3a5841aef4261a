"""Orchestration within one cloud and between two, beside the published figures; real processes on loopback.

`python tests/bench/bench_arrowhead_orchestration.py [--requests 100] [--interval-s 1] [--database URL]`
TOOLKIT_NODE_PYTHON chooses the interpreter of the systems.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import asyncio

from arrowhead.local_cloud import SYSTEMS, LocalCloud

from toolkit.contract.steps import read_records, steps_of
from toolkit.node.arrowhead import consumer, wire
from toolkit.node.arrowhead.http_client import HttpClient

PUBLISHED_MS = {"intracloud": 598.12, "intercloud": 4566.6}
GOAL_MS = {"intracloud": 10.0, "intercloud": 30.0}
CLIENT = {"systemName": "client1", "address": "127.0.0.1", "port": 8080}
SERVICE = {"serviceDefinition": "IndoorTemperature", "interfaces": ["JSON", "XML"]}
PROVIDER = {"systemName": "provider1", "address": "127.0.0.1", "port": 8460}
ENTRY = {
    "providedService": {**SERVICE, "serviceMetadata": {"unit": "celsius"}},
    "provider": PROVIDER,
    "serviceURI": "temperature",
}


async def measure(cloud: LocalCloud, requests: int, interval_s: float) -> list[float]:
    body = wire.write(consumer.request_form({"metadata": {"unit": "celsius"}}))
    url = f"http://127.0.0.1:{cloud.ports['orchestrator']}/orchestrator/orchestration"
    client = HttpClient()
    delays = []
    for number in range(requests + 5):
        answer = await client.request("POST", url, body, {"Content-Type": "application/json"})
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {answer.body.decode()}")
        if number >= 5:
            delays.append((answer.received_ns - answer.sent_ns) / 1e6)
        await asyncio.sleep(interval_s)
    client.close()
    return delays


def processor_ms(clouds: list[LocalCloud]) -> float:
    """Used so far by every system of the clouds."""
    ticks = 0
    for cloud in clouds:
        for process in cloud.processes.values():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def resident_mb(cloud: LocalCloud, system: str) -> float:
    status = Path(f"/proc/{cloud.processes[system].pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def query_ms(clouds: list[LocalCloud]) -> dict[str, float]:
    """Mean of each kind of query."""
    delays: dict[str, list[float]] = {}
    for cloud in clouds:
        lines = (
            line for file in (cloud.folder / "samples").glob("*.steps.jsonl") for line in file.read_text().splitlines()
        )
        for step in steps_of(read_records(lines)):
            if " query: " in step.step:
                delays.setdefault(step.step, []).append((step.end_ns - step.start_ns) / 1e6)
    return {step: round(statistics.mean(values), 3) for step, values in sorted(delays.items())}


def bench(requests: int, interval_s: float, databases: list[str]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="toolkit-bench-"))
    one, two = LocalCloud("a", folder / "a"), LocalCloud("b", folder / "b")
    for cloud, database in zip((one, two), databases, strict=False):
        cloud.database = database
    rule = {"consumer": CLIENT, "providerList": [PROVIDER], "serviceList": [SERVICE]}
    one.seed(neighborClouds=[two.own], services=[SERVICE], systems=[CLIENT], fillerEntries=60)
    two.seed(
        neighborClouds=[one.own],
        registryEntries=[ENTRY],
        intraCloud=[rule],
        interCloud=[{"cloud": one.own, "serviceList": [SERVICE]}],
        fillerEntries=60,
    )
    results: dict[str, Any] = {}
    try:
        for cloud in (one, two):
            cloud.start()
        for cloud in (one, two):
            cloud.await_ready()
        time.sleep(1)
        for name, cloud in (("intracloud", two), ("intercloud", one)):
            before_ms = processor_ms([one, two])
            delays = asyncio.run(measure(cloud, requests, interval_s))
            used_ms = processor_ms([one, two]) - before_ms
            results[name] = {
                "n": len(delays),
                "mean_ms": round(statistics.mean(delays), 2),
                "p50_ms": round(statistics.median(delays), 2),
                "sd_ms": round(statistics.stdev(delays), 2),
                "max_ms": round(max(delays), 2),
                "processor_ms": round(used_ms / (requests + 5), 2),
                "published_mean_ms": PUBLISHED_MS[name],
                "goal_ms": GOAL_MS[name],
            }
        results["resident_mb"] = {system: round(resident_mb(one, system), 1) for system in SYSTEMS}
        time.sleep(0.5)
        results["query_mean_ms"] = query_ms([one, two])
    finally:
        for cloud in (one, two):
            cloud.stop()
        shutil.rmtree(folder)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--interval-s", type=float, default=1.0)
    parser.add_argument("--database", action="append", default=[], help="one URL for each of the two clouds")
    given = parser.parse_args()
    print(json.dumps(bench(given.requests, given.interval_s, given.database), indent=2))
