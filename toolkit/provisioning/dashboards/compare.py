"""The page that lays runs beside each other: the same figure of each run chosen, and when each began and ended."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    HOPS,
    PER_SECOND,
    RATIO,
    RUN,
    RUNS,
    SHARES,
    Page,
    Panel,
    Query,
    Row,
    delays,
    per_second,
    percentile,
)

HOP = f'{RUN}, hop=~"$hop"'
_NONE = "no sampled messages in these runs"


def _delays(
    title: str, description: str, q: str, metric: str, matchers: str, by: str, empty: str = _NONE, width: int = 8
) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return delays(title, description, Query(expr=percentile(q, metric, matchers, by=by), legend=legend), empty=empty,
                  width=width, per_run=True)  # fmt: skip


def _rate(title: str, description: str, metric: str, width: int = 8) -> Panel:
    return Panel(
        title=title, description=description, unit=PER_SECOND, width=width, per_run=True,
        queries=(Query(expr=per_second(metric, RUN, by="run"), legend="{{run}}"),),
    )  # fmt: skip


WHOLE = Row(
    title="End to end, run by run",
    panels=tuple(
        _delays(f"End to end, {q}", f"{share} of the messages of each run arrive sooner than this.", q,
                m.END_TO_END_DELAY.name, RUN, "run")
        for q, share in SHARES.items()
    ),
)  # fmt: skip

EACH = Row(
    title="Each hop, run by run",
    panels=tuple(
        _delays(f"Hops, {q}", "Of the hops chosen above: where one run is slower than another.", q,
                m.HOP_DELAY.name, HOP, "run, hop")
        for q in SHARES
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
        _delays("Schedule delay, p99", "How late publishers were: a run that cannot keep its rate is another run.",
                "p99", m.SCHEDULE_DELAY.name, RUN, "run", "no publisher in these runs", width=12),
        _rate("Dropped", "Messages each second that clients dropped, whatever the cause.", m.MESSAGES_DROPPED.name,
              width=12),
    ),
)  # fmt: skip

PAGE = Page(
    name="compare",
    title="toolkit: compare runs",
    description="The same figures of several runs; toolkit compare says which differences are clear.",
    variables=(RUNS, HOPS),
    rows=(WHOLE, EACH, TRAFFIC),
)  # fmt: skip
