"""Whether the queries of the dashboards have data in a Prometheus that watched a real run.

Each query belongs to one place: a module whose run must give it data. None is left out.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.folders import write_files
from tests.ports import free_port
from tests.programs import find_program
from tests.waiting import until
from toolkit.provisioning.dashboards import dashboards
from toolkit.provisioning.monitoring import prometheus_files
from toolkit.provisioning.render import Target
from toolkit.spec.testbed import Testbed
from toolkit.state import Host

CONSOLE, CHAIN, CLOUDS = "test_console", "test_platform_chain", "test_loopback_orchestration"
PANELS = "test_loopback_panels"
PLACES: Mapping[str, tuple[str, ...]] = {
    CHAIN: (
        "Gateway in", "Gateway out", "Hub in", "Hub out", "Gateway in and out", "Hub in and out",
        "Dropped", "Device → gateway", "In the gateway", "In the hub",
        "Hub → customer", "Device → gateway, percentiles", "In the gateway, percentiles", "In the hub, percentiles",
        "Hub → customer, percentiles", "Packets the hop probe looked at", "Packets the hop probe lost",
        "What the hop probe costs", "Messages given up", "Message drops by place and cause (A)",
    ),
    CLOUDS: (
        "Orchestration time", "Requests answered", "Orchestration, heat map", "Time inside each system, p50",
        "Time inside each system, p99", "Requests to each system", "Query time, p50", "Query time, p99",
        "Share of the time that is database", "Ready", "Connections",
    ),
    PANELS: (
        "Worker pool", "Temperature", "Slowed down by its firmware", "Under-voltage", "Too hot", "Loss ratio by QoS",
        "End to end, with what the clocks leave open (D)",
    ),
}  # fmt: skip
"""Panels, or single queries of panels, that are not the console's; together every query is asked."""
MARGIN_S = 15


@dataclass(frozen=True, kw_only=True)
class Scraped:
    """A process to scrape."""

    node: str
    service: str
    role: str
    port: int


def unanswered(place: str, address: str, testbed: str, begin_s: float, end_s: float) -> list[str]:
    """This place's queries that have no figure between these instants, as `board: panel: expression`."""
    return [
        f"{name}: {panel['title']}: {target['expr']}"
        for name, text in dashboards().items()
        for panel in json.loads(text)["panels"]
        for target in panel.get("targets", ())
        if _place(panel["title"], target["refId"]) == place
        and not _has_data(address, asked(target["expr"], testbed), begin_s, end_s)
    ]


def _place(title: str, query: str) -> str:
    """The module whose run answers this query of a panel."""
    return next((place for place, known in PLACES.items() if {title, f"{title} ({query})"} & {*known}), CONSOLE)


def asked(expr: str, testbed: str, interval: str = "20s") -> str:
    """What is asked while everything is chosen."""
    for name, value in {"$__rate_interval": interval, "$testbed": testbed, "$job": ".+", "$instance": ".+"}.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\w+", ".*", expr)


def _has_data(address: str, query: str, begin_s: float, end_s: float) -> bool:
    result = ask(address, "query_range", query=query, start=f"{begin_s:.3f}",
                 end=f"{end_s + MARGIN_S:.3f}", step="1")["result"]  # fmt: skip
    return any(value != "NaN" for series in result for _, value in series["values"])


def ask(address: str, what: str, **parameters: str) -> Any:
    """Data of an answer of Prometheus' API."""
    with urllib.request.urlopen(f"{address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=20) as answer:  # noqa: S310
        return json.load(answer)["data"]


@contextlib.contextmanager
def watching(folder: Path, testbed: Testbed, processes: list[Scraped]) -> Iterator[str]:
    """The address of a Prometheus that scrapes processes on loopback, with the rules that deploy gives it."""
    targets = [
        Target(node=p.node, service=p.service, role=p.role, job=p.role, address="127.0.0.1", port=p.port, kind="host")
        for p in processes
    ]
    hosts: Mapping[str, Host] = dict.fromkeys(p.node for p in processes)  # type: ignore[assignment]  # names alone count
    with prometheus(folder, testbed, hosts, targets) as address:

        def seen() -> Any:
            return ask(address, "query", query="min_over_time(up[1m]) == 1")["result"]

        until(lambda: len(seen()) == len(targets), within_s=60, every_s=0.3, instead=seen)
        yield address


@contextlib.contextmanager
def prometheus(folder: Path, testbed: Testbed, hosts: Mapping[str, Host], targets: list[Target]) -> Iterator[str]:
    """The address of a Prometheus as deploy configures it, with its rules; its files are in a new folder."""
    program = find_program("prometheus")
    folder.mkdir()
    write_files(folder, prometheus_files(testbed, hosts, targets))
    port = free_port()
    process = subprocess.Popen(
        [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def await_rules(address: str, since_s: float) -> None:
    """Until what was scraped last before this instant has gone through the rules and out of their window."""

    def evaluated_s() -> float:
        found = ask(address, "query", query="max(timestamp(toolkit:messages_dropped:rate or up))")["result"]
        return float(found[0]["value"][1]) if found else 0.0

    until(lambda: evaluated_s() > since_s + 3, within_s=60, every_s=0.5, instead=evaluated_s)
