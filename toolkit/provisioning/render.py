"""Testbed and hosts become bundles: for each node the files and containers it is to have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.contract.bundle import Bundle, BundleFile, Container
from toolkit.contract.settings import SAMPLES_DIR, ProcessSettings, node_root
from toolkit.contract.watching import PAGES as CONSOLE_PAGES
from toolkit.contract.watching import TOKEN
from toolkit.errors import UsageError
from toolkit.provisioning import databases, local_clouds
from toolkit.provisioning.broker_access import client_environment, made_variables, upstream_options
from toolkit.provisioning.brokers import BrokerSetup, broker_setup
from toolkit.provisioning.dashboards import grafana_files
from toolkit.provisioning.monitoring import TARGETS, prometheus_files
from toolkit.provisioning.watching import console_files, console_node
from toolkit.spec.quantities import in_base_units
from toolkit.spec.services import (
    CONSOLE_PORT,
    CORE_ROLES,
    broker_port,
    built_in,
    client_ports,
    upstream_broker,
    usual_protocol,
)
from toolkit.spec.testbed import Service, Testbed
from toolkit.state import Host

CLOCK_PORT = 9101
NODE_EXPORTER_PORT = 9100
HOP_EXPORTER_PORT = 9600
HOP_STAMPS_PORT = 9601
PROBE_PORT = 9700
PROMETHEUS_PORT = 9090
GRAFANA_PORT = 3000
ROLE_PORTS = {
    "publisher": 9300,
    "subscriber": 9400,
    "broker": 9500,
    "gateway": 9800,
    "hub": 9900,
    "service-registry": 9200,
    "authorization": 9220,
    "orchestrator": 9240,
    "gatekeeper": 9260,
    "consumer": 9310,
    "provider": 9410,
}
"""First metrics port of each role; the control port is the next one, each replica takes two."""
FIRST_FREE_PORT = 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image as nodes know it."""

    reference: str
    content: str


Mount = tuple[str, str, str]
"""As in `Container.mounts`."""
Images = Mapping[tuple[str, str], ImageReference]
"""(image name, architecture) -> reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One address Prometheus scrapes."""

    node: str
    service: str
    role: str
    job: str
    address: str
    port: int
    kind: str


def metrics_port(testbed: Testbed, service: Service, instance: int) -> int:
    """Where a replica of a service answers /metrics and /healthz; the next port is its control port."""
    base = ROLE_PORTS.get(service.role, FIRST_FREE_PORT)
    before = [s for s in testbed.services if s.role == service.role and set(s.nodes) & set(service.nodes)]
    offset = sum(s.replicas for s in before[: before.index(service)])
    return base + 2 * (offset + instance)


def images_of(testbed: Testbed) -> dict[str, frozenset[str]]:
    """Node -> names of the images it will run; `grafana` is left out, since it is somebody else's image."""
    wanted: dict[str, set[str]] = {node.name: {"clock", "node-exporter"} for node in testbed.nodes}
    for service in testbed.services:
        for node in service.nodes:
            wanted[node].add(service.image.name)
            if service.role == "monitor" and testbed.monitoring.console:
                wanted[node].add("console")
    return {node: frozenset(names) for node, names in wanted.items()}


def targets(testbed: Testbed, hosts: Mapping[str, Host]) -> list[Target]:
    """Everything that exposes metrics."""
    found: list[Target] = []

    def add(node: str, service: str, role: str, job: str, port: int) -> None:
        if node in hosts:
            kind = testbed.node(node).kind
            found.append(
                Target(
                    node=node, service=service, role=role, job=job, port=port, kind=kind, address=hosts[node].address
                )
            )

    for each in testbed.nodes:
        add(each.name, "node-exporter", "node", "node", NODE_EXPORTER_PORT)
        add(each.name, "clock", "clock", "clock", CLOCK_PORT)
    for service in testbed.services:
        for node in service.nodes:
            if service.role == "monitor":
                add(node, "prometheus", "monitor", "prometheus", PROMETHEUS_PORT)
                add(node, "hop-exporter", "monitor", "hops", HOP_EXPORTER_PORT)
                continue
            known = built_in(service.image.name)
            if known and known.exports:
                for instance in range(service.replicas):
                    add(node, service.name, service.role, service.role, metrics_port(testbed, service, instance))
            if known and known.probed:
                add(node, f"{service.name}-probe", "probe", "probe", PROBE_PORT)
    return found


