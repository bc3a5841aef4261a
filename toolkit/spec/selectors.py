"""The one grammar that picks nodes, in the file and on the command line.

    all   NAME   NAME-3   role:broker   kind:pi1   group:worker   provider:lab   service:eh   label:rack=2
    @failed                     what the last deploy did not bring up
    A,B                         both
    !A                          without A; alone: everything but A

A name of nodes with a `count` picks all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.errors import UsageError
from toolkit.spec.names import did_you_mean
from toolkit.spec.testbed import Node, Testbed

FAILED = "@failed"
_ONE = r"!?(all|@failed|[a-z][a-z0-9-]*|(role|kind|group|provider|service):[a-z][a-z0-9-]*|label:[^,=\s]+=[^,\s]*)"
PATTERN = rf"^{_ONE}(\s*,\s*{_ONE})*$"
"""What a schema can say of a selector."""
_TERM = re.compile(r"(?P<minus>!?)(?:(?P<field>[a-z]+):)?(?P<value>@?[^,!:\s]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What selectors choose from."""

    nodes: Sequence[Node]
    placed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Service -> the nodes it runs on."""
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Role -> the nodes that play it."""
    failed: frozenset[str] = frozenset()


def choice_of(testbed: Testbed, *, failed: Iterable[str] = ()) -> Choice:
    """What a whole testbed offers to choose from."""
    roles: dict[str, tuple[str, ...]] = {}
    for service in testbed.services:
        roles[service.role] = (*roles.get(service.role, ()), *service.nodes)
    return Choice(
        nodes=testbed.nodes,
        placed={service.name: service.nodes for service in testbed.services},
        roles=roles,
        failed=frozenset(failed),
    )


def select(testbed: Testbed, selector: str, *, failed: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of the nodes a selector picks, in the file's order; raises UsageError where it or a part picks nothing.

    One with `@failed` in it may pick nothing.
    """
    try:
        picked = pick([selector], choice_of(testbed, failed=failed))
    except ValueError as error:
        raise UsageError(f"selector {selector!r}: {error}") from None
    if not picked and FAILED not in selector:
        raise UsageError(f"selector {selector!r} matches nothing: what it picks it takes away again")
    return picked


def pick(selectors: Iterable[str], choice: Choice) -> tuple[str, ...]:
    """Names of the nodes that a union of selectors picks, in order; raises ValueError saying which term is wrong."""
    picked: set[str] = set()
    removed: set[str] = set()
    only_minus = True
    for term in (term.strip() for selector in selectors for term in selector.split(",")):
        found = _TERM.fullmatch(term)
        if found is None:
            raise ValueError(f"{term!r} is not a selector; write all, a node's name, role:broker, kind:pi1 or !NAME")
        names = _term(found["field"], found["value"], choice)
        if found["minus"]:
            removed |= names
        else:
            only_minus = False
            picked |= names
    everything = {node.name for node in choice.nodes} if only_minus else picked
    return tuple(node.name for node in choice.nodes if node.name in everything - removed)


def _term(kind: str | None, value: str, choice: Choice) -> set[str]:
    if kind is None:
        return _named(value, choice)
    if kind == "label":
        key, _, wanted = value.partition("=")
        return _some({n.name for n in choice.nodes if n.labels.get(key) == wanted}, "label", value, _labels(choice))
    if kind in {"role", "service"}:
        table = choice.roles if kind == "role" else choice.placed
        return _some(set(table.get(value, ())), kind, value, table)
    fields: dict[str, Callable[[Node], str | None]] = {
        "kind": lambda node: node.kind,
        "group": lambda node: node.group,
        "provider": lambda node: node.provider,
    }
    if kind not in fields:
        raise ValueError(f"nothing is selected by {kind!r}{did_you_mean(kind, [*fields, 'role', 'service', 'label'])}")
    of = fields[kind]
    candidates = {name for node in choice.nodes if (name := of(node))}
    return _some({node.name for node in choice.nodes if of(node) == value}, kind, value, candidates)


def _named(value: str, choice: Choice) -> set[str]:
    if value == "all":
        return {node.name for node in choice.nodes}
    if value == FAILED:
        return set(choice.failed)
    names = {node.name for node in choice.nodes}
    if value in names:
        return {value}
    known = {FAILED} if value.startswith("@") else {*names, *(n.entry for n in choice.nodes)}
    return _some({n.name for n in choice.nodes if n.entry == value}, None, value, known)


def _some(names: set[str], kind: str | None, value: str, candidates: Iterable[str]) -> set[str]:
    if not names:
        what = f"no node has {kind} {value!r}" if kind else f"no node is named {value!r}"
        raise ValueError(what + did_you_mean(value, candidates))
    return names


def _labels(choice: Choice) -> set[str]:
    return {f"{key}={value}" for node in choice.nodes for key, value in node.labels.items()}
