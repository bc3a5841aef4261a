"""Who plays what in a run: every process of a workload with its order."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from toolkit.contract.orders import RunOrder
from toolkit.controller.control import Process
from toolkit.errors import WorkloadError
from toolkit.provisioning.broker_access import ENTRY_OPTIONS, entry_options
from toolkit.provisioning.local_clouds import address_of, request_options
from toolkit.provisioning.render import PROBE_PORT, metrics_port
from toolkit.spec.services import CLOUD_ROLES, broker_port, built_in, end_port, spoken
from toolkit.spec.testbed import Service, Testbed
from toolkit.spec.workload import Workload
from toolkit.state import Deployment

Part: TypeAlias = tuple[Process, RunOrder]

LIVE_PER_S = 200
"""Sampled messages a second that the live histograms are fed with, where the rate is known."""
REQUESTS = "orchestration"
"""Stands for the topic of a stream of requests."""
NOT_FOR_NODES = {"protocol", "port", "loss_timeout_s", "device_protocol", "customer_protocol"}
"""Options of a workload that are used here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Every process of a run with its order: brokers and probes, gateways and hubs, subscribers, publishers."""

    brokers: tuple[Part, ...]
    ends: tuple[Part, ...] = ()
    """Gateways and hubs."""
    subscribers: tuple[Part, ...]
    publishers: tuple[Part, ...]
    """Or consumers, of a workload that asks for orchestration."""
    hub_of: Mapping[Process, Process] = field(default_factory=dict)
    """Subscriber -> the hub that it is a customer of."""
    witnesses: tuple[str, ...] = ()
    """Nodes whose systems take no orders and record what they see."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node that has files of the run afterwards."""
        return tuple(dict.fromkeys((*(process.node for process in self.processes), *self.witnesses)))

    @property
    def parts(self) -> tuple[Part, ...]:
        """All of them, in the order in which they are prepared."""
        return self.brokers + self.ends + self.subscribers + self.publishers

    @property
    def processes(self) -> tuple[Process, ...]:
        """All of them."""
        return tuple(process for process, _ in self.parts)

    @property
    def deliveries_per_message(self) -> int:
        """Subscribers that each message is due to; those that join later are due some of them."""
        everyone = sum(order.connections for _, order in self.subscribers)
        return min(everyone, 1) if self.shared else everyone

    @property
    def shared(self) -> bool:
        """Whether its subscribers are one group, each message being for one of them."""
        return any(order.options.get("share") for _, order in self.subscribers)


def make_cast(testbed: Testbed, deployment: Deployment, workload: Workload, run: str) -> Cast:
    """Orders for every process. Stream ids are unique in the run and, but for one chance in 65,536, among runs."""
    if workload.consumers is not None:
        return _requests_cast(testbed, deployment, workload, run)
    publishing = find_services(testbed, workload.publishers, workload)
    subscribing = find_services(testbed, workload.subscribers, workload)
    first = _first_stream(run)
    topics = [f"toolkit-{first >> 16:04x}-{number}" for number in range(workload.topics)]
    publishers = list(_processes(testbed, deployment, publishing))
    subscribers = list(_processes(testbed, deployment, subscribing))
    awaited = [process for process in subscribers if not _joining(workload, process)]
    broker, meeting = _meeting(testbed, deployment, workload, [*publishers, *subscribers], len(awaited))
    per_process = workload.connections * workload.topics
    streams = range(first, first + len(publishers) * per_process)
    options = dict(meeting.options)
    options |= {key: value for key, value in workload.options.items() if key not in NOT_FOR_NODES}
    options.setdefault("live_every", live_every(workload, len(publishers)))
    common = RunOrder(
        run=run,
        testbed=testbed.name,
        role="broker",
        protocol=meeting.protocol,
        broker=next(iter(meeting.addresses), ""),
        topics=topics,
        streams=list(streams),
        qos=workload.qos,
        payload_bytes=workload.payload_bytes,
        payload=dataclasses.replace(workload.payload, seed=workload.seed),
        seed=workload.seed,
        drain_s=workload.drain_s,
        options=options,
    )
    gateways, hubs = _Ends(testbed, deployment, workload, "gateway"), _Ends(testbed, deployment, workload, "hub")
    receiving = _receiving(workload, common, subscribers, meeting)
    sending = _sending(workload, common, [list(own) for own in _shares(streams, per_process)], meeting)
    return Cast(
        brokers=tuple(_brokers(testbed, deployment, broker, common)) if broker else (),
        ends=tuple((end, dataclasses.replace(common, role=ends.role)) for ends in (gateways, hubs) for end in ends),
        subscribers=tuple((p, hubs.served(order, i)) for i, (p, order) in enumerate(receiving)),
        publishers=tuple(
            (p, gateways.served(order, i)) for i, (p, order) in enumerate(zip(publishers, sending, strict=True))
        ),
        hub_of={process: hubs.processes[i % len(hubs)] for i, process in enumerate(subscribers)} if hubs else {},
    )


