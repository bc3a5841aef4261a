"""What differs between the testbed asked for and what is; pure."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from toolkit.contract.bundle import Bundle
from toolkit.spec.testbed import Node, ProviderSettings, Testbed
from toolkit.state import Deployment

CUT_OFF = "the last deploy did not come to its end there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One difference, and what deploy does about it."""

    verb: Literal["create", "replace", "update", "remove"]
    subject: Literal["node", "service", "file", "files"]
    node: str
    name: str
    reason: str = ""

    def __str__(self) -> str:
        what = {"node": self.node, "files": f"on {self.node}"}.get(self.subject) or f"{self.name} on {self.node}"
        return f"{self.verb} {self.subject} {what}" + (f" ({self.reason})" if self.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All differences; an empty plan means that deploy has nothing to do."""

    actions: tuple[Action, ...] = ()
    obstacles: tuple[str, ...] = ()
    """What keeps deploy from machines that it would have to make, as far as that is known."""
    notes: tuple[str, ...] = ()
    """How it would make them, where that depends on more than the file."""

    def __bool__(self) -> bool:
        return bool(self.actions)

    def nodes(self, *verbs: str) -> frozenset[str]:
        """Nodes whose machine is to be created, replaced or removed."""
        return frozenset(a.node for a in self.actions if a.subject == "node" and a.verb in verbs)

    @property
    def touched(self) -> frozenset[str]:
        """Every node that stays and on which something differs."""
        return frozenset(a.node for a in self.actions) - self.nodes("remove")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a node was seen to run: container name -> hash, and whether it runs and is healthy."""

    hashes: Mapping[str, str]
    unwell: Mapping[str, str]
    """Container name -> its state, where that is not running and healthy."""
    bundle: str = ""
    """Digest of the bundle the node was last brought to whole."""
    drift: tuple[str, ...] = ()
    """Files that were changed on the node since."""


def node_hash(node: Node, settings: ProviderSettings) -> str:
    """Another hash means another machine: kind, limits, address or provider have changed."""
    asked = dataclasses.asdict(node)
    for not_the_machine in ("line", "labels", "group"):
        asked.pop(not_the_machine)
    text = json.dumps([asked, settings.type, settings.docker_host], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_nodes(testbed: Testbed, deployment: Deployment | None) -> Plan:
    """Differences between the machines asked for and those held."""
    held = dict(deployment.node_hashes) if deployment else {}
    actions: list[Action] = []
    for node in testbed.nodes:
        asked = node_hash(node, testbed.providers[node.provider])
        if node.name not in held:
            actions.append(Action(verb="create", subject="node", node=node.name, name=node.name, reason=node.kind))
        elif held[node.name] != asked:
            actions.append(
                Action(verb="replace", subject="node", node=node.name, name=node.name, reason="its machine changed")
            )
    wanted = {node.name for node in testbed.nodes}
    actions += [
        Action(verb="remove", subject="node", node=name, name=name, reason="no longer in the file")
        for name in sorted(held)
        if name not in wanted
    ]
    return Plan(actions=tuple(actions))


def plan_services(bundles: Mapping[str, Bundle], running: Mapping[str, Running]) -> Plan:
    """Differences between the containers asked for and those seen; a node not seen yet lacks all of them."""
    unseen = Running(hashes={}, unwell={})
    found = [_differences(node, bundle, running.get(node, unseen)) for node, bundle in bundles.items()]
    return Plan(actions=tuple(itertools.chain.from_iterable(found)))


def _differences(node: str, bundle: Bundle, seen: Running) -> list[Action]:
    act = functools.partial(Action, node=node)
    actions: list[Action] = []
    for container in bundle.containers:
        name, service = container.name, container.service
        if name not in seen.hashes:
            actions.append(act(verb="create", subject="service", name=service))
        elif seen.hashes[name] != bundle.container_hash(container):
            actions.append(act(verb="replace", subject="service", name=service, reason="its settings changed"))
        elif name in seen.unwell:
            actions.append(act(verb="update", subject="service", name=service, reason=seen.unwell[name]))
    left = sorted(seen.hashes.keys() - {container.name for container in bundle.containers})
    actions += [act(verb="remove", subject="service", name=name, reason="no longer in the file") for name in left]
    since = "changed on the node by hand" if seen.bundle else CUT_OFF
    actions += [act(verb="update", subject="file", name=path, reason=since) for path in seen.drift]
    if seen.bundle != bundle.digest() and not actions:
        why = "other contents" if seen.bundle else CUT_OFF
        actions.append(act(verb="update", subject="files", name=node, reason=why))
    return actions


def make_plan(
    testbed: Testbed,
    deployment: Deployment | None,
    bundles: Mapping[str, Bundle],
    running: Mapping[str, Running],
    unseen: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """Everything that differs. Containers of machines about to be replaced count as missing.

    `unseen`: nodes that could not be looked at, and why; what runs on them is not guessed.
    """
    machines = plan_nodes(testbed, deployment)
    fresh = machines.nodes("create", "replace", "remove")
    seen = {node: what for node, what in running.items() if node not in fresh}
    silent = {node: why for node, why in unseen.items() if node not in fresh}
    looks = tuple(
        Action(
            verb="update",
            subject="node",
            node=node,
            name=node,
            reason=f"it cannot be looked at: {why.removeprefix(f'node {node}: ')}",
        )
        for node, why in silent.items()
    )
    known = {node: bundle for node, bundle in bundles.items() if node not in silent}
    return Plan(actions=machines.actions + looks + plan_services(known, seen).actions)
