"""Benches: for each provider what the shared suite needs of it. A new provider joins with one entry in `BENCHES`."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from tests.subnets import free_subnet
from toolkit import engine, ssh
from toolkit.events import Event
from toolkit.providers import provider_for
from toolkit.providers.base import Acquired, Provider, Request, Resource
from toolkit.spec.testbed import Architecture, Link, Node, ProviderSettings
from toolkit.state import Host


@dataclass
class Bench:
    """One provider with a testbed of its own."""

    settings: ProviderSettings
    testbed: str
    request: Request
    has_hostnames: bool = True
    can_restart: bool = True
    names: tuple[str, ...] = ("n0", "n1", "n2", "n3")
    """Nodes it can afford at a time."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Of the nodes, where the file has to name them."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What nodes of this bench are unless a test says otherwise."""
    kill: Callable[[str], None] = lambda _: None
    """Make the machine of a node stop, as a power cut would."""

    def __post_init__(self) -> None:
        self.events: list[Event] = []

    @property
    def provider(self) -> Provider:
        """A new one each time: a provider must not need what it remembers."""
        return provider_for(self.settings)

    def acquire(self, *nodes: Node, emit: Callable[[Event], None] | None = None, **changes: Any) -> Acquired:
        request = dataclasses.replace(self.request, nodes=nodes, **changes)
        return self.provider.acquire(request, emit or self.events.append)

    def check(self, *nodes: Node) -> list[str]:
        return self.provider.check(self.testbed, self.request.subnet, nodes)

    def release(self, *nodes: str) -> list[Resource]:
        ssh.disconnect()
        return self.provider.release(self.testbed, nodes or None, self.request.directory, self.events.append)

    def resources(self) -> list[Resource]:
        return self.provider.resources(self.testbed)

    def node(self, name: str, **changes: Any) -> Node:
        values: dict[str, Any] = {
            "name": name,
            "kind": "pi3",
            "provider": self.settings.name,
            "architecture": Architecture.ARMV7,
            "cpus": 1.0,
            "memory_bytes": 512 << 20,
            "link": Link(),
            "address": self.addresses.get(name),
        }
        return Node(**{**values, **self.machine, **changes})


def on(host: Host, command: str) -> str:
    """What a command prints on the host, entered with strict host key checking."""
    return ssh.run(host, command, timeout_s=60).stdout.strip()


@dataclass(frozen=True)
class Ground:
    """What benches are made from; the rack and the machine image only where a bench asks for them."""

    directory: Path
    node_image: str
    rack: Callable[[], Rack]
    vm_image: Callable[[], str]


@dataclass(frozen=True)
class Rack:
    """Virtual nodes that stand for machines of somebody's own: four of them, with SSH and an empty engine."""

    bench: Bench
    hosts: Mapping[str, Host]

    @property
    def identity_file(self) -> str:
        return str(self.hosts["n0"].ssh.identity_file)

    def settings(self, **changes: Any) -> ProviderSettings:
        values = {"identity_file": self.identity_file, "trust_on_first_use": True}
        return ProviderSettings(name="rack", type="ssh", **{**values, **changes})

    @property
    def addresses(self) -> dict[str, str]:
        """Also as `one` and `two`."""
        found = {name: host.address for name, host in self.hosts.items()}
        return {**found, "one": found["n0"], "two": found["n1"]}


def container_bench(ground: Ground, testbed: str = "test-container") -> Bench:
    name = f"{testbed}{os.getpid()}"
    return Bench(
        settings=ProviderSettings(name="virtual", type="container"),
        testbed=name,
        request=_request(ground, name, free_subnet(), ground.node_image),
        kill=lambda node: engine.connect().api.kill(f"toolkit-{name}-{node}"),
    )


def ssh_bench(ground: Ground, **settings: Any) -> Bench:
    rack = ground.rack()
    name = f"test-ssh{os.getpid()}"
    return Bench(
        settings=rack.settings(**settings),
        testbed=name,
        request=_request(ground, name, rack.bench.request.subnet),
        has_hostnames=False,
        can_restart=False,
        addresses=rack.addresses,
        machine={"architecture": None, "kind": "host"},
    )


VM_LINK = Link(rate_bps=10_000_000, delay_s=0.05, loss=0.03)


def vm_bench(ground: Ground) -> Bench:
    """One small machine: it boots once and serves all tests, since an emulated boot takes a minute."""
    name = f"test-vm{os.getpid()}"
    subnet = free_subnet()

    def kill(node: str) -> None:
        ssh.disconnect()
        os.kill(int((ground.directory / "vm" / node / "pid").read_text()), signal.SIGKILL)

    return Bench(
        settings=ProviderSettings(name="vm", type="vm"),
        testbed=name,
        request=_request(ground, name, subnet, ground.vm_image()),
        names=("one",),
        addresses={"one": str(subnet[11])},
        machine={"kind": "vm", "architecture": None, "memory_bytes": 512 << 20, "cpus": 2.0, "link": VM_LINK},
        kill=kill,
    )


def _request(ground: Ground, testbed: str, subnet: IPv4Network, node_image: str = "") -> Request:
    return Request(
        testbed=testbed,
        subnet=subnet,
        nodes=(),
        images={},
        directory=ground.directory,
        node_image=node_image,
    )


BENCHES: dict[str, Callable[[Ground], Bench]] = {"container": container_bench, "ssh": ssh_bench, "vm": vm_bench}
