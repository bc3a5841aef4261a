"""The page that lays runs beside each other: the same figure of each run chosen, and when each began and ended."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    PER_SECOND,
    RATIO,
    SECONDS,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    per_second,
    percentile,
)
from toolkit.provisioning.monitoring import QUANTILES

RUN = 'testbed="$testbed", run=~"$run"'
HOP = f'{RUN}, hop=~"$hop"'
_NONE = "no sampled messages in these runs"


def _latency(title: str, description: str, q: str, metric: str, matchers: str, by: str, legend: str) -> Panel:
    return Panel(
        title=title, description=description, unit=SECONDS, logarithmic=True, empty=_NONE, per_run=True,
        queries=(Query(expr=percentile(q, metric, matchers, by=by), legend=legend),),
    )  # fmt: skip


def _rate(title: str, description: str, metric: str) -> Panel:
    return Panel(
        title=title, description=description, unit=PER_SECOND, per_run=True,
        queries=(Query(expr=per_second(metric, RUN, by="run"), legend="{{run}}"),),
    )  # fmt: skip


WHOLE = Row(
    title="End to end, run by run",
    panels=tuple(
        _latency(f"End to end, {q}", f"{share} of the messages of each run arrive sooner than this.", q,
                 m.END_TO_END_DELAY.name, RUN, "run", "{{run}}")
        for q, share in (("p50", "Half"), ("p90", "90 %"), ("p99", "99 %"))
    ),
)  # fmt: skip

HOPS = Row(
    title="Each hop, run by run",
    panels=tuple(
        _latency(f"Hops, {q}", "Of the hops chosen above: where one run is slower than another.", q,
                 m.HOP_DELAY.name, HOP, "run, hop", "{{run}} {{hop}}")
        for q in QUANTILES
    ),
)  # fmt: skip

TRAFFIC = Row(
    title="What was offered and what came of it",
    panels=(
        _rate("Sent", "Messages each second that publishers handed to the protocol.", m.MESSAGES_SENT.name),
        _rate("Received", "Messages each second that subscribers read.", m.MESSAGES_RECEIVED.name),
        Panel(
            title="Lost so far",
            description="Deliveries that did not come in time, of all that were due.",
            unit=RATIO,
            per_run=True,
            empty="nothing was due yet",
            queries=(
                Query(
                    expr=f"sum by (run) ({m.MESSAGES_LOST.name}{{{RUN}}}) / "
                    f"(sum by (run) ({m.MESSAGES_EXPECTED.name}{{{RUN}}}) > 0)",
                    legend="{{run}}",
                ),
            ),
        ),
        Panel(
            title="Schedule delay, p99",
            description="How late publishers were: a run that cannot keep its rate is another run.",
            unit=SECONDS,
            logarithmic=True,
            per_run=True,
            empty="no publisher in these runs",
            queries=(Query(expr=percentile("p99", m.SCHEDULE_DELAY.name, RUN, by="run"), legend="{{run}}"),),
        ),
        _rate("Dropped", "Messages each second that clients dropped, whatever the cause.", m.MESSAGES_DROPPED.name),
    ),
)  # fmt: skip

PAGE = Page(
    name="compare",
    title="toolkit: compare runs",
    description="The same figures of several runs; toolkit compare says which differences are clear.",
    variables=(
        Variable(name="run", label="Run", query=f'label_values({m.HOP_SAMPLED.name}{{testbed="$testbed"}}, run)'),
        Variable(name="hop", label="Hop", query=f"label_values({m.HOP_DELAY.name}_count{{{RUN}}}, hop)"),
    ),
    rows=(WHOLE, HOPS, TRAFFIC),
)
