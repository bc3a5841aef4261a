"""The contract of a source of machines; the shared provider tests run on each implementation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from toolkit.events import Emit
from toolkit.spec.testbed import Node, ProviderSettings
from toolkit.state import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeImage:
    """An image a node is going to run, so that a provider may hand over machines that already hold it."""

    reference: str
    """name:content-hash, as it is known to the operator's engine."""
    content: str
    """The content hash (label `org.toolkit.content`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The machines one provider is asked for."""

    testbed: str
    subnet: IPv4Network
    nodes: Sequence[Node]
    images: dict[str, tuple[NodeImage, ...]]
    """node -> what it will run."""
    directory: Path
    """The testbed's folder in the workspace: keys, known_hosts, serial logs."""
    node_image: str = ""
    """Reference of the built image `node`, for providers whose machines are made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing a provider made: container, network, volume, virtual machine, tap, file, process."""

    kind: str
    name: str
    node: str = ""
    size_bytes: int = 0
    """What it takes of the disk; 0 where that is not told."""
    held_by: str = ""
    """What of somebody else's keeps it from being removed."""


class Provider(Protocol):
    """Machines with addresses, reachable over SSH with a checked host key.

    `acquire` done twice returns the same hosts and changes nothing; an interrupted one can be done again or released.
    It returns the hosts it got and, for the others, raises nothing: `failed` names them, so that one bad machine does
    not stop the rest.
    """

    settings: ProviderSettings

    def check(self, testbed: str, subnet: IPv4Network, nodes: Sequence[Node]) -> list[str]:
        """What keeps these nodes from being had, as far as that can be told before anything is touched."""

    def acquire(self, request: Request, emit: Emit) -> Acquired:
        """Make or find every machine; raises ToolkitError only where none can be had at all."""

    def release(self, testbed: str, nodes: Sequence[str] | None, directory: Path, emit: Emit) -> list[Resource]:
        """Remove what `acquire` made for these nodes (None: everything of the testbed); returns what was removed."""

    def resources(self, testbed: str) -> list[Resource]:
        """Look, with no saved state: everything that carries this testbed's label."""

    def testbeds(self) -> frozenset[str]:
        """Look, with no saved state: names of testbeds that something is left of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """The outcome for every node."""

    hosts: dict[str, Host]
    failed: dict[str, str]
    """node -> what went wrong and what to try."""
    created: frozenset[str] = frozenset()
    """Nodes whose machine is new."""
