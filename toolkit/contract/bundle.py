"""What a node is to look like: the one document that the converge module is given."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """A file below the node root; text only."""

    path: str
    """Relative to the node root, for example `etc/mosquitto/mosquitto.conf`."""
    content: str
    mode: str = "0644"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container on the node, always on the host's network."""

    name: str
    """toolkit-<testbed>-<service>[-<instance>]"""
    service: str
    role: str
    image: str
    """name:content-hash; known on the node under exactly this reference."""
    content: str
    """The image's content hash; compared with its label, since engines may change ids."""
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Names of variables whose values come in the module's no_log argument `secrets` as {container: {name: value}}."""
    mounts: tuple[tuple[str, str, str], ...] = ()
    """(path on the node: absolute, or relative to the node root; path inside; ro|rw)."""
    capabilities: tuple[str, ...] = ()
    pid_host: bool = False
    cpus: float | None = None
    memory_bytes: int | None = None
    health: tuple[str, ...] = ()
    """Command run inside; empty: running is healthy."""
    health_interval_s: float = 1.0
    health_within_s: float = 60.0
    after: tuple[str, ...] = ()
    """Services on this same node to be healthy first."""
    files: tuple[str, ...] = ()
    """Paths in the bundle whose change restarts this container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The whole of one node; equal bundles have equal hashes."""

    testbed: str
    node: str
    root: str
    files: tuple[BundleFile, ...] = ()
    containers: tuple[Container, ...] = ()

    def document(self) -> dict[str, Any]:
        """Plain JSON values; each container with the `hash` that its label org.toolkit.hash carries on the node."""
        document = dataclasses.asdict(self)
        for container, values in zip(self.containers, document["containers"], strict=True):
            values["hash"] = self.container_hash(container)
        return document

    def container_hash(self, container: Container) -> str:
        """sha256 over the container and the files it reads, 16 hex digits; another one means another container."""
        contents = {file.path: file.content for file in self.files if file.path in container.files}
        return _digest([dataclasses.asdict(container), contents])

    def images(self) -> dict[str, str]:
        """Service -> its image, with the content hash also where its name has another tag."""
        return {
            c.service: c.image if c.content and c.image.endswith(f":{c.content}") else f"{c.image}@{c.content}"
            for c in self.containers
        }

    def digest(self) -> str:
        """sha256 over the canonical document, 16 hex digits."""
        return _digest(self.document())


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
