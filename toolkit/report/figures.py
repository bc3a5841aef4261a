"""What the figures of a report show, as numbers small enough for a page: never the samples themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.measure.kpis import hops_of, nearest_rank
from toolkit.measure.orchestration import WHOLE, read_delays
from toolkit.measure.store import RunFolder
from toolkit.measure.tables import read_column

Ints: TypeAlias = NDArray[np.int64]

CURVE_POINTS = 240
FEWEST_BINS, TIME_BINS = 20, 160
IN_SLICE = 20
"""Messages in a slice of the run, where it has so many."""
DELAY_BINS = 60
OVER_TIME = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
SERIES = (
    "offered", "sent", "accepted", "gateway_in", "gateway_out", "broker_in", "broker_out", "hub_in", "hub_out",
    "delivered", "dropped",
)  # fmt: skip
SHORT_NS = 5_000_000_000
"""Seconds of a run that lasts less are too few for a curve of its rates."""
SLICES = 60
INSTANTS = {
    "offered": ("messages", "t0_ns", "refused = false"),
    "sent": ("messages", "t1_ns", "refused = false"),
    "accepted": ("messages", "t5_ns", "refused = false"),
    "broker_in": ("messages", "t2_ns", "refused = false"),
    "delivered": ("samples", "t4_ns", "NOT late"),
}
"""Series that a run's two tables have all of: what was lost after the broker has no row of its own."""


def run_figures(run: RunFolder, kpis: Mapping[str, Any]) -> dict[str, Any]:
    """Distribution of every hop; end to end over time; rates."""
    first, last = int(kpis["first_ns"]), int(kpis["last_ns"])
    figures: dict[str, Any] = {
        "cdf": {},
        "percentiles": {},
        "heat": None,
        "rates": rate_series(kpis["throughput"], first),
        "resources": run.resources(),
    }
    if run.requests.is_file():
        return figures | _request_figures(run, first, last)
    if last - first < SHORT_NS:
        figures["rates"] = short_rates(run, first, last)
    tables = {"messages": run.messages, "samples": run.samples}
    for hop, (table, delay, rows) in hops_of(kpis.get("way", {})).items():
        delays = read_column(tables[table], delay, rows)
        if hop == "end_to_end" and len(delays):
            sent = read_column(tables[table], "t0_ns", f"{rows} AND t4_ns IS NOT NULL")
            figures["percentiles"] = percentiles_over_time(sent, delays, first, last)
            figures["heat"] = heat_map(sent, delays, first, last)
        delays.sort()
        figures["cdf"][hop] = distribution(delays)
    return figures


def _request_figures(run: RunFolder, first: int, last: int) -> dict[str, Any]:
    """Those of orchestration: the whole requests."""
    delays = read_delays(run, WHOLE)
    if not len(delays):
        return {}
    sent = read_column(run.requests, "t1_ns", "t5_ns IS NOT NULL")
    drawn = {
        "percentiles": percentiles_over_time(sent, delays, first, last),
        "heat": heat_map(sent, delays, first, last),
    }
    delays.sort()
    return drawn | {"cdf": {WHOLE: distribution(delays)}}


