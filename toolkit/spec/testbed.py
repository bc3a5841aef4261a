"""A testbed as asked for: every default, kind, group and variable already worked in."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

from toolkit.spec.experiment import Experiment
from toolkit.spec.workload import Workload


class Architecture(StrEnum):
    """Machine architectures in Docker's platform words."""

    AMD64 = "amd64"
    ARM64 = "arm64"
    ARMV7 = "arm/v7"
    ARMV6 = "arm/v6"


_MACHINES = {
    "x86_64": Architecture.AMD64,
    "amd64": Architecture.AMD64,
    "aarch64": Architecture.ARM64,
    "arm64": Architecture.ARM64,
    "armv8l": Architecture.ARMV7,
    "armv7l": Architecture.ARMV7,
    "arm": Architecture.ARMV7,
    "armv6l": Architecture.ARMV6,
}


def architecture_of(machine: str) -> str:
    """Of what a kernel (`uname -m`) or an engine calls its machine; that name itself where it is none of ours."""
    return str(_MACHINES.get(machine.lower(), machine))


def operator_architecture() -> Architecture:
    """What this machine is: the architecture of virtual nodes, and of `vm` nodes that do not say."""
    return _MACHINES.get(platform.machine().lower(), Architecture.AMD64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A node's cable to the switch: imposed on virtual nodes, expected of real ones."""

    rate_bps: int | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    """A fraction, 0 to 1."""

    @property
    def impaired(self) -> bool:
        """Whether more is asked of it than a rate."""
        return bool(self.delay_s or self.jitter_s or self.loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine asked for."""

    name: str
    kind: str
    """pi1, pi3, pi4, vm, host, or a kind of the file's own."""
    provider: str
    """A name in `Testbed.providers`."""
    architecture: Architecture | None
    """Declared; None where it is discovered (kind `host`)."""
    cpus: float | None
    memory_bytes: int | None
    link: Link
    address: str | None = None
    group: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    entry: str = ""
    """The name in the file; `sub` for sub-1, sub-2 … made by a count."""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """Where machines come from, and how they are entered."""

    name: str
    type: Literal["container", "ssh", "vm", "rspec"]
    user: str = "root"
    port: int = 22
    identity_file: str | None = None
    known_hosts: str | None = None
    jump: str | None = None
    """user@host[:port] of a bastion."""
    become: bool = True
    trust_on_first_use: bool = False
    manifest: str | None = None
    """Path of a manifest RSpec."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    docker_host: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a service runs: one of toolkit's own (`build` is its folder's name) or somebody's reference."""

    name: str
    build: str | None = None
    reference: str | None = None
    platforms: frozenset[Architecture] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a container says that it serves; `command` runs inside it."""

    command: tuple[str, ...] = ()
    interval_s: float = 1.0
    within_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who may enter a broker."""

    user: str
    secret: str
    """Name of the secret that is the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service: what runs, on which nodes, how many on each."""

    name: str
    role: str
    image: Image
    nodes: tuple[str, ...]
    replicas: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    cpus: float | None = None
    memory_bytes: int | None = None
    after: tuple[str, ...] = ()
    health: Health | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Environment variable -> name of a secret; values are only ever read on the way to a node."""
    tls: bool = False
    """A broker that listens with TLS only."""
    login: Login | None = None
    """None: anybody may enter."""
    cloud: str | None = None
    """The Arrowhead local cloud it is a system of."""
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """An Arrowhead local cloud, and what its stores begin with; entries are as in the file, names checked."""

    name: str
    operator: str = "toolkit"
    address: str | None = None
    """Of somebody else's Gatekeeper; None: the cloud is ours."""
    port: int | None = None
    secure: bool = False
    neighbours: tuple[str, ...] = ()
    database: str = "sqlite"
    """`sqlite`, the name of a service, or a URL."""
    database_password: str | None = None
    """Name of a secret."""
    version: str = "4.1"
    filler_entries: int = 0
    systems: tuple[Mapping[str, Any], ...] = ()
    definitions: Mapping[str, list[str]] = field(default_factory=dict)
    entries: tuple[Mapping[str, Any], ...] = ()
    intracloud: tuple[Mapping[str, Any], ...] | None = None
    """None: every consumer may use every provider."""
    intercloud: tuple[Mapping[str, Any], ...] | None = None
    """None: every neighbour may use every service."""
    store: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_server(self) -> bool:
        """Whether its stores are on a database server rather than in a file."""
        return self.database != "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret's value is to be had; the value itself is never part of a testbed."""

    name: str
    variable: str | None = None
    """An environment variable of the operator's."""
    vault: str | None = None
    """Path of a file encrypted by ansible-vault."""
    key: str | None = None
    """The secret's key in that file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockGate:
    """How well clocks must agree before a deploy counts as done, and during a run."""

    max_offset_s: float = 0.0005
    max_root_distance_s: float = 0.002
    within_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """How the testbed is watched."""

    scrape_interval_s: float = 1.0
    retention_s: float = 7 * 86400.0
    grafana_image: str | None = "grafana/grafana:11.6.0"
    """None: not asked for."""
    alertmanager: str | None = None
    """HOST:PORT of one that exists; None: Prometheus alone shows alerts."""
    console: bool = False
    """A console that only shows runs on the monitor's node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Testbed:
    """Everything that was asked for; the same file gives an equal value."""

    __test__ = False

    name: str
    file: Path = field(compare=False)
    description: str = ""
    subnet: IPv4Network = field(default_factory=lambda: IPv4Network("10.77.0.0/24"))
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    clouds: Mapping[str, Cloud] = field(default_factory=dict)
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    clock: ClockGate = field(default_factory=ClockGate)
    monitoring: Monitoring = field(default_factory=Monitoring)
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    twin: bool = False
    """The file asked for other machines and `--provider container` made local twins of them."""
    scale: float = field(default=1.0, compare=False)
    """What node counts and events were multiplied by, so that a laptop can play a rack's experiment."""

    def node(self, name: str) -> Node:
        """The node of that name; raises KeyError."""
        return next((n for n in self.nodes if n.name == name), None) or _missing(name)

    def nodes_from(self, provider: str) -> tuple[Node, ...]:
        """Nodes whose machines that provider has; at least one, or the provider is not among `providers`."""
        return tuple(node for node in self.nodes if node.provider == provider)

    def system(self, cloud: str, role: str) -> Service | None:
        """The service of that role in a local cloud; the first, where there are several."""
        return next((s for s in self.services if s.cloud == cloud and s.role == role), None)

    def service_of_role(self, role: str) -> tuple[Service, ...]:
        """Services that play a role, in the file's order."""
        return tuple(s for s in self.services if s.role == role)


def _missing(name: str) -> Node:
    raise KeyError(name)