def render_bundles(
    testbed: Testbed, hosts: Mapping[str, Host], images: Images, *, grafana: ImageReference | None = None
) -> dict[str, Bundle]:
    """Node -> its bundle, for every node that has a host."""
    return {node: _NodeRenderer(testbed, hosts, images, node, grafana).bundle() for node in hosts}


def _health(service: Service, setup: BrokerSetup | None) -> tuple[str, ...]:
    if service.health and service.health.command:
        return service.health.command
    known = built_in(service.image.name)
    return setup.health if setup else known.health if known else ()


def _health_within_s(service: Service, setup: BrokerSetup | None) -> float:
    if service.health:
        return service.health.within_s
    return setup.health_within_s if setup else 60.0


@dataclass(slots=True, kw_only=True)
class _Inside:
    """What the container of a service is given, collected step by step."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class _NodeRenderer:
    """Collects the files and containers of one node."""

    def __init__(
        self,
        testbed: Testbed,
        hosts: Mapping[str, Host],
        images: Images,
        node: str,
        grafana: ImageReference | None,
    ) -> None:
        self.testbed = testbed
        self.hosts = hosts
        self.images = images
        self.host = hosts[node]
        self.grafana = grafana
        self.root = node_root(testbed.name)
        self.files: list[BundleFile] = []
        self.containers: list[Container] = []

    def bundle(self) -> Bundle:
        self._clock()
        self._node_exporter()
        for service in self.testbed.services:
            if self.host.node in service.nodes and service.role != "ntp":
                if service.role == "monitor":
                    self._monitor(service)
                else:
                    for instance in range(service.replicas):
                        self._service(service, instance)
        return Bundle(
            testbed=self.testbed.name,
            node=self.host.node,
            root=self.root,
            files=tuple(self.files),
            containers=tuple(self.containers),
        )

    # -- on every node --------------------------------------------------------------------------------------------

    def _clock(self) -> None:
        servers = [node for s in self.testbed.service_of_role("ntp") for node in s.nodes if node in self.hosts]
        serves = self.host.node in servers or not servers
        environment = {
            **self._identity("clock", 0, CLOCK_PORT),
            "TOOLKIT_CLOCK_ROLE": "server" if serves else "client",
            "TOOLKIT_CLOCK_SERVER": "" if serves else ",".join(self.hosts[s].address for s in servers),
            "TOOLKIT_CLOCK_ALLOW": str(self.testbed.subnet),
            "TOOLKIT_CLOCK_SHARED": "1" if self.host.facts.get("shared_clock") else "0",
        }
        self._add(
            "clock",
            role="clock",
            image="clock",
            environment=environment,
            mounts=(("samples", SAMPLES_DIR, "rw"),),
            capabilities=("SYS_TIME", "SYS_NICE"),
        )

    def _node_exporter(self) -> None:
        self._add(
            "node-exporter",
            role="node",
            image="node-exporter",
            mounts=(("data/textfile", "/var/lib/toolkit/textfile", "ro"),),
            pid_host=True,
        )

    # -- services -------------------------------------------------------------------------------------------------

    def _service(self, service: Service, instance: int) -> None:
        known = built_in(service.image.name)
        members = [self.hosts[node].address for node in service.nodes if node in self.hosts]
        setup = broker_setup(service, self.host.address, members)
        inside = self._inside(service, instance)
        if setup:
            self._broker(service, setup, inside)
        elif service.image.name == "mariadb":
            self._database(service, inside)
        elif known and known.in_cloud:
            self._cloud_system(service, inside)
        elif known and service.settings:
            self._settings(service, inside)
        if known and service.role in {"gateway", "hub"}:
            inside.environment |= self._upstream(service, instance)
        inside.environment |= client_environment(self.testbed, service)
        if service.image.name == "client":
            inside.command = (f"toolkit.node.{service.role}", *service.command)
        self._add(
            service.name,
            instance=instance if service.replicas > 1 else None,
            role=service.role,
            image=service.image.name,
            command=inside.command,
            environment={**inside.environment, **service.environment},
            secrets=(
                *service.secrets,
                *made_variables(self.testbed, service),
                *local_clouds.made_secrets(self.testbed, service),
            ),
            mounts=tuple(inside.mounts),
            capabilities=service.capabilities or (known.capabilities if known else ()),
            cpus=service.cpus,
            memory_bytes=service.memory_bytes,
            health=_health(service, setup),
            health_within_s=_health_within_s(service, setup),
            after=tuple(s.name for s in self.testbed.services if s.name in service.after and self._here(s)),
            files=tuple(inside.files),
        )
        if setup and instance == 0:
            self._probe(service, setup)

    def _inside(self, service: Service, instance: int) -> _Inside:
        """What every service gets, as far as its image knows what to do with it."""
        inside = _Inside(command=service.command)
        if known := built_in(service.image.name):
            inside.environment |= self._identity(service.name, instance, metrics_port(self.testbed, service, instance))
            if known.exports:
                inside.mounts.append(("samples", SAMPLES_DIR, "rw"))
                if monitor := self._monitor_address():
                    inside.environment["TOOLKIT_HOP_EXPORTER"] = f"{monitor}:{HOP_STAMPS_PORT}"
        return inside

    def _broker(self, service: Service, setup: BrokerSetup, inside: _Inside) -> None:
        """Somebody else's broker."""
        inside.files += [self._file(service.name, name, content) for name, content in setup.files.items()]
        inside.mounts += [
            (f"etc/{service.name}", setup.configuration, "ro"),
            (f"data/{service.name}", setup.data, "rw"),
        ]
        inside.environment |= setup.environment

    def _database(self, service: Service, inside: _Inside) -> None:
        inside.environment["MARIADB_DATABASES"] = " ".join(databases.databases_on(self.testbed, service))
        inside.environment["MARIADB_USER"] = databases.USER
        inside.mounts.append((f"etc/{service.name}", "/etc/mysql/toolkit", "ro"))
        inside.mounts.append((f"data/{service.name}", "/var/lib/mysql", "rw"))
        inside.files.append(self._file(service.name, "server.cnf", databases.mariadb_config(service.settings)))

    def _cloud_system(self, service: Service, inside: _Inside) -> None:
        """A system of a local cloud; the Service Registry fills the stores."""
        inside.command = (f"toolkit.node.arrowhead.{service.role.replace('-', '_')}", *service.command)
        inside.environment |= local_clouds.system_environment(self.testbed, self.hosts, service, self.host.node)
        if service.role in CORE_ROLES:
            inside.mounts.append((f"data/{service.cloud}", databases.DATA_DIR, "rw"))
        if service.role == "service-registry":
            seed = local_clouds.seed_document(self.testbed, self.hosts, self.testbed.clouds[service.cloud or ""])
            inside.mounts.append((f"etc/{service.name}", local_clouds.SEED_DIR, "ro"))
            inside.files.append(self._file(service.name, "seed.json", seed))

    def _settings(self, service: Service, inside: _Inside) -> None:
        """The file's settings, for a program of ours; what an end's broker comes to is in `_upstream`."""
        settings = {n: in_base_units(v) for n, v in service.settings.items() if n not in {"broker", "protocol"}}
        listens = {"port": broker_port(service, usual_protocol(service))} if service.role == "broker" else {}
        inside.environment["TOOLKIT_SETTINGS"] = json.dumps(listens | settings, sort_keys=True)
        if service.settings.get("database") == "sqlite":
            inside.mounts.append((f"data/{service.name}", databases.DATA_DIR, "rw"))
        inside.environment |= databases.events_environment(self.testbed, self.hosts, service)
        inside.environment |= local_clouds.membership_environment(self.testbed, self.hosts, service, self.host.node)

    def _upstream(self, end: Service, instance: int) -> dict[str, str]:
        """Where the brokers of a gateway or hub are: of several a gateway has one, a hub all."""
        broker = upstream_broker(end, self.testbed.services)
        if broker is None:
            raise UsageError(
                f"{end.name} needs a broker to carry messages of; add a service with role broker, "
                f"or name one in services.{end.name}.settings.broker"
            )
        asked = str(end.settings.get("protocol", "auto"))
        protocol = usual_protocol(broker) if asked == "auto" else asked
        addresses = [
            f"{self.hosts[node].address}:{broker_port(broker, protocol)}" for node in broker.nodes if node in self.hosts
        ]
        if end.role == "gateway" and addresses:
            number = end.nodes.index(self.host.node) * end.replicas + instance
            addresses = [addresses[number % len(addresses)]]
        given = {"TOOLKIT_UPSTREAM": ",".join(addresses), "TOOLKIT_UPSTREAM_PROTOCOL": protocol}
        if options := upstream_options(broker):
            given["TOOLKIT_UPSTREAM_OPTIONS"] = json.dumps(options, sort_keys=True)
        return given

    def _probe(self, broker: Service, setup: BrokerSetup) -> None:
        ports = client_ports(broker.image.name, broker.settings, tls=broker.tls)
        environment = {
            **self._identity(f"{broker.name}-probe", 0, PROBE_PORT),
            "TOOLKIT_PROBE_PORTS": ",".join(map(str, ports)),
            "TOOLKIT_PROBE_NATIVE": setup.native,
        }
        if monitor := self._monitor_address():
            environment["TOOLKIT_HOP_EXPORTER"] = f"{monitor}:{HOP_STAMPS_PORT}"
        self._add(
            f"{broker.name}-probe",
            role="probe",
            image="clock",
            command=("toolkit.node.hop_probe",),
            environment=environment,
            mounts=(("samples", SAMPLES_DIR, "rw"),),
            capabilities=("NET_RAW", "NET_ADMIN"),
        )

    def _monitor(self, service: Service) -> None:
        found = targets(self.testbed, self.hosts)
        files = {
            name: self._file("prometheus", name, text)
            for name, text in prometheus_files(self.testbed, self.hosts, found).items()
        }
        self._add(
            "prometheus",
            role="monitor",
            image="prometheus",
            command=(
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                f"--storage.tsdb.retention.time={int(self.testbed.monitoring.retention_s)}s",
                f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}",
            ),
            mounts=(("etc/prometheus", "/etc/prometheus", "ro"), ("data/prometheus", "/prometheus", "rw")),
            cpus=service.cpus,
            memory_bytes=service.memory_bytes,
            files=tuple(path for name, path in files.items() if not name.startswith(f"{TARGETS}/")),
        )
        self._add(
            "hop-exporter",
            role="monitor",
            image="clock",
            command=("toolkit.node.hop_exporter",),
            environment={
                **self._identity("hop-exporter", 0, HOP_EXPORTER_PORT),
                "TOOLKIT_STAMPS_PORT": str(HOP_STAMPS_PORT),
            },
        )
        if self.grafana:
            self._grafana(self.grafana)
        if console_node(self.testbed, self.hosts) is self.host:
            self._console()

    def _grafana(self, image: ImageReference) -> None:
        files = [self._file("grafana", path, text) for path, text in grafana_files(self.testbed).items()]
        self.containers.append(
            Container(
                name=self._name("grafana"),
                service="grafana",
                role="monitor",
                image=image.reference,
                content=image.content,
                environment={
                    "GF_AUTH_ANONYMOUS_ENABLED": "true",
                    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
                    "GF_SERVER_HTTP_PORT": str(GRAFANA_PORT),
                    "GF_PATHS_PROVISIONING": "/etc/toolkit/provisioning",
                    "GF_ANALYTICS_REPORTING_ENABLED": "false",
                    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
                },
                mounts=(("etc/grafana", "/etc/toolkit", "ro"),),
                files=tuple(files),
            )
        )

    def _console(self) -> None:
        files = [self._file("console", path, text) for path, text in console_files(self.testbed, self.hosts).items()]
        self._add(
            "console",
            role="monitor",
            image="console",
            environment={
                "TOOLKIT_TESTBED": self.testbed.name,
                "TOOLKIT_CONSOLE_PORT": str(CONSOLE_PORT),
                "TOOLKIT_CONSOLE_NAMES": f"{self.host.address},{self.host.node}",
                "TOOLKIT_PROMETHEUS": f"127.0.0.1:{PROMETHEUS_PORT}",
            },
            secrets=(TOKEN,),
            mounts=(("etc/console", CONSOLE_PAGES, "ro"),),
            files=tuple(files),
        )

    # -- parts ----------------------------------------------------------------------------------------------------

    def _here(self, service: Service) -> bool:
        return self.host.node in service.nodes

    def _monitor_address(self) -> str | None:
        nodes = [n for s in self.testbed.service_of_role("monitor") for n in s.nodes if n in self.hosts]
        return self.hosts[nodes[0]].address if nodes else None

    def _identity(self, service: str, instance: int, port: int) -> dict[str, str]:
        return ProcessSettings(
            testbed=self.testbed.name,
            node=self.host.node,
            service=service,
            instance=instance,
            metrics_port=port,
            control_port=port + 1,
            samples_dir=SAMPLES_DIR,
        ).environment()

    def _name(self, service: str, instance: int | None = None) -> str:
        return f"toolkit-{self.testbed.name}-{service}" + ("" if instance is None else f"-{instance}")

    def _file(self, service: str, name: str, content: str) -> str:
        path = f"etc/{service}/{name}"
        self.files.append(BundleFile(path=path, content=content))
        return path

    def _add(self, service: str, *, image: str, instance: int | None = None, **fields: Any) -> None:
        found = self.images[image, self.host.architecture]
        self.containers.append(
            Container(
                name=self._name(service, instance),
                service=service,
                image=found.reference,
                content=found.content,
                **fields,
            )
        )
