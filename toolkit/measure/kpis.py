"""KPIs of a run, from its two tables, its books and its clocks; every function takes values and returns values.

Definitions are in docs/runs.md: hops and percentiles, throughput, the ledger, when the clocks resolve a figure.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from toolkit.measure.ledger import Joined, Ledger
from toolkit.measure.probes import all_seen, probe_problems
from toolkit.spec.names import did_you_mean

Ints: TypeAlias = NDArray[np.int64]

Hop = tuple[str, str, str]
"""Its table, its delay, the rows that count."""
HOPS: Mapping[str, Hop] = {
    "publish": ("messages", "t2_ns - t1_ns", "refused = false"),
    "broker": ("samples", "t3_ns - t2_ns", "NOT late"),
    "deliver": ("samples", "t4_ns - t3_ns", "NOT late"),
    "end_to_end": ("samples", "t4_ns - t0_ns", "NOT late"),
}
"""Hop -> what it is, between a publisher, a broker and a subscriber."""
_IN: Mapping[str, Hop] = {
    "uplink": ("messages", "gateway_in_ns - t1_ns", "refused = false"),
    "gateway": ("messages", "gateway_out_ns - gateway_in_ns", "refused = false"),
    "publish": ("messages", "t2_ns - gateway_out_ns", "refused = false"),
}
"""What a gateway puts in the place of `publish`."""
_OUT: Mapping[str, Hop] = {
    "deliver": ("samples", "hub_in_ns - t3_ns", "NOT late"),
    "hub": ("samples", "hub_out_ns - hub_in_ns", "NOT late"),
    "downlink": ("samples", "t4_ns - hub_out_ns", "NOT late"),
}
"""What a hub puts in the place of `deliver`."""


def hops_of(way: Mapping[str, bool]) -> Mapping[str, Hop]:
    """The hops of a run in the order in which messages meet them; `way`: whether there is a `gateway`, a `hub`."""
    before = _IN if way.get("gateway") else {"publish": HOPS["publish"]}
    after = _OUT if way.get("hub") else {"deliver": HOPS["deliver"]}
    return {**before, "broker": HOPS["broker"], **after, "end_to_end": HOPS["end_to_end"]}


DELAYS: Mapping[str, tuple[str, str, str]] = {
    "schedule": ("messages", "t1_ns - t0_ns", "refused = false"),
    "transport": ("samples", "t4_ns - t1_ns", "NOT late"),
    "acknowledge": ("messages", "t5_ns - t1_ns", "refused = false"),
}
"""What else is measured of every message."""
PERCENTILES = (("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999))
ENOUGH = 10
"""A percentile q of n samples is printed if n (1 - q) is at least this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSummary:
    """One hop's delays; all of them None without a sample."""

    count: int
    lost: int | None
    """Entered the hop and did not leave it; None where nothing stamps it."""
    mean_ms: float | None = None
    sd_ms: float | None = None
    min_ms: float | None = None
    p50_ms: float | None = None
    p75_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None
    clock_bound_ms: float | None = None
    """Every delay of this hop is right within this; None: a clock is unknown."""
    negative: int = 0
    """Delays below zero; kept in all figures."""
    beyond_bound: int = 0
    """Delays below minus the bound: the clocks were worse than they said."""
    resolved: bool | None = None
    """Whether the bound is at most half of the median; None: a clock is unknown."""
    stepped: int = 0
    """Left out of count and figures: a clock had stepped before it stamped one of their ends."""
    few: tuple[str, ...] = ()
    """Percentiles with fewer than 10 samples above them."""


