"""The recorded steps of requests as delays: each step of the way, and the time between two steps where there is any."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from toolkit.errors import ModelError
from toolkit.model.distributions import FloatArray

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9]+")
_NO_GAP_MS = 1e-3


def delays_of_steps(table: Mapping[str, Any], where: str) -> tuple[dict[str, FloatArray], FloatArray, int]:
    """(ms by step, ms of each request as a whole, requests left out) of the columns request, step, start_ns, end_ns.

    Rows are in the order of request and start. Only requests that took the most frequent way count: their rows
    belong together. Time between the end of a step and the start of the next is a step of its own, `after_<step>`,
    unless it is nothing (below 1 us on average). Requests with a step whose instants nobody knows (0) are left out.
    """
    untimed = set(np.asarray(table["request"])[np.asarray(table["start_ns"]) == 0].tolist())
    requests: dict[Any, list[tuple[str, int, int]]] = {}
    columns = [np.asarray(table[name]).tolist() for name in ("request", "step", "start_ns", "end_ns")]
    for request, step, start, end in zip(*columns, strict=True):
        if request not in untimed:
            requests.setdefault(request, []).append((str(step), int(start), int(end)))
    ways = Counter(tuple(step for step, _, _ in steps) for steps in requests.values())
    if not ways:
        raise ModelError(f"{where}: has no steps")
    way = ways.most_common(1)[0][0]
    alike = [steps for steps in requests.values() if tuple(step for step, _, _ in steps) == way]
    instants = np.array([[(start, end) for _, start, end in steps] for steps in alike], dtype=np.int64)
    starts, ends = instants[:, :, 0], instants[:, :, 1]
    names = _names(way)
    delays: dict[str, FloatArray] = {}
    reached = starts[:, 0]
    for i, name in enumerate(names):
        gap = (starts[:, i] - reached) / 1e6
        if abs(gap).mean() > _NO_GAP_MS:
            delays[f"after_{names[i - 1]}"] = gap
        delays[name] = (ends[:, i] - starts[:, i]) / 1e6
        reached = ends[:, i]
    return delays, (ends[:, -1] - starts[:, 0]) / 1e6, len(requests) - len(alike) + len(untimed)


def _names(way: tuple[str, ...]) -> list[str]:
    """Names that a net can have, each once; `a -> b: query` becomes `a_b_query`."""
    plain = [_NOT_IN_NAMES.sub("_", step).strip("_") for step in way]
    seen: Counter[str] = Counter()
    names = []
    for name in plain:
        seen[name] += 1
        named = name if seen[name] == 1 else f"{name}_{seen[name]}"
        names.append(named if named[:1].isalpha() else f"step_{named}")
    return names