def distribution(ordered: Ints, points: int = CURVE_POINTS) -> list[list[float]]:
    """[delay in ms, share of samples not above it] at shares that are dense towards both tails; () without samples."""
    n = len(ordered)
    if not n:
        return []
    tail = min(max(1.0 / n, 1e-6), 0.5)
    half = np.geomspace(tail, 0.5, points // 2)
    shares = np.unique(np.concatenate((half, 1 - half, [1.0])))
    return [[round(nearest_rank(ordered, float(q)) / 1e6, 6), round(float(q), 7)] for q in shares]


def percentiles_over_time(sent: Ints, delays: Ints, first: int, last: int) -> dict[str, list[float | None]]:
    """p50, p90, p99 and max of the messages due in each slice of the run, by their intended sending instant.

    A percentile that would be the slice's longest delay is None; one that is so everywhere is left out.
    """
    bins, width_s = _time_bins(sent, first, last)
    order = np.lexsort((delays, bins))
    ends = np.cumsum(np.bincount(bins, minlength=int(bins.max(initial=0)) + 1))
    starts = np.concatenate(([0], ends[:-1]))
    out: dict[str, list[float | None]] = {"seconds": [], **{name: [] for name, _ in OVER_TIME}}
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        slice_ = delays[order[start:end]]
        out["seconds"].append(round((i + 0.5) * width_s, 6))
        for name, q in OVER_TIME:
            known = len(slice_) and (q == 1.0 or len(slice_) * (1 - q) >= 1)
            out[name].append(round(nearest_rank(slice_, q) / 1e6, 6) if known else None)
    return {name: values for name, values in out.items() if any(value is not None for value in values)}


def heat_map(sent: Ints, delays: Ints, first: int, last: int) -> dict[str, Any]:
    """Messages by slice of the run and by delay, on a logarithmic scale; 1 us and less share the lowest cell."""
    bins, width_s = _time_bins(sent, first, last)
    micros = np.log10(np.maximum(delays, 1_000) / 1e3)
    low, high = float(np.floor(micros.min() * 4) / 4), float(np.ceil(micros.max() * 4 + 1e-9) / 4)
    rows = max(1, min(DELAY_BINS, round((high - low) * 16)))
    step = (high - low) / rows or 1.0
    row = np.minimum(((micros - low) / step).astype(np.int64), rows - 1)
    counts = np.bincount(bins * rows + row)
    cells = np.flatnonzero(counts)
    return {
        "seconds": [round((i + 0.5) * width_s, 6) for i in range(int(bins.max()) + 1)],
        "ms": [float(f"{10 ** (low + (r + 0.5) * step) / 1e3:.4g}") for r in range(rows)],
        "cells": [[int(cell // rows), int(cell % rows), int(counts[cell])] for cell in cells],
    }


def _time_bins(sent: Ints, first: int, last: int) -> tuple[Ints, float]:
    """The slice of the run each message is due in, and the width of a slice in seconds."""
    slices = min(max(len(sent) // IN_SLICE, FEWEST_BINS), TIME_BINS)
    width = max(1_000_000, -(-(last - first + 1) // slices))
    return np.clip((sent - first) // width, 0, slices - 1), width / 1e9


def rate_series(throughput: Mapping[str, Any], first: int, points: int = 600) -> dict[str, list[float]]:
    """Events a second in the whole seconds of the run; long runs are averaged down to `points`."""
    out: dict[str, list[float]] = {}
    into_s = first % 1_000_000_000 / 1e9
    for name in SERIES:
        bins = throughput.get(name, {}).get("bins", [])[1:-1]  # the run's own ends cut the outer seconds short
        if bins:
            group = -(-len(bins) // points)
            out[name] = [round(sum(part) / len(part), 2) for part in _groups(bins, group)]
            out.setdefault("seconds", [round(1 - into_s + i * group + group / 2, 6) for i in range(len(out[name]))])
    return out


def short_rates(run: RunFolder, first: int, last: int) -> dict[str, list[float]]:
    """The same of a run of few seconds, in slices of a tenth of one or less, from its messages and its deliveries."""
    width = next((w for w in (1, 2, 5, 10, 20, 50) if (last - first) / (w * 1_000_000) <= SLICES), 100) * 1_000_000
    slices = max((last - first) // width, 1)
    out: dict[str, list[float]] = {"seconds": [round((i + 0.5) * width / 1e9, 6) for i in range(slices)]}
    for name, (table, column, rows) in INSTANTS.items():
        at = read_column(getattr(run, table), column, rows)
        counts = np.bincount(np.clip((at - first) // width, 0, slices), minlength=slices + 1)[:slices]
        if counts.any():
            out[name] = [round(float(count) * 1e9 / width, 2) for count in counts]
    return out if len(out) > 1 else {}


def _groups(values: list[int], size: int) -> list[list[int]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
