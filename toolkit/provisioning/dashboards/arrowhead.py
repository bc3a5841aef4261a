"""The Arrowhead page: orchestration, what each core system takes for it, database queries, the Event Handler's pool."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    ANY,
    COUNT,
    GREEN,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    TESTBED,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    delays,
    heatmap,
    per_second,
    percentile,
    percentiles,
)

SYSTEM = f'{TESTBED}, service=~"$system"'
_NONE = "no orchestration in this testbed"
_NO_CORE = "no core system in this testbed"
_NO_DATABASE = "no database work yet"
_NO_BROKER = "no broker in this testbed"
_OPERATION = "{{service}} {{operation}}"


def _percentile(title: str, description: str, metric: str, q: str, empty: str) -> Panel:
    expr = percentile(q, metric, SYSTEM, by="service, operation")
    return delays(title, description, Query(expr=expr, legend=_OPERATION), empty=empty)


ORCHESTRATION = Row(
    title="Orchestration, as consumers see it",
    panels=(
        Panel(
            title="Orchestration time",
            description="From sending the request to reading the answer, over 10 s.",
            unit=SECONDS,
            empty=_NONE,
            queries=percentiles(m.ORCHESTRATION.name, TESTBED),
        ),
        Panel(
            title="Requests answered",
            description="Orchestration requests each second, by what came of them.",
            unit=PER_SECOND,
            empty=_NONE,
            queries=(
                Query(expr=per_second(f"{m.ORCHESTRATION.name}_count", TESTBED, by="outcome"), legend="{{outcome}}"),
            ),
        ),
        heatmap(
            "Orchestration, heat map",
            "How many requests a second took how long; two bands are two ways a request can take.",
            m.ORCHESTRATION.name,
            TESTBED,
            empty=_NONE,
        ),
    ),
)

STEPS = Row(
    title="Steps in the core systems",
    panels=(
        _percentile("Time inside each system, p50",
                    "From the last byte of a request to the first byte of its answer; half of the requests are faster.",
                    m.ARROWHEAD_REQUEST.name, "p50", _NO_CORE),
        _percentile("Time inside each system, p99",
                    "The same for the slowest of a hundred; a core system that waits for another has its time in it.",
                    m.ARROWHEAD_REQUEST.name, "p99", _NO_CORE),
        Panel(
            title="Requests to each system",
            description="Each second, by system, operation and status of the answer.",
            unit=PER_SECOND,
            empty=_NO_CORE,
            queries=(
                Query(
                    expr=per_second(f"{m.ARROWHEAD_REQUEST.name}_count", SYSTEM, by="service, operation, status"),
                    legend=f"{_OPERATION} {{{{status}}}}",
                ),
            ),
        ),
    ),
)  # fmt: skip

QUERIES = Row(
    title="Database",
    panels=(
        _percentile("Query time, p50", "One unit of database work; half of them are faster.",
                    m.ARROWHEAD_QUERY.name, "p50", _NO_DATABASE),
        _percentile("Query time, p99", "One unit of database work; the slowest of a hundred.",
                    m.ARROWHEAD_QUERY.name, "p99", _NO_DATABASE),
        Panel(
            title="Share of the time that is database",
            description="Query time over the time requests spend inside each system; the rest is the system itself.",
            unit=RATIO,
            empty=_NO_DATABASE,
            queries=(
                Query(
                    expr=f"{per_second(f'{m.ARROWHEAD_QUERY.name}_sum', SYSTEM, by='service')} / "
                    f"({per_second(f'{m.ARROWHEAD_REQUEST.name}_sum', SYSTEM, by='service')} > 0)",
                    legend="{{service}}",
                ),
            ),
        ),
    ),
)  # fmt: skip

STATE = Row(
    title="Core systems",
    panels=(
        Panel(
            title="Ready",
            description="Whether each system is registered and has found those it needs.",
            unit=COUNT,
            kind="state-timeline",
            width=12,
            words={"1": ("ready", GREEN), "0": ("waiting", RED)},
            empty=_NO_CORE,
            queries=(Query(expr=f"{m.ARROWHEAD_READY.name}{{{SYSTEM}}}", legend="{{service}} on {{node}}"),),
        ),
        Panel(
            title="Connections",
            description="Open to each core system now.",
            unit=COUNT,
            width=12,
            empty=_NO_CORE,
            queries=(
                Query(expr=f"sum by (service) ({m.ARROWHEAD_CONNECTIONS.name}{{{SYSTEM}}})", legend="{{service}}"),
            ),
        ),
    ),
)

EVENT_HANDLER = Row(
    title="Event Handler",
    panels=(
        Panel(
            title="Worker pool",
            description="Threads that serve a request and threads that wait; modes enhanced and original have a pool.",
            unit=COUNT,
            empty="no pool of workers in this testbed",
            queries=(
                Query(
                    expr=f"sum by (service, state) ({m.BROKER_WORKERS.name}{{{TESTBED}}})",
                    legend="{{service}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Queues",
            description="Events that wait for a subscriber; a line that climbs is a rate that cannot be sustained.",
            unit=COUNT,
            empty=_NO_BROKER,
            queries=(Query(expr=f"sum by (service) ({m.BROKER_QUEUED.name}{{{TESTBED}}})", legend="{{service}}"),),
        ),
        Panel(
            title="Subscribers",
            description="Subscriptions open now: each event is sent once to each of its type.",
            unit=COUNT,
            empty=_NO_BROKER,
            queries=(Query(expr=f"sum by (service) ({m.BROKER_SUBSCRIBERS.name}{{{TESTBED}}})", legend="{{service}}"),),
        ),
        Panel(
            title="Events in and out",
            description="Events that reach the Event Handler and notifications that leave it, each second.",
            unit=PER_SECOND,
            width=12,
            empty=_NO_BROKER,
            queries=(
                Query(expr=per_second(m.BROKER_RECEIVED.name, TESTBED, by="service"), legend="{{service}} in"),
                Query(expr=per_second(m.BROKER_SENT.name, TESTBED, by="service"), legend="{{service}} out"),
            ),
        ),
        Panel(
            title="Events dropped",
            description="Each second, by cause: a full queue, or a subscriber that was too slow.",
            unit=PER_SECOND,
            width=12,
            empty=_NO_BROKER,
            queries=(Query(expr=per_second(m.BROKER_DROPPED.name, TESTBED, by="reason"), legend="{{reason}}"),),
        ),
    ),
)

PAGE = Page(
    name="arrowhead",
    title="toolkit: Arrowhead",
    description="Where an orchestration's time goes, and how full the Event Handler is.",
    variables=(
        Variable(
            name="system",
            label="System",
            query=f"label_values({m.ARROWHEAD_READY.name}{{{ANY}}}, service)",
        ),
    ),
    by_process=True,
    rows=(ORCHESTRATION, STEPS, QUERIES, STATE, EVENT_HANDLER),
)
