"""Protocols compared: what each is made of, beside what one workload measured through it and its broker."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from toolkit.measure.experiments import ExperimentFolder
from toolkit.report.table import in_ms
from toolkit.report.text import latex_table, markdown_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is known of a protocol before anything is measured; each value is a cell of the table."""

    title: str
    request_response: str
    publish_subscribe: str
    discovery: str = "no"
    transport: str = "TCP"
    qos: str = "0, 1"
    """Levels that toolkit maps on what the protocol has."""
    security: str = "TLS, password"
    """What toolkit can set up."""


_MQTT = Protocol(title="MQTT 3.1.1", request_response="no", publish_subscribe="topics", qos="0, 1, 2")
PROTOCOLS: Mapping[str, Protocol] = {
    "sse": Protocol(
        title="HTTP, server-sent events",
        request_response="yes",
        publish_subscribe="by the Event Handler",
        discovery="Service Registry",
        security="TLS, certificates",
    ),
    "http": Protocol(
        title="HTTP, callbacks",
        request_response="yes",
        publish_subscribe="by the Event Handler",
        discovery="Service Registry",
        security="TLS, certificates",
    ),
    "mqtt 3.1.1": _MQTT,
    "mqtt 5": replace(_MQTT, title="MQTT 5", request_response="by response topic"),
    "amqp": Protocol(title="AMQP 0.9.1", request_response="by `reply-to`", publish_subscribe="topic exchange"),
    "stomp": Protocol(title="STOMP 1.2", request_response="by `reply-to`", publish_subscribe="topic destinations"),
    "xmpp": Protocol(
        title="XMPP", request_response="yes (IQ)", publish_subscribe="nodes (XEP-0060)", discovery="yes (XEP-0030)"
    ),
    "dds": Protocol(
        title="DDS",
        request_response="by two topics",
        publish_subscribe="topics",
        discovery="yes (SPDP)",
        transport="UDP",
        security="none",
    ),
}
"""By the driver's name, of MQTT with its version."""
LESS: Mapping[tuple[str, str], str] = {("mqtt 3.1.1", "rabbitmq"): "0, 1"}
"""(protocol, image) -> qualities of service, where the server has fewer than the protocol."""
SERVERS: Mapping[str, str] = {
    "event-handler": "Event Handler",
    "mosquitto": "Mosquitto",
    "rabbitmq": "RabbitMQ",
    "activemq": "ActiveMQ",
    "prosody": "Prosody",
    "": "Cyclone DDS, no broker",
}
MEASURED = (
    ("publish p50", "hops", "publish", "p50_ms"),
    ("broker p50", "hops", "broker", "p50_ms"),
    ("deliver p50", "hops", "deliver", "p50_ms"),
    ("end to end p50", "hops", "end_to_end", "p50_ms"),
    ("end to end p99", "hops", "end_to_end", "p99_ms"),
    ("acknowledged p50", "delays", "acknowledge", "p50_ms"),
)
"""Column, and where its value stands in `kpis.json`."""
HEADER = (
    "protocol", "implementation", "request/response", "publish/subscribe", "discovery", "transport", "QoS", "security",
    *(f"{name} (ms)" for name, *_ in MEASURED), "lost",
)  # fmt: skip
WORDS = 8
"""How many of its columns are words, before those of figures."""


def protocol_rows(folder: ExperimentFolder) -> list[dict[str, Any]]:
    """A row for each protocol and server of the experiment, in the order of its points.

    Empty for fewer than two, and where its points do not choose among them: forms of one broker that happen to speak
    differently are no comparison of protocols.
    Measured values are means over the runs; None where nothing stamps the hop.
    """
    order = [point["name"] for point in folder.document()["points"]]
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    choices = set()
    for _, _, run in sorted(folder.runs(), key=lambda item: order.index(item[0])):
        manifest = run.manifest()
        spoken = _spoken(manifest)
        if spoken is not None:
            choices.add(_chosen(manifest))
            found.setdefault(spoken, []).append(run.kpis())
    return [_row(*key, runs) for key, runs in found.items()] if min(len(found), len(choices)) > 1 else []


def _chosen(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """What a run was asked to speak, and to what."""
    workload = manifest["workload"]
    images = [f"{service['role']}: {service['image']}" for service in manifest["services"]]
    return workload["broker"], *(str(workload["options"].get(name)) for name in ("protocol", "mqtt")), *sorted(images)


def _spoken(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """Protocol and broker's image of a run; None where either is nobody's that is known here."""
    publishers = [order for order in manifest.get("orders", {}).values() if order["role"] == "publisher"]
    if not publishers:
        return None
    protocol, options = publishers[0]["protocol"], publishers[0]["options"]
    if protocol == "mqtt":
        protocol = f"mqtt {str(options.get('mqtt', '3.1.1')).removesuffix('.0')}"
    name = manifest["workload"]["broker"]
    images = {service[key]: service["image"] for key in ("role", "name") for service in manifest["services"]}
    image = "" if protocol == "dds" else images.get(name, name)
    return (protocol, image) if protocol in PROTOCOLS and image in SERVERS else None


def _row(protocol: str, image: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    known = PROTOCOLS[protocol]
    books = [kpis["ledger"]["total"] for kpis in runs]
    figures = {}
    for name, part, what, figure in MEASURED:
        values = [kpis[part][what][figure] for kpis in runs if kpis[part].get(what, {}).get(figure) is not None]
        figures[name] = fmean(values) if values else None
    return {
        "protocol": known.title,
        "implementation": SERVERS[image],
        "request_response": known.request_response,
        "publish_subscribe": known.publish_subscribe,
        "discovery": known.discovery,
        "transport": known.transport,
        "qos": LESS.get((protocol, image), known.qos),
        "security": known.security,
        **figures,
        "lost": f"{sum(b['lost'] for b in books)}/{sum(b['expected'] - b['refused'] for b in books)}",
    }


def protocol_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """As text, in the order of `HEADER`."""
    return [
        ["-" if value is None else in_ms(value) if isinstance(value, float) else str(value) for value in row.values()]
        for row in rows
    ]


def protocol_files(rows: Sequence[Mapping[str, Any]], title: str) -> dict[str, str]:
    """Name -> text of the table as Markdown, CSV (in full precision) and LaTeX; nothing without rows."""
    if not rows:
        return {}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([HEADER, *([("" if value is None else value) for value in row.values()] for row in rows)])
    cells = protocol_cells(rows)
    return {
        "protocols.md": f"## {title}: protocols\n\n{markdown_table(HEADER, cells)}",
        "protocols.csv": out.getvalue(),
        "protocols.tex": latex_table(f"{title}: protocols", HEADER, cells),
    }
