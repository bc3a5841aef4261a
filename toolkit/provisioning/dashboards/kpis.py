"""The KPI page: the platform's eight figures, and what each hop costs."""

from __future__ import annotations

from toolkit.contract import metrics as m
from toolkit.provisioning.dashboards.panels import (
    ANY,
    COUNT,
    GREEN,
    HOPS,
    NO_SAMPLES,
    PER_SECOND,
    RATIO,
    RED,
    RUN,
    RUNS,
    SECONDS,
    SHARES,
    TESTBED,
    YELLOW,
    Page,
    Panel,
    Query,
    Row,
    Variable,
    delays,
    figure,
    heatmap,
    per_second,
    percentile,
    percentiles,
)

BROKER = f'{TESTBED}, service=~"$broker"'
QOS = f'{RUN}, qos=~"$qos"'
_PROCESSING = f'{RUN}, hop="broker"'
_DROPS = (
    f"(sum(rate({m.MESSAGES_DROPPED.name}{{{RUN}}}[$__rate_interval])) or vector(0)) + "
    f"(sum(rate({m.BROKER_DROPPED.name}{{{TESTBED}}}[$__rate_interval])) or vector(0))"
)
_NO_GATEWAY = "no gateway in this testbed"
_NO_HUB = "no hub in this testbed"


def _ratio(lost: str, expected: str, matchers: str) -> str:
    return f"sum({lost}{{{matchers}}}) / (sum({expected}{{{matchers}}}) > 0)"


NOW = Row(
    title="KPIs now",
    panels=(
        figure(
            "Processing latency, p99",
            "How long the broker holds a message: 99 % leave it sooner. One clock, so no clock error is in it.",
            percentile("p99", m.HOP_DELAY.name, _PROCESSING),
            unit=SECONDS,
            empty=NO_SAMPLES,
            thresholds=((None, GREEN), (0.1, YELLOW), (1.0, RED)),
        ),
        figure("Broker throughput in", "Messages that reach the brokers, each second.",
             per_second(m.BROKER_RECEIVED.name, BROKER)),
        figure("Broker throughput out", "Messages that leave the brokers, each second, all subscribers.",
             per_second(m.BROKER_SENT.name, BROKER)),
        figure("Gateway in", "Messages from devices, each second.", per_second(m.GATEWAY_RECEIVED.name, TESTBED),
             empty=_NO_GATEWAY),
        figure("Gateway out", "Messages the gateways hand to the brokers, each second.",
             per_second(m.GATEWAY_SENT.name, TESTBED), empty=_NO_GATEWAY),
        figure("Hub in", "Messages the hubs take from the brokers, each second.",
             per_second(m.HUB_RECEIVED.name, TESTBED), empty=_NO_HUB),
        figure("Hub out", "Messages the hubs hand to customers, each second.", per_second(m.HUB_SENT.name, TESTBED),
             empty=_NO_HUB),
        figure("Message drops", "Messages dropped anywhere on their way, each second; 0 is what everybody hopes for.",
             _DROPS, thresholds=((None, GREEN), (0.001, RED))),
    ),
)  # fmt: skip

