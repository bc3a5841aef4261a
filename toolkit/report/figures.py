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
TIME_BINS = 160
DELAY_BINS = 60
SERIES = (
    "offered", "sent", "accepted", "gateway_in", "gateway_out", "broker_in", "broker_out", "hub_in", "hub_out",
    "delivered", "dropped",
)  # fmt: skip


def run_figures(run: RunFolder, kpis: Mapping[str, Any]) -> dict[str, Any]:
    """Distribution of every hop; end to end over time; rates."""
    first, last = int(kpis["first_ns"]), int(kpis["last_ns"])
    figures: dict[str, Any] = {
        "cdf": {},
        "percentiles": {},
        "heat": None,
        "rates": rate_series(kpis["throughput"]),
        "resources": run.resources(),
    }
    if run.requests.is_file():
        return figures | _request_figures(run, first, last)
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
    """p50, p90, p99 and max of the messages due in each slice of the run, by their intended sending instant."""
    bins, width_s = _time_bins(sent, first, last)
    order = np.lexsort((delays, bins))
    ends = np.cumsum(np.bincount(bins, minlength=int(bins.max(initial=0)) + 1))
    starts = np.concatenate(([0], ends[:-1]))
    out: dict[str, list[float | None]] = {"seconds": [], "p50": [], "p90": [], "p99": [], "max": []}
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        slice_ = delays[order[start:end]]
        out["seconds"].append(round((i + 0.5) * width_s, 6))
        for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            out[name].append(round(nearest_rank(slice_, q) / 1e6, 6) if len(slice_) else None)
    return out


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
    width = max(1_000_000, -(-(last - first + 1) // TIME_BINS))
    return np.clip((sent - first) // width, 0, TIME_BINS - 1), width / 1e9


def rate_series(throughput: Mapping[str, Any], points: int = 600) -> dict[str, list[float]]:
    """Events a second; long runs are averaged down to `points`."""
    out: dict[str, list[float]] = {}
    for name in SERIES:
        bins = throughput.get(name, {}).get("bins")
        if bins:
            skipped = 1 if len(bins) > 2 else 0  # noqa: PLR2004  the run's own ends cut the outer seconds short
            bins = bins[skipped : len(bins) - skipped]
            group = -(-len(bins) // points)
            out[name] = [round(sum(part) / len(part), 2) for part in _groups(bins, group)]
            out.setdefault("seconds", [skipped + i * group + group / 2 for i in range(len(out[name]))])
    return out


def _groups(values: list[int], size: int) -> list[list[int]]:
    return [values[i : i + size] for i in range(0, len(values), size)]
