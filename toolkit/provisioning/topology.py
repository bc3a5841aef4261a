"""A testbed as a picture: columns along a message's way, and everything else on the same network below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from toolkit.spec.testbed import Node, Service, Testbed
from toolkit.state import Host

WAY = (
    ("Senders", ("publisher", "provider")),
    ("Gateways", ("gateway",)),
    ("Brokers", ("broker",)),
    ("Hubs", ("hub",)),
    ("Receivers", ("subscriber", "consumer")),
)
"""Columns from left to right: title and the roles that put a node there."""
_HEAVIEST = ("broker", "gateway", "hub", "publisher", "subscriber", "provider", "consumer")
"""Which role decides where a node with several of them stands."""
_HOPS = {
    ("Senders", "Gateways"): "uplink",
    ("Senders", "Brokers"): "publish",
    ("Gateways", "Brokers"): "publish",
    ("Brokers", "Hubs"): "deliver",
    ("Brokers", "Receivers"): "deliver",
    ("Hubs", "Receivers"): "downlink",
}
"""The hop that a message crosses between two columns."""
_INSIDE = {"Brokers": "broker", "Gateways": "gateway", "Hubs": "hub"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One node."""

    node: Node
    services: tuple[Service, ...]
    address: str
    virtual: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Nodes that a message meets at the same point of its way."""

    title: str
    cards: tuple[Card, ...]
    hop_before: str = ""
    """The hop from the column before; empty for the first."""
    hop_inside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is drawn."""

    columns: tuple[Column, ...]
    others: tuple[Card, ...]
    links: tuple[tuple[str, str], ...]
    """(node, node) between neighbouring columns."""


def draw(testbed: Testbed, hosts: Mapping[str, Host]) -> Picture:
    """The picture of a testbed, with the addresses of those machines that are there."""
    cards = {node.name: _card(testbed, node, hosts) for node in testbed.nodes}
    places = {name: _place(card.services) for name, card in cards.items()}
    columns: list[Column] = []
    for title, _ in WAY:
        members = tuple(card for name, card in cards.items() if places[name] == title)
        if members:
            before = _HOPS.get((columns[-1].title, title), "") if columns else ""
            columns.append(Column(title=title, cards=members, hop_before=before, hop_inside=_INSIDE.get(title, "")))
    links = tuple(
        (a.node.name, b.node.name) for left, right in pairwise(columns) for a in left.cards for b in right.cards
    )
    others = tuple(card for name, card in cards.items() if not places[name])
    return Picture(columns=tuple(columns), others=others, links=links)


def _card(testbed: Testbed, node: Node, hosts: Mapping[str, Host]) -> Card:
    host = hosts.get(node.name)
    kind = testbed.providers[node.provider].type
    return Card(
        node=node,
        services=tuple(service for service in testbed.services if node.name in service.nodes),
        address=(host.address if host else node.address) or "",
        virtual=kind in {"container", "vm"},
    )


def _place(services: Sequence[Service]) -> str:
    roles = {service.role for service in services}
    for role in _HEAVIEST:
        if role in roles:
            return next(title for title, members in WAY if role in members)
    return ""
