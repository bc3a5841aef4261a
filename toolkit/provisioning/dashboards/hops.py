"""The hops page: a message's way from left to right, and how well it is seen."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    COUNT,
    GREEN,
    PER_SECOND,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    buckets,
    per_second,
    percentile,
)
from toolkit.provisioning.monitoring import QUANTILES

TESTBED = 'testbed="$testbed"'
RUN = f'{TESTBED}, run=~"$run"'
WAY = ("uplink", "gateway", "publish", "broker", "deliver", "hub", "downlink", "transport")
"""From the device to the customer; without gateway and hub only the middle three and the whole."""
TITLES = {
    "uplink": "Device → gateway",
    "gateway": "In the gateway",
    "publish": "Publisher → broker",
    "broker": "In the broker",
    "deliver": "Broker → subscriber",
    "hub": "In the hub",
    "downlink": "Hub → customer",
    "transport": "Whole way",
}


def _hop(hop: str) -> str:
    return f'{RUN}, hop="{hop}"'


def _description(hop: str) -> str:
    words = m.HOPS[hop]
    return f"{words[0].upper()}{words[1:]}."


PAGE = Page(
    name="hops",
    title="toolkit: hops",
    description="A message's way, hop by hop, from sampled messages.",
    variables=(Variable(name="run", label="Run", query=f"label_values({m.HOP_SAMPLED.name}{{{TESTBED}}}, run)"),),
    rows=(
        Row(
            title="The way of a message: median now",
            panels=tuple(
                Panel(
                    title=TITLES[hop],
                    description=f"{_description(hop)} Median of the sampled messages.",
                    unit=SECONDS,
                    kind="stat",
                    width=3,
                    height=5,
                    queries=(Query(expr=percentile("p50", m.HOP_DELAY.name, _hop(hop))),),
                    empty="not on this way",
                )
                for hop in WAY
            ),
        ),
        Row(
            title="Percentiles of each hop",
            panels=tuple(
                Panel(
                    title=f"{TITLES[hop]}, percentiles",
                    description=_description(hop),
                    unit=SECONDS,
                    width=6,
                    logarithmic=True,
                    queries=tuple(Query(expr=percentile(q, m.HOP_DELAY.name, _hop(hop)), legend=q) for q in QUANTILES),
                    empty="not on this way",
                )
                for hop in WAY
            ),
        ),
        Row(
            title="Heat maps",
            panels=tuple(
                Panel(
                    title=f"{TITLES[hop]}, heat map",
                    description=f"{_description(hop)} How many sampled messages a second took how long.",
                    unit=SECONDS,
                    kind="heatmap",
                    queries=(Query(expr=buckets(m.HOP_DELAY.name, _hop(hop))),),
                    empty="no sampled messages yet",
                )
                for hop in ("publish", "broker", "deliver")
            ),
        ),
        Row(
            title="How well it is seen",
            panels=(
                Panel(
                    title="Sampled stamps",
                    description="Stamps that reach the hop exporter each second; every n-th message is sampled.",
                    unit=PER_SECOND,
                    width=6,
                    queries=(Query(expr=per_second(m.HOP_SAMPLED.name, RUN, "run"), legend="{{run}}"),),
                    empty="no sampled messages yet",
                ),
                Panel(
                    title="Negative hops",
                    description="Hops that came out negative: their clocks disagree by more than the delay.",
                    unit=RATIO,
                    width=6,
                    thresholds=((None, GREEN), (0.001, YELLOW), (0.01, RED)),
                    queries=(
                        Query(
                            expr=f"sum by (hop) (rate({m.HOP_NEGATIVE.name}{{{RUN}}}[$__rate_interval])) / on (hop) "
                            f"(sum by (hop) (rate({m.HOP_DELAY.name}_count{{{RUN}}}[$__rate_interval])) > 0)",
                            legend="{{hop}}",
                        ),
                    ),
                    empty="none",
                ),
                Panel(
                    title="Messages given up",
                    description="Sampled messages whose way never became known whole: dropped, or a stamp was lost.",
                    unit=PER_SECOND,
                    width=6,
                    queries=(Query(expr=per_second(m.HOP_UNMATCHED.name, RUN, "run"), legend="{{run}}"),),
                    empty="none",
                ),
                Panel(
                    title="Messages waiting to be joined",
                    description="Held by the hop exporter until every stamp is there or 15 s are over.",
                    unit=COUNT,
                    width=6,
                    queries=(Query(expr=f"sum({m.EXPORTER_PENDING.name}{{{TESTBED}}})", legend="waiting"),),
                ),
                Panel(
                    title="Packets the hop probe looked at",
                    description="Only brokers without stamps of their own have a probe beside them.",
                    unit="pps",
                    queries=(Query(expr=per_second(m.PROBE_PACKETS.name, TESTBED, "node"), legend="{{node}}"),),
                    empty="no probe in this testbed",
                ),
                Panel(
                    title="Packets the hop probe lost",
                    description="Dropped by the kernel before the probe saw them: then hop figures are partial.",
                    unit="pps",
                    thresholds=((None, GREEN), (0.001, RED)),
                    queries=(Query(expr=per_second(m.PROBE_LOST.name, TESTBED, "node"), legend="{{node}}"),),
                    empty="no probe in this testbed",
                ),
                Panel(
                    title="What the hop probe costs",
                    description="Share of one core that the probe uses on the broker's node.",
                    unit=RATIO,
                    queries=(Query(expr=per_second(m.PROBE_CPU.name, TESTBED, "node"), legend="{{node}}"),),
                    empty="no probe in this testbed",
                ),
            ),
        ),
    ),
)