OVER_TIME = Row(
    title="KPIs over time",
    panels=(
        delays("Processing latency", "Broker's receive to its send, from sampled messages.",
               *percentiles(m.HOP_DELAY.name, _PROCESSING)),
        Panel(
            title="Broker throughput in and out",
            description="Out is in times the subscriptions that match, unless something is dropped or waits.",
            unit=PER_SECOND,
            queries=(
                Query(expr=per_second(m.BROKER_RECEIVED.name, BROKER, "service"), legend="{{service}} in"),
                Query(expr=per_second(m.BROKER_SENT.name, BROKER, "service"), legend="{{service}} out"),
            ),
        ),
        Panel(
            title="Message drops by place and cause",
            description="Where messages are dropped (client, gateway, broker, hub) and why.",
            unit=PER_SECOND,
            queries=(
                Query(expr=per_second(m.MESSAGES_DROPPED.name, RUN, "stage, reason"), legend="{{stage}}: {{reason}}"),
                Query(expr=per_second(m.BROKER_DROPPED.name, TESTBED, "service, reason"),
                      legend="{{service}}: {{reason}}"),
            ),
            empty="nothing dropped",
        ),
        Panel(
            title="Gateway in and out",
            description="Devices to gateway, and gateway to brokers; in is more than out where it filters or drops.",
            unit=PER_SECOND,
            queries=(
                Query(expr=per_second(m.GATEWAY_RECEIVED.name, TESTBED, "node"), legend="{{node}} in"),
                Query(expr=per_second(m.GATEWAY_SENT.name, TESTBED, "node"), legend="{{node}} out"),
            ),
            empty=_NO_GATEWAY,
        ),
        Panel(
            title="Hub in and out",
            description="Brokers to hub, and hub to customers; out is in times the customers of each hub.",
            unit=PER_SECOND,
            queries=(
                Query(expr=per_second(m.HUB_RECEIVED.name, TESTBED, "node"), legend="{{node}} in"),
                Query(expr=per_second(m.HUB_SENT.name, TESTBED, "node"), legend="{{node}} out"),
            ),
            empty=_NO_HUB,
        ),
        Panel(
            title="Loss ratio by QoS",
            description="Lost of expected deliveries since the run began; at QoS 1 and 2 any is a broken promise.",
            unit=RATIO,
            queries=tuple(
                Query(
                    expr=_ratio(m.MESSAGES_LOST.name, m.MESSAGES_EXPECTED.name, f'{RUN}, qos="{qos}"'),
                    legend=f"QoS {qos}",
                )
                for qos in (0, 1, 2)
            ),
            empty="counted when a run's books are closed",
        ),
        Panel(
            title="Messages published and delivered",
            description="What publishers send and subscribers read, each second, by granted QoS.",
            unit=PER_SECOND,
            width=12,
            queries=(
                Query(expr=per_second(m.MESSAGES_SENT.name, QOS, "qos"), legend="QoS {{qos}} sent"),
                Query(expr=per_second(m.MESSAGES_ACKNOWLEDGED.name, QOS, "qos"), legend="QoS {{qos}} acknowledged"),
                Query(expr=per_second(m.MESSAGES_RECEIVED.name, QOS, "qos"), legend="QoS {{qos}} received"),
            ),
            empty="no run yet",
        ),
        Panel(
            title="Waiting in the broker",
            description="Messages in the broker's queues; a line that climbs is a rate that cannot be sustained.",
            unit=COUNT,
            width=12,
            queries=(
                Query(expr=f"sum by (service) ({m.BROKER_QUEUED.name}{{{TESTBED}}})", legend="{{service}}"),
            ),
            empty="the broker does not tell",
        ),
    ),
)  # fmt: skip

LATENCY = Row(
    title="Latency of each hop",
    panels=(
        *(
            delays(
                f"Hops, {q}",
                f"{share} of the sampled messages cross the hop sooner. Delays between nodes carry their clocks' "
                "error; the bound is on the page of nodes and clocks.",
                Query(expr=percentile(q, m.HOP_DELAY.name, RUN, "hop"), legend="{{hop}}"),
            )
            for q, share in SHARES.items()
        ),
        heatmap("Heat map of the hop chosen above",
                "How many sampled messages a second took how long; two bands are two ways a message can take.",
                m.HOP_DELAY.name, f'{RUN}, hop=~"$hop"', width=12, height=9),
        heatmap("Heat map from end to end", "From the instant a message was due to the subscriber's receive.",
                m.END_TO_END_DELAY.name, RUN, width=12, height=9),
        delays(
            "End to end, with what the clocks leave open",
            "Percentiles from the due instant to the receive, and the worst clock bound of the testbed: a delay below "
            "that line is not resolved by the clocks.",
            *percentiles(m.END_TO_END_DELAY.name, RUN),
            Query(expr=f"max({m.CLOCK_BOUND.name}{{{TESTBED}}}) > 0", legend="clock bound"),
            width=24,
        ),
    ),
)  # fmt: skip

PAGE = Page(
    name="kpis",
    title="toolkit: KPIs",
    description="The eight KPIs of a publish/subscribe platform and the latency of every hop, live.",
    variables=(
        RUNS,
        Variable(name="broker", label="Broker", query=f"label_values({m.BROKER_RECEIVED.name}{{{ANY}}}, service)"),
        Variable(name="qos", label="QoS", query=f"label_values({m.MESSAGES_SENT.name}{{{ANY}}}, qos)"),
        HOPS,
    ),
    rows=(NOW, OVER_TIME, LATENCY),
)
