"""What a workload cannot be on its testbed, found before anything of it is played."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.controller.cast import find_services, protocol_of
from toolkit.errors import WorkloadError
from toolkit.spec.quantities import SIZE, in_base_units
from toolkit.spec.services import built_in
from toolkit.spec.testbed import Service, Testbed
from toolkit.spec.workload import Workload

MOST_STREAMS = 1 << 16
"""Streams of a run: the upper half of a stream's number tells runs apart."""
MOST_PEERS = (1 << 16) - 1
"""Connections of one process: a stamp has 16 bits for its peer."""
_LARGEST: Mapping[str, str] = {
    "mosquitto": "message_size_limit",
    "rabbitmq": "max_message_size",
    "prosody": "max_stanza_size",
}
"""Image -> the setting that bounds a message; 0 is no bound."""
_STANZA_BYTES = 512
"""Of a stanza beside its payload: names of the service, the topic, the item."""


def check_workload(testbed: Testbed, workload: Workload) -> None:
    """Raises WorkloadError, with what to change, for what its brokers, or toolkit itself, cannot do."""
    if workload.consumers is not None:
        return
    publishers = find_services(testbed, workload.publishers, workload)
    subscribers = find_services(testbed, workload.subscribers, workload)
    streams = _processes(publishers) * workload.connections * workload.topics
    if streams > MOST_STREAMS:
        raise WorkloadError(
            f"workload {workload.name}: {_processes(publishers)} publishers x {workload.connections} connections x "
            f"{workload.topics} topics are {streams} streams, and a run has {MOST_STREAMS} at most; use fewer topics "
            "or connections"
        )
    for key, count in (
        ("connections", workload.connections),
        ("subscriber_connections", workload.subscriber_connections),
    ):
        if count > MOST_PEERS:
            raise WorkloadError(
                f"workload {workload.name}: a process has {MOST_PEERS} connections at most, not {count}; "
                f"lower {key}, or give its service more replicas"
            )
    if workload.brokerless:
        return
    broker = find_services(testbed, workload.broker, workload)[0]
    protocol = protocol_of(broker, workload)
    _check_sharing(broker, workload, protocol)
    _check_size(broker, workload)
    if not workload.gateway and not workload.hub:
        entering = (
            _processes(publishers) * workload.connections + _processes(subscribers) * workload.subscriber_connections
        )
        _check_clients(broker, workload, entering)


def _processes(services: tuple[Service, ...]) -> int:
    return sum(len(service.nodes) * service.replicas for service in services)


def _check_sharing(broker: Service, workload: Workload, protocol: str) -> None:
    if not workload.options.get("share"):
        return
    known = built_in(broker.image.name)
    refused = ""
    if workload.hub:
        refused = "customers of a hub each get every message"
    elif workload.join:
        refused = "`join` is for subscribers that messages are due to one by one"
    elif protocol not in ("mqtt", "amqp"):
        refused = f"with protocol {protocol} each subscriber gets every message; mqtt and amqp know groups"
    elif known and protocol == "mqtt" and not known.shares:
        refused = f"{broker.name} ({known.name}) has no shared subscriptions in MQTT; mosquitto has"
    if refused:
        raise WorkloadError(f"workload {workload.name}: options: {{share: true}} cannot be: {refused}")


def _check_size(broker: Service, workload: Workload) -> None:
    setting = _LARGEST.get(broker.image.name, "")
    limit = int(in_base_units(broker.settings.get(setting, 0)))
    size = workload.payload_bytes
    if broker.image.name == "prosody":
        size = -(-size // 3) * 4 + _STANZA_BYTES
    if limit and size > limit:
        as_it_travels = f"{size} bytes as base64 in a stanza, " if size != workload.payload_bytes else ""
        raise WorkloadError(
            f"workload {workload.name}: a payload of {workload.payload_bytes} bytes ({as_it_travels}at most {limit}) "
            f"is more than {broker.name} takes; raise services.{broker.name}.settings.{setting} "
            f"({SIZE.write(limit)}), or send less"
        )


def _check_clients(broker: Service, workload: Workload, entering: int) -> None:
    limit = int(broker.settings.get("max_connections", -1))
    if 0 <= limit < entering:
        raise WorkloadError(
            f"workload {workload.name}: {entering} connections of publishers and subscribers are more than "
            f"{broker.name} takes; raise services.{broker.name}.settings.max_connections ({limit})"
        )
