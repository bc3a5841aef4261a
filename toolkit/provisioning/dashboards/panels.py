"""What a dashboard consists of, in toolkit's words; `build` turns it into Grafana's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from toolkit.provisioning.monitoring import recorded

Kind = Literal["stat", "timeseries", "heatmap", "state-timeline"]
"""Every kind of panel that is used; the console draws exactly these."""
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
SECONDS, PER_SECOND, RATIO, COUNT, BYTES, BYTES_PER_SECOND, CELSIUS = (
    "s", "mps", "percentunit", "short", "bytes", "Bps", "celsius",
)  # fmt: skip
"""Grafana's names of units; `mps` is messages per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression of a panel, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; a row has 24 columns."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    logarithmic: bool = False
    thresholds: tuple[tuple[float | None, str], ...] = ()
    """(from this value on, colour); the first has None."""
    words: Mapping[str, tuple[str, str]] | None = None
    """Value -> (text, colour), for states."""
    empty: str = "no data yet"
    """Shown where the query gives nothing."""
    per_run: bool = False
    """Each series is one run's: it leads to that run's page and report in the console."""
    slow: bool = False
    """Drawn at the pace of node_exporter: it comes from there, or has a line for each process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of the page, filled from label values; Prometheus and testbed are on every page."""

    name: str
    label: str
    query: str
    every: bool = True
    """Offers "All", and takes it at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One dashboard."""

    name: str
    """File name without its end; the uid is `toolkit-<name>`."""
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


def percentile(name: str, metric: str, matchers: str, by: str = "") -> str:
    """PromQL: a percentile as the rules record it each second over 10 s; of an interval and of `by`, the worst."""
    grouping = f" by ({by})" if by else ""
    return f"max{grouping} (max_over_time({recorded(metric, name)}{{{matchers}}}[$__rate_interval]))"


def buckets(metric: str, matchers: str) -> str:
    """PromQL: how many values a second fell in each bucket, for a heat map."""
    return f"sum by (le) (avg_over_time({recorded(f'{metric}_bucket', 'rate')}{{{matchers}}}[$__rate_interval]))"


def per_second(metric: str, matchers: str, by: str = "") -> str:
    """PromQL: a counter's rate, summed."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{matchers}}}[$__rate_interval]))"
