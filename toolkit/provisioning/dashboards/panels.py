"""What a dashboard consists of, in toolkit's words; `build` turns it into Grafana's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from toolkit.contract import metrics
from toolkit.provisioning.monitoring import QUANTILES, recorded

Kind = Literal["stat", "timeseries", "heatmap", "state-timeline"]
"""Every kind of panel that is used; the console draws exactly these."""
GREEN, YELLOW, RED = "green", "yellow", "red"
SECONDS, PER_SECOND, RATIO, COUNT, BYTES_PER_SECOND, CELSIUS = (
    "s", "mps", "percentunit", "short", "Bps", "celsius",
)  # fmt: skip
"""Grafana's names of units; `mps` is messages per second."""

SHARES = {"p50": "Half", "p90": "90 %", "p99": "99 %"}
"""What lies below each of `QUANTILES`, in words."""
ANY = 'testbed="$testbed"'
"""What choices are found among: all processes of the testbed."""
TESTBED = f'{ANY}, job=~"$job", instance=~"$instance"'
"""What every query asks of: those of the testbed's processes that are chosen."""
RUN = f'{TESTBED}, run=~"$run"'
NO_SAMPLES = "no sampled messages yet"
Thresholds = tuple[tuple[float | None, str], ...]
"""(from this value on, colour); the first has None."""


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
    thresholds: Thresholds = ()
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
    every: str | None = ".*"
    """Offers "All", takes it at first, and asks this for it; without, one value is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One dashboard."""

    name: str
    """File name without its end; the uid is `toolkit-<name>`."""
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    by_process: bool = False
    """Offers job and instance; elsewhere they are hidden, and always all: figures are of several processes."""


RUNS = Variable(name="run", label="Run", query=f"label_values({metrics.HOP_SAMPLED.name}{{{ANY}}}, run)")
HOPS = Variable(
    name="hop", label="Hop", query=f'label_values({metrics.HOP_DELAY.name}_count{{{ANY}, run=~"$run"}}, hop)'
)
JOBS = Variable(name="job", label="Job", query=f"label_values(up{{{ANY}}}, job)", every=".+")
INSTANCES = Variable(
    name="instance", label="Instance", query=f'label_values(up{{{ANY}, job=~"$job"}}, instance)', every=".+"
)

# -- expressions --


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


def percentiles(metric: str, matchers: str) -> tuple[Query, ...]:
    """Each of `QUANTILES` as a line."""
    return tuple(Query(expr=percentile(name, metric, matchers), legend=name) for name in QUANTILES)


# -- panels that several pages have --


def figure(
    title: str,
    description: str,
    expr: str,
    *,
    unit: str = PER_SECOND,
    empty: str = "no data yet",
    thresholds: Thresholds = (),
    height: int = 4,
) -> Panel:
    """What something is now, an eighth of the page wide: the head of a page is a row of eight."""
    return Panel(
        title=title, description=description, unit=unit, kind="stat", width=3, height=height, thresholds=thresholds,
        queries=(Query(expr=expr),), empty=empty,
    )  # fmt: skip


def delays(
    title: str,
    description: str,
    *queries: Query,
    empty: str = NO_SAMPLES,
    width: int = 8,
    per_run: bool = False,
) -> Panel:
    """How long something takes, over time; delays spread over decades."""
    return Panel(
        title=title, description=description, unit=SECONDS, width=width, logarithmic=True, queries=queries, empty=empty,
        per_run=per_run,
    )  # fmt: skip


def heatmap(
    title: str,
    description: str,
    metric: str,
    matchers: str,
    *,
    empty: str = NO_SAMPLES,
    width: int = 8,
    height: int = 8,
) -> Panel:
    """How many took how long, over time."""
    return Panel(
        title=title, description=description, unit=SECONDS, kind="heatmap", width=width, height=height,
        queries=(Query(expr=buckets(metric, matchers)),), empty=empty,
    )  # fmt: skip
