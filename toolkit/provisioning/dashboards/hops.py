"""The hops page: a message's way from left to right, and how well it is seen."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    COUNT,
    GREEN,
    NO_SAMPLES,
    PER_SECOND,
    RATIO,
    RED,
    RUN,
    RUNS,
    SECONDS,
    TESTBED,
    YELLOW,
    Page,
    Panel,
    Query,
    Row,
    delays,
    figure,
    heatmap,
    per_second,
    percentile,
    percentiles,
)

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


_ELSEWHERE = "not on this way"
_NEGATIVE = per_second(m.HOP_NEGATIVE.name, RUN, by="hop")
_COUNTED = per_second(f"{m.HOP_DELAY.name}_count", RUN, by="hop")


def _hop(hop: str) -> str:
    return f'{RUN}, hop="{hop}"'


def _description(hop: str) -> str:
    words = m.HOPS[hop]
    return f"{words[0].upper()}{words[1:]}."


PAGE = Page(
    name="hops",
    title="toolkit: hops",
    description="A message's way, hop by hop, from sampled messages.",
    variables=(RUNS,),
    rows=(
        Row(
            title="The way of a message: median now",
            panels=tuple(
                figure(TITLES[hop], f"{_description(hop)} Median of the sampled messages.",
                       percentile("p50", m.HOP_DELAY.name, _hop(hop)), unit=SECONDS, empty=_ELSEWHERE, height=5)
                for hop in WAY
            ),
        ),
        Row(
            title="Percentiles of each hop",
            panels=tuple(
                delays(f"{TITLES[hop]}, percentiles", _description(hop), *percentiles(m.HOP_DELAY.name, _hop(hop)),
                       empty=_ELSEWHERE, width=6)
                for hop in WAY
            ),
        ),
        Row(
            title="Heat maps",
            panels=tuple(
                heatmap(f"{TITLES[hop]}, heat map",
                        f"{_description(hop)} How many sampled messages a second took how long.",
                        m.HOP_DELAY.name, _hop(hop))
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
                    empty=NO_SAMPLES,
                ),
                Panel(
                    title="Negative hops",
                    description="Share of hops that came out negative: their clocks disagree by more than the delay.",
                    unit=RATIO,
                    width=6,
                    thresholds=((None, GREEN), (0.001, YELLOW), (0.01, RED)),
                    queries=(
                        Query(
                            expr=f"{_NEGATIVE} / on (hop) ({_NEGATIVE} + on (hop) {_COUNTED} > 0)",
                            legend="{{hop}}",
                        ),
                    ),
                    empty=NO_SAMPLES,
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
)  # fmt: skip
