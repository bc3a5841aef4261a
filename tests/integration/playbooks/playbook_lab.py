"""Hosts, and what brings them to bundles through the playbooks."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit import ssh
from toolkit.contract.bundle import Bundle, BundleFile, Container
from toolkit.contract.settings import node_root
from toolkit.events import Event
from toolkit.plan import plan_services
from toolkit.provisioning.ansible import Ansible, PlaybookRun
from toolkit.provisioning.inventory import make_inventory, write_bundles, write_inventory, write_ssh_config
from toolkit.provisioning.observe import Observed, observe
from toolkit.provisioning.render import ImageReference
from toolkit.spec.testbed import Architecture, Link, Node, Testbed
from toolkit.state import Host

NAME = f"playbooks{os.getpid()}"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")


def python(statement: str) -> tuple[str, ...]:
    """A command for an image that starts Python's -m."""
    return ("timeit", "-n1", "-r1", statement)


def differences(wanted: Bundle, seen: Observed) -> list[str]:
    """What a plan would find to do on that node."""
    return [str(action) for action in plan_services({wanted.node: wanted}, {wanted.node: seen.running}).actions]


@dataclass
class Lab:
    """Hosts and the way to bring them to bundles."""

    hosts: dict[str, Host]
    image: ImageReference
    directory: Path
    events: list[Event] = field(default_factory=list)

    def bundle(self, node: str, *containers: Container, files: tuple[BundleFile, ...] = ()) -> Bundle:
        return Bundle(testbed=NAME, node=node, root=node_root(NAME), files=files, containers=containers)

    def container(self, service: str, **values: Any) -> Container:
        """A service that becomes healthy half a second after its start."""
        base = {
            "name": f"toolkit-{NAME}-{service}",
            "service": service,
            "role": service,
            "image": self.image.reference,
            "content": self.image.content,
            "command": python(
                "import time, pathlib; time.sleep(0.5); pathlib.Path('/tmp/well').touch(); time.sleep(3600)"
            ),
            "health": ("test", "-e", "/tmp/well"),
        }
        return Container(**{**base, **values})

    def deploy(
        self,
        *bundles: Bundle,
        playbook: str = "deploy.yml",
        hosts: dict[str, Host] | None = None,
        inventory: dict[str, Any] | None = None,
        **values: Any,
    ) -> PlaybookRun:
        self.events.clear()
        hosts = self.hosts if hosts is None else hosts
        write_ssh_config(hosts, self.directory)
        made = make_inventory(
            Testbed(name=NAME, file=Path("testbed.yml"), nodes=tuple(vm_node(name) for name in hosts)),
            hosts,
            directory=self.directory,
            bundle_files=write_bundles({bundle.node: bundle for bundle in bundles}, self.directory / "bundles"),
            **(inventory or {}),
        )
        return Ansible(directory=self.directory).run(
            playbook,
            write_inventory(made, self.directory / "inventory.json"),
            self.events.append,
            limit=tuple(bundle.node for bundle in bundles),
            **values,
        )

    def seen(self, node: str) -> Observed:
        found = observe({node: self.hosts[node]}, NAME)[node]
        assert isinstance(found, Observed), found
        return found

    def on(self, node: str, command: str) -> str:
        return ssh.run(self.hosts[node], command, timeout_s=120).stdout

    def as_user(self, node: str, user: str) -> Host:
        host = self.hosts[node]
        return dataclasses.replace(host, ssh=dataclasses.replace(host.ssh, user=user, become=True))


def vm_node(name: str) -> Node:
    return Node(
        name=name,
        kind="vm",
        provider="container",
        architecture=Architecture(ARCHITECTURE),
        cpus=1.0,
        memory_bytes=512 << 20,
        link=Link(),
    )
