"""Every metric toolkit exposes: name, type, unit, labels. Exporters, rules and dashboards use only these.

Conventions: Prometheus naming (base units, `_total` on counters). The scrape configuration adds the target labels
`testbed, node, kind, service, role`; the labels listed here are the process' own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BUCKETS_S = (
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3,
    10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of delay histograms, seconds: 10 us to 10 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


HOPS: dict[str, str] = {
    "uplink": "a device's send to the gateway's receive",
    "gateway": "inside the gateway",
    "publish": "the publisher's (or gateway's) send to the broker's receive",
    "broker": "inside the broker: its receive to its send to one subscriber",
    "deliver": "the broker's send to the subscriber's (or hub's) receive",
    "hub": "inside the hub",
    "downlink": "the hub's send to the customer's receive",
    "transport": "the first send to the last receive",
    "acknowledge": "the publisher's send to the broker's answer",
}
"""Values of the label `hop`, in the order a message meets them; the last two span others."""

HOP_DELAY = Metric(
    name="toolkit_hop_delay_seconds",
    kind="histogram",
    help="One-way delay of one hop, from sampled messages; negative delays are counted apart.",
    labels=("run", "hop"),
)
END_TO_END_DELAY = Metric(
    name="toolkit_end_to_end_delay_seconds",
    kind="histogram",
    help="From the intended sending instant to the subscriber's receive.",
    labels=("run",),
)
HOP_NEGATIVE = Metric(
    name="toolkit_hop_negative_total",
    kind="counter",
    help="Sampled hops that came out negative.",
    labels=("run", "hop"),
)
HOP_SAMPLED = Metric(
    name="toolkit_hop_sampled_total", kind="counter", help="Stamps that reached the hop exporter.", labels=("run",)
)
HOP_UNMATCHED = Metric(
    name="toolkit_hop_unmatched_total", kind="counter", help="Sampled messages given up before every hop was known.",
    labels=("run",),
)  # fmt: skip
MESSAGES_SENT = Metric(
    name="toolkit_messages_sent_total", kind="counter", help="Messages handed to the protocol.", labels=("run", "qos")
)
MESSAGES_ACKNOWLEDGED = Metric(
    name="toolkit_messages_acknowledged_total", kind="counter", help="Messages the broker answered for.",
    labels=("run", "qos"),
)  # fmt: skip
MESSAGES_RECEIVED = Metric(
    name="toolkit_messages_received_total", kind="counter", help="Messages read by a subscriber.", labels=("run", "qos")
)
MESSAGES_DUPLICATE = Metric(
    name="toolkit_messages_duplicate_total", kind="counter", help="Second and later copies.", labels=("run",)
)
MESSAGES_FOREIGN = Metric(
    name="toolkit_messages_foreign_total", kind="counter", help="Messages that are not of this run, or damaged.",
    labels=("run",),
)  # fmt: skip
MESSAGES_DROPPED = Metric(
    name="toolkit_messages_dropped_total", kind="counter", help="Messages dropped, with the place and the cause.",
    labels=("run", "stage", "reason"),
)  # fmt: skip
MESSAGES_EXPECTED = Metric(
    name="toolkit_messages_expected_total", kind="counter", help="Deliveries that were due.", labels=("run", "qos")
)
MESSAGES_LOST = Metric(
    name="toolkit_messages_lost_total", kind="counter", help="Deliveries that did not come in time.",
    labels=("run", "qos"),
)  # fmt: skip
SCHEDULE_DELAY = Metric(
    name="toolkit_schedule_delay_seconds", kind="histogram", help="Actual minus intended sending instant.",
    labels=("run",),
)  # fmt: skip
BROKER_RECEIVED = Metric(
    name="toolkit_broker_messages_received_total", kind="counter", help="Messages that reached the broker."
)
BROKER_SENT = Metric(
    name="toolkit_broker_messages_sent_total", kind="counter", help="Messages that left the broker, all subscribers."
)
BROKER_RECEIVED_BYTES = Metric(
    name="toolkit_broker_received_bytes_total", kind="counter", help="Payload bytes that reached the broker."
)
BROKER_SENT_BYTES = Metric(
    name="toolkit_broker_sent_bytes_total", kind="counter", help="Payload bytes that left the broker."
)
BROKER_DROPPED = Metric(
    name="toolkit_broker_messages_dropped_total",
    kind="counter",
    help="Messages the broker dropped.",
    labels=("reason",),
)
BROKER_OVERFLOWS = Metric(
    name="toolkit_broker_queue_overflows_total",
    kind="counter",
    help="Times that a subscriber's queue was full, by what was done.",
    labels=("policy",),
)
BROKER_REPLAYED = Metric(
    name="toolkit_broker_messages_replayed_total", kind="counter", help="Messages kept and sent again on request."
)
BROKER_SUBSCRIBERS = Metric(name="toolkit_broker_subscribers", kind="gauge", help="Subscriptions open now.")
BROKER_QUEUED = Metric(name="toolkit_broker_queued_messages", kind="gauge", help="Messages waiting in the broker.")
BROKER_WORKERS = Metric(
    name="toolkit_broker_workers",
    kind="gauge",
    help="Threads of the broker's pool, busy with a request or free.",
    labels=("state",),
)
GATEWAY_RECEIVED = Metric(name="toolkit_gateway_messages_received_total", kind="counter", help="Messages from devices.")
GATEWAY_SENT = Metric(name="toolkit_gateway_messages_sent_total", kind="counter", help="Messages to the brokers.")
HUB_RECEIVED = Metric(name="toolkit_hub_messages_received_total", kind="counter", help="Messages from the brokers.")
HUB_SENT = Metric(name="toolkit_hub_messages_sent_total", kind="counter", help="Messages to customers.")
GATEWAY_DEVICES = Metric(name="toolkit_gateway_devices", kind="gauge", help="Devices connected now.")
GATEWAY_QUEUED = Metric(name="toolkit_gateway_queued_messages", kind="gauge", help="Messages that wait for the broker.")
HUB_CUSTOMERS = Metric(name="toolkit_hub_customers", kind="gauge", help="Customers subscribed now.")
HUB_QUEUED = Metric(
    name="toolkit_hub_queued_messages", kind="gauge", help="Messages that wait for customers, all together."
)
CLOCK_OFFSET = Metric(name="toolkit_clock_offset_seconds", kind="gauge", help="This clock minus the reference.")
CLOCK_BOUND = Metric(
    name="toolkit_clock_error_bound_seconds",
    kind="gauge",
    help="|offset| + root dispersion + root delay / 2; 0 where every node shares one clock.",
)
CLOCK_SYNCHRONISED = Metric(
    name="toolkit_clock_synchronised", kind="gauge", help="1 when the clock follows its server."
)
CLOCK_SHARED = Metric(name="toolkit_clock_shared", kind="gauge", help="1 when this node shares its host's clock.")
CLOCK_STEPS = Metric(name="toolkit_clock_steps_total", kind="counter", help="Steps of the clock seen since the start.")
CLOCK_ROOT_DELAY = Metric(name="toolkit_clock_root_delay_seconds", kind="gauge", help="Round trip to the root of time.")
CLOCK_ROOT_DISPERSION = Metric(
    name="toolkit_clock_root_dispersion_seconds", kind="gauge", help="Dispersion gathered from the root of time on."
)
CLOCK_FREQUENCY_ERROR = Metric(
    name="toolkit_clock_frequency_error_ratio", kind="gauge", help="How much too fast this clock would run by itself."
)
CLOCK_STRATUM = Metric(name="toolkit_clock_stratum", kind="gauge", help="Servers between this clock and a reference.")
BOARD_UNDER_VOLTAGE = Metric(
    name="toolkit_board_under_voltage", kind="gauge", help="1 while (now) or once (boot) the supply was too low.",
    labels=("since",),
)  # fmt: skip
BOARD_FREQUENCY_CAPPED = Metric(
    name="toolkit_board_frequency_capped", kind="gauge", help="1 while or once the processor's clock was capped.",
    labels=("since",),
)  # fmt: skip
BOARD_THROTTLED = Metric(
    name="toolkit_board_throttled", kind="gauge", help="1 while or once the firmware throttled the processor.",
    labels=("since",),
)  # fmt: skip
BOARD_SOFT_TEMPERATURE_LIMIT = Metric(
    name="toolkit_board_soft_temperature_limit", kind="gauge", help="1 while or once the soft temperature limit held.",
    labels=("since",),
)  # fmt: skip
EXPORTER_RUNS = Metric(name="toolkit_exporter_runs", kind="gauge", help="Runs the hop exporter holds histograms of.")
EXPORTER_PENDING = Metric(
    name="toolkit_exporter_pending_messages", kind="gauge", help="Sampled messages whose hops are not all known yet."
)
EXPORTER_REFUSED = Metric(
    name="toolkit_exporter_datagrams_refused_total", kind="counter", help="Datagrams that are not stamps."
)
PROBE_PACKETS = Metric(name="toolkit_probe_packets_total", kind="counter", help="Packets the hop probe looked at.")
PROBE_LOST = Metric(
    name="toolkit_probe_packets_lost_total",
    kind="counter",
    help="Packets the kernel dropped before the probe saw them.",
)
PROBE_REPEATED = Metric(
    name="toolkit_probe_segments_repeated_total", kind="counter", help="Segments that brought nothing new."
)
PROBE_GAPS = Metric(
    name="toolkit_probe_gaps_total", kind="counter", help="Stretches of connections that the probe never saw."
)
PROBE_ENCRYPTED = Metric(
    name="toolkit_probe_encrypted_connections_total", kind="counter", help="TLS connections, into which it cannot see."
)
PROBE_CPU = Metric(name="toolkit_probe_cpu_seconds_total", kind="counter", help="Processor time the probe has used.")
RUN_PHASE = Metric(
    name="toolkit_run_phase", kind="gauge", help="1 for the phase this process is in.", labels=("run", "phase")
)
ARROWHEAD_REQUEST = Metric(
    name="toolkit_arrowhead_request_seconds",
    kind="histogram",
    help="From the last byte of a request to a core system to the first byte of its answer.",
    labels=("operation", "status"),
)
ARROWHEAD_QUERY = Metric(
    name="toolkit_arrowhead_query_seconds",
    kind="histogram",
    help="One unit of database work of a core system.",
    labels=("operation",),
)
ARROWHEAD_CONNECTIONS = Metric(
    name="toolkit_arrowhead_connections", kind="gauge", help="Connections open to a core system now.", labels=("port",)
)
ARROWHEAD_READY = Metric(
    name="toolkit_arrowhead_ready", kind="gauge", help="1 when the system is registered and has found those it needs."
)
ORCHESTRATION = Metric(
    name="toolkit_orchestration_seconds",
    kind="histogram",
    help="A consumer's orchestration request, from sending it to reading its answer.",
    labels=("run", "outcome"),
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
