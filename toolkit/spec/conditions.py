"""Conditions on KPIs, `asserts` of a workload: which KPIs a run is going to have, and in which unit each is.

docs/runs.md has the names; `kpis.json` of a run has the values.
"""

from __future__ import annotations

import re

from toolkit.spec.names import did_you_mean
from toolkit.spec.workload import Workload

PATTERN = r"^(==|!=|<=|>=|<|>) ?[0-9]+(\.[0-9]+)? ?(ns|us|ms|s|%)?$"

COUNTS = (
    "expected", "delivered", "late", "dropped", "refused", "unconfirmed", "in_flight", "duplicates", "redelivered",
    "reordered", "lost_before_gateway", "lost_in_gateway", "lost_before_broker", "lost_in_broker", "lost_after_broker",
    "lost_in_hub", "lost_after_hub", "lost", "loss_ratio",
)  # fmt: skip
"""The books of a run: `ledger.total.COUNT`, or `COUNT` for short."""
STATISTICS = (
    "count", "lost", "mean_ms", "sd_ms", "min_ms", "p50_ms", "p75_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms",
    "max_ms", "clock_bound_ms", "negative", "beyond_bound", "resolved", "stepped",
)  # fmt: skip
"""Of a hop: `hops.HOP.STATISTIC`, or `HOP.STATISTIC`, or, of the way from end to end, `STATISTIC` for short."""
DELAYS = ("schedule", "transport", "acknowledge")
FLOWS = (
    "offered", "sent", "accepted", "gateway_in", "gateway_out", "broker_in", "broker_out", "hub_in", "hub_out",
    "delivered", "dropped",
)  # fmt: skip
RATES = ("count", "stepped", "mean_per_s", "median_per_s", "min_per_s", "max_per_s", "cv")
SPANS = ("span_s", "sent_per_s", "delivered_per_s", "delivered_payload_bytes_per_s", "out_per_in")
SCALARS = ("valid", "first_ns", "last_ns", "qos", "asked_qos", "request_bytes", "twin")
_OPEN = ("counters.", "clocks.", "ledger.subscribers.", "parameters.", "ledger.closes", "way.")
"""What depends on the run's nodes and processes."""


def hops_of(workload: Workload) -> tuple[str, ...]:
    """Hops that a message of the workload crosses."""
    before = ("uplink", "gateway", "publish") if workload.gateway else ("publish",)
    after = ("deliver", "hub", "downlink") if workload.hub else ("deliver",)
    return (*before, "broker", *after, "end_to_end")


def wrong_condition(workload: Workload, name: str, condition: str) -> str:
    """What is wrong with a condition of that workload, in words; empty: its runs have such a KPI, in this unit."""
    if not _is_known(workload, name):
        near = did_you_mean(name.lower(), _usual(workload))
        if not near.startswith("; did"):
            near = "; write for example lost, p99_ms or broker.p99_ms (docs/runs.md)"
        return f"runs of workload {workload.name!r} have no KPI {name!r}{near}"
    unit = condition.lstrip("=!<> ").lstrip("0123456789. ")
    last = name.rpartition(".")[2]
    if unit == "%" and not last.endswith("ratio"):
        hint = "; write loss_ratio for the share that is lost" if last == "lost" else ""
        return f"{name} is not a share, so that % means nothing{hint}"
    if unit not in ("", "%") and not last.endswith("_ms"):
        return f"{name} is not a time in ms; leave the unit {unit!r} out"
    return ""


def _is_known(workload: Workload, name: str) -> bool:
    if name.startswith(_OPEN) or name in SCALARS or name in _usual(workload):
        return True
    section, _, rest = name.partition(".")
    inside = {
        "hops": {*_by_hop(workload)},
        "ledger": {f"total.{count}" for count in COUNTS},
        "delays": _DELAYS,
        "throughput": _THROUGHPUT,
    }
    if rest in inside.get(section, ()):
        return True
    # A step of orchestration requests has the name that the systems give it.
    return (
        workload.consumers is not None
        and re.fullmatch(r"(hops\.)?.+: .+\.\w+", name) is not None
        and (name.rpartition(".")[2] in STATISTICS)
    )


def _usual(workload: Workload) -> list[str]:
    """Short names, those that conditions usually have first."""
    return [*COUNTS, *STATISTICS, *_by_hop(workload), *_DELAYS, *_THROUGHPUT]


def _by_hop(workload: Workload) -> list[str]:
    return _each(("end_to_end",) if workload.consumers is not None else hops_of(workload), STATISTICS)


def _each(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    return [f"{one}.{other}" for one in first for other in second]


_DELAYS = _each(DELAYS, STATISTICS)
_THROUGHPUT = [*_each(FLOWS, RATES), *SPANS]
