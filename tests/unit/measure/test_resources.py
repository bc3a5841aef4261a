"""What Prometheus said of the nodes comes back in line with the run's seconds, and so does its silence."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import Any

from toolkit.measure.resources import QUERIES, summarise_resources, watch_prometheus


def prometheus(path: str) -> Mapping[str, Any]:
    asked = dict(urllib.parse.parse_qsl(path.partition("?")[2]))
    first, step = float(asked["start"]), float(asked["step"])
    cpu = "node_cpu_seconds_total" in asked["query"]
    values = [[first + i * step, "NaN" if i == 1 else str(i * (0.5 if cpu else 1e6))] for i in range(4) if i != 2]
    return {"data": {"result": [{"metric": {"node": "eh"}, "values": values}]}}


def test_series_stand_at_the_runs_seconds_and_gaps_stay_gaps():
    document = watch_prometheus(prometheus)(1000.25, 1003.9)
    assert document["seconds"] == [0.0, 1.0, 2.0, 3.0]
    assert document["nodes"]["eh"]["cpu_cores"] == [0.0, None, None, 1.5]
    assert set(document["nodes"]["eh"]) == set(QUERIES)
    summary = summarise_resources(document)["eh"]
    assert summary["cpu_cores_mean"] == 0.75
    assert summary["memory_used_bytes_max"] == 3e6


def test_a_long_run_is_asked_for_in_wider_steps():
    assert len(watch_prometheus(prometheus)(0.0, 86_400.0)["seconds"]) <= 601


def test_a_monitor_that_does_not_answer_is_said():
    def silent(_: str) -> Mapping[str, Any]:
        raise ConnectionRefusedError("nobody there")

    assert watch_prometheus(silent)(0.0, 1.0) == {"error": "Prometheus does not tell: nobody there"}
    assert summarise_resources({"error": "x"}) == {}