def summarise(delays_ns: Ints, *, lost: int | None = None, bound_ns: int | None = None, stepped: int = 0) -> HopSummary:
    """Summary of delays, shape (n,); sorts the array in place.

    Percentiles are nearest rank: the smallest value that at least q n samples do not exceed.
    """
    n = len(delays_ns)
    bound_ms = None if bound_ns is None else bound_ns / 1e6
    if not n:
        return HopSummary(count=0, lost=lost, clock_bound_ms=bound_ms, stepped=stepped)
    delays_ns.sort()
    base = int(delays_ns[0])  # moments of the differences: exact in floats even for a clock that is days off
    spread = (delays_ns - base).astype(np.float64)
    values = {f"{name}_ms": nearest_rank(delays_ns, q) / 1e6 for name, q in PERCENTILES}
    return HopSummary(
        count=n,
        lost=lost,
        mean_ms=(base + float(spread.mean())) / 1e6,
        sd_ms=float(spread.std()) / 1e6,
        min_ms=base / 1e6,
        max_ms=int(delays_ns[-1]) / 1e6,
        clock_bound_ms=bound_ms,
        negative=int(np.searchsorted(delays_ns, 0)),
        beyond_bound=int(np.searchsorted(delays_ns, -bound_ns)) if bound_ns is not None else 0,
        resolved=None if bound_ns is None else bound_ns <= 0.5 * nearest_rank(delays_ns, 0.5),
        stepped=stepped,
        few=tuple(name for name, q in PERCENTILES if n * (1 - q) < ENOUGH - 1e-9),
        **values,
    )


def nearest_rank(ordered: Ints, q: float) -> int:
    """The q-quantile of sorted values by nearest rank (as HdrHistogram counts it)."""
    rank = math.ceil(round(q * len(ordered), 9))
    return int(ordered[max(rank, 1) - 1])


def rates(bins: Mapping[int, int], first_ns: int, last_ns: int) -> dict[str, Any]:
    """Events a second over the whole seconds of a run; `bins` counts them at their own instants, second by second.

    Where a clock stepped, only the count is known, and how many of it happened at unknown instants (`stepped`).
    The first and the last second are cut short by the run's own ends and so are left out. A run that has no others has
    one rate, over its span.
    """
    first_s, last_s = first_ns // 1_000_000_000, last_ns // 1_000_000_000
    series = [bins.get(second, 0) for second in range(first_s, min(last_s, first_s + 86_400) + 1)]
    inner = series[1:-1]
    count = sum(bins.values())
    if not count:
        return {"count": 0}
    if 0 in bins:
        return {"count": count, "stepped": bins[0]}
    if not inner:
        return {"count": count, "mean_per_s": count / max((last_ns - first_ns) / 1e9, 1e-9), "bins": series}
    mean = fmean(inner)
    return {
        "count": count,
        "mean_per_s": mean,
        "median_per_s": median(inner),
        "min_per_s": min(inner),
        "max_per_s": max(inner),
        "cv": pstdev(inner) / mean if mean else None,
        "bins": series,
    }


def throughput(joined: Joined, carried_bytes: int) -> dict[str, Any]:
    """Rates of offered, sent, accepted, broker in and out, delivered; and what the broker sends for what it gets.

    `carried_bytes`: payload of all deliveries. Rates over the whole run are None where a clock stepped: it has no span.
    """
    out: dict[str, Any] = {name: rates(counts, joined.first_ns, joined.last_ns) for name, counts in joined.bins.items()}
    delivered, span_s = joined.total.delivered, max((joined.last_ns - joined.first_ns) / 1e9, 1e-9)
    out["span_s"] = span_s
    in_span = {
        "sent_per_s": joined.messages,
        "delivered_per_s": delivered,
        "delivered_payload_bytes_per_s": carried_bytes,
    }
    timed = not any("stepped" in out.get(name, {}) for name in ("sent", "delivered"))
    out |= {name: count / span_s if timed else None for name, count in in_span.items()}
    out["out_per_in"] = joined.broker_sent / joined.broker_received if joined.broker_received else None
    return out


def ledger_document(ledgers: Mapping[str, Ledger], whole: Ledger) -> dict[str, Any]:
    """The books: the sum, each subscriber, and whether they close."""
    return {
        "total": {**dataclasses.asdict(whole), **_ratios(whole)},
        "subscribers": {name: dataclasses.asdict(ledger) for name, ledger in ledgers.items()},
        "closes": all(ledger.closes for ledger in ledgers.values()),
    }


def _ratios(ledger: Ledger) -> dict[str, Any]:
    offered = ledger.expected - ledger.refused
    lost = ledger.dropped + ledger.late
    low, high = wilson(lost, offered)
    return {"lost": lost, "loss_ratio": lost / offered if offered else 0.0, "loss_ratio_95": [low, high]}


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson's score interval); (0, 1) without a trial."""
    if not n:
        return 0.0, 1.0
    p, z2 = hits / n, z * z
    centre, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return low if hits else 0.0, high if hits < n else 1.0  # exact where rounding would leave some 1e-18


