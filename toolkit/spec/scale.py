"""A testbed and its traffic made smaller, so that a laptop can play what was written for a rack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from toolkit.spec import yaml
from toolkit.spec.experiment import Experiment
from toolkit.spec.testbed import Testbed
from toolkit.spec.workload import Workload


def scale_counts(document: yaml.Document, scale: float) -> yaml.Document:
    """Every `count` of nodes, and every list of addresses, times `scale`; at least one stays."""
    nodes = document.root.get("nodes") if isinstance(document.root, dict) else None
    if scale == 1.0 or not isinstance(nodes, dict):
        return document
    for entry in nodes.values():
        if isinstance(entry, dict):
            _shrink(entry, scale)
    return document


def _shrink(entry: dict[str, Any], scale: float) -> None:
    count, addresses = entry.get("count"), entry.get("addresses")
    if isinstance(count, int) and not isinstance(count, bool):
        entry["count"] = scaled(count, scale)
    if isinstance(addresses, list):
        entry["addresses"] = addresses[: scaled(len(addresses), scale)]
    elif isinstance(addresses, str) and "-" in addresses:
        first, _, last = addresses.partition("-")
        low = first.rpartition(".")[2]
        if low.isdigit() and last.isdigit() and int(last) >= int(low):
            entry["addresses"] = f"{first}-{int(low) - 1 + scaled(int(last) - int(low) + 1, scale)}"


def scale_traffic(testbed: Testbed, scale: float) -> Testbed:
    """Messages, durations and warm-ups of every workload and point times `scale`; rates and sizes stay."""
    if scale == 1.0:
        return testbed
    return dataclasses.replace(
        testbed,
        workloads={name: _fewer(workload, scale) for name, workload in testbed.workloads.items()},
        experiments={name: _shorter(experiment, scale) for name, experiment in testbed.experiments.items()},
        scale=scale,
    )


def _shorter(experiment: Experiment, scale: float) -> Experiment:
    cells = tuple(dataclasses.replace(cell, workload=_fewer(cell.workload, scale)) for cell in experiment.cells)
    return dataclasses.replace(experiment, cells=cells)


def _fewer(workload: Workload, scale: float) -> Workload:
    change: Mapping[str, Any] = {
        "messages": None if workload.messages is None else scaled(workload.messages, scale),
        "duration_s": None if workload.duration_s is None else workload.duration_s * scale,
        "warmup_messages": math.ceil(workload.warmup_messages * scale),
        "disturb": tuple(dataclasses.replace(each, at_s=each.at_s * scale) for each in workload.disturb),
        "join": {service: after_s * scale for service, after_s in workload.join.items()},
    }
    return dataclasses.replace(workload, **change)


def scaled(count: int, scale: float) -> int:
    """A count times a scale, rounded up, and never none."""
    return max(1, math.ceil(round(count * scale, 9)))