def _receiving(
    workload: Workload, common: RunOrder, subscribers: Sequence[Process], meeting: _Meeting
) -> Iterator[tuple[Process, RunOrder]]:
    """Each subscriber with its order: which entrance of the broker is its first, and whether it comes in late."""
    connections = workload.subscriber_connections
    for i, process in enumerate(subscribers):
        yield (
            process,
            dataclasses.replace(
                common,
                role="subscriber",
                connections=connections,
                broker=_turned(meeting.addresses, i * connections),
                options={**common.options, **_joining(workload, process)},
            ),
        )


def _sending(
    workload: Workload, common: RunOrder, streams: Sequence[list[int]], meeting: _Meeting
) -> Iterator[RunOrder]:
    """The order of each publisher, with streams and a seed of its own."""
    for i, own in enumerate(streams):
        yield dataclasses.replace(
            common,
            role="publisher",
            connections=workload.connections,
            messages=None if workload.messages is None else -(-workload.messages // workload.topics),
            duration_s=workload.duration_s,
            warmup_messages=workload.warmup_messages,
            arrivals=workload.arrivals,
            streams=own,
            seed=workload.seed + i,
            broker=_turned(meeting.addresses, i * workload.connections),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """How publishers and subscribers of a run come together."""

    protocol: str
    addresses: Sequence[str]
    """host:port of each entrance of the broker."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What orders say of it beside."""


def _meeting(
    testbed: Testbed, deployment: Deployment, workload: Workload, clients: Sequence[Process], subscribers: int
) -> tuple[Service | None, _Meeting]:
    """The broker between them; none where the protocol knows none, and each is then told of all the others."""
    if workload.brokerless:
        peers = list(dict.fromkeys(deployment.hosts[process.node].address for process in clients))
        options = {"peers": peers, "readers": subscribers * workload.subscriber_connections}
        return None, _Meeting(protocol=str(workload.options["protocol"]), addresses=(), options=options)
    broker = find_services(testbed, workload.broker, workload)[0]
    protocol = protocol_of(broker, workload)
    port = int(workload.options.get("port") or broker_port(broker, protocol))
    addresses = [f"{address}:{port}" for address in entrances(broker, deployment)]
    return broker, _Meeting(protocol=protocol, addresses=addresses, options=entry_options(broker))


class _Ends:
    """The gateways, or the hubs, of a run; clients are dealt to them in turn."""

    def __init__(
        self, testbed: Testbed, deployment: Deployment, workload: Workload, role: Literal["gateway", "hub"]
    ) -> None:
        """Raises WorkloadError where the workload wants some and there are none, or clients speak something else."""
        self.role = role
        self.processes: list[Process] = []
        name = workload.gateway if role == "gateway" else workload.hub
        if not name:
            return
        services = find_services(testbed, name, workload)
        option = "device_protocol" if role == "gateway" else "customer_protocol"
        self._protocol = str(workload.options.get(option, "mqtt"))
        self._port = end_port(services[0], self._protocol)
        if not self._port:
            raise WorkloadError(
                f"workload {workload.name}: {services[0].name} does not speak {self._protocol!r}; "
                f"write options: {{{option}: mqtt}} or rest"
            )
        self.processes = list(_processes(testbed, deployment, services))
        self._addresses = [deployment.hosts[process.node].address for process in self.processes]

    def __len__(self) -> int:
        return len(self.processes)

    def __iter__(self) -> Iterator[Process]:
        return iter(self.processes)

    def served(self, order: RunOrder, number: int) -> RunOrder:
        """The order of the client of that number; as it is where there are no gateways or hubs."""
        if not self.processes:
            return order
        address = self._addresses[number % len(self)]
        options = {key: value for key, value in order.options.items() if key not in ENTRY_OPTIONS}
        return dataclasses.replace(order, broker=f"{address}:{self._port}", protocol=self._protocol, options=options)


def _joining(workload: Workload, process: Process) -> dict[str, float]:
    """What a subscriber is told that comes in after the start."""
    after_s = workload.join.get(process.node, workload.join.get(process.service))
    return {} if after_s is None else {"join_after_s": after_s}


def _turned(addresses: Sequence[str], by: int) -> str:
    """All addresses, beginning with another one for each process, whose connections then take turns."""
    first = by % (len(addresses) or 1)
    return ",".join([*addresses[first:], *addresses[:first]])


def _requests_cast(testbed: Testbed, deployment: Deployment, workload: Workload, run: str) -> Cast:
    """Every consumer asks the Orchestrator of its own cloud; all systems of all clouds are witnesses."""
    consumers = find_services(testbed, workload.consumers or "consumer", workload)
    first = _first_stream(run)
    own = {key: value for key, value in workload.options.items() if key not in NOT_FOR_NODES}
    parts: list[Part] = []
    for service in consumers:
        orchestrator = address_of(testbed, deployment.hosts, service.cloud or "", "orchestrator")
        if orchestrator is None:
            raise WorkloadError(f"{service.name} has no Orchestrator to ask; is it an Arrowhead consumer of a cloud?")
        for process in _processes(testbed, deployment, [service]):
            address = deployment.hosts[process.node].address
            order = RunOrder(
                run=run,
                testbed=testbed.name,
                role="consumer",
                protocol="arrowhead",
                broker=orchestrator,
                topics=[REQUESTS],
                streams=[first + len(parts)],
                messages=workload.messages,
                duration_s=workload.duration_s,
                warmup_messages=workload.warmup_messages,
                payload_bytes=workload.payload_bytes,
                arrivals=workload.arrivals,
                seed=workload.seed + len(parts),
                drain_s=workload.drain_s,
                options=request_options(testbed, service, address) | own,
            )
            parts.append((process, order))
    members = [node for service in testbed.services if service.role in CLOUD_ROLES for node in service.nodes]
    witnesses = tuple(node for node in dict.fromkeys(members) if node in deployment.hosts)
    return Cast(brokers=(), subscribers=(), publishers=tuple(parts), witnesses=witnesses)


def _first_stream(run: str) -> int:
    return (zlib.crc32(run.encode()) & 0xFFFF) << 16


def _shares(streams: range, size: int) -> Iterable[range]:
    return (streams[first : first + size] for first in range(0, len(streams), size))


def find_services(testbed: Testbed, name: str, workload: Workload) -> tuple[Service, ...]:
    """Services of that name, or of that role; raises WorkloadError where there are none."""
    found = tuple(s for s in testbed.services if s.name == name) or testbed.service_of_role(name)
    if not found:
        there = ", ".join(f"{s.name} ({s.role})" for s in testbed.services) or "none"
        raise WorkloadError(f"workload {workload.name} needs a service {name!r}; {testbed.file} has {there}")
    return found


def protocol_of(broker: Service, workload: Workload) -> str:
    """What the workload asks for, else the broker's first; raises WorkloadError for what the broker cannot speak."""
    known, able = built_in(broker.image.name), spoken(broker.image.name, broker.settings)
    protocol = str(workload.options.get("protocol") or next(iter(able), ""))
    if not protocol:
        raise WorkloadError(
            f"workload {workload.name}: nothing says what protocol {broker.name} speaks; "
            "write options: {protocol: mqtt}"
        )
    if known and able and protocol not in able:
        raise WorkloadError(
            f"workload {workload.name}: {broker.name} ({known.name}) speaks {', '.join(able)}, not {protocol}"
        )
    version = str(workload.options.get("mqtt", "3.1.1")).removesuffix(".0")
    if known and protocol == "mqtt" and version not in known.mqtt:
        raise WorkloadError(
            f"workload {workload.name}: {broker.name} ({known.name}) speaks MQTT {', '.join(known.mqtt)}, not {version}"
        )
    return protocol


def entrances(broker: Service, deployment: Deployment) -> list[str]:
    """Addresses at which clients enter a broker: every node of a cluster, else the first."""
    known = built_in(broker.image.name)
    nodes = broker.nodes if known and known.clusters else broker.nodes[:1]
    return [deployment.hosts[node].address for node in nodes if node in deployment.hosts] or [
        deployment.hosts[broker.nodes[0]].address
    ]


def live_every(workload: Workload, publishers: int) -> int:
    """Which share of messages feeds the live histograms; an eighth where no rate is known."""
    rate = workload.arrivals.rate_per_s * max(publishers, 1)
    return max(1, round(rate / LIVE_PER_S)) if rate else 8


def _processes(testbed: Testbed, deployment: Deployment, services: Iterable[Service]) -> Iterable[Process]:
    for service in services:
        for node in service.nodes:
            if node not in deployment.hosts:
                raise WorkloadError(
                    f"{service.name} is on {node}, which is not deployed; try: toolkit deploy {testbed.file}"
                )
            for instance in range(service.replicas):
                yield Process(
                    node=node,
                    service=service.name,
                    instance=instance,
                    role=service.role,
                    control_port=metrics_port(testbed, service, instance) + 1,
                )


def _brokers(testbed: Testbed, deployment: Deployment, broker: Service, order: RunOrder) -> Iterable[Part]:
    """The broker itself where it takes orders, its hop probe where it has one."""
    known = built_in(broker.image.name)
    if known and known.exports:
        yield from ((process, order) for process in _processes(testbed, deployment, [broker]))
    elif known and known.probed:
        probe = dataclasses.replace(order, role="probe")
        for node in broker.nodes:
            name = f"{broker.name}-probe"
            yield Process(node=node, service=name, instance=0, role="probe", control_port=PROBE_PORT + 1), probe