def counter_problems(
    joined: Joined, counts: Sequence[tuple[str, str, Mapping[str, int]]], *, warm_up: int
) -> list[str]:
    """Where processes' own counters contradict the stamps; `counts`: (process, role, StampsInfo.counts)."""
    problems = []
    sent = [c["sent"] for _, role, c in counts if role == "publisher" and "sent" in c]
    if sent and not joined.messages <= sum(sent) <= joined.messages + warm_up:
        problems.append(f"publishers counted {sum(sent)} messages sent, their stamps show {joined.messages}")
    native = [
        sum(value for name, value in c.items() if name.startswith("native_dropped" if role == "probe" else "dropped"))
        for _, role, c in counts
        if role in {"broker", "probe"}
    ]
    ours = joined.broker_lost
    asked = any(native) or any(role == "probe" and "native_dropped" in c for _, role, c in counts)
    if asked and sum(native) != ours and all_seen(counts) and not _counts_else(counts):
        words = f"the broker counted {sum(native)} messages dropped, the books show {ours} lost in it"
        missed = "; the others may still have been in it when the run ended (a longer `drain` shows it)"
        problems.append(words + (missed if 0 <= sum(native) < ours else ""))
    for end, lost in (("gateway", joined.lost.get("gateway")), ("hub", joined.lost.get("hub"))):
        dropped = sum(
            value for _, role, c in counts if role == end for name, value in c.items() if name.startswith("dropped")
        )
        if lost is not None and dropped > lost + warm_up:
            problems.append(f"the {end} counted {dropped} messages dropped, the books show {lost} lost in it")
    return problems + probe_problems(counts)


def _counts_else(counts: Sequence[tuple[str, str, Mapping[str, int]]]) -> bool:
    """Whether a broker's own counter is of something else: it was restarted, or some subscriber was away."""
    return any(
        c.get("native_dropped", 0) < 0
        if role == "probe"
        else bool(role in {"subscriber", "hub"} and c.get("reconnects"))
        for _, role, c in counts
    )


_CONDITION = re.compile(r"^\s*(==|!=|<=|>=|<|>)?\s*(-?[\d.]+(?:e-?\d+)?)\s*(ns|us|ms|s|%)?\s*$")
_OPERATORS = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
}  # fmt: skip
_TO_MS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "%": 0.01, None: 1.0}
_SHORT = ("ledger.total.{}", "hops.{}", "hops.end_to_end.{}", "delays.{}", "throughput.{}", "{}")


def find_kpi(kpis: Mapping[str, Any], name: str) -> Any:
    """A KPI by its path or the short form of it: `lost`, `broker.p99_ms`, `p50_ms` (of end to end); raises KeyError."""
    for form in _SHORT:
        value: Any = kpis
        for key in form.format(name).split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    raise KeyError(name)


def _short_names(kpis: Mapping[str, Any]) -> list[str]:
    """What conditions usually name: the books' counts, and every hop's statistics."""
    hops: Mapping[str, Mapping[str, Any]] = kpis.get("hops", {})
    by_hop = [f"{hop}.{statistic}" for hop, statistics in hops.items() for statistic in statistics]
    return [*kpis.get("ledger", {}).get("total", {}), *hops.get("end_to_end", {}), *by_hop]


def broken_asserts(kpis: Mapping[str, Any], asserts: Mapping[str, str]) -> list[str]:
    """The conditions that do not hold, in words; times without a unit are ms."""
    broken = []
    for name, condition in asserts.items():
        match = _CONDITION.match(str(condition))
        if match is None:
            broken.append(f"{name}: {condition!r} is no condition; write for example '<= 20 ms'")
            continue
        operator, number, unit = match[1] or "==", float(match[2]) * _TO_MS[match[3]], match[3]
        try:
            value = find_kpi(kpis, name)
        except KeyError:
            near = did_you_mean(name, _short_names(kpis))
            broken.append(f"{name}: this run has no such KPI{near}; wanted {condition}")
            continue
        if not isinstance(value, int | float) or not _OPERATORS[operator](value, number):
            broken.append(f"{name} is {value}{'' if unit in (None, '%') else ' ms'}; wanted {condition}")
    return broken
