"""What must hold between the parts of a testbed: architectures, capacity, ports, order, somebody to talk to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolkit.spec.clouds import local_clouds
from toolkit.spec.databases import event_databases
from toolkit.spec.findings import Findings
from toolkit.spec.services import NODE_PORTS, spoken
from toolkit.spec.testbed import Architecture, Service, Testbed
from toolkit.spec.yaml import Path


def check(testbed: Testbed, file: Mapping[str, Any], findings: Findings) -> None:
    """Report everything that does not hold."""
    for rule in RULES:
        rule(testbed, file, findings)


def architectures(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """Every image has a variant for every node it runs on; the declared architecture counts, whatever the provider."""
    for service in testbed.services:
        offered = service.image.platforms
        for wanted in Architecture if offered else ():
            nodes = [n.name for n in testbed.nodes if n.name in service.nodes and n.architecture is wanted]
            if not nodes or wanted in offered:
                continue
            trap = ""
            if wanted is Architecture.ARMV6 and Architecture.ARMV7 in offered:
                trap = " (an arm/v7 image does start on arm/v6, and dies without a log)"
            has = ", ".join(f"linux/{platform}" for platform in sorted(offered))
            which = f"node {nodes[0]!r} is" if len(nodes) == 1 else f"nodes {', '.join(nodes)} are"
            findings.add(
                _at(service, "on"),
                f"{which} {wanted} but image {service.image.name!r} of service {service.name!r} has only {has}{trap}; "
                f"build it for linux/{wanted}, or place the service elsewhere",
            )


def capacity(testbed: Testbed, file: Mapping[str, Any], findings: Findings) -> None:
    """The limits of a node's services fit into the node."""
    for node in testbed.nodes:
        here = [service for service in testbed.services if node.name in service.nodes]
        for attribute, offered, write in _RESOURCES:
            room = getattr(node, offered)
            asked = {s.name: getattr(s, attribute) * s.replicas for s in here if getattr(s, attribute) is not None}
            if room is None or sum(asked.values()) <= room:
                continue
            parts = " + ".join(f"{name} {write(amount)}" for name, amount in asked.items())
            key = attribute.removesuffix("_bytes")
            last = next(s for s in reversed(here) if s.name in asked)
            total = f"{parts} = {write(sum(asked.values()))}"
            message = f"{key} of the services on node {node.name!r} ({total}) is over its {write(room)}"
            place = _at(last, key) if key in file["services"][last.name] else _at(last)
            findings.add(place, f"{message}; lower it, give the node more, or move a service")


def ports(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """No two containers listen on one port of one node: all share the node's network."""
    clashes: dict[tuple[str, str, int], list[str]] = {}
    for node in testbed.nodes:
        users = dict(NODE_PORTS)
        for service in (s for s in testbed.services if node.name in s.nodes):
            for port in service.ports:
                if port in users or service.replicas > 1:
                    clashes.setdefault((users.get(port, service.name), service.name, port), []).append(node.name)
                users.setdefault(port, service.name)
    for (one, other, port), nodes in clashes.items():
        who = f"replicas of {one!r}" if one == other else f"services {one!r} and {other!r}"
        where = f"node {nodes[0]!r}" if len(nodes) == 1 else f"nodes {', '.join(nodes)}"
        message = f"{who} would listen on the same port {port} of {where}; give one another port, or place them apart"
        findings.add(("services", other), message, at_key=True)


def order(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """Services do not wait for each other in a circle."""
    after = {service.name: service.after for service in testbed.services}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle = " -> ".join((*trail[trail.index(name) :], name))
            findings.add(
                ("services", min(trail[trail.index(name) :]), "after"),
                f"services wait for each other in a circle: {circle}",
            )
        elif name not in done:
            for other in after.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in after:
        visit(name, ())


def company(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """Publishers and subscribers have a broker between them, or need none; there is at most one monitor."""
    roles = {service.role for service in testbed.services}
    lonely = not roles & {"broker", "gateway", "hub"} and not any(w.brokerless for w in testbed.workloads.values())
    for service in testbed.services:
        if service.role in {"publisher", "subscriber"} and lonely:
            message = (
                f"{service.role} {service.name!r} has no broker to talk to; add a service with role broker, or a "
                "workload with options: {protocol: dds}"
            )
            findings.add(_at(service), message, at_key=True)
    monitors = [(service, node) for service in testbed.services if service.role == "monitor" for node in service.nodes]
    if len(monitors) > 1:
        where = ", ".join(f"{service.name} on {node}" for service, node in monitors)
        findings.add(
            _at(monitors[-1][0], "on"), f"a testbed has one monitor on one node, this one has {len(monitors)}: {where}"
        )


def conversation(testbed: Testbed, file: Mapping[str, Any], findings: Findings) -> None:
    """A workload has one broker, and it speaks what the workload asks for."""
    experiments = file.get("experiments", {}).values()
    varied = {key for each in experiments for keys in [each.get("vary", {}), *each.get("points", [])] for key in keys}
    changing = any(key.startswith("services.") for key in varied)  # then each point is checked by itself
    for name, workload in testbed.workloads.items():
        if workload.consumers is not None or workload.brokerless:
            continue
        meant = [s for s in testbed.services if s.name == workload.broker]
        meant = meant or [s for s in testbed.services if s.role == workload.broker]
        if len(meant) > 1:
            which = ", ".join(service.name for service in meant)
            message = (
                f"workload {name!r} has {len(meant)} brokers to choose from: {which}; write `broker: {meant[0].name}`"
            )
            findings.add(("workloads", name, "broker"), message, at_key=True)
        elif meant and not changing:
            able = spoken(meant[0].image.name, meant[0].settings)
            protocol = workload.options.get("protocol")
            if protocol and able and protocol not in able:
                message = f"broker {meant[0].name!r} ({meant[0].image.name}) speaks {', '.join(able)}, not {protocol}"
                findings.add(("workloads", name, "options", "protocol"), message)


def clocks(testbed: Testbed, _: Mapping[str, Any], findings: Findings) -> None:
    """A gate on clocks that no clock could pass is a mistake."""
    for name in ("max_offset_s", "max_root_distance_s"):
        if not getattr(testbed.clock, name):
            key = name.removesuffix("_s")
            findings.add(("clock", key), f"no two clocks agree within 0s; write a bound such as 0.5ms for {key}")


RULES: tuple[Callable[[Testbed, Mapping[str, Any], Findings], None], ...] = (
    architectures,
    capacity,
    ports,
    order,
    company,
    conversation,
    clocks,
    local_clouds,
    event_databases,
)


def _megabytes(amount: float) -> str:
    return f"{amount / 2**20:g}M"


def _cores(amount: float) -> str:
    return f"{amount:g}"


_RESOURCES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("memory_bytes", "memory_bytes", _megabytes),
    ("cpus", "cpus", _cores),
)


def _at(service: Service, *parts: str) -> Path:
    return ("services", service.name, *parts)
