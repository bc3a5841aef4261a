"""Benches: for each provider what the shared suite needs of it. A new provider joins with one entry in `BENCHES`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

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
        }
        return Node(**{**values, **changes})


def on(host: Host, command: str) -> str:
    """What a command prints on the host, entered with strict host key checking."""
    return ssh.run(host, command, timeout_s=60).stdout.strip()


def container_bench(directory: Path, node_image: str) -> Bench:
    testbed = f"test-container{os.getpid()}"
    return Bench(
        settings=ProviderSettings(name="virtual", type="container"),
        testbed=testbed,
        request=Request(
            testbed=testbed,
            subnet=IPv4Network("10.87.31.0/24"),
            nodes=(),
            images={},
            directory=directory,
            node_image=node_image,
        ),
        kill=lambda node: engine.connect().api.kill(f"toolkit-{testbed}-{node}"),
    )


BENCHES: dict[str, Callable[[Path, str], Bench]] = {"container": container_bench}
