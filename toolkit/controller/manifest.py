"""What a run's folder says of the run before it begins; docs/runs.md has every field."""

from __future__ import annotations

import dataclasses
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from toolkit.controller.cast import Cast
from toolkit.controller.points import Point
from toolkit.spec.plain import plain
from toolkit.spec.testbed import Node, Service, Testbed
from toolkit.state import Deployment, Host


def make_manifest(
    testbed: Testbed,
    deployment: Deployment,
    point: Point,
    cast: Cast,
    *,
    key: str,
    experiment: str = "",
) -> dict[str, Any]:
    """The manifest. No secrets: only their names."""
    hosts = deployment.hosts
    return {
        "run": cast.parts[0][1].run,
        "key": key,
        "status": "running",
        "started_at": time.time(),
        "problems": [],
        "testbed": _testbed(testbed),
        "workload": plain(point.workload),
        "experiment": experiment,
        "parameters": plain(point.cell.parameters),
        "label": point.cell.label,
        "repetition": point.repetition,
        "overrides": {**deployment.overrides, **point.cell.overrides},
        "reference": plain(point.cell.reference),
        "settings": {service.name: plain(service.settings) for service in testbed.services},
        "services": [_service(service) for service in testbed.services],
        "nodes": {node.name: _node(node, hosts[node.name]) for node in testbed.nodes if node.name in hosts},
        "bundles": plain(deployment.hashes),
        "images": plain(deployment.images),
        "streams": _streams(cast),
        "subscribers": _group(cast) if cast.shared else _subscribers(cast),
        "orders": {process.name: dataclasses.asdict(order) for process, order in cast.parts},
        "versions": {
            "toolkit": _version("toolkit"), "python": platform.python_version(), "system": platform.platform(),
        },
    }  # fmt: skip


def _testbed(testbed: Testbed) -> dict[str, Any]:
    return {
        "name": testbed.name, "file": str(testbed.file), "twin": testbed.twin, "scale": testbed.scale,
        "description": testbed.description,
        "text": testbed.file.read_text() if testbed.file.is_file() else "",
    }  # fmt: skip


def _service(service: Service) -> dict[str, Any]:
    return {
        "name": service.name, "role": service.role, "image": service.image.name, "nodes": list(service.nodes),
        "replicas": service.replicas, "cloud": service.cloud, "cpus": service.cpus,
        "memory_bytes": service.memory_bytes, "secrets": sorted(service.secrets.values()),
    }  # fmt: skip


def _node(node: Node, host: Host) -> dict[str, Any]:
    """What was asked for, and the machine that it is."""
    return {
        "kind": node.kind, "provider": host.type, "address": host.address, "architecture": host.architecture,
        "cpus": node.cpus, "memory_bytes": node.memory_bytes, "link": plain(node.link),
        "shared_clock": bool(host.facts.get("shared_clock")), "facts": plain(host.facts),
    }  # fmt: skip


def _streams(cast: Cast) -> list[dict[str, Any]]:
    return [
        {"stream": stream, "topic": order.topics[i % len(order.topics)], "process": process.name}
        for process, order in cast.publishers
        for i, stream in enumerate(order.streams)
    ]


def _subscribers(cast: Cast) -> list[dict[str, Any]]:
    """Every connection of every subscriber: each is due every message of its topics."""
    return [
        {
            "name": process.name + (f".{connection}" if order.connections > 1 else ""), "process": process.name,
            "connection": connection, "topics": order.topics,
            "hub": cast.hub_of[process].name if process in cast.hub_of else "",
        }
        for process, order in cast.subscribers
        for connection in range(order.connections)
    ]  # fmt: skip


def _group(cast: Cast) -> list[dict[str, Any]]:
    """All of them as one, to which each message is due once, whoever gets it."""
    process, order = cast.subscribers[0]
    members = [[p.name, connection] for p, o in cast.subscribers for connection in range(o.connections)]
    name = f"{process.service} (shared by {len(members)})"
    group = {"name": name, "process": process.name, "connection": 0, "topics": order.topics, "members": members}
    return [group]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
