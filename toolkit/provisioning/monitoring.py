"""What the monitor is configured with: Prometheus and its rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from toolkit.contract import metrics
from toolkit.provisioning.templates import duration, render_template
from toolkit.spec.testbed import Testbed
from toolkit.state import Host

NODE_SCRAPE_S = {"node": 2.0, "node-pi1": 5.0}
"""The least intervals of node_exporter by job. A page of it costs 4 ms of processor time on a PC and some 100 ms on a
Pi 1, more than all of toolkit's own pages together; a Pi 1 is to lose less than 2 % to it."""
NODE_SERIES = (
    "node_cpu_seconds_total",
    "node_load1",
    "node_pressure_.*",
    "node_thermal_zone_temp",
    "node_memory_(MemTotal|MemAvailable|MemFree|Buffers|Cached|SwapTotal|SwapFree)_bytes",
    "node_network_(receive|transmit)_(bytes|packets|errs|drop)_total",
    "node_filesystem_(size|avail)_bytes",
    "node_timex_(offset_seconds|sync_status|frequency_adjustment_ratio)",
    "node_textfile_scrape_error",
)
"""What Prometheus keeps of node_exporter's own series, which would be most of what a large testbed's head holds. Names
that do not begin with `node_` are of somebody's own text files and stay."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
PERCENTILES = {
    metrics.HOP_DELAY: "testbed, job, instance, run, hop",
    metrics.END_TO_END_DELAY: "testbed, job, instance, run",
    metrics.SCHEDULE_DELAY: "testbed, job, instance, run",
    metrics.ORCHESTRATION: "testbed, job, run",
    metrics.ARROWHEAD_REQUEST: "testbed, job, instance, service, operation",
    metrics.ARROWHEAD_QUERY: "testbed, job, instance, service, operation",
}
"""Histogram -> the labels that are kept of it. Its buckets are summed once a second for all who look; a dashboard that
added up those of every process itself would wait for it, again with each refresh. Without `instance` the percentiles
are of all processes of a job together, and the label says `ALL_INSTANCES`."""
ALL_INSTANCES = "all"
RULE_WINDOW_SCRAPES = 10
"""Rates of the rules reach over this many scrapes (at least 10 s)."""
TARGETS = "targets"
"""The folder beside prometheus.yml whose files Prometheus reads again by itself when they change: a node more or less
leaves it running."""
THROUGHPUT = {
    "broker_messages_in": metrics.BROKER_RECEIVED,
    "broker_messages_out": metrics.BROKER_SENT,
    "gateway_messages_in": metrics.GATEWAY_RECEIVED,
    "gateway_messages_out": metrics.GATEWAY_SENT,
    "hub_messages_in": metrics.HUB_RECEIVED,
    "hub_messages_out": metrics.HUB_SENT,
}
"""KPI -> the counter it is the rate of."""


class Target(Protocol):
    """One address that is scraped."""

    @property
    def node(self) -> str: ...  # noqa: D102
    @property
    def service(self) -> str: ...  # noqa: D102
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def job(self) -> str: ...  # noqa: D102
    @property
    def address(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLimits:
    """Where alerts begin; the bound of clocks comes from the testbed's clock gate."""

    p99_s: float = 1.0
    drops_per_s: float = 0.0
    hot_celsius: float = 75.0
    disk_free_ratio: float = 0.1
    memory_free_ratio: float = 0.05
    hold_s: float = 10.0


def prometheus_files(testbed: Testbed, hosts: Mapping[str, Host], targets: Iterable[Target]) -> dict[str, str]:
    """Name -> content of everything below /etc/prometheus.

    Targets on nodes without a host are left out. Labels of a target: testbed, node, kind, service, role; `instance` is
    node:port, so that replicas differ.
    """
    reachable = sorted((t for t in targets if t.node in hosts), key=lambda t: (_job(t), t.node, t.port))
    jobs = {job: list(members) for job, members in groupby(reachable, key=_job)}
    return {
        "prometheus.yml": _config(testbed, jobs),
        "recording.yml": recording_rules(scrape_interval_s=testbed.monitoring.scrape_interval_s),
        "alerts.yml": alert_rules(testbed),
        **{f"{TARGETS}/{job}.json": _groups(testbed, members) for job, members in jobs.items()},
    }


def _config(testbed: Testbed, jobs: Iterable[str]) -> str:
    interval_s = testbed.monitoring.scrape_interval_s
    return render_template(
        "prometheus/prometheus.yml.j2",
        testbed=testbed.name,
        scrape_interval=duration(interval_s),
        scrape_timeout=duration(min(interval_s, 10.0)),
        evaluation_interval=duration(max(interval_s, 1.0)),
        alertmanager=testbed.monitoring.alertmanager,
        targets=TARGETS,
        jobs=[
            {
                "name": job,
                "scrape_interval": duration(NODE_SCRAPE_S[job]) if NODE_SCRAPE_S.get(job, 0.0) > interval_s else None,
                "scrape_timeout": duration(NODE_SCRAPE_S.get(job, interval_s)),
                "keep": "|".join(NODE_SERIES) if job in NODE_SCRAPE_S else None,
            }
            for job in jobs
        ],
    )


def _groups(testbed: Testbed, members: Iterable[Target]) -> str:
    """The targets of one job, a line each."""
    groups = [{"targets": [f"{t.address}:{t.port}"], "labels": _labels(testbed, t)} for t in members]
    return "[\n" + ",\n".join(map(json.dumps, groups)) + "\n]\n"


def recording_rules(*, scrape_interval_s: float = 1.0) -> str:
    """recording.yml: every KPI as a series of its own."""
    return render_template(
        "prometheus/recording.yml.j2",
        m=metrics,
        window=duration(max(10.0, RULE_WINDOW_SCRAPES * scrape_interval_s)),
        quantiles=QUANTILES,
        throughput=THROUGHPUT,
        percentiles=PERCENTILES,
        recorded=recorded,
        all_instances=ALL_INSTANCES,
    )


def recorded(metric: str, what: str) -> str:
    """Name of the series in which a rule keeps a metric: `what` is a key of `QUANTILES`, or `rate`."""
    return f"{metric.replace('_', ':', 1)}:{what}"


def alert_rules(testbed: Testbed, limits: AlertLimits | None = None) -> str:
    """alerts.yml: clocks, services, nodes."""
    limits = limits or AlertLimits()
    return render_template(
        "prometheus/alerts.yml.j2",
        m=metrics,
        testbed=testbed.name,
        clock_bound_s=testbed.clock.max_root_distance_s,
        hold=duration(limits.hold_s),
        p99_s=limits.p99_s,
        drops_per_s=limits.drops_per_s,
        hot_celsius=limits.hot_celsius,
        disk_free_ratio=limits.disk_free_ratio,
        memory_free_ratio=limits.memory_free_ratio,
    )


def _labels(testbed: Testbed, target: Target) -> dict[str, str]:
    return {
        "testbed": testbed.name,
        "node": target.node,
        "kind": target.kind,
        "service": target.service,
        "role": target.role,
        "instance": f"{target.node}:{target.port}",
    }


def _job(target: Target) -> str:
    return "node-pi1" if target.job == "node" and target.kind == "pi1" else target.job
