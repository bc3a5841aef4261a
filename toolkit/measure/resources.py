"""What nodes spent during a run: processor, memory and network, from the testbed's Prometheus, kept with the run.

`resources.json`: `seconds` (since the start of the run) and for each node a series per figure, null where there was no
scrape; or `error`, where nobody watched.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeAlias

FILE = "resources.json"
WINDOW_S = 15
"""Rates are over so many seconds: three scrapes of node_exporter."""
MOST_POINTS = 600
QUERIES: Mapping[str, str] = {
    "cpu_cores": 'sum by (node) (rate(node_cpu_seconds_total{mode!~"idle|iowait"}[WINDOW]))',
    "memory_used_bytes": "max by (node) (node_memory_MemTotal_bytes) - max by (node) (node_memory_MemAvailable_bytes)",
    "received_bytes_per_s": 'sum by (node) (rate(node_network_receive_bytes_total{device!="lo"}[WINDOW]))',
    "sent_bytes_per_s": 'sum by (node) (rate(node_network_transmit_bytes_total{device!="lo"}[WINDOW]))',
}

Watch: TypeAlias = Callable[[float, float], dict[str, Any]]
"""(first, last second of the run, since the epoch on the monitor's clock) -> the document."""
Ask: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Path with query -> Prometheus' answer."""


def ask_prometheus(connect: Callable[[], http.client.HTTPConnection]) -> Ask:
    """A question over a connection of its own; raises OSError, HTTPException or ValueError."""

    def ask(path: str) -> Mapping[str, Any]:
        with closing(connect()) as connection:
            connection.request("GET", path)
            answer: Mapping[str, Any] = json.loads(connection.getresponse().read())
        if answer.get("status") != "success":
            raise ValueError(answer.get("error", "no reason given"))
        return answer

    return ask


def watch_prometheus(ask: Ask) -> Watch:
    """Series of every node over a run; a Prometheus that does not answer is an `error` in the document."""

    def watch(first_s: float, last_s: float) -> dict[str, Any]:
        step = max(1, -(-round(last_s - first_s) // MOST_POINTS))
        at = [first_s + i * step for i in range(int((last_s - first_s) // step) + 1)]
        nodes: dict[str, dict[str, list[float | None]]] = {}
        try:
            for name, query in QUERIES.items():
                asked = {"query": query.replace("WINDOW", f"{WINDOW_S}s"), "start": f"{first_s:.3f}"}
                asked |= {"end": f"{last_s:.3f}", "step": str(step)}
                answer = ask(f"/api/v1/query_range?{urllib.parse.urlencode(asked)}")
                for series in answer["data"]["result"]:
                    values = nodes.setdefault(series["metric"].get("node", "?"), {})
                    values[name] = _aligned(series["values"], at, step)
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            return {"error": f"Prometheus does not tell: {error}"}
        if not nodes:
            return {"error": "Prometheus knows nothing of this time"}
        return {"seconds": [round(t - first_s, 3) for t in at], "step_s": step, "window_s": WINDOW_S, "nodes": nodes}

    return watch


def _aligned(values: Sequence[Sequence[Any]], at: Sequence[float], step: float) -> list[float | None]:
    """One value for each instant asked for."""
    out: list[float | None] = [None] * len(at)
    for when, text in values:
        index = round((float(when) - at[0]) / step)
        number = float(text)
        if 0 <= index < len(out) and number == number:  # noqa: PLR0124  not a number is not equal to itself
            out[index] = round(number, 6)
    return out


def summarise_resources(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Node -> figure -> mean and largest value (`cpu_cores_mean`, `cpu_cores_max` …)."""
    out: dict[str, dict[str, float]] = {}
    for node, figures in sorted(document.get("nodes", {}).items()):
        for name, series in figures.items():
            seen = [value for value in series if value is not None]
            if seen:
                out.setdefault(node, {})[f"{name}_mean"] = sum(seen) / len(seen)
                out[node][f"{name}_max"] = max(seen)
    return out
